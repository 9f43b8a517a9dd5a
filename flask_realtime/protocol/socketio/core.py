"""Core: Socket.IO over Engine.IO sessions. Connect, events and acknowledgements in; emits out. Never waits."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, KeysView, Sequence, ValuesView
from typing import Any, NamedTuple

from ...errors import ConnectionRefusedError, RemoteProtocolError
from ...typing import Runtime
from ..counters import CONNECT as REFUSED
from ..counters import SOCKETIO, Counters
from ..engineio.complaints import Complaints
from ..engineio.engine import new_id
from ..engineio.frame import MESSAGE, Frame
from ..engineio.session import CLIENT_DISCONNECT, SERVER_DISCONNECT, Session
from .burst import CLOSE, Burst
from .client import CONNECTED, CONNECTING, GONE, HELD_LIMIT, LEAVING, Client, Link
from .dispatch import ANY, Handler, Handlers
from .packets import ACK, CONNECT, CONNECT_ERROR, DISCONNECT, EVENT, RESERVED, Codec, Limits, Packet
from .rooms import Rooms

Invoke = Callable[[Client, Handler, Any, Sequence[Any]], Any]
"""Runs user code: ``invoke(client, handler, event, args)``. For connect args is (auth,), for disconnect (reason,)."""

EVERYBODY = None


class Settings(NamedTuple):
    """What can be set of the Socket.IO floor.

    Attributes:
        namespaces: Accepted besides those with handlers; ``"*"`` accepts any.
        always_connect: Whether CONNECT is answered before the connect handler runs.
        connect_timeout: Seconds that a connection has to join its first namespace.
        max_namespaces: That one connection may join.
        max_pending_acks: Of one client; the oldest is given up.
        max_early: Packets of one client that are kept while its connect handler runs.
        limits: Of packets.
    """

    namespaces: Collection[str] = ("/",)
    always_connect: bool = False
    connect_timeout: float = 45
    max_namespaces: int = 32
    max_pending_acks: int = 1000
    max_early: int = 100
    limits: Limits = Limits()


class Waiter:
    """An acknowledgement that a caller waits for; resolved without running a handler.

    Attributes:
        event: Set when there is an answer, or none will come.
        answer: What the client sent; None while there is nothing.
        gone: Whether the client left instead.
    """

    __slots__ = ("answer", "event", "gone")

    def __init__(self, event: Any) -> None:
        self.event = event
        self.answer: Sequence[Any] | None = None
        self.gone = False

    def resolve(self, answer: Sequence[Any]) -> None:
        self.answer = answer
        self.event.set()

    def give_up(self) -> None:
        self.gone = True
        self.event.set()


class Core:
    """All namespaces, clients and rooms of one server.

    Args:
        runtime: Where handlers run.
        codec: How packets are coded.
        invoke: How handlers are called.
        settings: The rest.
        logger: Where to tell.
        counters: Of the floor below; the core's own when None.
        clock: Tells which emits follow each other closely, in seconds; None: each goes out at once.
        join: See `Burst`.
    """

    def __init__(
        self,
        runtime: Runtime,
        codec: Codec,
        invoke: Invoke,
        settings: Settings,
        logger: logging.Logger,
        counters: Counters | None = None,
        clock: Callable[[], float] | None = None,
        join: bool = True,
    ) -> None:
        self.logger = logger
        self._burst, self._clock, self._emitted = Burst(runtime, join), clock, float("-inf")
        self._emitted_to = ""
        self.counters = counters or Counters(runtime.lock(), runtime.now)
        self._call = self.counters.handlers.run
        self._count_in, self._count_out = self.counters.events_in.one, self.counters.events_out.one
        self.runtime, self.codec, self.invoke, self.settings = runtime, codec, invoke, settings
        self.handlers = Handlers()
        self.clients: dict[str, dict[str, Client]] = {}
        self.rooms: dict[str, Rooms] = {}
        self._lock = runtime.lock()
        self._complain = Complaints(logger, runtime.now, runtime.lock())
        self._stopping = False
        self.debug = self.logger.isEnabledFor(logging.DEBUG)

    # Called by the Engine.IO floor.

    def opened(self, session: Session) -> None:
        """A connection was opened; it has some time to join a namespace."""
        session.data = link = Link(self.codec.decoder(self.settings.limits))

        def expire() -> None:
            if not link.joined:
                session.close(SERVER_DISCONNECT, 1008, "no namespace joined in time")

        link.timer = session.runtime.call_later(self.settings.connect_timeout, expire)

    def received(self, session: Session, message: str | bytes) -> None:
        """A message came in. What the protocol doesn't allow ends the connection."""
        link: Link = session.data
        try:
            size = link.size + len(message)
            packet = link.decoder.feed(message)
            if packet is None:
                link.size = size
                return
            link.size = 0
            kind, namespace, _, data = packet
            if kind == CONNECT:
                if not self._stopping:
                    self._connect(session, link, namespace, data)
                return
            client = link.clients.get(namespace)
            if client is None or not (client.state is CONNECTED or (client.state is CONNECTING and client.told)):
                if kind == DISCONNECT and client is not None:
                    self._leave(client, CLIENT_DISCONNECT)
                    return
                if namespace in link.left or (
                    client is not None and client.state in (LEAVING, GONE) and client.leave_reason != CLIENT_DISCONNECT
                ):
                    self._complain(logging.INFO, "%s: a packet that crossed our disconnect is dropped", session.sid)
                    return
                raise RemoteProtocolError(f"a packet for the namespace {ascii(namespace)[:60]}, which isn't joined")
            if kind == EVENT and not client.deciding:
                self._event(client, packet.id, packet.data, size)
            elif kind == DISCONNECT:
                self._leave(client, CLIENT_DISCONNECT)
            elif not (client.deciding and self._keep(client, packet)):
                self._dispatch(client, packet)
        except RemoteProtocolError as error:
            session.fault(error, SOCKETIO)

    def stop(self, stopping: bool) -> None:
        """Start no more events and let nobody in, since all will be told to go; or do so again."""
        self._stopping = stopping

    def closed(self, session: Session, reason: str) -> None:
        """A connection has ended."""
        link: Link | None = session.data
        if link is None:
            return
        if link.timer is not None:
            link.timer.cancel()
        for client in list(link.clients.values()):
            self._leave(client, reason)

    # Connecting.

    def _connect(self, session: Session, link: Link, namespace: str, auth: Any) -> None:
        earlier = link.clients.get(namespace)
        if earlier is not None and earlier.state not in (LEAVING, GONE):
            raise RemoteProtocolError(f"a second CONNECT for the namespace {ascii(namespace)[:60]}")
        wanted = self.settings.namespaces
        if namespace not in wanted and ANY not in wanted and not self.handlers.knows(namespace):
            self.counters.refusals.one(REFUSED)
            self._send(session, Packet(CONNECT_ERROR, namespace, None, {"message": "Invalid namespace"}))
            return
        if len(link.clients) >= self.settings.max_namespaces:
            raise RemoteProtocolError(f"expected at most {self.settings.max_namespaces} namespaces")
        link.left.discard(namespace)
        client = link.clients[namespace] = Client(new_id(), session, namespace)
        with self._lock:
            rooms = self.rooms.get(namespace)
            if rooms is None:
                rooms = self.rooms[namespace] = Rooms(self.runtime.lock())
                self.clients[namespace] = {}
            self.clients[namespace][client.sid] = client
        rooms.enter(client, EVERYBODY, client.sid)
        if session.closed:  # meanwhile, in another thread, which didn't know of this client yet
            self._leave(client, session.reason)
        if self.settings.always_connect:
            self._hello(client)
        handler = self.handlers.find("connect", namespace)
        if handler is None:
            self._connected(client, None, None)
        else:
            args = (self.invoke, client, handler, "connect", (auth,))
            session.runtime.run(session, self._call, args, self._connected, client, urgent=True)

    def _connected(self, client: Client, result: Any, error: BaseException | None) -> None:
        """The connect handler has ended: accept or refuse. Any error refuses."""
        refusal: dict[str, Any] | None = None
        if isinstance(error, ConnectionRefusedError):
            refusal = error.error_args
        elif isinstance(error, builtins.ConnectionRefusedError):
            refusal = {"message": "Connection refused by server"}
        elif error is not None:
            self._log(error, client, "connect")
            refusal = {"message": "Connection rejected by server"}
        elif result is False:
            refusal = {"message": "Connection rejected by server"}
        if refusal is not None:
            self._refuse(client, refusal)
            return
        link: Link = client.session.data
        link.joined = client.accepted = True
        if link.timer is not None:
            link.timer.cancel()
            link.timer = None
        if client.state is CONNECTING:
            self._hello(client)
        self.logger.info("%s: connected to %s", client.sid, ascii(client.namespace)[1:-1])
        while True:  # what came too early first, then the flag under the same lock, so that nothing overtakes it
            with self._lock:
                early, client.early = client.early, []
                if not early:
                    client.deciding, reason = False, client.leave_reason
                    break
            for packet in early:
                self._dispatch(client, packet)
        if reason == SERVER_DISCONNECT:
            self.disconnect(client.sid, client.namespace)
        elif reason is not None:
            self._leave(client, reason)

    def _hello(self, client: Client) -> None:
        client.admit(self._frames(Packet(CONNECT, client.namespace, None, {"sid": client.sid})), self._lock)

    def _refuse(self, client: Client, refusal: dict[str, Any]) -> None:
        with self._lock:
            told, client.state = client.state is not CONNECTING, GONE
            acks, client.acks = client.acks, None
        _give_up(acks)
        if told:
            client.session.data.put_out(client.namespace)
        self._forget(client)
        self.counters.refusals.one(REFUSED)
        self.logger.info("%s: refused by the connect handler of %s", client.sid, ascii(client.namespace)[1:-1])
        try:
            self._send(client.session, Packet(DISCONNECT if told else CONNECT_ERROR, client.namespace, None, refusal))
        except (TypeError, ValueError) as error:
            self._log(error, client, "connect")
            message = {"message": refusal["message"]}
            self._send(client.session, Packet(DISCONNECT if told else CONNECT_ERROR, client.namespace, None, message))

    # Leaving.

    def disconnect(self, sid: str, namespace: str) -> None:
        """End a client's part in a namespace; an unknown one is nothing to do."""
        client = self.client(sid, namespace)
        if client is None:
            return
        self._leave(client, SERVER_DISCONNECT, tell=True)

    def _leave(self, client: Client, reason: str, tell: bool = False) -> None:
        """Run the disconnect handler, once for each client that was accepted, then forget the client.

        Args:
            client: Which.
            reason: For the handler.
            tell: Whether the client doesn't know yet.
        """
        with self._lock:
            if client.deciding:
                client.leave_reason = client.leave_reason or reason
                return
            if client.state is not CONNECTED:
                return
            client.state, client.leave_reason = LEAVING, reason
            acks, client.acks = client.acks, None
        _give_up(acks)
        if tell:
            client.session.data.put_out(client.namespace)
            self._send(client.session, Packet(DISCONNECT, client.namespace))
        handler = self.handlers.find("disconnect", client.namespace)
        if handler is None:
            self._left(client, None, None)
        else:
            args = (self.invoke, client, handler, "disconnect", (reason,))
            client.session.runtime.run(client.session, self._call, args, self._left, client, urgent=True)

    def _left(self, client: Client, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._log(error, client, "disconnect")
        self.logger.info("%s: disconnected from %s", client.sid, ascii(client.namespace)[1:-1])
        client.state = GONE
        self._forget(client)

    def _forget(self, client: Client) -> None:
        namespace = client.namespace
        self.rooms[namespace].leave_all(client)
        with self._lock:
            self.clients[namespace].pop(client.sid, None)
            known = namespace in self.settings.namespaces or self.handlers.knows(namespace)
            if not known and not self.clients[namespace]:  # any name is accepted: keep none that nobody uses
                del self.clients[namespace], self.rooms[namespace]
        link: Link = client.session.data
        if link.clients.get(namespace) is client:
            del link.clients[namespace]

    # Events and acknowledgements.

    def _keep(self, client: Client, packet: Packet) -> bool:
        """Keep a packet until the connect handler has accepted its client; False when it has meanwhile."""
        with self._lock:
            if not client.deciding:
                return False
            if client.leave_reason == CLIENT_DISCONNECT:
                raise RemoteProtocolError("a packet after the disconnect")
            client.early.append(packet)
            if client.accepted:  # it may send what it likes; the thread that told it so is about to take this up
                return True
            client.early_size += _size(packet.data)
            if len(client.early) > self.settings.max_early:
                raise RemoteProtocolError(f"more than {self.settings.max_early} packets before it was accepted")
            # One packet may be larger than the limit; there is no use in a size that nothing fits into.
            if client.early_size > HELD_LIMIT and len(client.early) > 1:
                raise RemoteProtocolError(f"more than {HELD_LIMIT} bytes before it was accepted")
        return True

    def _dispatch(self, client: Client, packet: Packet) -> None:
        if packet.type == EVENT:
            self._event(client, packet.id, packet.data)
        else:
            assert packet.id is not None
            self._acknowledged(client, packet.id, packet.data)

    def _event(self, client: Client, number: int | None, data: list[Any], size: int = 0) -> None:
        self._count_in()
        event = data[0]
        if self.debug:
            self.logger.debug("< %s %s %s", client.sid, client.namespace, ascii(event))
        handler = self.handlers.found.get((client.namespace, event)) or self.handlers.find(event, client.namespace)
        if handler is not None and not self._stopping:
            args = (self.invoke, client, handler, event, data[1:])
            token = (client, number, event)
            session = client.session
            session.runtime.run(session, self._call, args, self._handled, token, False, handler.habit, size)

    def _handled(
        self, token: tuple[Client, int | None, Any], result: Any, error: BaseException | None
    ) -> BaseException | None:
        """A handler has ended: acknowledge, when the client asked for it. Returns why that can't be done."""
        client, number, event = token
        if error is not None:
            self._log(error, client, event)
        elif number is not None:
            data = [] if result is None else list(result) if isinstance(result, tuple) else [result]
            try:
                frames = self._frames(Packet(ACK, client.namespace, number, data))
            except (TypeError, ValueError, RecursionError) as problem:
                self._log(problem, client, event)
                self._burst.flush()
                return problem
            self._count_out()
            if not self._burst.active or not self._burst.add(client.session, frames):
                client.session.send(frames)
        if self._burst.active:
            self._burst.flush()
        return None

    def _acknowledged(self, client: Client, number: int, data: list[Any]) -> None:
        self._count_in()
        acks = client.acks  # once: another thread may take it away
        waiting = acks.pop(number, None) if acks else None
        if waiting is None:
            self._complain(logging.INFO, "%s: an unknown acknowledgement is ignored", client.sid)
        elif isinstance(waiting, Waiter):
            waiting.resolve(data)
        else:
            client.session.runtime.run(client.session, self._call, (waiting, *data), self._called_back, client)

    def _called_back(self, client: Client, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._log(error, client, "callback")

    def forget_waiter(self, waiter: Waiter, clients: Iterable[Client]) -> None:
        """Drop a waiter whose time is over."""
        for client in clients:
            acks = client.acks or {}
            for number, waiting in list(acks.items()):
                if waiting is waiter:
                    acks.pop(number, None)

    # Emitting.

    def emit(
        self,
        event: Any,
        args: Sequence[Any],
        namespace: str,
        to: Any = EVERYBODY,
        skip: Collection[str] = (),
        callback: Callable[..., object] | Waiter | None = None,
    ) -> tuple[Client, ...]:
        """Send an event: encoded once, written straight to each recipient.

        Args:
            event: Its name.
            args: Its arguments.
            namespace: Where.
            to: None for everybody, a room, or a list, tuple, set or frozenset of rooms.
            skip: Sids that don't get it.
            callback: What to do with the acknowledgement of each recipient.

        Returns:
            The clients that it was sent to.

        Raises:
            TypeError: A value can't be sent.
            ValueError: The data contains itself.
        """
        if event in RESERVED:
            raise ValueError(f"the event name {event!r} is reserved")
        targets = self.targets(namespace, to)
        if skip:
            targets = tuple(client for client in targets if client.sid not in skip)
        if not targets:
            return ()
        lock = self._lock
        if callback is None:
            frames = self._frames(Packet(EVENT, namespace, None, [event, *args]))
            clock, burst = self._clock, self._burst
            first = targets[0].sid
            # Emits to others are no part of a burst: there would be nothing to join.
            close = clock is not None and first == self._emitted_to and clock() - self._emitted < CLOSE
            if close or burst.active:
                if all(client.state is CONNECTED for client in targets) and burst.add(targets, frames, True):
                    self.counters.events_out.add(len(targets))
                    return targets
                burst.flush()
            gone = 0
            for client in targets:
                if client.state is CONNECTED:
                    client.session.send(frames)
                else:
                    gone += client.state is not CONNECTING
                    client.send(frames, lock)
            self.counters.events_out.add(len(targets) - gone)
            if clock is not None:
                self._emitted, self._emitted_to = clock(), first
            return targets
        packet = Packet(EVENT, namespace, None, [event, *args])
        self.codec.encode(packet)  # what can't be sent fails before anything waits for an answer
        for client in targets:
            if client.state in (CONNECTING, CONNECTED):
                self._count_out()
            frames = self._frames(packet._replace(id=self._expect(client, callback)))
            if not (self._burst.active and client.state is CONNECTED and self._burst.add(client.session, frames)):
                client.send(frames, lock)
        return targets

    def send_at_once(self) -> None:
        """From now on join nothing: whoever looks right after an emit sees it."""
        self._clock = None
        self._burst.flush()

    def flush(self) -> None:
        """Send what waits to leave together. Call this before a connection is closed on the floor below."""
        self._burst.flush()

    def targets(self, namespace: str, to: Any) -> tuple[Client, ...]:
        """Return the clients that ``to`` means; an empty collection or text means nobody."""
        rooms = self.rooms.get(namespace)
        if rooms is None:
            return ()
        if to is None or isinstance(to, (str, int)):
            return rooms.members(to)
        if isinstance(to, (list, tuple, set, frozenset, Iterator, KeysView, ValuesView)):
            return rooms.union(to)
        return rooms.members(to)

    def _expect(self, client: Client, callback: Callable[..., object] | Waiter) -> int:
        with self._lock:
            if client.state in (LEAVING, GONE):
                if isinstance(callback, Waiter):
                    callback.give_up()
                return 0
            if client.acks is None:
                client.acks = {}
            client.ack_id += 1
            client.acks[client.ack_id] = callback
            if len(client.acks) > self.settings.max_pending_acks:
                lost = client.acks.pop(next(iter(client.acks)))
                if isinstance(lost, Waiter):
                    lost.give_up()
                self._complain(
                    logging.WARNING,
                    "%s: more than %d pending acknowledgements",
                    client.sid,
                    self.settings.max_pending_acks,
                )
            return client.ack_id

    # Rooms.

    def enter_room(self, sid: str, room: Hashable, namespace: str) -> None:
        """Put a client into a room.

        Raises:
            KeyError: There is no such client.
            ValueError: Nobody ever joined the namespace.
        """
        if namespace not in self.rooms:
            raise ValueError(f"sid {sid!r} is not connected to requested namespace {namespace!r}")
        client = self.client(sid, namespace)
        rooms = self.rooms.get(namespace)
        if client is None or rooms is None or not rooms.enter(client, room):
            raise KeyError(f"no client {sid!r} in namespace {namespace!r}")

    def leave_room(self, sid: str, room: Hashable, namespace: str) -> None:
        """Take a client out of a room; nothing happens when it isn't there.

        Raises:
            ValueError: The room is None, which is everybody.
        """
        if room is EVERYBODY:
            raise ValueError("room None is everybody; a client leaves it by disconnecting")
        client, rooms = self.client(sid, namespace), self.rooms.get(namespace)
        if client is not None and rooms is not None:
            rooms.leave(client, room)

    def close_room(self, room: Hashable, namespace: str) -> None:
        """Take everybody out of a room.

        Raises:
            ValueError: The room is None, which is everybody.
        """
        if room is EVERYBODY:
            raise ValueError("room None is everybody; it can't be closed")
        rooms = self.rooms.get(namespace)
        if rooms is not None:
            rooms.close(room)

    def rooms_of(self, sid: str, namespace: str) -> list[Hashable]:
        """Return the rooms of a client."""
        client = self.client(sid, namespace)
        return [room for room in tuple(client.rooms or ()) if room is not EVERYBODY] if client is not None else []

    # Helpers.

    def client(self, sid: str, namespace: str) -> Client | None:
        """Return a client that is connecting, connected or leaving."""
        return self.clients.get(namespace, {}).get(sid)

    def _frames(self, packet: Packet) -> tuple[Frame, ...]:
        first, *parts = self.codec.encode(packet)
        frame = Frame(MESSAGE + first if isinstance(first, str) else first)
        if not parts:
            return (frame,)
        return (frame, *[Frame(part) for part in parts])

    def _send(self, session: Session, packet: Packet) -> None:
        frames = self._frames(packet)
        if not self._burst.active or not self._burst.add(session, frames):
            session.send(frames)

    def _log(self, error: BaseException, client: Client, event: Any) -> None:
        self.counters.handlers.errors.one()
        self.logger.error(
            "%s: the handler of %s in %s failed",
            client.sid,
            ascii(event)[:100],
            ascii(client.namespace)[:100],
            exc_info=error,
        )


def _size(data: Any) -> int:
    """Return how many bytes a payload takes, about; it isn't deep."""
    if isinstance(data, (str, bytes)):
        return 64 + len(data)
    if isinstance(data, dict):
        return 200 + sum(64 + len(key) + _size(value) for key, value in data.items())
    if isinstance(data, (list, tuple)):  # a tuple is what MessagePack has of unknown types
        return 64 + sum(8 + _size(item) for item in data)
    return 32


def _give_up(acks: dict[int, Any] | None) -> None:
    """Tell those who wait for acknowledgements that none will come."""
    for waiting in (acks or {}).values():
        if isinstance(waiting, Waiter):
            waiting.give_up()


def arguments(result: Any) -> list[Any]:
    """Return what a handler's result, or the data of an emit, is as arguments: None is none, a tuple several."""
    if result is None:
        return []
    if isinstance(result, tuple):
        return list(result)
    return [result]


def as_sids(skip: Any) -> Collection[str]:
    """Return what ``skip_sid`` means as a collection: one sid, or any iterable of them."""
    if skip is None:
        return ()
    return (skip,) if isinstance(skip, str) else frozenset(skip)
