"""The second handle of a socket."""

import socket
import threading

import pytest

from flask_realtime.backplanes.wire import Wire, Wires
from flask_realtime.errors import BackplaneError


@pytest.fixture
def pair():
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def test_what_waits_to_be_read_is_seen_and_stays(pair):
    near, far = pair
    wire = Wire(near.fileno())
    assert not wire.readable()
    far.sendall(b"x")
    assert wire.readable()
    assert near.recv(1) == b"x"
    assert not wire.readable()
    far.close()
    assert wire.readable()
    wire.drop()
    wire.drop()
    assert wire.readable()


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_the_socket_stays_as_it_was(pair, timeout):
    near, far = pair
    near.settimeout(timeout)
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3.0)
    try:
        wire = Wire(near.fileno())
        assert not wire.readable()
    finally:
        socket.setdefaulttimeout(former)
    threading.Timer(0.05, far.sendall, (b"x",)).start()
    assert near.recv(1) == b"x"
    wire.drop()


def test_a_cut_wakes_who_reads(pair):
    near, _ = pair
    wires = Wires("redis://host")
    wires.add(near.fileno())
    got = []
    reader = threading.Thread(target=lambda: got.append(near.recv(1)))
    reader.start()
    wires.close()
    wires.close()
    reader.join(5)
    assert got == [b""]
    with pytest.raises(BackplaneError, match=r"redis://host was closed"):
        wires.add(near.fileno())


def test_a_connection_that_its_owner_has_closed_is_left_alone(pair):
    near, far = pair
    wires = Wires("redis://host")
    wires.remove(wires.add(near.fileno()))
    wires.close()
    far.sendall(b"x")
    assert near.recv(1) == b"x"
