"""WSGI: environ to request, and what was decided to an answer: at once, later, or on a socket of our own.

How a socket leaves the server. The request's descriptor is duplicated for us and one end of a socket pair is put on the
old number. The server keeps a healthy socket object, and whatever it still does with it (write a response, drain, shut
down, close) ends in the dummy. So its thread is free at once, and the hub serves the client. Where that can't be done,
TLS in the first place, the request's thread waits for the end while the hub serves its socket all the same.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from ..errors import RemoteProtocolError
from ..protocol.counters import HTTP, STOPPING, WEBSOCKET, Counters
from ..protocol.engineio.engine import Engine
from ..protocol.engineio.requests import Outcome, Read, Request, Respond, Upgrade, Wait, answer
from ..protocol.websocket.reader import Reader
from ..typing import Event, Frame
from . import calls, uwsgi
from .connection import Connection
from .exchange import BODY, CLOSE, Exchange, Exchanges, head, origin_of
from .hub import Hub
from .threads import Threads

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

STAY = "flask_realtime.stay"
"""Key of an environ whose socket is to stay with its server."""

logger = logging.getLogger("flask_realtime.io")

_SOCKETS = ("werkzeug.socket", "gunicorn.socket", "gunicorn.sock")
_SHAKEN = "wsgi.websocket"
"""Key of gevent-websocket's object, which has done the handshake before the application is asked."""
_DROPPED = frozenset((*_SOCKETS, _SHAKEN, "wsgi.input", "eventlet.input", "werkzeug.request", "wsgi.file_wrapper"))
_CAN_MOVE = os.name == "posix"


