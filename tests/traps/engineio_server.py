"""Real servers in a thread, and small means for their tests; waits end by an event or fail at a generous limit."""

import contextlib
import http.client
import queue
import socket
import threading

import flask
from werkzeug.serving import WSGIRequestHandler, make_server

import flask_realtime
from flask_realtime import engineio, socketio

LIMIT = 20  # seconds; far more than anything here takes


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_request(self, code="-", size="-"):
        pass


class Running:
    """A WSGI application served by Werkzeug's threaded server on a free port."""

    def __init__(self, app):
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def connection(self, timeout=LIMIT):
        """Return a fresh HTTP connection to the server."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def socket(self, timeout=LIMIT, receive_buffer=None):
        """Return a fresh TCP socket to the server."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def serving(app, server):
    """Serve an application whose Socket.IO or Engine.IO server is ``server``; yields the `Running`."""
    running = Running(app)
    try:
        yield running
    finally:
        server.shutdown()
        running.stop()


@contextlib.contextmanager
def engine(server=None, **options):
    """Serve an Engine.IO server at the path that the raw peers use; yields it with the `Running`.

    The server has a ``log``: a queue of what its handlers get, as tuples that begin with the event.
    """
    server = server or engineio.Server(**options)
    server.log = queue.Queue()
    server.on("connect", lambda sid, environ: server.log.put(("connect", sid)))
    server.on("message", lambda sid, data: server.log.put(("message", data)))
    server.on("disconnect", lambda sid, reason: server.log.put(("disconnect", reason)))
    with serving(engineio.WSGIApp(server, engineio_path="socket.io"), server) as running:
        yield server, running


@contextlib.contextmanager
def plain(server):
    """Serve a `flask_realtime.socketio.Server` without Flask."""
    with serving(socketio.WSGIApp(server), server) as running:
        yield running


def program(**options):
    """Make a Flask application with its extension."""
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="for tests", TESTING=True)
    return app, flask_realtime.SocketIO(app, **options)


def get(log):
    """Return the next entry of a queue."""
    return log.get(timeout=LIMIT)


def wait(event):
    """Wait for a `threading.Event`."""
    assert event.wait(LIMIT), f"waited {LIMIT} s in vain"
