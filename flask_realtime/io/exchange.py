"""Exchange: a connection that has left its server, and over which a client polls and posts. The hub serves it.

Theory of operation. A connection comes here with a poll that has to wait, or with a post. Its answer is sent from here,
and where the server takes connections back, the connection is kept: the next request is looked at before it is taken
from the socket. One that is written in the ordinary way, that belongs to a session that polls, and whose fields say the
same as those of the request with which the connection came, is answered by the hub, and costs neither a thread nor a
walk through the application. Any other goes back to the server, with the connection and unread. So what stands between
the server and this package (proxies' fields, authentication) has seen all that it could judge by.
"""

from __future__ import annotations

import logging
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple

from ..errors import RemoteProtocolError
from ..protocol.engineio.engine import Engine
from ..protocol.engineio.requests import Outcome, Read, Request, Respond, Wait, answer, fields_of
from ..protocol.engineio.session import POLLING
from ..protocol.http import Fields, Head, Heads
from ..typing import Frame
from . import calls
from .hub import Hub, Timer

logger = logging.getLogger("flask_realtime.io")

Environ = dict[str, Any]
TakeBack = Callable[[socket.socket], object]
"""Gives a blocking socket, and the request that waits in it, to the server. In the hub's thread; must not wait."""

STALL = 10.0
"""Seconds that a client may take nothing of an answer before it is given up."""

BODY = 30.0
"""Seconds that a client has for the body of a request."""

KEEP = 60.0
"""Seconds that a connection is kept without a request."""

AFTER = 2.0
"""Seconds that it is kept when the session whose requests came over it has ended: the next one may be on its way."""

_SWEEP = 1.0  # seconds between two looks at all of them
_TURN = 64  # packets of a post whose handlers may run in the hub
_SPARE = 64  # connections that are kept besides two for each session

CLOSE = ("Connection", "close")

# What may differ from request to request: it says nothing of where the request came from, or is judged anew each time.
_FREE = frozenset(
    (
        *("accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "origin"),
        *("pragma", "priority", "referer", "traceparent", "tracestate", "x-correlation-id", "x-request-id"),
    )
)

_PLAIN = re.compile("/[A-Za-z0-9/._~-]*")  # a path that servers decode to itself

IDLE, WAITING, BODY_COMES, BUSY, SENDING, ENDED = "IDLE", "WAITING", "BODY_COMES", "BUSY", "SENDING", "ENDED"


class Origin(NamedTuple):
    """What the server and the layers above found out about a connection by its first request.

    Attributes:
        scheme: ``http`` or ``https``, as the client knows it.
        path: Of the request's target, as it was sent.
        query: Of its query, what later requests have to repeat.
        fields: Of its head, the same.
    """

    scheme: str
    path: str
    query: Fields
    fields: Fields

    def covers(self, head: Head, query: Fields) -> bool:
        """Whether another request comes from the same place."""
        if _without_own(query) != self.query:
            return False
        fields, seen = self.fields, 0
        for name, value in head.fields.items():
            if name not in _FREE:
                if fields.get(name) != value:
                    return False
                seen += 1
        return seen == len(fields)


def _without_own(query: Fields) -> Fields:
    """Return a query without what each request and each session has of its own. It is changed."""
    query.pop("sid", None)
    query.pop("t", None)
    return query


def origin_of(environ: Environ) -> Origin | None:
    """Return what is known of a request's connection; None when it isn't to be kept."""
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or _target_of(environ)
    if not target:
        return None
    asked = environ.get("HTTP_CONNECTION", "").lower()
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.1":
        keeps = asked in ("", "keep-alive")
    else:  # eventlet calls all versions 1.0, unless it is told otherwise
        keeps = asked == "keep-alive" and "eventlet.input" in environ
    if not keeps:
        return None
    fields = {
        name: value
        for key, value in environ.items()
        if key.startswith("HTTP_") and (name := key[5:].lower().replace("_", "-")) not in _FREE
    }
    path, _, text = target.partition("?")
    try:
        query = _without_own(fields_of(text))
    except ValueError:  # somebody above has made it shorter
        return None
    return Origin(environ.get("wsgi.url_scheme", "http"), path, query, fields)


def _target_of(environ: Environ) -> str:
    """Return a request's target where the server doesn't tell, and it can be nothing else; else ""."""
    path = environ.get("RAW_PATH_INFO") or environ.get("PATH_INFO", "")
    if environ.get("SCRIPT_NAME") or not _PLAIN.fullmatch(path):
        return ""
    return f"{path}?{environ.get('QUERY_STRING', '')}"


class Exchanges:
    """All of a server's.

    Attributes:
        take_back: Gives a connection back to the server; None where that can't be done, so none is kept.
        closing: Whether none is to be kept any more.
        strangers: Ids of sessions whose requests never come from the same place, so that it isn't worth while.
    """

    def __init__(self, engine: Engine, hub: Hub) -> None:
        self.engine, self.hub = engine, hub
        self.take_back: TakeBack | None = None
        self.closing = False
        self.strangers: set[str] = set()
        self._all: set[Exchange] = set()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._all)

    @property
    def room(self) -> bool:
        """Whether one more may be kept."""
        return len(self._all) < 2 * len(self.engine.sessions) + _SPARE and not self.closing

    def answers(self, sid: str) -> bool:
        """Whether a session's polls find something: it polls, or its last packets still wait."""
        session = self.engine.sessions.get(sid)
        return sid in self.engine.farewells if session is None else session.state is POLLING

    def may_keep(self, sid: str) -> bool:
        """Whether a connection over which a session's request came may be kept."""
        session = self.engine.sessions.get(sid)
        polls = session is not None and session.state is POLLING
        return polls and self.take_back is not None and sid not in self.strangers and self.room

    def close(self) -> None:
        """Keep none any more."""
        self.closing = True
        if self.hub.running:
            self.hub.call_soon(self._close)

    def add(self, exchange: Exchange) -> None:
        """Count one more; `sweep_later` is to follow."""
        self._all.add(exchange)

    # The hub's thread.

    def sweep_later(self) -> None:
        if self._timer is None or self._timer.due < time.monotonic() - _SWEEP:  # of a hub that has ended
            self._timer = self.hub.call_later(_SWEEP, self._sweep)

    def discard(self, exchange: Exchange) -> None:
        self._all.discard(exchange)

    def _sweep(self) -> None:
        now = time.monotonic()
        for exchange in list(self._all):
            exchange.look(now)
        self.strangers = {sid for sid in self.strangers if sid in self.engine.sessions}
        self._timer = self.hub.call_later(_SWEEP, self._sweep) if self._all else None

    def _close(self) -> None:
        self._timer = None
        for exchange in list(self._all):
            exchange.leave()


class Exchange:
    """One connection.

    Its state is changed by the hub, but for one: a poll is answered by any thread.

    Args:
        exchanges: Where it belongs.
        sid: Of the session that its first request is for.
        origin: Of that request; None to close the connection after its answer.
    """

    __slots__ = (
        "_ahead",
        "_answer",
        "_body",
        "_descriptor",
        "_due",
        "_exchanges",
        "_heads",
        "_last",
        "_left",
        "_length",
        "_lock",
        "_origin",
        "_read",
        "_rest",
        "_sid",
        "_sock",
        "_state",
        "_wait",
    )

    def __init__(self, exchanges: Exchanges, sid: str, origin: Origin | None) -> None:
        self._exchanges, self._sid, self._origin = exchanges, sid, origin
        self._lock = exchanges.hub.lock()  # guards the state, what is left to send, and sending
        self._sock: socket.socket | None = None
        self._descriptor = -1
        self._state = BUSY
        self._due = float("inf")
        self._last = origin is None
        self._ahead = False  # whether the next request came before this one's answer
        self._heads = Heads() if origin is not None else None
        self._wait: Wait | None = None
        self._read: Read | None = None
        self._body = bytearray()
        self._length = 0
        self._left: deque[str | bytes] = deque()  # packets of a post
        self._answer: Respond | None = None
        self._rest = b""

    # Its first request. The server's thread, before there is a socket.

    def poll(self, wait: Wait) -> Sequence[Frame] | None:
        """Ask for frames; when there are none, they are sent as soon as some come.

        Raises:
            RemoteProtocolError: See `Wait`.
        """
        self._wait, self._state = wait, WAITING
        return wait.poll(self._ready)

    def withdraw(self) -> Respond | None:
        """Take the poll back; returns its answer if that came meanwhile."""
        assert self._wait is not None
        if self._wait.forget(self._ready):
            return None
        while self._answer is None:  # whoever has the frames is about to hand them on
            time.sleep(0.001)
        return self._answer

    def begin(self, sock: socket.socket, answered: Respond | None = None, last: bool = False) -> None:
        """Go on in the hub, with the answer to a post or with the poll that waits.

        Args:
            sock: Non-blocking.
            answered: The answer to a post.
            last: Whether the connection is closed after the answer.
        """
        with self._lock:
            self._last = self._last or last
            self._sock, self._descriptor = sock, sock.fileno()
        self._exchanges.add(self)
        if answered is not None:
            self._respond(answered)
        self._exchanges.hub.call_soon(self._begin)

    def _begin(self) -> None:
        if self._sock is None:
            return  # the poll was answered, and that was all
        self._exchanges.sweep_later()
        answered = self._answer
        if answered is not None:
            self._answer = None
            self._respond(answered)
        self._watch()

    # Answers.

    def _ready(self, frames: Sequence[Frame]) -> None:
        """The poll is answered. Any thread."""
        wait = self._wait
        assert wait is not None
        answered = wait.respond(frames)
        with self._lock:
            if self._sock is None:
                self._answer = answered  # `begin` sends it, or nobody is left to get it
                return
        hub = self._exchanges.hub
        if type(hub.reading) is Exchange and hub.leader == hub.current():
            # The packets of a post say so: first its own answer. Some clients don't post again before they have it, not
            # even to say goodbye to what the packets have brought them.
            hub.call_soon(self._respond, answered)
        else:
            self._respond(answered)

    def _respond(self, answered: Respond) -> None:
        """Send an answer; what the socket doesn't take now is left to the hub. Any thread."""
        exchanges = self._exchanges
        over = not exchanges.answers(self._sid) or exchanges.closing
        last = self._last or over or CLOSE in answered.headers
        data = response(answered, last)
        with self._lock:
            sock = self._sock
            if sock is None or self._state is ENDED:
                return
            self._rest, self._last = data, last
            lost = self._push(sock)
            settled = not self._rest and not last and not self._ahead
        if lost:
            exchanges.hub.call_soon(self.failed)
        elif not settled:
            exchanges.hub.call_soon(self._settle)

    def _push(self, sock: socket.socket) -> bool:
        """Send what is left of the answer; return whether the peer is lost. With the lock held."""
        sent, lost = 0, False
        try:
            sent = calls.offer(sock, self._descriptor, self._rest)
        except (BlockingIOError, InterruptedError):
            pass  # the hub goes on
        except OSError:
            lost = True
        self._rest = self._rest[sent:]
        if not self._rest:
            self._state, self._due, self._wait = IDLE, time.monotonic() + KEEP, None
        elif sent or self._state is not SENDING:
            self._state, self._due = SENDING, time.monotonic() + STALL
        return lost

    def _settle(self) -> None:
        """After an answer: what it left to do. The hub's thread, as all below."""
        if self._sock is None:
            return
        if self._state is IDLE and self._last:
            self._end()
        else:
            self._ahead = False
            self._watch()

    def _watch(self) -> None:
        sock = self._sock
        if sock is None:
            return
        hub, sending = self._exchanges.hub, self._state is SENDING
        if self._ahead:
            hub.watch_write_only(sock, self, sending)
        else:
            hub.watch(sock, self, sending)

    def writable(self) -> None:
        with self._lock:
            sock = self._sock
            if sock is None or self._state is not SENDING:
                return
            lost = self._push(sock)
            done = not self._rest
        if lost:
            self.failed()
        elif done:
            self._settle()

    # Requests.

    def readable(self) -> None:
        sock = self._sock
        if sock is None:
            return
        if self._state is BODY_COMES:
            self._read_body(sock)
            return
        try:
            data = self._exchanges.hub.receiver.recv(sock, self._descriptor, peek=True)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data and self._state is BUSY:  # it may still want its answer
            self._last = self._ahead = True
            self._watch()
        elif not data:
            self.failed()
        elif self._state is IDLE:
            if self._last:
                self._end()  # it was told that nothing more is read
            else:
                self._take(sock, data)
        else:  # it has to wait for its turn
            with self._lock:
                self._ahead = True
                if self._state is IDLE:  # it was answered just now
                    self._ahead = False
            self._watch()

    def _take(self, sock: socket.socket, data: bytes) -> None:
        """Serve a request, or give it back."""
        assert self._heads is not None
        engine = self._exchanges.engine
        head = self._heads.read(data)
        sid = self._is_ours(head) if head is not None else None
        if head is None or sid is None:
            self._give_back(sock)
            return
        receiver = self._exchanges.hub.receiver
        here = receiver.recv(sock, self._descriptor, min(head.size + head.length, len(data)))[head.size :]
        self._sid, self._last = sid, head.last or not self._exchanges.room
        self._state, self._due = BUSY, float("inf")
        assert self._origin is not None
        scheme = self._origin.scheme
        outcome = answer(engine, Request(head.method, head.query, _finder(head.fields), scheme, None, True))
        if isinstance(outcome, Read):
            self._read = outcome
            self._body += here
            self._length = head.length
            if len(here) < head.length:
                self._state, self._due = BODY_COMES, time.monotonic() + BODY
            else:
                self._receive()
            return
        if len(here) < head.length:
            self._last = True  # the rest of its body is nobody's
        self._finish(outcome)

    def _is_ours(self, head: Head) -> str | None:
        """Return the id of the session that a request is for; None when it is for the server."""
        exchanges, origin = self._exchanges, self._origin
        options = exchanges.engine.options
        if origin is None or head.path != origin.path or head.length > options.max_http_buffer_size:
            return None
        if callable(options.cors_allowed_origins) and "origin" in head.fields:
            return None  # it may want to see the environ
        try:
            query = fields_of(head.query)
        except ValueError:
            return None
        sid = query.get("sid", "")
        if not exchanges.answers(sid):
            return None
        if not origin.covers(head, query):
            exchanges.strangers.add(sid)
            return None
        return sid

    def _give_back(self, sock: socket.socket) -> None:
        take_back = self._exchanges.take_back
        with self._lock:
            self._sock, self._state = None, ENDED
        self._exchanges.discard(self)
        self._exchanges.hub.unwatch(sock)
        try:
            if take_back is None:
                raise OSError("there is no server any more")
            sock.setblocking(True)
            take_back(sock)
        except Exception as error:  # whatever the server's own code says to it
            logger.warning("a connection could not be given back to its server: %s", error)
            sock.close()

    def _read_body(self, sock: socket.socket) -> None:
        missing = self._length - len(self._body)
        try:
            data = self._exchanges.hub.receiver.recv(sock, self._descriptor, min(missing, calls.SIZE))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.failed()
            return
        self._body += data
        if len(data) == missing:
            self._receive()

    def _receive(self) -> None:
        """Hand the body on."""
        read, body = self._read, bytes(self._body)
        assert read is not None
        self._body, self._state, self._due = bytearray(), BUSY, float("inf")
        packets = read.begin(body)
        if isinstance(packets, Respond):
            self._finish(packets)
        else:
            self._left.extend(packets)
            self.resume()

    def resume(self) -> None:
        """Hand on what is left of the packets, and answer. A handler may run here, and lose the lead to another thread.

        That one then goes on here, so neither the other packets nor the answer wait for the handler.
        """
        read, left, hub = self._read, self._left, self._exchanges.hub
        assert read is not None
        leader, turn = hub.leader, len(left) - _TURN
        hub.reading = self
        while left:
            if len(left) == turn:
                hub.reading = None  # the rest is the pool's, for the sake of the other clients
            read.take(left.popleft())
            if hub.leader != leader:
                return
        hub.reading = None
        self._finish(read.end())

    def _finish(self, outcome: Outcome) -> None:
        self._read = None
        if isinstance(outcome, Wait):
            self._wait, self._state = outcome, WAITING
            try:
                frames = outcome.poll(self._ready)
            except RemoteProtocolError:
                outcome = outcome.refuse()
            else:
                if frames is None:
                    return
                outcome = outcome.respond(frames)
        assert isinstance(outcome, Respond)
        self._respond(outcome)

    # Ends.

    def look(self, now: float) -> None:
        """End what has been of no use for too long."""
        session = self._exchanges.engine.sessions.get(self._sid)
        if self._state is not IDLE:
            if now >= self._due:
                self.failed()
        elif now >= self._due:
            self.leave()
        elif session is None or session.state is not POLLING:
            self._due = min(self._due, now + AFTER)

    def leave(self) -> None:
        """End it if it isn't in use."""
        if self._state is IDLE and self._sock is not None:
            try:
                data = self._exchanges.hub.receiver.recv(self._sock, self._descriptor, 1, peek=True)
            except OSError:
                data = b""
            if not data:
                self._end()  # else a request has come, which is about to be read

    def failed(self) -> None:
        """The peer has gone, or has to."""
        state = self._state
        if state is WAITING or state is SENDING:
            wait = self._wait
            if wait is not None:
                wait.forget(self._ready)
                with self._lock:
                    lost = self._state is not IDLE
                if lost:  # what it was to get is lost, so the session can't go on
                    wait.abort()
        elif state is BODY_COMES:
            assert self._read is not None
            self._read.fail()
        self._end()

    def _end(self) -> None:
        with self._lock:
            sock, self._sock = self._sock, None
            self._state = ENDED
        self._exchanges.discard(self)
        if sock is not None:
            self._exchanges.hub.unwatch(sock)
            sock.close()


def _finder(fields: Fields) -> Callable[[str], str | None]:
    return lambda name: fields.get(name.lower())


def response(answered: Respond, last: bool) -> bytes:
    """Return an answer's bytes; ``last`` says that the connection is closed after it."""
    headers = [*answered.headers, ("Content-Length", str(len(answered.body)))]
    if last and CLOSE not in headers:
        headers.append(CLOSE)
    return head(answered.status, headers) + answered.body


_dates: tuple[int, str] = (0, "")


def _date() -> str:
    global _dates
    now = int(time.time())
    if _dates[0] != now:
        _dates = now, formatdate(now, usegmt=True)
    return _dates[1]


def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Date: {_date()}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
