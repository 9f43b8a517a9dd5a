"""Fixtures: programs that are shut down, sites that are stopped and peers that are closed when a test ends."""

import flask
import pytest

import flask_realtime
from flask_realtime import socketio

from .wire import TRANSPORTS, Peer, Site


@pytest.fixture
def program():
    """Return a function: options -> a Flask application and its extension."""
    extensions = []

    def make(**options):
        app = flask.Flask(__name__)
        app.config.update(SECRET_KEY="for tests", TESTING=True)
        extension = flask_realtime.SocketIO(app, **options)
        extensions.append(extension)
        return app, extension

    yield make
    for extension in extensions:
        extension.server.shutdown()


@pytest.fixture
def serve():
    """Return a function that serves: a Flask application with its extension, or a Server alone; it returns the Site."""
    sites = []

    def start(app, extension=None):
        if extension is None:
            site = Site(socketio.WSGIApp(app), app)
        else:
            site = Site(app, extension.server)
        sites.append(site)
        return site

    yield start
    for site in sites:
        site.close()


@pytest.fixture(params=list(TRANSPORTS))
def transport(request):
    """The name of a transport; tests that use it run over each."""
    return request.param


@pytest.fixture
def dial(serve):
    """Return a function: site, transport -> a new Peer, not yet in a namespace."""
    peers = []

    def open_peer(site, transport="websocket"):
        peer = Peer(site, transport)
        peers.append(peer)
        return peer

    yield open_peer
    for peer in peers:
        peer.close()


@pytest.fixture
def enter(dial):
    """Return a function: site, transport, namespace, auth -> a new Peer in a namespace."""

    def enter_namespace(site, transport="websocket", namespace="/", auth=None):
        peer = dial(site, transport)
        peer.join(namespace, auth)
        return peer

    return enter_namespace
