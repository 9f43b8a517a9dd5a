"""Changed good input to every parser: its documented error, or none. The seeds are fixed. `CHAOS=full` takes more."""

import contextlib
import gc
import os
import random
import sys

import msgpack
import pytest
from doubles import client_frame
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import CLIENT, OPEN, Protocol

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.engineio import polling
from flask_realtime.protocol.socketio.msgpack import MsgpackCodec
from flask_realtime.protocol.socketio.packets import Limits, Packet, TextCodec
from flask_realtime.protocol.websocket.reader import Reader

TOTAL = 100_000 if os.environ.get("CHAOS") == "full" else 20_000
EACH = TOTAL // 4  # parsers

PLACEHOLDER = '{"_placeholder":true,"num":0}'
TEXTS = (
    '2["event",1,"two",{"three":[3,null,true,-1.5e3]}]',
    '2/a,12["event","\\u0000\\ud83d\\ude00é\U0001f600"]',
    '0/admin,{"token":"abc"}',
    "31[]",
    '3/a,77["x",[[[[]]]]]',
    "1/a,",
    '51-/a,3["x",' + PLACEHOLDER + "]",
    '62-1["x",' + PLACEHOLDER + ',{"_placeholder":true,"num":1}]',
    '2["deep",' + "[" * 60 + "]" * 60 + "]",
    '2["wide",' + ",".join(str(number) for number in range(100)) + "]",
)
PIECES = (
    *('"', "[", "]", "{", "}", ",", ":", "/", "-", "0", "9", "\\", "\\u", "\x1e", "\0", "é", "\U0001f600", "\ud800"),
    *("1e999", "null", "NaN", "[[[[", '{"a":', "_placeholder", '"num":', "51-", "b", "=", "4", "true", "9" * 30),
)
SWELL = 5_000  # what a change may make of a packet, at most


def changed(dice, packet, pieces):
    """Return text or bytes with one to five changes."""
    for _ in range(dice.randrange(1, 6)):
        at, end = sorted((dice.randrange(len(packet) + 1), dice.randrange(len(packet) + 1)))
        kind = dice.randrange(7)
        if kind == 0:
            packet = packet[:at] + dice.choice(pieces) + packet[at:]
        elif kind == 1:
            packet = packet[:at] + packet[at + dice.randrange(1, 4) :]
        elif kind == 2:
            packet = packet[:at] + packet[at:end] * dice.randrange(2, 4) + packet[end:]
        elif kind == 3:
            packet = packet[:at] + packet[end:]
        elif kind == 4:
            packet = packet[:at]
        elif at < len(packet):
            one = packet[at : at + 1]
            flip = 1 << dice.randrange(8)
            one = bytes([one[0] ^ flip]) if isinstance(one, bytes) else chr((ord(one) ^ flip) % 0x110000)
            packet = packet[:at] + one + packet[at + 1 :]
        packet = packet[:SWELL]
    return packet


def only_remote(function, *args):
    """Call; anything but the documented error is left to fail the test. Returns whether all went well."""
    try:
        function(*args)
        return True
    except RemoteProtocolError as caught:
        error = caught
    assert error.code in (1002, 1007, 1008, 1009)
    assert len(str(error)) < 500 and str(error).isascii() and str(error).isprintable(), "it is logged"
    return False


def check(results):
    """What was changed is neither always refused nor never: the changes are the right size."""
    taken = sum(results)
    assert 0 < taken < len(results)


def test_changed_text_packets():
    dice = random.Random(1)
    codec = TextCodec()
    results = []
    for _ in range(EACH):
        decoder = codec.decoder(Limits())
        message = changed(dice, dice.choice(TEXTS), PIECES)
        follow = [dice.randbytes(dice.randrange(4)) for _ in range(dice.randrange(3))] if message[:1] in "56" else []

        def feed(decoder=decoder, messages=(message, *follow)):
            for item in messages:
                packet = decoder.feed(item)
                assert packet is None or packet.type in (0, 1, 2, 3)

        results.append(only_remote(feed))
    check(results)


def test_changed_payloads():
    dice = random.Random(2)
    good = ["\x1e".join("4" + text for text in TEXTS[:3]), "3", "6\x1e3", "bAQIDBA==\x1ebAA=="]
    good += ["4" + TEXTS[6] + "\x1ebAQI="]
    results = []
    for _ in range(EACH):
        payload = changed(dice, dice.choice(good), PIECES)

        def decode(payload=payload):
            for packet in polling.decode(payload):
                assert isinstance(packet, bytes) or packet

        results.append(only_remote(decode))
    check(results)


def test_changed_messagepack():
    dice = random.Random(3)
    codec = MsgpackCodec()
    data = ["event", 1, {"two": [b"three", 4.5, None, True]}, msgpack.ExtType(0, bytes(8)), "é" * 40, 2**63]
    good = [b"".join(codec.encode(Packet(kind, "/a", 7, data))) for kind in (2, 3)]
    good += [b"".join(codec.encode(Packet(0, "/", None, {"token": "x"}))), b"".join(codec.encode(Packet(1)))]
    pieces = [b"\x80", b"\xdf\xff\xff\xff\xff", b"\x91", b"\xc7\x08\x00", b"\xd7\x00", b"\xc1", b"\xa4type"]
    decoder = codec.decoder(Limits())
    results = []
    for _ in range(EACH):
        results.append(only_remote(decoder.feed, changed(dice, dice.choice(good), pieces)))
    check(results)


def test_changed_frames():
    dice = random.Random(4)
    parts = [client_frame(1, b"4" + text.encode()) for text in TEXTS[:6]]
    parts += [client_frame(9, b"ping"), client_frame(10), client_frame(2, bytes(300)), client_frame(8, b"\x03\xe8")]
    parts += [client_frame(1, b"ab", fin=False) + client_frame(9) + client_frame(0, "é".encode())]
    deflated = [bytes([data[0] | 0x40]) + data[1:] for data in parts[:4]]
    pieces = [b"\x81", b"\x00", b"\xff", b"\x7f", b"\xfe\xff\xff", b"\xff" + b"\xff" * 8, b"\xc1\x80"]
    closed = []
    for number in range(EACH):
        extensions = [PerMessageDeflate(True, True, 15, 15)] if number % 3 == 0 else []
        reader = Reader(1000, 8, extensions)
        stream = b"".join(dice.choice(parts + deflated) for _ in range(dice.randrange(1, 4)))
        stream = changed(dice, stream, pieces)
        sent, cut = b"", dice.randrange(len(stream) + 1)
        for data in (stream[:cut], stream[cut:]):
            if data and not reader.closing:
                for message in reader.feed(data):
                    assert len(message) <= 1000
                sent += reader.reply()
        client = Protocol(CLIENT, state=OPEN)
        client.receive_data(sent)
        answers = client.events_received()
        assert client.parser_exc is None and {answer.opcode for answer in answers} <= {8, 10}
        assert reader.closing == (bool(answers) and answers[-1].opcode == 8)
        if reader.closing and not reader.clean:
            assert client.close_rcvd.code in (1002, 1007, 1008, 1009), client.close_rcvd
        closed.append(reader.closing)
    check(closed)


# Linear: no input makes a parser do more than a fixed number of things for each of its bytes.


def counted(function):
    """Return how many times Python's own code was stepped through, lines and calls, and how often C was called."""
    steps = 0

    def trace(frame, event, arg):
        nonlocal steps
        steps += 1
        return trace

    def profile(frame, event, arg):
        nonlocal steps
        steps += 1

    before = sys.gettrace(), sys.getprofile()
    gc.disable()  # what it would run now is somebody else's
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        with contextlib.suppress(RemoteProtocolError):
            function()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()
    return steps


def read_in_pieces(data, size):
    reader = Reader(10_000_000, 1_000_000)
    for at in range(0, len(data), size):
        reader.feed(data[at : at + size])
        reader.reply()


GROWING = {
    "text": lambda size: TextCodec().decoder(Limits()).feed('2["x","' + "y" * size + '"]'),
    "escapes": lambda size: TextCodec().decoder(Limits()).feed('2["x","' + '\\"' * size + '"]'),
    "flat lists": lambda size: TextCodec().decoder(Limits()).feed('2["x"' + ",[]" * size + "]"),
    "deep lists": lambda size: TextCodec().decoder(Limits()).feed("2" + "[" * size),
    "nests of two": lambda size: TextCodec().decoder(Limits()).feed("2[" + "[[]]," * size + "]"),
    "quotes": lambda size: TextCodec().decoder(Limits()).feed("2[" + '"' * size + "[" * 70),
    "backslashes": lambda size: TextCodec().decoder(Limits()).feed('2["' + "\\" * size + "[" * 70),
    "digits": lambda size: TextCodec().decoder(Limits()).feed("2" + "9" * size),
    "a namespace": lambda size: TextCodec().decoder(Limits()).feed("2/" + "a" * size),
    "separators": lambda size: polling.decode("6\x1e" * size + "6"),
    "base64": lambda size: polling.decode("b" + "AAAA" * size),
    "MessagePack": lambda size: MsgpackCodec().decoder(Limits()).feed(
        msgpack.packb({"type": 2, "nsp": "/", "data": ["x"] + [[]] * size})
    ),
    "one frame in pieces": lambda size: read_in_pieces(client_frame(2, bytes(20 * size)), 1000),
    "tiny fragments": lambda size: read_in_pieces(
        client_frame(1, b"a", fin=False) + client_frame(0, b"a", fin=False) * size, 1000
    ),
    "pings": lambda size: read_in_pieces(client_frame(9, b"a") * size, 1000),
}


@pytest.mark.parametrize("name", GROWING)
def test_twice_the_input_is_at_most_twice_the_work(name):
    parse = GROWING[name]
    counted(lambda: parse(100))  # what is made once
    one, two = counted(lambda: parse(2_000)), counted(lambda: parse(4_000))
    assert two <= 2.2 * one + 200, f"{one} steps, then {two}"
