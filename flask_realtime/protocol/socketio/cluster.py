"""Cluster: the processes that serve the same clients. What one does reaches those of all. Never waits.

Each process acts on its own clients first, then tells the others through a bus, unless nobody else can be meant. Its
messages are numbered, so that the others know what they have had already and what they have missed. Members, which are
processes with clients, say that they are there: at their beginning, at their end, and every few seconds.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, KeysView, Sequence, ValuesView
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from ...errors import RemoteProtocolError
from ...typing import Event
from ..counters import Counter
from ..engineio.complaints import Complaints
from . import envelope
from .client import Client
from .core import Core, Waiter
from .envelope import ANSWER, BEAT, BYE, CALLBACK, CLOSE, DISCONNECT, EMIT, ENTER, HELLO, LEAVE, QUERY, Seal
from .packets import RESERVED, TextCodec

OURS = (HELLO, BEAT, BYE, QUERY, ANSWER)

BEAT_INTERVAL = 5.0
"""Seconds between two signs of life of a member."""

MISSING = 15.0
"""Seconds without a sign of life after which a member is none any more."""

FORGOTTEN = 2.0 * envelope.WINDOW
"""Seconds after which a silent sender's number is forgotten; longer than a signature is good for."""

MOST_SENDERS = 10_000
MOST_PENDING = 10_000
"""Senders, and callbacks of other processes' clients, that are kept."""

PENDING = 600.0
"""Seconds that a callback waits for another process."""


class Outlet(Protocol):
    """The bus, as a cluster sees it."""

    def start(self) -> None:
        """Begin in this process, unless it has; a process that was forked begins anew, with `Cluster.begin`."""

    def publish(self, data: bytes) -> object:
        """Send a message to all processes, this one too. Never waits."""


class Sender:
    """A process that was heard.

    Attributes:
        number: Of its last message.
        heard: When that was.
        beat: When its last sign of life was signed.
        member: Whether it has clients.
    """

    __slots__ = ("beat", "heard", "member", "number")

    def __init__(self, number: int, heard: float) -> None:
        self.number, self.heard, self.beat, self.member = number, heard, 0.0, False


class Query:
    """A question to all other members.

    Attributes:
        event: Set when all have answered, or those that haven't are gone.
        missing: Who hasn't answered yet.
        results: What the others said.
    """

    __slots__ = ("event", "missing", "results")

    def __init__(self, event: Event, members: Iterable[str]) -> None:
        self.event, self.missing = event, set(members)
        self.results: list[Any] = []


class _Desk:
    """Whose the callbacks are that answers from other processes run."""

    inbox: Any = None

    def pause(self, paused: bool) -> None:
        pass


