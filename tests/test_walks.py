"""The two walks of docs/architecture: how many of our own calls an event and a broadcast take."""

import socket
import sys
import threading
from pathlib import Path

import pytest
from flask import Flask
from websockets.protocol import CLIENT, OPEN, Protocol
from werkzeug.test import create_environ

import flask_realtime
from flask_realtime import SocketIO
from flask_realtime.io import connection as connections
from flask_realtime.io.connection import Connection
from flask_realtime.io.hub import SHORT
from flask_realtime.protocol.websocket.reader import Reader

OURS = str(Path(flask_realtime.__file__).parent)


class Calls:
    """Counts the calls of our own functions, and the sends, in this thread."""

    def __enter__(self):
        self.names, self.sends = [], 0
        sys.setprofile(self.saw)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def saw(self, frame, event, function):
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.names.append(frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name)
        elif event == "c_call" and getattr(function, "__name__", "") == "send":
            self.sends += 1


class Site:
    """A server whose hub and pool do nothing by themselves: the test takes every step in its own thread."""

    def __init__(self):
        self.app = Flask(__name__)
        self.socketio = SocketIO(self.app, max_handler_threads=0, shutdown_timeout=0)
        self.socketio.server.eio.runtime.hub.start = lambda: None
        self.socketio.core.send_at_once()
        self.peers = []

        @self.socketio.on("echo")
        def echo(value):
            return value

    def connect(self):
        """Open a WebSocket and join the default namespace; return the server's connection and the client's socket."""
        server = self.socketio.server
        engine = server.eio.engine
        ours, peer = socket.socketpair()
        ours.setblocking(False)
        self.peers.append((ours, peer))
        connection = Connection(server.eio.runtime.hub, ours, Reader(1_000_000), 1 << 20)
        session = engine.prepare(create_environ("/socket.io/"))
        engine.on_connect(session)
        engine.open_websocket(session, connection)
        connection._on_message = session.receive
        self.send(peer, "40")
        connection.readable()
        # This thread does what the hub's does; nobody watches over it.
        hub = server.eio.runtime.hub
        hub.leader = threading.get_ident()
        hub._called.set()
        # One worker is there, as in a server that has handled anything; this thread does its work.
        server.eio.runtime.pool._begin()
        server.eio.runtime.pool._threads.add(threading.current_thread())
        return connection, peer

    @staticmethod
    def send(peer, text):
        client = Protocol(CLIENT, state=OPEN)
        client.send_text(text.encode())
        peer.sendall(b"".join(client.data_to_send()))

    def work(self):
        """Run what waits for a thread of the pool."""
        pool = self.socketio.server.eio.runtime.pool
        function, args = pool._work.get_nowait()
        function(*args)

    def close(self):
        self.socketio.server.eio.runtime.pool._threads.clear()
        self.socketio.server.shutdown()
        for pair in self.peers:
            for sock in pair:
                sock.close()


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(connections, "_send", None)  # a send of ctypes can't be seen by a profiler
    site = Site()
    yield site
    site.close()


def echo(site, connection, peer, by_pool):
    site.send(peer, '420["echo","hello"]')
    with Calls() as calls:
        connection.readable()
        if by_pool:
            site.work()
    assert peer.recv(65536).endswith(b'430["hello"]')
    return calls


def test_an_event_takes_at_most_25_of_our_calls_from_bytes_to_ack(site):
    connection, peer = site.connect()
    habit = None
    while habit is None or habit.mean >= SHORT:  # its first calls show that it is short
        by_pool = echo(site, connection, peer, True)
        (handler,) = site.socketio.core.handlers.found.values()
        habit = handler.habit
    by_hub = echo(site, connection, peer, False)
    assert len(by_hub.names) <= 25, "\n".join(by_hub.names)
    assert len(by_pool.names) <= 25, "\n".join(by_pool.names)
    assert by_hub.sends == by_pool.sends == 1


def test_a_broadcast_takes_two_of_our_calls_and_one_send_for_each_recipient(site):
    taken = {}
    for count in (20, 60):
        while len(site.peers) < count:
            site.connect()
        site.socketio.emit("news", {"text": "first"})
        with Calls() as calls:
            site.socketio.emit("news", {"text": "hello"})
        taken[count] = len(calls.names), calls.sends
    assert taken[60][0] - taken[20][0] == 2 * 40
    assert taken[60][1] - taken[20][1] == 40
    assert taken[20][0] <= 2 * 20 + 25
