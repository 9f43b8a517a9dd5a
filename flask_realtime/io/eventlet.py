"""eventlet: what `Greens` asks of it."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable
from typing import Any

import eventlet
import eventlet.greenio
import eventlet.hubs
import eventlet.wsgi
from eventlet.green import ssl as green_ssl
from eventlet.green import threading as green_threading
from eventlet.patcher import original
from greenlet import getcurrent, greenlet

from ..typing import Task
from .green import BACKLOG, GRACE, LINGER, REST


def _native_selector() -> type[Any]:
    """Return the best selector of the operating system, of a module that was loaded beside the patched one."""
    spec = importlib.util.find_spec("selectors")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patched = sys.modules.get("select")
    sys.modules["select"] = original("select")
    try:
        spec.loader.exec_module(module)
    finally:
        if patched is not None:
            sys.modules["select"] = patched
    found: type[Any] = module.DefaultSelector
    return found



class Eventlet:
    """The kernel."""

    name = "eventlet"
    current = staticmethod(getcurrent)
    ident = staticmethod(original("_thread").get_ident)
    lock = staticmethod(original("_thread").allocate_lock)
    event = staticmethod(green_threading.Event)
    socket = original("socket").socket
    _selector = _native_selector()

    def attach(self) -> None:
        self._hub = eventlet.hubs.get_hub()

    def selector(self) -> Any:
        return self._selector()

    def watch(self, descriptor: int, function: Callable[[], object]) -> _Watch:
        return _Watch(self._hub, descriptor, function)

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        return self._hub.schedule_call_global(seconds, function)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        self._hub.schedule_call_global(0, function, *args)

    def wait(self) -> Any:
        return self._hub.switch()

    def forget(self, descriptor: int) -> None:
        """Nothing to do: what nobody waits for, the loop doesn't watch."""

    def in_loop(self) -> bool:
        return getcurrent() is self._hub.greenlet

    def greenlet(self, function: Callable[..., object]) -> Any:
        return greenlet(function, self._hub.greenlet)

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        return _Task(eventlet.spawn(function, *args, **kwargs))

    def sleep(self, seconds: float) -> None:
        eventlet.sleep(seconds)


class _Watch:
    def __init__(self, hub: Any, descriptor: int, function: Callable[[], object]) -> None:
        self._hub, self._descriptor, self._function = hub, descriptor, function
        self._listener: Any = None

    def start(self) -> None:
        self._listener = self._hub.add(self._hub.READ, self._descriptor, self._ready, self._lost, self._lost)

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._hub.remove(listener)

    def _ready(self, descriptor: int) -> None:
        self._function()

    def _lost(self, *args: object) -> None:
        """It is ours alone, so nobody else closes it."""


class _Task:
    """A green thread as the rest of the package knows tasks."""

    def __init__(self, thread: Any) -> None:
        self._thread = thread

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, ``timeout`` seconds at most."""
        with eventlet.Timeout(timeout, False):
            self._thread.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._thread, name)


class Server:
    """eventlet's WSGI server.

    Args:
        app: The WSGI application.
        host: Address to listen on.
        port: Port; 0 for a free one.
        log: Whether requests are logged.
        settings: For `eventlet.wsgi.server`; ``certfile`` and ``keyfile``, or ``ssl_context``, for TLS.
    """

    def __init__(self, app: Any, host: str, port: int, log: bool, settings: dict[str, Any]) -> None:
        settings = dict(settings)
        tls = {name: settings.pop(name) for name in _TLS if name in settings}
        context = settings.pop("ssl_context", None)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = eventlet.listen((host, port), family, BACKLOG)
        self.server_port: int = listener.getsockname()[1]
        if tls:
            listener = eventlet.wrap_ssl(listener, server_side=True, **tls)
        elif context is not None:
            listener = green_ssl.GreenSSLSocket(listener, server_side=True, _context=context)
        self.url = f"{'https' if tls or context else 'http'}://{host}:{self.server_port}"
        self._pool = _Pool()
        self._listener, self._app = listener, _Closing(app)
        self._thread: Any = None
        self._stopping = False
        self._over = green_threading.Event()
        self._settings = {
            **{"protocol": _Protocol, "debug": False, "log": None if log else _Quiet(), "custom_pool": self._pool},
            **settings,
        }

    def serve(self) -> None:
        """Serve until `shutdown`."""
        self._thread = eventlet.spawn(eventlet.wsgi.server, self._listener, self._app, **self._settings)
        self._thread.link(lambda thread: self._over.set())
        self._over.wait()
        if not self._stopping:
            self._thread.wait()  # raises what has ended it

    def shutdown(self) -> None:
        """End it when the requests that are being answered have ended, or `GRACE` has passed."""
        self._stopping = True
        if self._thread is not None:
            eventlet.spawn_after(GRACE, self._over.set)
            eventlet.kill(self._thread, SystemExit)

    def take_back(self, sock: Any) -> None:
        """Serve a connection that had left."""
        self._pool.serve(sock)


_TLS = ("keyfile", "certfile", "cert_reqs", "ssl_version", "ca_certs", "do_handshake_on_connect", "ciphers")


_CONNECTION = "flask_realtime.connection"
"""Key of the environ for what serves the connection."""


class _Protocol(eventlet.wsgi.HttpProtocol):  # type: ignore[misc]
    """Serves one connection. What a peer does wrong is no error of ours."""

    environ: Any  # None until a request has been understood

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["SERVER_PROTOCOL"] = self.request_version  # eventlet says 1.0 of all
        environ[_CONNECTION] = self
        return environ

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            pass  # the peer has gone, or the server ends; to a socket with TLS that is a bad value

    def handle_one_request(self) -> None:
        self.environ = None
        super().handle_one_request()
        if self.environ is None and self.raw_requestline:  # it was no request, and is answered
            self._drain(self.rfile)

    def handle_one_response(self) -> None:
        super().handle_one_response()
        if self.close_connection:
            self._drain(self.environ["eventlet.input"])

    def _drain(self, stream: Any) -> None:
        """Take what is still sent, or its sender would be reset and lose the answer."""
        with eventlet.Timeout(LINGER, False):
            try:
                self.wfile.flush()
                stream.read(REST)
            except (OSError, ValueError):
                pass

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            for file in (self.wfile, self.rfile):  # as long as one is open, the descriptor is
                try:
                    file.close()
                except OSError:
                    pass


class _Closing:
    """Closes a connection where the application says so, which eventlet doesn't heed."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        connection = environ.pop(_CONNECTION)

        def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
            kept = [header for header in headers if header[0].lower() != "connection" or header[1].lower() != "close"]
            if len(kept) < len(headers):
                connection.close_connection = 1  # and so eventlet says it, too
            return start_response(status, kept, *args)

        return self._app(environ, start)


class _Pool(eventlet.GreenPool):  # type: ignore[misc]
    """Serves connections, and knows how."""

    def __init__(self) -> None:
        super().__init__(eventlet.wsgi.DEFAULT_MAX_SIMULTANEOUS_REQUESTS)
        self._process: Any = None

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        self._process = function
        return super().spawn(function, *args, **kwargs)

    def serve(self, sock: Any) -> None:
        if self._process is None:
            raise OSError("the server has never served")
        address = sock.getpeername()
        green = eventlet.greenio.GreenSocket(sock)
        eventlet.spawn(self._serve, [address, green, eventlet.wsgi.STATE_IDLE])

    def _serve(self, connection: list[Any]) -> None:
        try:
            self._process(connection)
        finally:
            eventlet.greenio.shutdown_safe(connection[1])
            connection[1].close()


class _Quiet:
    """A log that keeps nothing."""

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass
