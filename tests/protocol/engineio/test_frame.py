import zlib

import pytest

from flask_realtime.protocol.engineio import frame as packets
from flask_realtime.protocol.engineio.frame import Frame


@pytest.mark.parametrize(
    ("message", "websocket", "polling"),
    [
        ("4hello", b"\x81\x064hello", "4hello"),
        ("4ü", b"\x81\x034\xc3\xbc", "4ü"),
        ("2", b"\x81\x012", "2"),
        (b"\x01\x02\xff", b"\x82\x03\x01\x02\xff", "bAQL/"),
        (b"", b"\x82\x00", "b"),
    ],
)
def test_wire_forms(message, websocket, polling):
    frame = Frame(message)
    assert frame.message == message
    assert frame.websocket == websocket
    assert frame.polling == polling


@pytest.mark.parametrize(("message", "first"), [("4" + "a" * 1000, 0xC1), (b"a" * 1000, 0xC2)])
def test_the_deflated_form_is_a_compressed_frame(message, first):
    data = Frame(message).deflated
    assert data[0] == first
    payload = zlib.decompressobj(wbits=-15).decompress(data[2:] + b"\x00\x00\xff\xff")
    assert payload == (message if isinstance(message, bytes) else message.encode())


@pytest.mark.parametrize("form", ["websocket", "deflated", "polling"])
@pytest.mark.parametrize("message", ["4text", b"bytes"])
def test_each_form_is_made_once(form, message):
    frame = Frame(message)
    assert getattr(frame, form) is getattr(frame, form)


def test_there_are_no_other_forms():
    for message in ("4", b""):
        with pytest.raises(AttributeError):
            Frame(message).carrier_pigeon  # noqa: B018


def test_types_are_the_characters_of_the_protocol():
    assert (packets.OPEN, packets.CLOSE, packets.PING, packets.PONG) == ("0", "1", "2", "3")
    assert (packets.MESSAGE, packets.UPGRADE, packets.NOOP) == ("4", "5", "6")