class Gateway:
    """Carries out for one engine what its requests come to.

    Args:
        engine: Decides.
        runtime: The threads that the server's own threads hand over to.
    """

    def __init__(self, engine: Engine, runtime: Threads) -> None:
        self._engine, self._runtime = engine, runtime
        self.exchanges = Exchanges(engine, runtime.hub)
        self.stopping = False
        self._bodies: dict[int, tuple[float, socket.socket]] = {}  # that are being read
        self._looking = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request for the Engine.IO path."""
        if uwsgi.serves(environ):
            environ, start_response = uwsgi.adapt(environ, start_response)
        if self.stopping and not self._knows(environ):
            self._engine.counters.refusals.one(STOPPING)
            busy = [("Retry-After", "5"), ("Cache-Control", "no-store"), ("Connection", "close")]
            return _start(Respond(503, busy, b""), start_response)
        sock = find_socket(environ)
        if sock is not None:
            _no_delay(sock)  # or the body waits for the peer's word about the head, which comes 40 ms late
        request = Request(
            method=environ["REQUEST_METHOD"],
            query=environ.get("QUERY_STRING", ""),
            header=header_of(environ),
            scheme=environ.get("wsgi.url_scheme", "http"),
            environ=environ,
            websocket=sock is not None,
        )
        outcome: Outcome = answer(self._engine, request)
        if _SHAKEN in environ and isinstance(outcome, Respond):
            outcome = _refusal(outcome)
        if isinstance(outcome, Read):
            outcome = self._read(outcome, environ, sock)  # which may have to wait as well
            if isinstance(outcome, Respond) and outcome.status == 200:
                return self._posted(outcome, environ, sock, start_response)
        elif isinstance(outcome, Respond) and _has_body(environ):
            # Nobody reads it, so on a connection that is kept the server's thread would wait for all of it.
            outcome = outcome._replace(headers=[*outcome.headers, CLOSE])
        if isinstance(outcome, Wait):
            return self._wait(outcome, environ, sock, start_response)
        if isinstance(outcome, Upgrade):
            return self._upgrade(outcome, environ, sock, start_response)
        return _start(outcome, start_response)

    def _knows(self, environ: Environ) -> bool:
        """Whether a request is of a client that is still to be told, or to get what its handlers return."""
        sid = _sid(environ)
        return sid in self._engine.sessions or sid in self._engine.farewells

    # Posts.

    def _read(self, read: Read, environ: Environ, sock: socket.socket | None) -> Respond | Wait:
        """Read a body; one that doesn't come in time is broken off."""
        if sock is None:
            return _read(read, environ, self._engine.counters)
        key = id(environ)
        self._bodies[key] = time.monotonic() + BODY, sock
        if not self._looking:
            self._look_later()
        try:
            return _read(read, environ, self._engine.counters)
        finally:
            self._bodies.pop(key, None)

    def _look_later(self) -> None:
        self._looking = True
        self._runtime.call_later(BODY / 2, self._look)

    def _look(self) -> None:
        """End the reading of bodies that take too long. In the hub's thread."""
        self._looking = False
        now = time.monotonic()
        for due, sock in list(self._bodies.values()):
            if due <= now:
                calls.end_reading(sock)
        if self._bodies:
            self._look_later()

    def _posted(
        self, answered: Respond, environ: Environ, sock: socket.socket | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a post; where its connection can be kept, from the hub, which then serves the next ones."""
        exchanges, sid = self.exchanges, _sid(environ)
        if sock is None or not can_move(environ, sock) or not exchanges.may_keep(sid):
            return _start(answered, start_response)
        origin = origin_of(environ) if Moved.can_tell(environ) else None
        if origin is None:
            return _start(answered, start_response)
        try:
            moved = _move(environ, sock, self._runtime.hub)
        except OSError:  # no descriptor is left
            return _start(answered, start_response)
        Exchange(exchanges, sid, origin).begin(moved.sock, answered, bool(moved.early))
        return moved.finish("200 OK", start_response)

    # Polls.

    def _wait(
        self, wait: Wait, environ: Environ, sock: socket.socket | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        if sock is None or not can_move(environ, sock):
            return self._wait_here(wait, environ, sock, start_response)
        sid = _sid(environ)
        keep = self.exchanges.may_keep(sid) and Moved.can_tell(environ)
        exchange = Exchange(self.exchanges, sid, origin_of(environ) if keep else None)
        try:
            frames = exchange.poll(wait)
        except RemoteProtocolError:
            return _start(wait.refuse(), start_response)
        if frames is not None:
            return _start(wait.respond(frames), start_response)
        try:
            moved = _move(environ, sock, self._runtime.hub)
        except OSError as error:  # no descriptor is left: wait in this thread, which needs none
            logger.warning("a poll has to wait in a thread: %s", error)
            answered = exchange.withdraw()
            if answered is not None:
                return _start(answered, start_response)
            return self._wait_here(wait, environ, sock, start_response)
        exchange.begin(moved.sock, last=bool(moved.early))
        return moved.finish("200 OK", start_response)

    def _wait_here(
        self, wait: Wait, environ: Environ, sock: socket.socket | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let the request's own thread wait."""
        poll = Blocking(self._runtime, wait, sock)
        try:
            frames = wait.poll(poll.ready)
        except RemoteProtocolError:
            return _start(wait.refuse(), start_response)
        if frames is not None:
            return _start(wait.respond(frames), start_response)
        answered = poll.result()
        if answered is None:
            return _used_up(environ, sock, start_response)
        return _start(answered, start_response)

    # WebSockets.

    def _upgrade(
        self, upgrade: Upgrade, environ: Environ, sock: socket.socket | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            return self._start_websocket(upgrade, environ, sock, start_response)
        except BaseException:
            upgrade.abort()
            raise

    def _start_websocket(
        self, upgrade: Upgrade, environ: Environ, sock: socket.socket | None, start_response: StartResponse
    ) -> Iterable[bytes]:
        assert sock is not None
        options = self._engine.options
        shaken = _SHAKEN in environ
        extensions = [] if shaken else upgrade.extensions
        reader = Reader(options.max_http_buffer_size, options.max_fragments, extensions)
        deflate_from = options.compression_threshold if extensions else None
        start = b"" if shaken else head(101, upgrade.headers)
        moved = None
        if can_move(environ, sock):
            try:
                moved = _move(environ, sock, self._runtime.hub)
            except OSError as error:
                logger.warning("a WebSocket has to keep its thread: %s", error)
        if moved is None:
            return self._serve_here(upgrade, environ, sock, reader, deflate_from, start, start_response)
        connection = Connection(
            self._runtime.hub, moved.sock, reader, options.max_backlog, deflate_from, slow=self._slow
        )
        self._switch(connection, reader, upgrade, start, moved.early)
        return moved.finish("101 Switching Protocols", start_response)

    def _serve_here(
        self,
        upgrade: Upgrade,
        environ: Environ,
        sock: socket.socket,
        reader: Reader,
        deflate_from: int | None,
        head: bytes,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Serve a socket that can't be moved: this thread waits for the end."""
        sock.setblocking(False)
        _no_delay(sock)
        ended = self._runtime.event()
        connection = Connection(
            self._runtime.hub,
            sock,
            reader,
            self._engine.options.max_backlog,
            deflate_from,
            ended.set,
            self._slow,
        )
        self._switch(connection, reader, upgrade, head, b"")
        ended.wait()
        return _used_up(environ, sock, start_response)

    def _switch(self, connection: Connection, reader: Reader, upgrade: Upgrade, head: bytes, early: bytes) -> None:
        connection.begin(head)
        started = upgrade.start(connection)
        if started is None:
            connection.open(lambda message: None, lambda reason: None, early)
            connection.close(1008, upgrade.refusal)
        else:
            on_message, on_close = started

            def closed(reason: str) -> None:
                if reader.fault:
                    self._engine.counters.bad_input.one(WEBSOCKET)
                    fault = ascii(reader.fault)[1:-1][:200]
                    self._engine.complain(logging.WARNING, "a client broke the WebSocket protocol: %s", fault)
                on_close(reason)

            connection.open(on_message, closed, early)


    def _slow(self, why: str) -> None:
        self._engine.counters.slow_clients.one()
        self._engine.complain(logging.WARNING, "a slow client is closed: %s", why)


def _refusal(answered: Respond) -> Upgrade:
    """Say what is left to say to a client whose handshake the server has accepted already."""
    return Upgrade(lambda transport: None, lambda: None, [], [], answered.body.decode("latin-1")[:100])


_NO_STORE = ("Cache-Control", "no-store")


class Moved:
    """A socket that has left its server.

    Args:
        environ: Of the request.
        sock: As the server has it.
        hub: Serves it from now on.

    Attributes:
        sock: Non-blocking and ours alone.
        early: What the server had read beyond the request.
    """

    def __init__(self, environ: Environ, sock: socket.socket, hub: Hub) -> None:
        number = sock.fileno()
        dummy, self._other = socket.socketpair()
        try:
            self.sock = hub.socket(fileno=os.dup(number))
        except OSError:
            dummy.close()
            self._other.close()
            raise
        hub.forget(number)
        os.dup2(dummy.fileno(), number, inheritable=False)
        dummy.close()
        self.sock.setblocking(False)
        _no_delay(self.sock)
        self._environ = environ
        self.early = self._leftover()

    @staticmethod
    def can_tell(environ: Environ) -> bool:
        """Whether it can be told what the server has read beyond the request."""
        return _buffer(environ) is not None or _unreader(environ.get("wsgi.input")) is not None

    def _leftover(self) -> bytes:
        """Take the bytes that came in the same segment as the request."""
        stream = self._environ.get("wsgi.input")
        unreader = _unreader(stream)
        if unreader is not None:  # gunicorn
            take = getattr(unreader, "take_buffered", None)
            if take is not None:
                return bytes(take() or b"")
            buffer = unreader.buf
            data: bytes = buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
            return data
        buffered = _buffer(self._environ)
        if buffered is not None:  # it ends where the dummy does
            self._other.shutdown(socket.SHUT_WR)
            return buffered.read()
        return b""

    def finish(self, status: str, start_response: StartResponse) -> Iterable[bytes]:
        """Give the server an answer for its dummy."""
        start_response(status, [("Content-Length", "0"), ("Connection", "close")])
        if _SHAKEN in self._environ:
            self._other.close()  # gevent-websocket closes no body, and takes the end for what it is
            return []
        return _Nothing(self._other)


def _move(environ: Environ, sock: Any, hub: Hub) -> Moved | uwsgi.Taken:
    """Let a socket leave its server.

    Raises:
        OSError: No descriptor is left.
    """
    if isinstance(sock, uwsgi.Borrowed):
        return uwsgi.Taken(sock, hub)
    return Moved(environ, sock, hub)


def _buffer(environ: Environ) -> io.BufferedReader | None:
    """Return what Werkzeug, gevent and eventlet read requests from."""
    stream = environ.get("eventlet.input") or environ.get("wsgi.input")
    found = getattr(stream, "rfile", stream)
    return found if isinstance(found, io.BufferedReader) else None


def _unreader(stream: Any) -> Any:
    """Return what gunicorn keeps of what it has read, behind the stream of a request's body."""
    return getattr(getattr(stream, "reader", None), "unreader", None)


class _Nothing:
    """An empty body; when the server closes it, the dummy's other end goes too."""

    def __init__(self, other: socket.socket) -> None:
        self._other = other

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        self._other.close()


class Blocking:
    """A poll that waits in the server's thread; the hub looks whether the peer is still there."""

    def __init__(self, runtime: Threads, wait: Wait, sock: socket.socket | None) -> None:
        self._hub, self._wait, self._sock = runtime.hub, wait, sock
        self._event, self._runtime = runtime.event(), runtime
        self._frames: Sequence[Frame] | None = None

    def ready(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._event.set()

    def result(self) -> Respond | None:
        """Wait; None when the peer has gone."""
        if self._sock is not None:
            self._hub.call_soon(self._hub.watch, self._sock, self)
        self._event.wait()
        if self._sock is not None and self._hub.running:
            unwatched = self._runtime.event()
            self._hub.call_soon(self._unwatch, unwatched)
            while not unwatched.wait(0.5) and self._hub.running:
                pass  # the server may close the socket as soon as this thread is back
        return None if self._frames is None else self._wait.respond(self._frames)

    def _unwatch(self, unwatched: Event) -> None:
        self._hub.unwatch(self._sock)
        unwatched.set()

    def readable(self) -> None:
        assert self._sock is not None
        try:
            # Below TLS, whose reading would take what is the server's. Nothing has to come while an answer is awaited,
            # so what comes is the end, or the record that announces it.
            data = calls.peek(self._hub.socket, self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._hub.unwatch(self._sock)
        if not data or calls.is_tls(self._sock):
            self.failed()

    def writable(self) -> None:
        """Never asked for."""

    def failed(self) -> None:
        if self._wait.forget(self.ready):
            self._wait.abort()
        self._event.set()


def _used_up(environ: Environ, sock: socket.socket | None, start_response: StartResponse) -> Iterable[bytes]:
    """End a request on whose socket nothing is left to read or to say."""
    if "gunicorn.socket" in environ:
        raise StopIteration  # which it takes as just that
    if uwsgi.serves(environ):
        return []  # it writes nothing of its own
    # Werkzeug would read the next request and write an answer: let it read the end, and write nowhere.
    if sock is not None and calls.is_tls(sock):
        sock.recv_into = lambda *args: 0  # type: ignore[method-assign]
        sock.sendall = lambda *args: None  # type: ignore[method-assign]
        sock.send = lambda data, *args: len(data)  # type: ignore[method-assign]
    elif sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was quicker
    if _SHAKEN not in environ:
        start_response("101 Switching Protocols", [("Content-Length", "0"), ("Connection", "close")])
    return []


def find_socket(environ: Environ) -> socket.socket | None:
    """Return the client's socket where the server shows it, else None."""
    if environ.get("HTTP_VERSION") == "2":
        return None  # its streams share the socket
    for key in _SOCKETS:
        sock = environ.get(key)
        if sock is not None:
            break
    else:
        if environ.get("SERVER_SOFTWARE", "").startswith("gevent/"):
            sock = getattr(getattr(_buffer(environ), "raw", None), "_sock", None)
        elif "eventlet.input" in environ:
            sock = environ["eventlet.input"].get_socket()
        elif uwsgi.serves(environ):
            sock = uwsgi.borrow()
    return sock if hasattr(sock, "setsockopt") else None  # a test's or a middleware's may be anything


def can_move(environ: Environ, sock: socket.socket) -> bool:
    """Whether a socket can leave its server: TLS is bound to its descriptor, and only POSIX has descriptors."""
    return _CAN_MOVE and not calls.is_tls(sock) and not environ.get(STAY)


# Not the interpreter's own table of texts, which some versions never take one out of: each client brings new ones.
_texts: dict[str, str] = {}
_MOST_TEXTS = 2000


def keep(environ: Environ) -> Environ:
    """Return a copy of an environ without what belongs to the server's handling of the request.

    It stays as long as its client: texts that are equal in many of them are kept once.
    """
    if len(_texts) > _MOST_TEXTS:
        _texts.clear()
    share = _texts.setdefault
    kept = {
        share(key, key): share(value, value) if type(value) is str else value
        for key, value in environ.items()
        if key not in _DROPPED
    }
    kept["wsgi.input"] = io.BytesIO()
    return kept


def header_of(environ: Environ) -> Callable[[str], str | None]:
    """Return a function that finds a header's value by its name."""

    def header(name: str) -> str | None:
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            return environ.get(key)
        return environ.get("HTTP_" + key)

    return header


def _sid(environ: Environ) -> str:
    sids = parse_qs(environ.get("QUERY_STRING", "")).get("sid")
    return sids[-1] if sids else ""


def _has_body(environ: Environ) -> bool:
    return bool(environ.get("HTTP_TRANSFER_ENCODING")) or (environ.get("CONTENT_LENGTH") or "0").strip("0") != ""


def _read(read: Read, environ: Environ, counters: Counters) -> Respond | Wait:
    """Read a body, counting as it comes."""
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if length:
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            counters.bad_input.one(HTTP)
            read.fail()
            return Respond(
                400, [("Content-Type", "application/json"), _NO_STORE, CLOSE], b'{"code":3,"message":"Bad request"}'
            )
        if int(length) > read.limit:
            return _too_large(read)
        wanted = int(length)
    elif environ.get("wsgi.input_terminated") or getattr(stream, "chunked_input", False):  # which eventlet says
        wanted = -1
    else:
        wanted = 0
    body = bytearray()
    most = wanted if wanted >= 0 else read.limit + 1
    try:
        while len(body) < most:
            block = stream.read(min(65536, most - len(body)))
            if not block:
                break
            body += block
        lost = len(body) < wanted
    except (OSError, ValueError):  # eventlet takes bad chunks for bad values
        lost = True
    if lost:
        read.fail()
        return Respond(400, [_NO_STORE, CLOSE], b"")
    if len(body) > read.limit:
        return _too_large(read)
    packets = read.begin(bytes(body))
    if isinstance(packets, Respond):
        return packets
    for packet in packets:
        read.take(packet)
    return read.end()


def _too_large(read: Read) -> Respond:
    """Answer, and close the connection, since the rest of the body stands in it."""
    answered = read.begin(None)
    assert isinstance(answered, Respond)
    return answered._replace(headers=[*answered.headers, CLOSE])


def _start(answered: Respond, start_response: StartResponse) -> list[bytes]:
    headers = [*answered.headers, ("Content-Length", str(len(answered.body)))]
    start_response(f"{answered.status} {HTTPStatus(answered.status).phrase}", headers)
    return [answered.body]


def _no_delay(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # a Unix socket has nothing to delay
