"""gevent: what `Greens` asks of it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

import gevent
import gevent.event
import gevent.pool
import gevent.pywsgi
import gevent.socket
from gevent.monkey import get_original
from greenlet import getcurrent, greenlet

from ..errors import ConfigurationError
from ..typing import Event, Task
from .green import BACKLOG, GRACE, LINGER, REST

try:
    _epoll: Any = get_original("select", "epoll")
except AttributeError:  # no Linux
    _epoll = None

logger = logging.getLogger("flask_realtime.io")


class Gevent:
    """The kernel."""

    name = "gevent"
    current = staticmethod(getcurrent)
    ident = staticmethod(get_original("_thread", "get_ident"))
    lock = staticmethod(get_original("_thread", "allocate_lock"))
    socket = get_original("socket", "socket")

    @staticmethod
    def event() -> Event:
        event: Event = gevent.event.Event()
        return event

    def attach(self) -> None:
        self._hub = gevent.get_hub()
        self._loop = self._hub.loop

    def selector(self) -> Any:
        return get_original("selectors", "DefaultSelector")()

    def watch(self, descriptor: int, function: Callable[[], object]) -> _Watch:
        return _Watch(self._loop.io(descriptor, 1, ref=False), function)

    def later(self, seconds: float, function: Callable[[], object]) -> _Timer:
        return _Timer(self._loop.timer(seconds, ref=False), function)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        self._loop.run_callback(function, *args)

    def wait(self) -> Any:
        return self._hub.switch()

    def forget(self, descriptor: int) -> None:
        # The loop itself leaves that until the file is closed, which then isn't: it would be told of what others read.
        number = self._loop.fileno() if hasattr(self, "_loop") else gevent.get_hub().loop.fileno()
        if number is None or _epoll is None:
            return
        epoll = _epoll.fromfd(os.dup(number))
        try:
            epoll.unregister(descriptor)
        except OSError:
            pass  # it wasn't watched, or the loop has something else than epoll
        finally:
            epoll.close()

    def in_loop(self) -> bool:
        return False

    def greenlet(self, function: Callable[..., object]) -> greenlet:
        return greenlet(function, self._hub)

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        task: Task = gevent.spawn(function, *args, **kwargs)
        return task

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            gevent.sleep(seconds)
            return
        # gevent.sleep(0) gives way to those who can run already, up to 50 times, before the loop looks at sockets.
        hub = gevent.get_hub()
        with hub.loop.timer(0) as timer:
            hub.wait(timer)


class _Watch:
    def __init__(self, watcher: Any, function: Callable[[], object]) -> None:
        self._watcher, self._function = watcher, function

    def start(self) -> None:
        self._watcher.start(self._function)

    def stop(self) -> None:
        self._watcher.stop()


class _Timer:
    def __init__(self, watcher: Any, function: Callable[[], object]) -> None:
        self._watcher, self._function = watcher, function
        watcher.start(self._fire)

    def _fire(self) -> None:
        self.cancel()
        self._function()

    def cancel(self) -> None:
        self._watcher.stop()
        self._watcher.close()


_SETTINGS = {
    *("backlog", "spawn", "log", "error_log", "handler_class", "environ", "ssl_context", "certfile", "keyfile"),
    *("ca_certs", "cert_reqs", "ciphers", "do_handshake_on_connect", "server_side", "ssl_version"),
    "suppress_ragged_eofs",
}


class _Handler(gevent.pywsgi.WSGIHandler):  # type: ignore[misc]
    """Serves one connection. What a peer does wrong is no error of ours, and fills no log."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # the peer has gone before it was told what it did wrong

    def read_request(self, raw_requestline: str) -> bool:
        try:
            return bool(super().read_request(raw_requestline))
        except (HTTPException, OSError) as error:
            raise ValueError(str(error)) from error

    def log_error(self, msg: str, *args: object) -> None:
        logger.info(msg, *args)

    def handle_one_request(self) -> Any:
        result = super().handle_one_request()
        if not isinstance(result, tuple):
            return result
        self.status, answer = result  # to a request that isn't one
        self.time_finish = time.time()
        self.log_request()
        self.socket.sendall(answer)
        self.socket.shutdown(socket.SHUT_WR)
        self._drain(self.rfile)
        return None

    def run_application(self) -> None:
        super().run_application()
        if self.close_connection:
            stream = self.wsgi_input
            self._drain(stream)
            stream.content_length, stream.chunked_input = 0, False  # of the rest no more is read

    @staticmethod
    def _drain(stream: Any) -> None:
        """Take what is still sent, or its sender would be reset and lose the answer."""
        with gevent.Timeout(LINGER, False):
            try:
                stream.read(REST)
            except OSError:
                pass


class _Server(gevent.pywsgi.WSGIServer):  # type: ignore[misc]
    """Takes it for no error of ours when a peer doesn't speak TLS."""

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        try:
            sock = self.wrap_socket(client_socket, **self.ssl_args)
        except OSError:
            client_socket.close()
            return
        try:
            self.handle(sock, address)
        finally:
            sock.close()


class Server:
    """gevent's WSGI server.

    Args:
        app: The WSGI application.
        host: Address to listen on.
        port: Port; 0 for a free one.
        log: Whether requests are logged.
        settings: For `gevent.pywsgi.WSGIServer`, like ``certfile``, ``keyfile`` and ``ssl_context``.
    """

    def __init__(self, app: Any, host: str, port: int, log: bool, settings: dict[str, Any]) -> None:
        unknown = sorted(set(settings) - _SETTINGS)
        if unknown:
            raise ConfigurationError(f"run(): gevent's server knows no {', '.join(map(repr, unknown))}")
        settings = {
            **{"backlog": BACKLOG, "spawn": gevent.pool.Pool(), "log": "default" if log else None},
            **{"handler_class": _Handler, **settings},
        }
        self._server = _Server((host, port), app, **settings)
        self._server.init_socket()
        self.server_port: int = self._server.server_port
        tls = self._server.ssl_enabled
        self.url = f"{'https' if tls else 'http'}://{host}:{self.server_port}"

    def serve(self) -> None:
        """Serve until `shutdown`."""
        hub = gevent.get_hub()
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)  # or it would print what ends the program
        self._server.serve_forever()

    def shutdown(self) -> None:
        """End it when the requests that are being answered have ended, or `GRACE` has passed."""
        self._server.close()
        self._server.pool.join(timeout=GRACE)

    def take_back(self, sock: Any) -> None:
        """Serve a connection that had left."""
        address = sock.getpeername()
        # Not here: there may be as many as the server takes, and then it waits.
        gevent.spawn(self._server.do_handle, gevent.socket.socket(fileno=sock.detach()), address)