class Cluster:
    """All processes of a fleet, seen from one of them.

    Args:
        core: The clients of this process; None when it only emits.
        outlet: The bus.
        codec: How arguments become JSON.
        logger: Where to tell.
        channel: The bus's name, for the log.
        now: The clock, in seconds.
        lock: Makes a lock.
        wake: Sets an event, in any thread.
        seal: Signs what goes out, and lets in only what is signed; None: nothing is.

    Attributes:
        host_id: Of this process.
        on_gap: Called, as a handler is, with the number of messages of another process that never came; with 0 when
            nothing could come for a while, so that nobody knows.
        lost: Messages of others that never came.
        refused: Messages that were none, or that weren't signed as they should be.
        repeated: Messages that came again; with a seal, also those of before this process listened, from somebody whom
            it hasn't heard: who says them may well say them again.
        unwanted: Emits for which nobody was here.
    """

    def __init__(
        self,
        core: Core | None,
        outlet: Outlet,
        codec: TextCodec,
        logger: logging.Logger,
        channel: str,
        now: Callable[[], float],
        lock: Callable[[], AbstractContextManager[Any]],
        wake: Callable[[Event], object],
        seal: Seal | None = None,
    ) -> None:
        self.core, self._outlet, self._codec, self.logger = core, outlet, codec, logger
        self._channel, self._now, self._make_lock, self._wake, self._seal = channel, now, lock, wake, seal
        self._complain = Complaints(logger, now, lock())
        self.lost, self.refused, self.repeated, self.unwanted = (Counter(lock()) for _ in range(4))
        self._actions: dict[str, Callable[[dict[str, Any]], object]] = {
            **{CALLBACK: self._on_callback, DISCONNECT: self._on_disconnect, ENTER: self._on_enter},
            **{LEAVE: self._on_leave, CLOSE: self._on_close, HELLO: self._on_hello, BYE: self._on_bye},
            **{QUERY: self._on_query, ANSWER: self._on_answer},
        }
        self._desk = _Desk()
        self.on_gap: Callable[[int], object] | None = None
        self.begin()

    def begin(self) -> None:
        """Be somebody new: the first one, or a process that was forked."""
        # New ones: a thread that didn't come along may have held them at the fork.
        self._lock, self._sending = self._make_lock(), self._make_lock()
        self.host_id = uuid.uuid4().hex
        self._number = 0
        self._senders: dict[str, Sender] = {}
        self._pending: dict[int, tuple[Callable[..., object] | Waiter, float]] = {}
        self._queries: dict[int, Query] = {}
        self._ids = 0
        self._beat_at = 0.0
        self._here = False
        self._since = 0.0  # the time of day at which listening began, when messages are signed

    # Sending.

    def _send(self, method: str, body: str = "", /, **fields: Any) -> None:
        """Send a message with the next number.

        Raises:
            TypeError: A room can't be sent.
        """
        self._outlet.start()
        fields.setdefault("host_id", self.host_id)
        with self._sending:  # they have to go out in the order of their numbers
            self._publish(envelope.write(method, {**fields, "n": self._number + 1}, body))
            self._number += 1

    def _publish(self, data: bytes) -> None:
        self._outlet.publish(self._seal.sign(data) if self._seal is not None else data)

    def emit(
        self,
        event: Any,
        args: Sequence[Any],
        namespace: str,
        to: Any = None,
        skip: Collection[str] = (),
        callback: Callable[..., object] | Waiter | None = None,
    ) -> tuple[Client, ...]:
        """Send an event to all clients that are meant, wherever they are; see `Core.emit`.

        Returns:
            The clients of this process that it was sent to.

        Raises:
            TypeError: A value can't be sent.
            ValueError: The event's name is reserved, or the data contains itself.
            RuntimeError: A callback is given in a process that only emits, so that no answer would reach it.
        """
        if event in RESERVED:
            raise ValueError(f"the event name {event!r} is reserved")
        core = self.core
        if core is None and callback is not None:
            raise RuntimeError("callbacks need a process that serves clients; this one only emits")
        if isinstance(to, (Iterator, KeysView, ValuesView)):
            to = list(to)
        here: tuple[Client, ...] = ()
        if core is not None:
            here = core.emit(event, args, namespace, to, skip, callback)
            if self._all_here(to, namespace):
                return here
        self._outlet.start()  # first: it may make us somebody new, who expects nothing
        if callback is None:
            answer = None
        else:
            answer = [_plain(to), namespace, self._expect(callback)]
        body = envelope.event_body(self._codec, event, args)  # before any lock: it may run code of the program
        self._send(
            EMIT,
            body,
            namespace=namespace,
            room=_plain(to),
            skip_sid=list(skip) or None,
            callback=answer,
        )
        return here

    def _all_here(self, to: Any, namespace: str) -> bool:
        """Whether nobody elsewhere is meant: by the sids of our own clients, or by none at all."""
        core = self.core
        if core is None or to is None:
            return False
        clients = core.clients.get(namespace, {})
        if isinstance(to, (list, tuple, set, frozenset)):
            return all(isinstance(one, str) and one in clients for one in to)
        return isinstance(to, str) and to in clients

    def _expect(self, callback: Callable[..., object] | Waiter) -> int:
        with self._lock:
            self._ids += 1
            if len(self._pending) >= MOST_PENDING:
                lost, _ = self._pending.pop(next(iter(self._pending)))
                if isinstance(lost, Waiter):
                    self._wake(lost.event)
                self._complain(logging.WARNING, "more than %d callbacks wait for other processes", MOST_PENDING)
            self._pending[self._ids] = callback, self._now() + PENDING
            return self._ids

    def forget_waiter(self, waiter: Waiter, clients: Iterable[Client]) -> None:
        """Drop a waiter whose time is over."""
        if self.core is not None:
            self.core.forget_waiter(waiter, clients)
        with self._lock:
            for number in [number for number, (waiting, _) in self._pending.items() if waiting is waiter]:
                del self._pending[number]

    def _is_here(self, sid: str, namespace: str) -> bool:
        return self.core is not None and self.core.client(sid, namespace) is not None

    def disconnect(self, sid: str, namespace: str) -> None:
        """End a client's part in a namespace, wherever it is."""
        if self.core is not None and self._is_here(sid, namespace):
            self.core.disconnect(sid, namespace)
        else:
            self._send(DISCONNECT, sid=sid, namespace=namespace)

    def enter_room(self, sid: str, room: Hashable, namespace: str) -> None:
        """Put a client into a room, wherever it is. Nobody says so when there is no such client."""
        if self.core is not None and self._is_here(sid, namespace):
            self.core.enter_room(sid, room, namespace)
        else:
            self._send(ENTER, sid=sid, room=_plain(room), namespace=namespace)

    def leave_room(self, sid: str, room: Hashable, namespace: str) -> None:
        """Take a client out of a room, wherever it is."""
        if room is None:
            raise ValueError("room None is everybody; a client leaves it by disconnecting")
        if self.core is not None and self._is_here(sid, namespace):
            self.core.leave_room(sid, room, namespace)
        else:
            self._send(LEAVE, sid=sid, room=_plain(room), namespace=namespace)

    def close_room(self, room: Hashable, namespace: str) -> None:
        """Take everybody out of a room, in all processes."""
        if room is None:
            raise ValueError("room None is everybody; it can't be closed")
        if self.core is not None:
            self.core.close_room(room, namespace)
        self._send(CLOSE, room=_plain(room), namespace=namespace)

    # Members.

    @property
    def members(self) -> list[str]:
        """The other processes with clients."""
        since = self._now() - MISSING
        with self._lock:
            return [host for host, sender in self._senders.items() if sender.member and sender.heard >= since]

    def subscribed(self, deaf: bool = False) -> None:
        """What others say is heard from now on: say that we are there. Also when the bus has come back.

        Args:
            deaf: Whether something may have been missed for ever.
        """
        now = self._now()
        with self._lock:
            for sender in self._senders.values():  # nobody could be heard
                sender.heard = now
        self._beat_at = now + BEAT_INTERVAL
        if self._seal is not None and not self._here:
            self._since = self._seal.now()
        self._here = True
        self._send(HELLO)
        if deaf:
            self._tell_gap(0)

    def tick(self) -> None:
        """Give a sign of life when it is time. To be called about once a second while subscribed."""
        now = self._now()
        if now < self._beat_at or not self._here:
            return
        self._beat_at = now + BEAT_INTERVAL
        self._beat()
        with self._lock:
            for host in [host for host, sender in self._senders.items() if sender.heard < now - FORGOTTEN]:
                del self._senders[host]
            late = [number for number, (_, until) in self._pending.items() if until < now]
            for number in late:
                del self._pending[number]
            gone = {host for host, sender in self._senders.items() if sender.heard < now - MISSING}
            queries = [query for query in self._queries.values() if query.missing and query.missing <= gone]
        for query in queries:
            self._wake(query.event)

    def _beat(self) -> None:
        with self._sending:  # the number is that of the last message, so that its loss is noticed
            self._publish(envelope.write(BEAT, {"host_id": self.host_id, "n": self._number}))

    def end(self) -> None:
        """Say that we go."""
        if self._here:
            self._here = False
            self._send(BYE)

    # Asking.

    def ask(self, what: str, namespace: str, subject: Any, event: Event) -> Query:
        """Ask all other members; `Query.event` tells when their answers are there.

        Args:
            what: ``"rooms"`` of a sid, ``"sids"`` in a room, or ``"count"`` of them.
            namespace: Where.
            subject: The sid, or the room.
            event: For the caller to wait on.
        """
        self._outlet.start()
        query = Query(event, self.members)
        if not query.missing:
            event.set()
            return query
        with self._lock:
            self._ids += 1
            number = self._ids
            self._queries[number] = query
        self._send(QUERY, id=number, what=what, namespace=namespace, subject=_plain(subject))
        return query

    def forget(self, query: Query) -> None:
        """The asker waits no longer."""
        with self._lock:
            for number in [number for number, asked in self._queries.items() if asked is query]:
                del self._queries[number]

    # Receiving.

    def receive(self, data: bytes) -> None:
        """A message came from the bus. Whatever it is, this raises nothing."""
        try:
            self._receive(data)
        except RemoteProtocolError as error:
            self.refused.one()
            self._complain(logging.WARNING, "a message on the channel %r is ignored: %s", self._channel, error)
        except Exception:  # an error of ours must not end the listening
            self.logger.exception("a message on the channel %r could not be handled", self._channel)

    def _receive(self, data: bytes) -> None:
        signed = 0.0
        if self._seal is not None:
            data, signed = self._seal.open(data)
        head = envelope.head(data)
        method = head["method"]
        sender = head.get("from", head.get("host_id"))
        if method in OURS and not (isinstance(sender, str) and isinstance(head.get("host_id"), str)):
            raise RemoteProtocolError("expected a sender as text")
        if sender == self.host_id:
            if method == CALLBACK:  # a client of ours has answered our own emit; python-socketio does so
                self._on_callback(head)
            return
        number = head.get("n")
        if number is not None and not self._is_new(sender, number, method, signed):
            return
        if method == EMIT:
            self._on_emit(head, data)
        else:
            action = self._actions.get(method)
            if action is not None:
                action(head)

    def _is_new(self, host: Any, number: Any, method: str, signed: float) -> bool:
        """Whether a sender's message comes for the first time; counts those that are missing before it."""
        if not isinstance(host, str) or type(number) is not int:
            raise RemoteProtocolError("expected a sender and a number")
        now = self._now()
        with self._lock:
            sender = self._senders.get(host)
            if signed and (signed < self._since if sender is None else method == BEAT and signed <= sender.beat):
                self.repeated.one()
                return False
            if sender is None:
                if len(self._senders) >= MOST_SENDERS:
                    del self._senders[min(self._senders, key=lambda one: self._senders[one].heard)]
                sender = self._senders[host] = Sender(number, now)
                missing, new = 0, True
            else:
                missing, new = number - sender.number - (method != BEAT), number > sender.number
                sender.number, sender.heard = max(number, sender.number), now
            if method in (HELLO, BEAT):
                sender.member = True
            if method == BEAT:
                sender.beat = signed
        if missing > 0:
            self.lost.add(missing)
            self._complain(
                logging.WARNING,
                "%d messages of the process %s on the channel %r never came",
                missing,
                host,
                self._channel,
            )
            self._tell_gap(missing)
        if not new and method != BEAT:
            self.repeated.one()
        return new or method == BEAT

    def _tell_gap(self, missing: int) -> None:
        core = self.core
        if core is not None and self.on_gap is not None:
            self._run(core, "the handler of a gap in the message queue", self.on_gap, missing)

    def _on_emit(self, head: dict[str, Any], data: bytes) -> None:
        core = self.core
        if core is None:
            return
        namespace, to = head.get("namespace") or "/", head.get("room")
        if not isinstance(namespace, str):
            raise RemoteProtocolError("expected a namespace as text")
        try:
            if not core.targets(namespace, to):
                self.unwanted.one()
                return
            if "data" not in head:
                head = envelope.whole(data)
            args = envelope.unpack(self._codec, head.get("data"), head.get("binary"))
            if args == [None] and "n" not in head:
                args = []  # what python-socketio says when there is no data
            skip = head.get("skip_sid") or ()
            callback = head.get("callback")
            back = None
            if callback is not None:
                room, space, number = callback
                back = partial(self._call_back, head["host_id"], room, space, number)
            core.emit(head["event"], args, namespace, to, (skip,) if isinstance(skip, str) else frozenset(skip), back)
        except (TypeError, ValueError, KeyError) as error:
            raise RemoteProtocolError(f"expected an emit: {ascii(str(error))[1:-1][:100]}") from None

    def _call_back(self, host: str, room: Any, namespace: str, number: Any, *args: Any) -> None:
        """A client of ours has answered what another process emitted."""
        body = envelope.args_body(self._codec, args)
        mine = {"from": self.host_id}
        self._send(CALLBACK, body, host_id=host, sid=room, namespace=namespace, id=number, **mine)

    def _on_callback(self, head: dict[str, Any]) -> None:
        if head.get("host_id") != self.host_id or self.core is None:
            return
        args = envelope.unpack(self._codec, head.get("args"), head.get("binary"))
        number: Any = head.get("id")
        with self._lock:
            waiting, _ = self._pending.get(number, (None, 0.0)) if type(number) is int else (None, 0.0)
            if isinstance(waiting, Waiter):
                del self._pending[number]
        core = self.core
        if waiting is None:
            self._complain(logging.INFO, "an unknown callback is ignored")
        elif isinstance(waiting, Waiter):
            if waiting.answer is None:
                waiting.answer = args
                self._wake(waiting.event)
        else:
            self._run(core, "a callback", waiting, *args)

    def _run(self, core: Core, what: str, function: Callable[..., object], *args: Any) -> None:
        """Call a function of the program as handlers are called; ``what`` names it where it fails."""
        core.runtime.run(self._desk, core.counters.handlers.run, (function, *args), self._ran, what)

    def _ran(self, what: Any, result: Any, error: BaseException | None) -> None:
        if error is not None and self.core is not None:
            self.core.counters.handlers.errors.one()
            self.logger.error("%s failed", what, exc_info=error)

    def _on_disconnect(self, head: dict[str, Any]) -> None:
        if self.core is not None:
            self.core.disconnect(*_client(head))

    def _on_enter(self, head: dict[str, Any]) -> None:
        sid, namespace = _client(head)
        if self.core is not None and self.core.client(sid, namespace) is not None:
            try:
                self.core.enter_room(sid, _room(head), namespace)
            except (KeyError, ValueError):
                pass  # it has left meanwhile

    def _on_leave(self, head: dict[str, Any]) -> None:
        sid, namespace = _client(head)
        if self.core is not None:
            self.core.leave_room(sid, _room(head), namespace)

    def _on_close(self, head: dict[str, Any]) -> None:
        if self.core is not None:
            self.core.close_room(_room(head), str(head.get("namespace") or "/"))

    def _on_hello(self, head: dict[str, Any]) -> None:
        if self._here:
            self._beat()  # the newcomer learns of us

    def _on_bye(self, head: dict[str, Any]) -> None:
        host = head["host_id"]
        with self._lock:
            sender = self._senders.get(host)
            if sender is not None:
                sender.member = False
            queries = [query for query in self._queries.values() if host in query.missing]
        for query in queries:
            self._answered(query, host)

    def _on_query(self, head: dict[str, Any]) -> None:
        if self.core is None:
            return
        what, namespace, subject = head.get("what"), head.get("namespace"), head.get("subject")
        if what not in ("rooms", "sids", "count") or not isinstance(namespace, str):
            raise RemoteProtocolError("expected a query for rooms, sids or a count")
        result = know(self.core, what, namespace, subject)
        mine = {"from": self.host_id}
        self._send(ANSWER, host_id=head["host_id"], id=head.get("id"), result=_plain(result), **mine)

    def _on_answer(self, head: dict[str, Any]) -> None:
        if head.get("host_id") != self.host_id:
            return
        number = head.get("id")
        with self._lock:
            query = self._queries.get(number) if type(number) is int else None
            if query is None or head.get("from") not in query.missing:
                return
            query.results.append(head.get("result"))
        self._answered(query, head["from"])

    def _answered(self, query: Query, host: str) -> None:
        with self._lock:
            query.missing.discard(host)
            done = not query.missing
        if done:
            self._wake(query.event)


def know(core: Core, what: str, namespace: str, subject: Any) -> Any:
    """Return what one process knows; see `Cluster.ask`."""
    if what == "rooms":
        return core.rooms_of(subject, namespace)
    clients = core.targets(namespace, subject)
    return len(clients) if what == "count" else [client.sid for client in clients]


def _plain(room: Any) -> Any:
    """Return a room, or several, as JSON can say it."""
    if isinstance(room, (list, tuple, set, frozenset)):
        return [_plain(one) for one in room]
    return room


def _room(head: dict[str, Any]) -> Any:
    room = head.get("room")
    if room is None or isinstance(room, dict):
        raise RemoteProtocolError("expected a room")
    return tuple(room) if isinstance(room, list) else room


def _client(head: dict[str, Any]) -> tuple[str, str]:
    sid, namespace = head.get("sid"), head.get("namespace") or "/"
    if not isinstance(sid, str) or not isinstance(namespace, str):
        raise RemoteProtocolError("expected a sid and a namespace as text")
    return sid, namespace
