import tracemalloc
import zlib

import pytest
from doubles import client_frame, octets
from websockets.extensions.permessage_deflate import PerMessageDeflate

from flask_realtime.protocol.websocket import frames
from flask_realtime.protocol.websocket.reader import Reader

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def whole(data):
    return [data] if data else []


@pytest.fixture(params=[whole, octets], ids=["whole", "byte by byte"])
def split(request):
    return request.param


def feed(reader, data, split):
    """Feed as a connection does: nothing after the reader has said that it is closing."""
    messages, sent = [], b""
    for part in split(data):
        messages += reader.feed(part)
        sent += reader.reply()
        if reader.closing:
            break
    return messages, sent


def close_code(sent):
    assert sent[0] == 0x88
    return int.from_bytes(sent[2:4], "big")


def test_messages_come_in_order_with_their_types(split):
    data = client_frame(TEXT, "grüße".encode()) + client_frame(BINARY, b"\x00\xff") + client_frame(TEXT)
    reader = Reader(100)
    assert feed(reader, data, split) == (["grüße", b"\x00\xff", ""], b"")
    assert not reader.closing
    assert reader.fault == ""


def test_fragments_are_joined_and_pings_between_them_answered(split):
    data = (
        client_frame(TEXT, b"gr\xc3", fin=False)
        + client_frame(PING, b"p")
        + client_frame(CONT, b"\xbc", fin=False)
        + client_frame(CONT, b"n")
        + client_frame(BINARY, b"1", fin=False)
        + client_frame(CONT, b"2")
    )
    assert feed(Reader(100), data, split) == (["grün", b"12"], b"\x8a\x01p")


def test_a_text_is_not_taken_for_the_fragment_before_it():
    reader = Reader(100)
    assert reader.feed(client_frame(BINARY, b"1", fin=False) + client_frame(CONT, b"2")) == [b"12"]
    assert reader.feed(client_frame(TEXT, b"3", fin=False) + client_frame(CONT, b"4")) == ["34"]


@pytest.mark.parametrize("size", [99, 100])
def test_a_message_may_be_as_large_as_the_limit(size, split):
    assert feed(Reader(100), client_frame(BINARY, b"x" * size), split) == ([b"x" * size], b"")


def test_a_message_over_the_limit_closes_with_1009(split):
    reader = Reader(100)
    messages, sent = feed(reader, client_frame(TEXT, b"ok") + client_frame(BINARY, b"x" * 101), split)
    assert messages == ["ok"]
    assert close_code(sent) == 1009
    assert reader.closing and not reader.clean and "101" in reader.fault


def test_the_limit_holds_for_the_sum_of_fragments(split):
    reader = Reader(100)
    data = client_frame(BINARY, b"x" * 60, fin=False) + client_frame(CONT, b"x" * 41)
    messages, sent = feed(reader, data, split)
    assert (messages, close_code(sent)) == ([], 1009)


def test_the_limit_is_checked_before_the_payload_comes():
    reader = Reader(100)
    reader.feed(client_frame(BINARY, b"x" * 101)[:4])
    assert reader.closing
    assert close_code(reader.reply()) == 1009


def test_more_fragments_than_allowed_close_with_1008(split):
    reader = Reader(100, max_fragments=3)
    parts = [client_frame(TEXT, b"a", fin=False), *[client_frame(CONT, b"b", fin=False)] * 3, client_frame(CONT, b"c")]
    messages, sent = feed(reader, b"".join(parts), split)
    assert (messages, close_code(sent)) == ([], 1008)
    assert "3 fragments" in reader.fault


def test_as_many_fragments_as_allowed_are_taken(split):
    data = client_frame(TEXT, b"a", fin=False) + client_frame(CONT, b"b", fin=False) + client_frame(CONT, b"c")
    assert feed(Reader(100, max_fragments=3), data * 2, split) == (["abc", "abc"], b"")


@pytest.mark.parametrize("text", [b"\xff", b"a\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
def test_text_that_is_not_utf_8_closes_with_1007(text, split):
    for data in (client_frame(TEXT, text), client_frame(TEXT, text[:1], fin=False) + client_frame(CONT, text[1:])):
        reader = Reader(100)
        messages, sent = feed(reader, client_frame(TEXT, b"ok") + data + client_frame(TEXT, b"late"), split)
        assert (messages, close_code(sent)) == (["ok"], 1007)
        assert reader.closing and reader.fault


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x02ab",  # not masked
        b"\xc1\x80\x00\x00\x00\x00",  # compressed, which was not agreed on
        b"\x83\x80\x00\x00\x00\x00",  # opcode 3
        b"\x09\x80\x00\x00\x00\x00",  # ping in fragments
        b"\x80\x80\x00\x00\x00\x00",  # continues nothing
        client_frame(TEXT, b"a", fin=False) + client_frame(TEXT, b"b"),
    ],
    ids=["not masked", "compressed", "unknown opcode", "ping in fragments", "continues nothing", "message in message"],
)
def test_a_broken_frame_closes_with_1002(data, split):
    reader = Reader(100)
    messages, sent = feed(reader, data, split)
    assert (messages, close_code(sent)) == ([], 1002)
    assert reader.closing and not reader.clean and reader.fault


@pytest.mark.parametrize(("payload", "code"), [(b"\x03\xe8bye", 1000), (b"\x0f\xa0", 4000)])
def test_a_close_is_echoed(payload, code, split):
    reader = Reader(100)
    messages, sent = feed(reader, client_frame(TEXT, b"last") + client_frame(CLOSE, payload), split)
    assert (messages, close_code(sent)) == (["last"], code)
    assert reader.closing and reader.clean
    assert reader.fault == ""


def test_a_close_without_a_code_is_echoed_without_one(split):
    assert feed(Reader(100), client_frame(CLOSE), split) == ([], b"\x88\x00")


def test_nothing_is_read_after_a_close():
    reader = Reader(100)
    assert reader.feed(client_frame(CLOSE, b"\x03\xe8") + client_frame(TEXT, b"late")) == []


def test_our_own_failure_is_said_once():
    reader = Reader(100)
    reader.fail(frames.TOO_BIG, "too much")
    reader.fail(frames.POLICY, "again")
    assert reader.closing
    assert close_code(reader.reply()) == 1009
    assert reader.reply() == b""
    assert reader.feed(client_frame(TEXT, b"late")) == []
    assert reader.reply() == b""


def deflating():
    return [PerMessageDeflate(True, True, 15, 15)]


def deflated(payload):
    squeeze = zlib.compressobj(9, wbits=-15)
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compressed_messages_are_inflated(split):
    payload = "äöü".encode() * 30
    data = client_frame(TEXT, deflated(payload), rsv1=True) + client_frame(TEXT, b"plain")
    assert feed(Reader(1000, extensions=deflating()), data, split) == ([payload.decode(), "plain"], b"")


def test_compressed_fragments_are_inflated_together(split):
    data = deflated(b"abc" * 100)
    message = client_frame(BINARY, data[:3], fin=False, rsv1=True) + client_frame(CONT, data[3:])
    assert feed(Reader(1000, extensions=deflating()), message, split) == ([b"abc" * 100], b"")


@pytest.mark.parametrize("fragments", [1, 4])
def test_a_bomb_is_not_inflated_beyond_the_limit(fragments, split):
    data = deflated(b"\x00" * (64 << 20))
    size = len(data) // fragments + 1
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    message = b"".join(
        client_frame(CONT if i else BINARY, part, fin=i == len(parts) - 1, rsv1=not i) for i, part in enumerate(parts)
    )
    reader = Reader(1 << 20, extensions=deflating())
    tracemalloc.start()
    try:
        messages, sent = feed(reader, message, split)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (messages, close_code(sent)) == ([], 1009)


def test_rubbish_instead_of_compressed_data_closes(split):
    reader = Reader(1000, extensions=deflating())
    messages, sent = feed(reader, client_frame(TEXT, b"\xff" * 20, rsv1=True), split)
    assert messages == []
    assert close_code(sent) in (1002, 1007)
