"""Sends and receives that keep the interpreter lock do what the socket's own do."""

import socket
import threading

import pytest

from flask_realtime.io import calls
from flask_realtime.io import connection as connections
from flask_realtime.io.calls import Receiver
from flask_realtime.io.connection import Connection
from flask_realtime.io.hub import Hub
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.websocket.reader import Reader

LIMIT = 20


@pytest.fixture(params=["with ctypes", "without"])
def pair(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(calls, "_recv", None)
        monkeypatch.setattr(connections, "_send", None)
    elif calls.send is None:
        pytest.skip("needs ctypes and a C library")
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.settimeout(LIMIT)
    yield ours, peer
    ours.close()
    peer.close()


def test_receiving(pair):
    ours, peer = pair
    receiver = Receiver()
    with pytest.raises(BlockingIOError):
        receiver.recv(ours, ours.fileno())
    peer.sendall(b"\x00\xff" * 3)
    assert receiver.recv(ours, ours.fileno()) == b"\x00\xff" * 3
    peer.sendall(b"x" * (calls.SIZE + 1))
    assert len(receiver.recv(ours, ours.fileno())) + len(receiver.recv(ours, ours.fileno())) == calls.SIZE + 1
    peer.close()
    assert receiver.recv(ours, ours.fileno()) == b""


@pytest.mark.parametrize("size", [1, 300, calls.SIZE - 5, calls.SIZE + 5, 3_000_000])
def test_what_a_socket_does_not_take_waits_and_nothing_is_lost(pair, size):
    ours, peer = pair
    hub = Hub()
    connection = Connection(hub, ours, Reader(1000), 1 << 20)
    connection.open(lambda message: None, lambda reason: None, b"")
    frame = Frame("4" + "x" * size)
    count = 5 if size < 1_000_000 else 1
    writer = threading.Thread(target=lambda: [connection.write((frame,)) for _ in range(count)])
    writer.start()
    wanted = frame.websocket * count
    got = bytearray()
    while len(got) < len(wanted):
        got += peer.recv(1 << 20)
    assert got == wanted
    writer.join(LIMIT)
    hub.stop(0)


def test_a_peer_that_has_gone_is_no_error_of_the_writer(pair):
    ours, peer = pair
    hub = Hub()
    hub.start()
    connection = Connection(hub, ours, Reader(1000), 1 << 20)
    peer.close()
    for _ in range(3):
        connection.write((Frame("4x"),))
    hub.call_soon(connection.failed)
    hub.stop(0)
    connection.write((Frame("4x"),))
