"""Engine.IO for WSGI programs, without Flask: `Server`, and `WSGIApp` to put it in front of another application."""

from __future__ import annotations

import atexit
import json as standard_json
import logging
import os
import queue
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from . import errors as exceptions
from .io import gunicorn, mistakes, runtimes, uwsgi
from .io.static import StaticFiles
from .io.wsgi import Gateway, keep
from .protocol.engineio import options as engine_options
from .protocol.engineio import session as reasons
from .protocol.engineio.engine import Engine
from .protocol.engineio.frame import MESSAGE, Frame
from .protocol.engineio.options import Options
from .protocol.engineio.session import Session
from .protocol.socketio.dispatch import fit
from .typing import Event, Task

__all__ = ["Middleware", "Packet", "Reason", "Server", "WSGIApp", "exceptions"]

FEW, PER_SECOND, MOST_SPREAD = 10, 25, 2.0
"""Clients that are told at once when the server stops, how many more are told in a second, and seconds at most."""

BETWEEN_POLLS = 0.5
"""Seconds that clients who just had an answer have to poll again and be told of the end."""

RUNTIME_OPTIONS = ("max_handler_threads", "max_client_handlers", "shutdown_timeout")


class Reason:
    """Why a connection has ended."""

    SERVER_DISCONNECT = reasons.SERVER_DISCONNECT
    CLIENT_DISCONNECT = reasons.CLIENT_DISCONNECT
    PING_TIMEOUT = reasons.PING_TIMEOUT
    TRANSPORT_CLOSE = reasons.TRANSPORT_CLOSE
    TRANSPORT_ERROR = reasons.TRANSPORT_ERROR


class Packet(NamedTuple):
    """A raw packet for `Server.send_packet`.

    Attributes:
        packet_type: 0 open, 1 close, 2 ping, 3 pong, 4 message, 5 upgrade, 6 noop.
        data: str, bytes (messages only) or None.
    """

    packet_type: int
    data: str | bytes | None = None

    def frame(self) -> Frame:
        if isinstance(self.data, bytes):
            return Frame(self.data)
        return Frame(f"{self.packet_type}{self.data or ''}")


def choose_logger(chosen: Any, name: str) -> Any:
    """Return the logger that an option ``logger`` means.

    Args:
        chosen: A logger is used as it is. What is true lets INFO through, and prints it to stderr when the program has
            set up no logging of its own. What is false leaves everything as it is.
        name: Of our own logger.
    """
    if isinstance(chosen, (logging.Logger, logging.LoggerAdapter)) or hasattr(chosen, "isEnabledFor"):
        return chosen
    logger = logging.getLogger(name)
    if chosen:
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
    return logger


