"""uWSGI otherwise than the contract starts it: through its router, with threads, with several processes; its reload."""

import contextlib
import os
import signal
import struct

import pytest

from . import servers
from .player import LIMIT, TRANSPORTS
from .raw import Polling, WebSocket
from .servers import ALARM, GEVENT, Kind, Server, uwsgi, wait_until

pytestmark = pytest.mark.e2e

ROUTED = ("connect_with_auth", "echo", "binary", "rooms", "large", "order")


@pytest.fixture
def started(tmp_path):
    """Return a function that starts a server: ``started(kind)``."""
    with contextlib.ExitStack() as stack:

        def start(kind, alarm=ALARM):
            server = Server(kind, tmp_path, alarm=alarm)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module", params=["uwsgi-router", "uwsgi-threads"])
def other(request, tmp_path_factory):
    server = Server(request.param, tmp_path_factory.mktemp("uwsgi"))
    yield server
    server.stop()


def joined(server):
    peer = WebSocket(server)
    assert peer.receive()[0] == "0"
    peer.send("40")
    assert peer.receive().startswith("40{")
    return peer


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ROUTED)
def test_javascript_client(play, other, scenario, transport):
    play(other, scenario, transport)


def test_the_upgrade_between_transports(other):
    session = Polling(other)
    session.join()
    with contextlib.closing(WebSocket(other, sid=session.sid)) as peer:
        peer.send("2probe")
        assert peer.receive() == "3probe"
        peer.send("5")
        peer.send('421["sync"]')
        assert peer.receive() == '431["synced"]'


def test_a_reload_says_that_it_is_one(started):
    server = started("uwsgi-gevent")
    before, peer = server.get_json("/process"), joined(server)
    server.process.send_signal(signal.SIGHUP)
    assert peer.frame() == (8, struct.pack("!H", 1012) + b"server restarts")
    peer.abandon()
    wait_until(lambda: not os.path.exists(f"/proc/{before}"), limit=LIMIT, what="the old worker's end")
    server.wait()
    assert server.get_json("/process") != before
    joined(server).close()


def test_connections_through_the_router_end_with_it(started):
    """The master's first deed is to kill the router, so nobody can be told; but none waits for a timeout."""
    server = started("uwsgi-router")
    peer = joined(server)
    server.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(ConnectionResetError):
        assert peer.frame() == (None, b"")
    peer.abandon()
    assert server.process.wait(LIMIT) == 0


def test_several_processes_are_told_of_in_the_log(started, monkeypatch):
    row = Kind(lambda port, directory: uwsgi(port, "--processes", "2", *GEVENT, "--http-socket"), {}, keeps=False)
    monkeypatch.setitem(servers.MORE_KINDS, "uwsgi-processes", row)
    server = started("uwsgi-processes")
    server.get("/")
    assert server.tail(100_000).count("uWSGI runs 2 processes") == 1
