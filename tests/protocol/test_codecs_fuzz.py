"""Every codec: what goes in comes out on the other side, and nothing that a peer sends gets another error out of it."""

import json
import math
import zlib

import pytest
from doubles import client_frame, octets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import CLIENT, OPEN, Protocol

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.engineio import polling
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.socketio.msgpack import MsgpackCodec
from flask_realtime.protocol.socketio.packets import (
    ACK,
    CONNECT,
    EVENT,
    RESERVED,
    Limits,
    Packet,
    TextCodec,
    check_depth,
)
from flask_realtime.protocol.websocket import frames
from flask_realtime.protocol.websocket.reader import Reader

fuzz = settings(
    derandomize=True, max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)

WIDE = Limits(attachments=1000, attachment_bytes=1 << 30, depth=1000)

any_text = st.text(st.characters(), max_size=20)  # lone surrogates too
utf8_text = st.text(max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.floats() | any_text
fits_msgpack = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | utf8_text


def values(leaves, keys):
    """Any JSON value with bytes and tuples at any depth."""
    return st.recursive(
        leaves | st.binary(max_size=20),
        lambda inner: st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys.filter(lambda key: key != "_placeholder"), inner, max_size=4),
        max_leaves=15,
    )


names = utf8_text.filter(lambda name: name not in RESERVED) | st.integers(0, 2**40)
namespaces = st.just("/") | st.text(st.characters(codec="utf-8", exclude_characters=","), max_size=20).map("/".__add__)
ids = st.none() | st.integers(0, 10**19)