def warn(message: str) -> None:
    """Warn the program: the line that is named is the nearest one outside of this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == __name__.split(".")[0]:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


class Server:
    """An Engine.IO server.

    Args:
        async_mode: ``"eventlet"``, ``"gevent_uwsgi"``, ``"gevent"`` or ``"threading"``; None for what the process uses:
            a library that has patched the standard one, or that uWSGI serves with, else threads.
        logger: True to print what happens, or a logger of your own.
        json: A module or object with ``dumps`` and ``loads`` instead of the standard module.
        async_handlers: Whether a slow handler of a client lets its next one start; they start in their order anyway.
        max_handler_threads: Threads that run handlers, at most.
        max_client_handlers: Handlers of one client that may run at once.
        shutdown_timeout: Seconds that running handlers have to end and to be acknowledged when the server stops.
        **options: Those named above and more: see `flask_realtime.protocol.engineio.options.Options`.

    Raises:
        ConfigurationError: An option has a value that can't work; it is a ValueError too.

    .. versionadded:: 0.1.0
    """

    reason = Reason
    event_names = ("connect", "disconnect", "message")

    def __init__(
        self,
        async_mode: str | None = None,
        ping_interval: Any = 25,
        ping_timeout: float = 20,
        max_http_buffer_size: int = 1_000_000,
        allow_upgrades: bool = True,
        http_compression: bool = True,
        compression_threshold: int = 1024,
        cookie: Any = None,
        cors_allowed_origins: Any = None,
        cors_credentials: bool = True,
        logger: Any = False,
        json: Any = None,
        async_handlers: bool = True,
        monitor_clients: bool | None = None,
        transports: Any = None,
        *,
        max_handler_threads: int = 64,
        max_client_handlers: int = 16,
        shutdown_timeout: float = 10,
        _hooks: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
        **options: Any,
    ) -> None:
        ours, complaints = engine_options.split(options, RUNTIME_OPTIONS)
        for complaint in complaints:
            warn(complaint)
        self.options = Options(
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_http_buffer_size=max_http_buffer_size,
            allow_upgrades=allow_upgrades,
            http_compression=http_compression,
            compression_threshold=compression_threshold,
            cookie=cookie,
            cors_allowed_origins=cors_allowed_origins,
            cors_credentials=cors_credentials,
            monitor_clients=monitor_clients,
            transports=transports,
            **ours,
        )
        self.logger = choose_logger(logger, "flask_realtime.engineio")
        self.json = json or standard_json
        self.handlers: dict[str, Callable[..., Any]] = {}
        self._deciding: set[str] = set()  # whose connect handler runs: they aren't accepted, so they don't disconnect
        self.shutdown_timeout = shutdown_timeout
        self.runtime = runtimes.choose(async_mode, not async_handlers, max_handler_threads, max_client_handlers)
        self.async_mode = self.runtime.name
        mistakes.tell(mistakes.at_start(self.async_mode, gunicorn.worker()))
        on_connect, on_disconnect = _hooks or (self._connected, self._disconnected)
        self.engine = Engine(
            self.options, self.runtime, on_connect, self._received, on_disconnect, self.logger, time.perf_counter
        )
        self._counters = self.engine.counters
        self.gateway = Gateway(self.engine, self.runtime)
        self.before_close: Callable[[], object] = lambda: None
        """Called before connections are closed: what is kept above has to go out."""
        self.on_stop: Callable[[bool], object] = lambda stopping: None
        """Called with True when no more events are to start, with False when the server begins again."""
        self.after_stop: Callable[[], object] = lambda: None
        """Called when the last handler has ended."""
        self._ending = self.runtime.lock()
        self._ended: Event | None = None
        self._deadline = 0.0
        self._worker: gunicorn.Worker | uwsgi.Worker | None = None
        self._looked = 0  # the process in which the worker was looked for
        # At the end of the process clients are told and handlers end, unless something has seen it come.
        atexit.register(_shutdown, weakref.ref(self))

    def __getattr__(self, name: str) -> Any:
        # Options are attributes too, as programs expect: server.ping_interval.
        if name in engine_options.NAMES:
            return getattr(self.options, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # Handlers.

    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """Register a handler; a decorator when no handler is given.

        Args:
            event: ``"connect"`` with (sid, environ), ``"message"`` with (sid, data), ``"disconnect"`` with (sid,
                reason) or (sid).
            handler: What to call. A connect handler accepts with None or True; anything else refuses with status 401.

        Raises:
            ValueError: There is no such event.
        """
        if event not in self.event_names:
            raise ValueError(f"Invalid event: expected one of {', '.join(self.event_names)}, got {event!r}")

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.handlers[event] = function
            return function

        return register if handler is None else register(handler)

    def _connected(self, session: Session) -> Any:
        session.environ = keep(session.environ)
        session.user_data = {}
        handler = self.handlers.get("connect")
        if handler is None:
            return None
        self._deciding.add(session.sid)
        try:
            result = self._counters.handlers.run(handler, session.sid, session.environ)
            if session.closed:
                return "Unauthorized"
        except Exception:  # whatever it is, the client isn't let in
            self._counters.handlers.errors.one()
            self.logger.exception("%s: the connect handler failed", session.sid)
            return "Unauthorized"
        finally:
            self._deciding.discard(session.sid)
        return None if result is None or result is True else (result or "Unauthorized")

    def _received(self, session: Session, message: str | bytes) -> None:
        self._counters.events_in.one()
        handler = self.handlers.get("message")
        if handler is not None and self._ended is None:
            args = (handler, session.sid, self._decode(message))
            session.runtime.run(session, self._counters.handlers.run, args, self._handled, (session.sid, "message"))

    def _disconnected(self, session: Session, reason: str) -> None:
        handler = self.handlers.get("disconnect")
        if handler is not None and session.sid not in self._deciding:
            args = (handler, *fit(handler, (session.sid, reason), 1))
            token = (session.sid, "disconnect")
            session.runtime.run(session, self._counters.handlers.run, args, self._handled, token, urgent=True)

    def _handled(self, token: tuple[str, str], result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._counters.handlers.errors.one()
            self.logger.error("%s: the %s handler failed", *token, exc_info=error)

    def _decode(self, message: str | bytes) -> Any:
        """Turn JSON into what it means; text that begins with a digit or isn't JSON stays text."""
        if isinstance(message, bytes) or message[:1].isdigit():
            return message
        try:
            return self.json.loads(message)
        except (ValueError, RecursionError):
            return message

    # Sending and sessions.

    def send(self, sid: str, data: Any) -> None:
        """Send a message.

        Args:
            sid: The client; nothing happens but a log line when it isn't there.
            data: str and bytes go as they are, dict and list as JSON, None as nothing, anything else as ``str(data)``.
        """
        if isinstance(data, (bytes, bytearray, memoryview)):
            frame = Frame(bytes(data))
        elif isinstance(data, (dict, list)):
            frame = Frame(MESSAGE + self.json.dumps(data, separators=(",", ":")))
        else:
            frame = Frame(MESSAGE + ("" if data is None else str(data)))
        self._send(sid, frame)

    def send_packet(self, sid: str, pkt: Packet) -> None:
        """Send a raw packet."""
        self._send(sid, pkt.frame())

    def _send(self, sid: str, frame: Frame) -> None:
        session = self.engine.sessions.get(sid)
        if session is None:
            self.logger.warning("Cannot send to sid %s", ascii(sid)[1:-1][:100])
        else:
            self._counters.events_out.one()
            session.send((frame,))

    def _session(self, sid: str) -> Session:
        session = self.engine.sessions.get(sid)
        if session is None:
            raise KeyError("Session not found")
        return session

    def get_session(self, sid: str) -> dict[str, Any]:
        """Return the dict that the program keeps for a client.

        Raises:
            KeyError: The client isn't there.
        """
        session = self._session(sid)
        if session.user_data is None:
            session.user_data = {}
        return session.user_data

    def save_session(self, sid: str, session: dict[str, Any]) -> None:
        """Keep a dict for a client, until it disconnects.

        Raises:
            KeyError: The client isn't there.
        """
        self._session(sid).user_data = session

    @contextmanager
    def session(self, sid: str) -> Iterator[dict[str, Any]]:
        """Get a client's dict and save it at the end of the block.

        Raises:
            KeyError: The client isn't there.
        """
        session = self.get_session(sid)
        yield session
        self.save_session(sid, session)

    def transport(self, sid: str) -> str:
        """Return ``"polling"`` or ``"websocket"``.

        Raises:
            KeyError: The client isn't there.
        """
        return self._session(sid).transport_name

    def disconnect(self, sid: str | None = None) -> None:
        """End a client's connection; all connections when no sid is given."""
        self.before_close()
        if sid is None:
            self.engine.close_all(1000, "")
            return
        session = self.engine.sessions.get(sid)
        if session is not None:
            session.close(Reason.SERVER_DISCONNECT)

    # The server.

    def stats(self) -> dict[str, Any]:
        """Return what the server did since it was made, and what it does now. Any thread may call this.

        Returns:
            A new dict of numbers, which all only grow unless "now" is said:

            * ``clients``: connections now, ``polling`` and ``websocket``.
            * ``connects``: connections that were accepted.
            * ``disconnects``: connections that have ended, by the reason that disconnect handlers get.
            * ``events_in``: events and acknowledgements that came; without Socket.IO, messages.
            * ``events_out``: the same that were sent, once for each recipient.
            * ``bytes_waiting``: bytes that wait for clients now: of the next poll, or of a socket that takes no more.
            * ``slow_clients``: clients that were cut off because they read too slowly.
            * ``bad_input``: what broke a protocol, by whose rules these were: ``http`` (a broken request; a body that
              is too large), ``websocket``, ``engineio``, ``socketio``.
            * ``refusals``: what broke no protocol and was refused: ``origin``, ``host``, ``sid`` (unknown session id),
              ``connect`` (by a connect handler, or for an unknown namespace), ``connections`` (there were as many as
              there may be), ``request`` (not offered: a transport, a version, a method, an upgrade), ``stopping``.
            * ``handlers``: ``calls`` of handlers and callbacks, ``errors`` of those that were logged as failed,
              ``seconds`` that those that have ended took together, ``running`` now.
            * ``pool``: ``threads`` for handlers now, the ``most`` that there may be, ``waiting``: clients whose next
              handler waits for a thread now.

        .. versionadded:: 0.1.0
        """
        counters, pool = self._counters, self.runtime.pool
        clients = {"polling": 0, "websocket": 0}
        waiting = 0
        for session in list(self.engine.sessions.values()):
            if session.accepted:
                clients[session.transport_name] += 1
                waiting += getattr(session.transport, "waiting", 0)
        return {
            "clients": clients,
            "connects": counters.connects.value,
            "disconnects": counters.disconnects.value,
            "events_in": counters.events_in.value,
            "events_out": counters.events_out.value,
            "bytes_waiting": waiting,
            "slow_clients": counters.slow_clients.value,
            "bad_input": counters.bad_input.value,
            "refusals": counters.refusals.value,
            "handlers": counters.handlers.value,
            "pool": {"threads": pool.size, "most": pool.most, "waiting": pool.waiting},
        }

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a WSGI request for the Engine.IO path."""
        if self._looked != os.getpid():
            self._looked = os.getpid()
            self._worker = gunicorn.worker() or uwsgi.worker(partial(_shutdown, weakref.ref(self)))
            of_gunicorn = self._worker if isinstance(self._worker, gunicorn.Worker) else None
            mistakes.tell(mistakes.at_first_request(self.async_mode, of_gunicorn, environ))
            self.engine.why_unknown = mistakes.why_unknown(of_gunicorn, environ)
            if self._worker is not None:
                self.gateway.exchanges.take_back = self._worker.take_back
                self.runtime.call_later(gunicorn.LOOK, self._look)
        return self.gateway(environ, start_response)

    def _look(self) -> None:
        """Begin to stop when the worker does, which gives its threads time but tells nobody."""
        assert self._worker is not None
        if self._worker.alive:
            self.runtime.call_later(gunicorn.LOOK, self._look)
            return
        try:
            self.runtime.spawn(self.shutdown)
        except RuntimeError:
            pass  # too late for a thread: the end of the process does it

    @property
    def master(self) -> int | None:
        """The process above this one that ends the whole server; None when there is none."""
        worker = gunicorn.worker()
        return None if worker is None else worker.master

    def shutdown(self) -> None:
        """Tell every client, let handlers end, and stop. New clients get status 503.

        Clients for whom nothing runs are told at once; more than ten of them one after the other, within two seconds,
        in which the rest is served as ever, so that those who take over aren't overrun. The others are told when
        their handlers have ended and were acknowledged, after ``shutdown_timeout`` at the latest; events that these
        send meanwhile are dropped. The last to run are the disconnect handlers. A second call waits for the first. In
        a handler it returns at once.
        """
        if self.runtime.within:
            self.runtime.spawn(self.shutdown)  # it would wait for itself
            return
        self.runtime.at_home(self._shutdown, self.shutdown_timeout + 5)

    def _shutdown(self) -> None:
        with self._ending:
            first = self._ended is None
            ended = self._ended = self._ended or self.runtime.event()
        if not first:
            while not ended.wait(0.1):  # a wait without end would be an error to gevent when nothing else goes on
                pass
            return
        try:
            self._stop()
        finally:
            ended.set()

    def _stop(self) -> None:
        self._deadline = time.monotonic() + self.shutdown_timeout
        self.gateway.stopping = True
        restarts = self._worker is not None and not self._worker.alive and self._worker.restarts
        last_words = (1012, "server restarts") if restarts else (1001, "server shutting down")
        self._send_crowd_away(last_words)
        self.on_stop(True)
        self._tell(last_words)
        while self.engine.sessions and time.monotonic() < self._deadline:
            self.engine.close_all(*last_words, busy=self._busy)
            self.runtime.sleep(0.005)  # only while the process ends
        self.engine.close_all(*last_words)
        # Before their connections are closed: a proxy that finds one closed asks another server, which knows nobody.
        limit = time.monotonic() + BETWEEN_POLLS
        while self.engine.farewells and time.monotonic() < limit and self._deadline > 0:
            self.runtime.sleep(0.005)  # as above
        self.gateway.exchanges.close()
        if not self.runtime.stop(max(1.0, self._deadline - time.monotonic())):
            self.logger.warning("some handlers still ran after %s s", self.shutdown_timeout)
        self.after_stop()

    def _send_crowd_away(self, last_words: tuple[int, str]) -> None:
        """Tell many clients little by little, so that they don't come back at once; for the others all goes on."""
        count = len(self.engine.sessions)
        seconds = min((count - FEW) / PER_SECOND, MOST_SPREAD, self.shutdown_timeout / 4)
        began = time.monotonic()
        while self.engine.sessions and (passed := time.monotonic() - began) < min(seconds, self._deadline - began):
            due = int(count * passed / seconds) - (count - len(self.engine.sessions))
            if due > 0:
                self._tell(last_words, due)
            self.runtime.sleep(0.02)  # only while the process ends

    def _tell(self, last_words: tuple[int, str], most: int | None = None) -> None:
        """Tell those for whom nothing runs."""
        told = self.runtime.event()

        def tell() -> None:
            self.before_close()
            self.engine.close_all(*last_words, busy=self._busy, most=most)
            told.set()

        if self.runtime.hub.running:
            # In the thread that reads, so that no event is between its arrival and its handler.
            self.runtime.hub.call_soon(tell)
            told.wait(self.shutdown_timeout)
        else:
            tell()

    def _busy(self, session: Session) -> bool:
        """Whether handlers of a session run or wait, or a request of it is being read."""
        return not session.post_turns or self.runtime.busy(session)

    def hurry(self) -> None:
        """Let a `shutdown` that is under way wait no longer for handlers."""
        self._deadline = 0.0

    def begin(self) -> None:
        """Serve again after a `shutdown`."""
        self.on_stop(False)
        self._ended = None
        self.gateway.stopping = self.gateway.exchanges.closing = False

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """Run a function in a thread or greenlet of its own; returns it, so that you can ``join()`` it."""
        return self.runtime.spawn(target, *args, **kwargs)

    def sleep(self, seconds: float = 0) -> None:
        """Let others run for some seconds; with 0, for one turn of those that wait."""
        self.runtime.sleep(seconds)

    def create_queue(self, *args: Any, **kwargs: Any) -> queue.Queue[Any]:
        """Make a queue that suits the server's mode."""
        return queue.Queue(*args, **kwargs)

    def get_queue_empty_exception(self) -> type[Exception]:
        """Return what an empty queue raises."""
        return queue.Empty

    def create_event(self, *args: Any, **kwargs: Any) -> Event:
        """Make an event that suits the server's mode."""
        return self.runtime.event()

    def generate_id(self) -> str:
        """Return the id of a new session: ``sid_prefix`` and 128 random bits as text."""
        return self.engine.new_sid()


