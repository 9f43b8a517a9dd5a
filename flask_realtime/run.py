"""The servers behind `SocketIO.run`."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import flask
from werkzeug._reloader import run_with_reloader
from werkzeug.debug import DebuggedApplication
from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server, run_simple

from . import socketio as face
from .errors import ConfigurationError
from .io import gunicorn, runtimes, uwsgi
from .io.exchange import TakeBack
from .io.green import GRACE, LINGER, REST
from .io.threads import Threads

if TYPE_CHECKING:
    from .extension import SocketIO

logger = logging.getLogger("flask_realtime")


class RunOptions(NamedTuple):
    """What `SocketIO.run` was told; see there."""

    debug: bool | None
    use_reloader: bool | None
    reloader_options: dict[str, Any]
    extra_files: Iterable[str] | None
    log_output: bool | None
    allow_unsafe_werkzeug: bool
    server: dict[str, Any]


class Stoppable(Protocol):
    """A server that runs."""

    def shutdown(self) -> object:
        """End it. Any thread or greenlet, but not the one that serves."""


def run(extension: SocketIO, app: flask.Flask, host: str | None, port: int | None, options: RunOptions) -> None:
    """Serve until it is told to stop: with eventlet's or gevent's server, or with Werkzeug's."""
    if runtimes.by_flask_run():
        logger.warning("socketio.run() is ignored under the flask command, which runs the server itself")
        return
    if gunicorn.worker() is not None:
        logger.warning(
            "socketio.run() is ignored under gunicorn, which runs the server itself; call it under "
            '`if __name__ == "__main__":`'
        )
        return
    if uwsgi.module() is not None:
        logger.warning("socketio.run() is ignored under uWSGI, which serves the application itself")
        return
    below = extension.serving
    debug = app.debug if options.debug is None else options.debug
    app.debug = debug
    reload = debug if options.use_reloader is None else options.use_reloader
    host, port = host or "127.0.0.1", _port(app, port)
    settings = dict(options.server)
    settings.pop("threaded", None)
    settings.pop("load_dotenv", None)  # of Flask's own run; what is in the environment by now is what counts
    static_files = settings.pop("static_files", None)
    if static_files and extension.sockio_mw is not None and extension.sockio_mw.wsgi_app is not None:
        extension.sockio_mw.wsgi_app = SharedDataMiddleware(extension.sockio_mw.wsgi_app, static_files)
    reloader = dict(options.reloader_options)
    for name in ("exclude_patterns", "reloader_interval", "reloader_type"):
        if name in settings:
            reloader.setdefault(name, settings.pop(name))
    reloader["extra_files"] = [*(options.extra_files or ()), *reloader.get("extra_files", ())]
    debugger = settings.pop("use_debugger", debug)
    evalex = settings.pop("use_evalex", True)
    if debugger and extension.sockio_mw is not None and extension.sockio_mw.wsgi_app is not None:
        # Under our own layer: a connection that is ours isn't the debugger's business.
        extension.sockio_mw.wsgi_app = DebuggedApplication(extension.sockio_mw.wsgi_app, evalex)
    below.eio.begin()
    if extension.async_mode == "threading":
        _run_werkzeug(extension, app, host, port, options, settings, reloader if reload else None)
        return
    module = importlib.import_module(f"flask_realtime.io.{extension.async_mode}")
    log = bool(debug if options.log_output is None else options.log_output)

    def serve() -> None:
        server = module.Server(app, host, port, log, settings)
        with below.eio.runtime.heeding_signals():
            print(f" * Running on {server.url} ({extension.async_mode}, pid {os.getpid()})", file=sys.stderr)
            if reload:  # signals are the reloader's, which ends the process; the clients are told as it ends
                below.eio.gateway.exchanges.take_back = server.take_back
                _interrupt_main(below.eio.runtime)
                server.serve()
            else:
                _serve(extension, server, server.serve, server.take_back)

    if reload:
        _leave_interrupts()
        run_with_reloader(serve, **_renamed(reloader))
    else:
        serve()


def _leave_interrupts() -> None:
    """Leave Ctrl-C to the process that serves, which ends in good order; the reloader's own would kill it at once."""
    if os.environ.get("WERKZEUG_RUN_MAIN") != "true":
        try:
            signal.signal(signal.SIGINT, lambda *args: None)
        except ValueError:  # this isn't the main thread, which alone gets signals
            pass


def _interrupt_main(runtime: Threads) -> None:
    """Let Ctrl-C and SIGTERM strike the reloader's loop, which ends the process, and not the greenlet that runs."""

    def handle(number: int, frame: object) -> None:
        runtime.interrupt(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(0))

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handle)
    except ValueError:  # nothing is patched, so this is a thread of its own, and the loop is elsewhere
        pass


def _renamed(reloader: dict[str, Any]) -> dict[str, Any]:
    """Return options of `run_simple` as those of ``run_with_reloader``."""
    names = {"reloader_interval": "interval"}
    return {names.get(name, name): value for name, value in reloader.items()}