def received(value):
    """Return what JavaScript's rules make of a value on its way."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (list, tuple)):
        return [received(item) for item in value]
    if isinstance(value, dict):
        return {key: received(item) for key, item in value.items()}
    return value


def listed(value):
    """Return a value with lists in place of tuples."""
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return value


def over_the_wire(codec, packet, limits=WIDE):
    """Encode, take all that through UTF-8, and decode."""
    decoder = codec.decoder(limits, from_server=True)
    result = None
    for message in codec.encode(packet):
        assert result is None
        result = decoder.feed(message.encode().decode() if isinstance(message, str) else message)
    return result


# Round trips


@fuzz
@given(st.sampled_from([EVENT, ACK]), namespaces, ids, names, st.lists(values(plain, any_text)))
def test_text_packets(kind, namespace, number, name, data):
    number = number or 0 if kind == ACK else number
    packet = Packet(kind, namespace, number, [name, *data])
    assert over_the_wire(TextCodec(), packet) == packet._replace(data=received(packet.data))


@fuzz
@given(data=st.lists(values(plain, any_text)))
def test_text_packets_with_a_json_of_ones_own(data):
    packet = Packet(EVENT, "/", None, ["x", *received(data)])
    assert over_the_wire(TextCodec(json), packet) == packet


@fuzz
@given(auth=st.dictionaries(any_text, st.integers() | any_text), namespace=namespaces)
def test_connect_packets(auth, namespace):
    packet = Packet(CONNECT, namespace, None, auth)
    assert over_the_wire(TextCodec(), packet) == packet


@fuzz
@given(st.sampled_from([EVENT, ACK]), namespaces, names, st.lists(values(fits_msgpack, utf8_text)))
def test_msgpack_packets(kind, namespace, name, data):
    packet = Packet(kind, namespace, 7, [name, *data])
    assert over_the_wire(MsgpackCodec(), packet) == packet._replace(data=listed(packet.data))


@fuzz
@given(data=values(plain | st.just(object()), any_text | st.binary() | st.integers()))
def test_encoding_has_two_errors_only(data):
    for codec in (TextCodec(), MsgpackCodec(), TextCodec(json)):
        try:
            codec.encode(Packet(EVENT, "/", None, ["x", data]))
        except (TypeError, ValueError):
            pass


messages = st.binary(max_size=50) | utf8_text.filter(lambda text: "\x1e" not in text).map("4".__add__)


@fuzz
@given(st.lists(messages, min_size=1, max_size=8))
def test_polling_payloads(packets):
    payload = polling.encode([Frame(packet) for packet in packets])
    assert polling.decode(payload.encode().decode()) == packets


@fuzz
@given(st.lists(values(plain, any_text), min_size=1, max_size=3))
def test_packets_in_polling_payloads(data):
    encoded = [TextCodec().encode(Packet(EVENT, "/", None, ["x", item])) for item in data]
    sent = ["4" + part if isinstance(part, str) else part for parts in encoded for part in parts]
    assert polling.decode(polling.encode([Frame(message) for message in sent]).encode().decode()) == sent


@fuzz
@given(payload=any_text | st.text("\\\n\r\t\"'</>&nu \u2028\u2029", max_size=40), index=st.integers(0, 10**6))
def test_jsonp_scripts(payload, index):
    script = polling.wrap(str(index), payload)
    head = f"___eio[{index}]("
    assert script.startswith(head) and script.endswith(");") and script.isascii()
    text = script[len(head) : -2]
    assert json.loads(text) == payload
    assert not set(text) & set("<>\r\n")


def form_of(payload):
    """Return the form that a JSONP client posts: a browser turns line breaks into CRLF, so they are escaped."""
    from urllib.parse import quote

    return "d=" + quote(payload.replace("\\n", "\\\\n").replace("\n", "\\n"))


# A backslash before an escaped line break is ambiguous in this protocol; its clients never send one.
@fuzz
@given(st.text(max_size=40) | st.text('\\\nn"a&=+%;', max_size=40))
def test_jsonp_forms(payload):
    if "\\\n" not in payload and "\\\\n" not in payload:
        assert polling.unwrap(form_of(payload)) == payload


@fuzz
@given(packets=st.lists(messages, max_size=5), sizes=st.lists(st.sampled_from([0, 125, 126, 65535, 65536]), max_size=2))
def test_frames_are_read_by_another_parser(packets, sizes):
    sent = [*packets, *(b"x" * size for size in sizes)]
    for form, extensions in (("websocket", []), ("deflated", [PerMessageDeflate(True, True, 15, 15)])):
        client = Protocol(CLIENT, state=OPEN)
        client.extensions = extensions
        client.receive_data(b"".join(getattr(Frame(packet), form) for packet in sent))
        assert client.parser_exc is None
        got = [(frame.opcode, bytes(frame.data)) for frame in client.events_received()]
        assert [data.decode() if opcode == 1 else data for opcode, data in got] == sent


@fuzz
@given(code=st.integers(1000, 4999), reason=st.text())
def test_close_frames_are_read_by_another_parser(code, reason):
    data = frames.close(code, reason)
    assert len(data) <= 127
    assert reason.encode().startswith(data[4:])
    data[4:].decode()


# Anything in


def only_remote(function, *args):
    try:
        return function(*args)
    except RemoteProtocolError as caught:
        error = caught
    assert error.code in (1002, 1007, 1008, 1009)
    assert len(str(error)) < 500, "a peer doesn't fill our log"
    return None


almost = st.builds(
    lambda head, count, namespace, number, payload: f"{head}{count}{namespace}{number}{payload}",
    st.sampled_from("0123456789"),
    st.sampled_from(["", "0-", "1-", "2-", "-"]),
    st.sampled_from(["", "/a,", "/a", "/,"]),
    st.sampled_from(["", "0", "12", "9" * 21]),
    st.sampled_from(["", "[]", '["x"]', "{}", '[{"_placeholder":true,"num":1}]', "NaN", "[1e999]", '["\\ud800"]'])
    | st.text('[]{}",:\\0123456789tfn_ ', max_size=20),
)
nests = st.sampled_from(["[", '{"a":', '[{"":', '["', "{["])
deep = st.builds(lambda text, depth: "2" + text * depth, nests, st.integers(0, 50_000))


@fuzz
@given(st.lists(almost | deep | any_text | st.binary(max_size=20), max_size=4), st.booleans())
@example(["2[" + "9" * 5000 + "]"], False)
@example(["2" + "[" * 100_000 + "]" * 100_000], False)
@example(["51-[1,NaN]", b""], False)
def test_anything_to_the_text_decoder(fed, from_server):
    for codec in (TextCodec(), TextCodec(json)):
        decoder = codec.decoder(Limits(), from_server)

        def feed(decoder=decoder):
            for message in fed:
                packet = decoder.feed(message)
                assert packet is None or packet.type in range(5)

        only_remote(feed)


@fuzz
@given(any_text | deep)
def test_anything_to_the_depth_check(text):
    only_remote(check_depth, text, 5)


@pytest.fixture(scope="module")
def packed():
    codec = MsgpackCodec()
    return b"".join(codec.encode(Packet(EVENT, "/a", 7, ["x", {"a": [1, None, b"b", 1.5]}])))


pieces = [b"\x80", b"\x81", b"\x84", b"\x90", b"\x91", b"\xdf", b"\xc7\x08\x00", b"\xd7\x00"]
pieces += [b"\xa4type", b"\xa3nsp", b"\xa4data", b"\xa2id", b"\xa1/", b"\x02", b"\xc0"]
msgpack_like = st.lists(st.sampled_from(pieces) | st.binary(max_size=9), max_size=12).map(b"".join)


@fuzz
@given(st.binary(max_size=60) | msgpack_like | any_text)
@example(b"\x91" * 100_000)
@example(b"\x81\xa1a" * 100_000)
def test_anything_to_the_msgpack_decoder(message):
    packet = only_remote(MsgpackCodec().decoder(Limits()).feed, message)
    assert packet is None or packet.type in range(5)


@fuzz
@given(data=st.data())
def test_damaged_packets_to_the_msgpack_decoder(packed, data):
    at = data.draw(st.integers(0, len(packed) - 1))
    damaged = packed[:at] + data.draw(st.binary(max_size=3)) + packed[at + data.draw(st.integers(0, 3)) :]
    only_remote(MsgpackCodec().decoder(Limits()).feed, damaged)


@fuzz
@given(any_text | st.text("b4\x1e=AQ", max_size=20) | st.binary(max_size=40).map(lambda data: data.decode("latin-1")))
def test_anything_to_the_payload_decoder(payload):
    for packet in only_remote(polling.decode, payload) or ():
        assert isinstance(packet, bytes) or packet


@fuzz
@given(any_text | st.text("d=&;%+4\\n", max_size=30))
@example("&".join(["d=4"] * 10))
def test_anything_to_the_jsonp_form(body):
    only_remote(polling.unwrap, body)


def frame_bytes():
    """Frames of a client, good and nearly good."""
    return st.builds(
        lambda opcode, payload, fin, rsv1: client_frame(opcode, payload, fin, rsv1),
        st.sampled_from([0, 0, 1, 1, 2, 9, 10]),
        st.binary(max_size=125) | utf8_text.map(lambda text: text.encode()[:125]),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    )


def result(parts, deflate):
    """Feed as a connection does; return what came of it."""
    reader = Reader(200, 4, [PerMessageDeflate(True, True, 15, 15)] if deflate else [])
    got, sent = [], b""
    for part in parts:
        got += reader.feed(part)
        sent += reader.reply()
        if reader.closing:
            break
    return got, sent, reader.closing, reader.clean, reader.fault


@fuzz
@given(st.lists(frame_bytes() | st.binary(min_size=1, max_size=20), min_size=1, max_size=8), st.booleans())
def test_anything_to_the_reader_whole_or_byte_by_byte(parts, deflate):
    stream = b"".join(parts)
    whole, single = result([stream], deflate), result(octets(stream), deflate)
    # Of two faults in one read the second may be the one that is named.
    assert whole[0] == single[0] and whole[2] == single[2]
    got, sent, closing, _, _ = whole
    assert all(isinstance(message, (str, bytes)) for message in got)
    client = Protocol(CLIENT, state=OPEN)
    client.receive_data(sent)
    answers = client.events_received()
    assert client.parser_exc is None
    assert closing == (bool(answers) and answers[-1].opcode == 8)
    assert {answer.opcode for answer in answers} <= {8, 10}


@fuzz
@given(st.lists(st.binary(max_size=200) | utf8_text, max_size=5), st.lists(st.integers(1, 60), max_size=3))
def test_good_frames_come_out_as_they_went_in(messages, cuts):
    stream = b""
    for message in messages:
        opcode, data = (1, message.encode()) if isinstance(message, str) else (2, message)
        rest = data
        for cut in cuts:
            stream += client_frame(opcode, rest[:cut], fin=False) + client_frame(9, b"p")
            opcode, rest = 0, rest[cut:]
        stream += client_frame(opcode, rest)
    assert result([stream] if stream else [], False)[0] == messages
    assert result(octets(stream), False)[0] == messages


@fuzz
@given(st.binary(max_size=200))
def test_compressed_frames_come_out_as_they_went_in(data):
    squeeze = zlib.compressobj(wbits=-15)
    packed = (squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert result([client_frame(2, packed, rsv1=True)], True)[0] == [data]
    assert result(octets(client_frame(2, packed, rsv1=True)), True)[0] == [data]
