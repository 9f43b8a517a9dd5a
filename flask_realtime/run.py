"""Development servers behind `SocketIO.run`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import flask
from werkzeug.debug import DebuggedApplication
from werkzeug.middleware.shared_data import SharedDataMiddleware
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server, run_simple

from .errors import ConfigurationError

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


def run_werkzeug(
    extension: SocketIO, app: flask.Flask, host: str | None, port: int | None, options: RunOptions
) -> None:
    """Serve with Werkzeug's threaded server until it is told to stop."""
    if os.environ.get("FLASK_RUN_FROM_CLI") == "true":
        logger.warning("socketio.run() is ignored under the flask command, which runs the server itself")
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
    certificate, key = settings.pop("certfile", None), settings.pop("keyfile", None)
    if certificate is not None and "ssl_context" not in settings:
        settings["ssl_context"] = (certificate, key)
    if options.log_output is False:
        settings.setdefault("request_handler", _QuietHandler)
    debugger = settings.pop("use_debugger", debug)
    evalex = settings.pop("use_evalex", True)
    if debugger and extension.sockio_mw is not None and extension.sockio_mw.wsgi_app is not None:
        # Under our own layer: a connection that is ours isn't the debugger's business.
        extension.sockio_mw.wsgi_app = DebuggedApplication(extension.sockio_mw.wsgi_app, evalex)
    _warn(options)
    below.eio.gateway.stopping = False
    if reload:
        reloader["extra_files"] = [*(options.extra_files or ()), *reloader.get("extra_files", ())]
        run_simple(host, port, app, use_reloader=True, threaded=True, **reloader, **settings)
        return
    server = make_server(host, port, app, threaded=True, **settings)
    server.log_startup()
    extension.wsgi_server = server
    restore = _on_sigterm(lambda: _end(server))
    try:
        server.serve_forever()
    finally:
        restore()
        extension.wsgi_server = None
        below.shutdown()


def stop(extension: SocketIO) -> None:
    """End the server that serves the extension, whichever it is."""
    server = extension.wsgi_server
    if server is not None:
        _end(server)
    elif "gunicorn" in sys.modules or os.environ.get("WERKZEUG_RUN_MAIN") == "true":
        os.kill(os.getpid(), signal.SIGTERM)  # both take it as the request to end in good order
    else:
        os.kill(os.getpid(), signal.SIGINT)


def _end(server: BaseWSGIServer) -> None:
    # It waits for the loop to end, so it must not be called in the loop's own thread, where signals arrive.
    threading.Thread(target=server.shutdown, name="flask_realtime-stop", daemon=True).start()


def _on_sigterm(function: Callable[[], object]) -> Callable[[], object]:
    """Call a function at SIGTERM; returns what restores the earlier state."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = signal.signal(signal.SIGTERM, lambda number, frame: function())
    return lambda: signal.signal(signal.SIGTERM, before)


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


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass
