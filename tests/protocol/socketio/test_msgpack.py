from datetime import datetime, timezone

import msgpack
import pytest

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.socketio.msgpack import MsgpackCodec
from flask_realtime.protocol.socketio.packets import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Limits,
    Packet,
)


def decode(message, from_server=False, **limits):
    return MsgpackCodec().decoder(Limits(**limits), from_server).feed(message)


def pack(**fields):
    return msgpack.packb({"type": 2, "nsp": "/", "data": ["x"], **fields})


@pytest.mark.parametrize(
    ("packet", "fields"),
    [
        (Packet(CONNECT), {"type": 0, "nsp": "/"}),
        (Packet(CONNECT, "/a", None, {"t": 1}), {"type": 0, "nsp": "/a", "data": {"t": 1}}),
        (Packet(DISCONNECT, "/a"), {"type": 1, "nsp": "/a"}),
        (Packet(EVENT, "/", None, ["x", b"\x01", {"a": [None, 1.5]}]),) * 2,
        (Packet(EVENT, "/", 7, ["x"]), {"type": 2, "nsp": "/", "data": ["x"], "id": 7}),
        (Packet(ACK, "/", 0, []), {"type": 3, "nsp": "/", "data": [], "id": 0}),
        (Packet(EVENT, "/", None, ["grüße", -(2**63), 2**64 - 1, float("inf")]),) * 2,
    ],
)
def test_one_binary_message_for_each_packet(packet, fields):
    (message,) = MsgpackCodec().encode(packet)
    if isinstance(fields, dict):
        assert msgpack.unpackb(message) == fields
    assert decode(message) == packet


def test_a_refusal_comes_from_servers_only():
    (message,) = MsgpackCodec().encode(Packet(CONNECT_ERROR, "/", None, {"message": "no"}))
    assert decode(message, from_server=True).data == {"message": "no"}
    with pytest.raises(RemoteProtocolError):
        decode(message)


@pytest.mark.parametrize(
    "message",
    [
        "2",
        b"",
        b"\xc1",
        b"\x81",
        msgpack.packb([]),
        msgpack.packb(None),
        msgpack.packb({}),
        pack() + b"\x00",
        pack(type=5),
        pack(type=-1),
        pack(type="2"),
        pack(type=True),
        pack(type=2.0),
        pack(nsp="x"),
        pack(nsp=""),
        pack(nsp=None),
        pack(nsp=b"/"),
        pack(nsp="/" + "x" * 300),
        pack(id=-1),
        pack(id="1"),
        pack(id=1.0),
        pack(id=False),
        pack(data=[]),
        pack(data={}),
        pack(data=None),
        pack(data=["connect"]),
        pack(data=[None]),
        pack(type=3),
        pack(type=3, id=1, data={}),
        pack(type=0, data=[]),
        pack(type=1, data={}),
        msgpack.packb({1: 2}),
        b"\x81\xa1\xff\x00",  # a key that isn't UTF-8
        pack(data=["x", msgpack.ExtType(0, b"\x7f" * 8)]),  # a date far beyond all years
    ],
)
def test_messages_that_are_no_packets(message):
    with pytest.raises(RemoteProtocolError):
        decode(message)


@pytest.mark.parametrize(("depth", "fine"), [(63, True), (64, False), (2000, False)])
def test_the_depth_of_a_payload(depth, fine):
    head = pack(data=0)[:-1]  # all but the zero
    for opening in (b"\x91", b"\x81\xa1a"):
        message = head + b"\x92\xa1x" + opening * depth + b"\x01"
        if fine:
            assert decode(message).data[0] == "x"
        else:
            with pytest.raises(RemoteProtocolError):
                decode(message)


def test_what_javascript_sends_beyond_json():
    undefined, date = msgpack.ExtType(0, b"\x00"), msgpack.ExtType(0, (1500).to_bytes(8, "big"))
    other = msgpack.ExtType(5, b"x")
    packet = decode(pack(data=["x", undefined, {"a": date}, other], id=undefined))
    when = datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=timezone.utc)
    assert packet == Packet(EVENT, "/", None, ["x", None, {"a": when}, other])


BEYOND = [object(), {1, 2}, 1j, 2**64, -(2**63) - 1, "\ud800", {"a": ["\udfff"]}, {"\ud800": 1}]


@pytest.mark.parametrize("value", BEYOND)
def test_what_cannot_be_sent_is_a_type_error(value):
    with pytest.raises(TypeError):
        MsgpackCodec().encode(Packet(EVENT, "/", None, ["x", value]))


def test_data_that_contains_itself_cannot_be_sent():
    data = []
    data.append(data)
    with pytest.raises((TypeError, ValueError)):
        MsgpackCodec().encode(Packet(EVENT, "/", None, ["x", data]))


def test_a_default_is_asked():
    (message,) = MsgpackCodec(sorted).encode(Packet(EVENT, "/", None, ["x", {2, 1}]))
    assert decode(message).data == ["x", [1, 2]]