def _shutdown(reference: weakref.ref[Server]) -> None:
    server = reference()
    if server is not None and server.runtime.hub.running:  # not in a child that was forked from a server
        server.shutdown()


class WSGIApp:
    """A WSGI application: the Engine.IO path goes to the server, then come static files, then another application.

    Args:
        engineio_app: A `Server`.
        wsgi_app: The other application; without one, other paths get status 404.
        static_files: Static files by URL; see `flask_realtime.io.static.StaticFiles`.
        engineio_path: Where the server answers.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        engineio_app: Any,
        wsgi_app: Callable[..., Iterable[bytes]] | None = None,
        static_files: Mapping[str, Any] | None = None,
        engineio_path: str = "engine.io",
    ) -> None:
        self.engineio_app = engineio_app
        self.wsgi_app = wsgi_app
        self.path = "/" + engineio_path.strip("/")
        self._prefix = self.path.rstrip("/") + "/"
        self._static = StaticFiles(static_files) if static_files else None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "REQUEST_METHOD" not in environ:  # uWSGI hands on what it couldn't read
            start_response("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return []
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(self._prefix) or path == self.path:
            served: Iterable[bytes] = self.engineio_app.handle_request(environ, start_response)
            return served
        if self._static is not None:
            found = self._static.wsgi(environ, start_response)
            if found is not None:
                return found
        if self.wsgi_app is not None:
            return self.wsgi_app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "9")])
        return [b"Not Found"]


class Middleware(WSGIApp):
    """The older name of `WSGIApp`, without static files."""

    def __init__(
        self,
        engineio_app: Any,
        wsgi_app: Callable[..., Iterable[bytes]] | None = None,
        engineio_path: str = "engine.io",
    ) -> None:
        super().__init__(engineio_app, wsgi_app, None, engineio_path)