def _run_werkzeug(
    extension: SocketIO,
    app: flask.Flask,
    host: str,
    port: int,
    options: RunOptions,
    settings: dict[str, Any],
    reloader: dict[str, Any] | None,
) -> None:
    certificate, key = settings.pop("certfile", None), settings.pop("keyfile", None)
    if certificate is not None and "ssl_context" not in settings:
        settings["ssl_context"] = (certificate, key)
    settings.setdefault("request_handler", _QuietHandler if options.log_output is False else _Handler)
    _warn(options)
    if reloader is not None:
        run_simple(host, port, app, use_reloader=True, threaded=True, **reloader, **settings)
        return
    server = make_server(host, port, app, threaded=True, **settings)
    server.log_startup()

    def serve() -> None:
        server.serve_forever(poll_interval=0.1)  # the longest that it takes to end
        limit = time.monotonic() + GRACE  # the program's end would cut off what is being answered
        while any(each.server is server for each in tuple(_Handler.answering)) and time.monotonic() < limit:
            time.sleep(0.005)  # only while the process ends

    _serve(extension, server, serve, lambda sock: server.process_request(sock, sock.getpeername()))


def _serve(
    extension: SocketIO, server: Stoppable, serve: Callable[[], object], take_back: TakeBack | None
) -> None:
    """Serve, and end in good order."""
    below = extension.serving
    extension.wsgi_server = server
    exchanges = below.eio.gateway.exchanges
    exchanges.take_back = take_back
    restore = _on_signals(lambda: _end(server, below), below.eio.hurry)
    try:
        below.begin()
        serve()
    finally:
        restore()
        extension.wsgi_server = exchanges.take_back = None
        below.shutdown()


def stop(extension: SocketIO) -> None:
    """End the server that serves the extension, whichever it is."""
    server = extension.wsgi_server
    if server is not None:
        _end(server, extension.serving)
    elif uwsgi.module() is not None:
        # Told first: the master begins by killing the router that stands between.
        _end(uwsgi.Worker, extension.serving)
    elif _end_gunicorn(extension.serving):
        pass
    elif "gunicorn" in sys.modules or os.environ.get("WERKZEUG_RUN_MAIN") == "true":
        _signal(extension, signal.SIGTERM)  # both take it as the request to end in good order
    else:
        _signal(extension, signal.SIGINT)


def _signal(extension: SocketIO, number: int) -> None:
    """Send this process a signal. Not from a handler, which would be ended by what the signal's handler raises."""
    extension.serving.eio.runtime.spawn(os.kill, os.getpid(), number)


def _end(server: Stoppable, below: face.Server) -> None:
    """End a server in good order: it answers until all clients are told and their handlers have ended."""

    def end() -> None:
        below.shutdown()
        server.shutdown()

    # It waits for handlers and for the loop, so neither their threads nor the main one, which gets signals, may do it.
    below.eio.runtime.spawn(end)


def _end_gunicorn(below: face.Server) -> bool:
    """Ask gunicorn's master to end, since it would replace a worker that ends; False when there is none to ask."""
    master = below.eio.master
    try:
        if master is not None:
            os.kill(master, signal.SIGTERM)
    except OSError:  # it is another user's
        return False
    return master is not None


def _on_signals(end: Callable[[], object], hurry: Callable[[], object]) -> Callable[[], object]:
    """Call ``end`` at SIGTERM and Ctrl-C, ``hurry`` when they come again; returns what restores the earlier state."""
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the program has its own, or ignores it
        numbers.append(signal.SIGINT)
    calls = iter([end])

    def handle(*args: object) -> None:
        next(calls, hurry)()

    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # this isn't the main thread, which alone gets signals
        return lambda: None

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def _port(app: flask.Flask, port: int | None) -> int:
    if port is not None:
        number = int(port)
        if not 0 <= number <= 65535:
            raise ConfigurationError(f"port: expected 0 to 65535, got {number}")
        return number
    name = app.config.get("SERVER_NAME")
    if name and ":" in name:
        return int(name.rsplit(":", 1)[1])
    return 5000


def _warn(options: RunOptions) -> None:
    if options.allow_unsafe_werkzeug or os.environ.get("WERKZEUG_RUN_MAIN") == "true":
        return
    if sys.stdin is None or not sys.stdin.isatty():
        logger.warning(
            "Werkzeug's server is meant for development. In production run `gunicorn -w 1 --threads 100 module:app`; "
            "allow_unsafe_werkzeug=True silences this warning."
        )


class _Input(io.BufferedReader):
    """What a client sends, where a reset is the end.

    Behind each answer Werkzeug reads what is left of the request, with a selector that stays open when the reading
    fails, until the garbage collector comes by. So anybody could use up the process's descriptors.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(size)
        except (ConnectionError, ssl.SSLError):
            return b""


class _Handler(WSGIRequestHandler):
    """Serves one connection."""

    answering: ClassVar[set[_Handler]] = set()
    """Those that are in the midst of a request."""

    def run_wsgi(self) -> None:
        self.answering.add(self)
        try:
            super().run_wsgi()
        finally:
            self.answering.discard(self)

    def setup(self) -> None:
        super().setup()
        self.rfile = _Input(self.rfile.detach())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, and take what is still sent, or its sender would be reset and lose the answer."""
        super().send_error(code, message, explain)
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.settimeout(LINGER)
            self.rfile.read(REST)


class _QuietHandler(_Handler):
    """Logs no requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass
