import zlib

import pytest
from websockets.protocol import CLIENT, OPEN, Protocol

from flask_realtime.protocol.websocket import frames


def parsed(data, max_size=None):
    """Return the frames that a client of another make reads."""
    client = Protocol(CLIENT, state=OPEN, max_size=max_size)
    client.receive_data(data)
    assert client.parser_exc is None
    return client.events_received()


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_takes_as_few_bytes_as_it_can(size, head):
    payload = bytes(i * 7 % 256 for i in range(size))
    assert frames.encode(payload, frames.BINARY) == head + payload


@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY, frames.PING, frames.PONG])
def test_a_client_reads_what_was_written(opcode):
    (frame,) = parsed(frames.encode(b"hello", opcode))
    assert (frame.opcode, bytes(frame.data), frame.fin, frame.rsv1) == (opcode, b"hello", True, False)


def test_the_bit_of_compression_is_set_when_asked_for():
    assert frames.encode(b"", frames.TEXT, rsv1=True)[0] == 0x80 | 0x40 | 1


def test_close_has_its_code_and_reason():
    (frame,) = parsed(frames.close(frames.POLICY, "schlecht gefügt"))
    assert (frame.opcode, bytes(frame.data)) == (frames.CLOSE, b"\x03\xf0" + "schlecht gefügt".encode())


@pytest.mark.parametrize("reason", ["x" * 200, "ü" * 100, "x" + "ü" * 100, "€" * 100, "🎈" * 100])
def test_a_long_reason_is_cut_between_characters(reason):
    data = frames.close(1000, reason)
    assert data[1] == len(data) - 2 <= 125
    text = data[4:].decode()
    assert reason.startswith(text) and len(text.encode()) > 119


@pytest.mark.parametrize("payload", [b"", b"a", b"abc" * 1000, bytes(range(256)) * 300])
def test_deflated_messages_inflate_one_by_one(payload):
    data = frames.deflate(payload)
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    assert inflate.decompress(data + b"\x00\x00\xff\xff") == payload
    assert frames.deflate(payload) == data, "no context is kept from one message to the next"
