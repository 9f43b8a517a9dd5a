"""The example app of flask_realtime: a small chat with rooms, presence, files and a live round trip.

Everything a newcomer needs is in four files: this one makes the app, ``chat.py`` holds the event handlers,
``lobby.py`` knows who is where, and ``static/chat.js`` is the page's side.

Beside the chat there is a page for long tasks: ``darkroom.py`` has its events, ``workshop.py`` and ``worker.py`` do
the work, without and with Celery, and ``static/darkroom.js`` shows how it goes.
"""

from pathlib import Path

from flask import Flask, Response, render_template, send_from_directory

from .chat import MAX_FILE_BYTES, MAX_NAME, ROOMS, socketio
from .darkroom import init_darkroom
from .settings import MESSAGE_QUEUE, MESSAGE_QUEUE_SECRET, TRUSTED_PROXIES

__all__ = ["MissingBundle", "create_app", "socketio"]

BUNDLE = Path(__file__).parent / "node_modules" / "socket.io-client" / "dist" / "socket.io.min.js"

# Everything comes from this app; pictures that people send are shown from memory (blob:).
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
)


class MissingBundle(RuntimeError):
    """The browser's Socket.IO client isn't installed."""


def create_app() -> Flask:
    """Make the Flask app, ready for ``socketio.run()`` or for a WSGI server.

    Raises:
        MissingBundle: When the npm package of the browser's client isn't there. The text says how to get it.
    """
    if not BUNDLE.is_file():
        raise MissingBundle("socket.io-client is missing, install it with: npm ci --prefix example_app")

    app = Flask(__name__)
    options = {"trusted_proxies": TRUSTED_PROXIES}
    if MESSAGE_QUEUE:
        options |= {"message_queue": MESSAGE_QUEUE, "message_queue_secret": MESSAGE_QUEUE_SECRET}
    socketio.init_app(app, **options)
    init_darkroom(app, socketio)

    @app.get("/")
    def index() -> str:
        return render_template("index.html", rooms=ROOMS, max_name=MAX_NAME, max_file_bytes=MAX_FILE_BYTES)

    @app.get("/vendor/socket.io.min.js")
    def bundle() -> Response:
        return send_from_directory(BUNDLE.parent, BUNDLE.name)

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app
