import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.socketio import envelope
from flask_realtime.protocol.socketio.envelope import EMIT, WINDOW, Seal, event_body, head, pack, unpack, whole, write
from flask_realtime.protocol.socketio.packets import TextCodec

CODEC = TextCodec()
TAIL = {"namespace": "/", "room": "r", "skip_sid": None, "callback": None, "host_id": "h"}

rooms = st.none() | st.text() | st.integers() | st.lists(st.text())
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
binaries = st.recursive(
    values | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def emit(event="x", args=(), **fields):
    return write(EMIT, {**TAIL, **fields}, event_body(CODEC, event, list(args)))


def foreign(event="x", data=(), binary=False, **fields):
    """Write an emit as python-socketio does."""
    message = {"method": "emit", "event": event, "data": list(data), "binary": binary, **TAIL, **fields}
    return json.dumps(message).encode()


def test_an_emit_is_what_python_socketio_understands():
    message = json.loads(emit("news", [1, {"a": "é"}], room="r", n=7))
    assert message == {
        **{"method": "emit", "namespace": "/", "room": "r", "skip_sid": None, "callback": None, "host_id": "h"},
        **{"n": 7, "binary": False, "event": "news", "data": [1, {"a": "é"}]},
    }


def test_binary_data_is_a_structure_and_base64():
    message = json.loads(emit("x", [{"a": [b"\x00\xff"]}, b"b"]))
    placeholders = [{"_placeholder": True, "num": number} for number in (0, 1)]
    assert message["binary"] is True
    assert message["data"] == [[{"a": [placeholders[0]]}, placeholders[1]], "AP8=", "Yg=="]


@given(st.text(), st.lists(binaries, max_size=4))
def test_what_is_written_is_read(event, args):
    message = whole(emit(event, args))
    assert message["event"] == event
    assert unpack(CODEC, message["data"], message["binary"]) == args


@given(rooms, st.lists(values, max_size=4), st.text())
def test_the_head_of_ours_leaves_the_payload_out(room, args, event):
    found = head(emit(event, args, room=room, skip_sid=[event], n=1))
    assert found == {"method": "emit", **TAIL, "room": room, "skip_sid": [event], "n": 1}


@given(rooms, st.lists(values, max_size=4), st.text())
def test_the_head_of_most_of_ours_is_read_without_a_parser(room, args, event):
    fields = {"namespace": "/" + event, "room": room, "skip_sid": None, "callback": None, "host_id": "h", "n": 5}
    data = write(EMIT, fields, event_body(CODEC, event, args))
    assert head(data) == {"method": "emit", **fields}


def test_bytes_that_are_no_text_are_refused():
    fields = {"namespace": "/", "room": "r", "skip_sid": None, "callback": None, "host_id": "h", "n": 5}
    data = write(EMIT, fields, event_body(CODEC, "x", []))
    with pytest.raises(RemoteProtocolError):
        head(data.replace(b'"r"', b'"\xff"'))


@given(rooms, st.lists(values, max_size=4), st.text())
def test_the_tail_of_python_socketios_leaves_the_payload_out(room, args, event):
    found = head(foreign(event, args, room=room))
    assert {name: found.get(name) for name in ("method", *TAIL)} == {"method": "emit", **TAIL, "room": room}


@pytest.mark.parametrize("data", [
    [{"a": 1, "namespace": "/evil", "room": "evil", "host_id": "evil"}],
    [", \"namespace\": \"/evil\", \"room\": \"evil\", \"host_id\": \"evil\"}"],
    [{"binary": False, "data": {"binary": 1}}],
])  # fmt: skip
@pytest.mark.parametrize("last", [True, False])
def test_a_payload_that_looks_like_a_head_or_tail_is_none(data, last):
    message = {"method": "emit", "event": "x", "binary": False, **TAIL, "data": data}
    if not last:
        message = {"method": "emit", "event": "x", "data": data, "binary": False, **TAIL}
    for separators in ((",", ":"), (", ", ": ")):
        found = head(json.dumps(message, separators=separators).encode())
        assert (found["room"], found["namespace"], found["host_id"]) == ("r", "/", "h")
    assert head(emit("x", data))["room"] == "r"


def test_other_messages_are_read_whole():
    data = write("disconnect", {"sid": "s", "namespace": "/", "host_id": "h"})
    assert head(data) == {"method": "disconnect", "sid": "s", "namespace": "/", "host_id": "h"}


@pytest.mark.parametrize("data", [
    *(b"", b"1", b"null", b"[]", b"{}", b"{", b"\xff", b"[" * 100_000, b'{"method":1}', b'{"method":"emit",'),
    *(b'{"method":"emit","binary":', b'{"method": "emit", "namespace": '),
])  # fmt: skip
def test_what_is_no_message_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        head(data)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_message_or_refused(data):
    for start in (b"", b'{"method":"emit",', b'{"method": "emit", '):
        try:
            assert isinstance(head(start + data)["method"], str)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(("data", "binary"), [
    *((None, False), ({}, False), ("ab", False), ([], True), ("x", True), ([[], 5], True), ([[], "?"], True)),
    ([[{"_placeholder": True, "num": 3}], "AA=="], True),
])  # fmt: skip
def test_arguments_that_are_none_are_refused(data, binary):
    with pytest.raises(RemoteProtocolError):
        unpack(CODEC, data, binary)


def test_what_no_client_could_be_sent_is_not_written():
    for args, error in (([object()], TypeError), ([[math.nan]], None)):
        if error is None:
            assert pack(CODEC, args) == ("[[null]]", "false")
        else:
            with pytest.raises(error):
                pack(CODEC, args)
    with pytest.raises(TypeError):
        write(EMIT, {"room": object()})


def test_the_programs_own_json_writes_the_payload():
    codec = TextCodec(default=lambda value: "date" if isinstance(value, complex) else None)
    assert pack(codec, [1j]) == ('["date"]', "false")


# Signatures.


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def test_a_signed_message_is_json_that_others_read_too():
    seal, data = Seal("secret", Clock()), emit("x", [1])
    signed = seal.sign(data)
    assert {**json.loads(signed), "signature": 0, "time": 0} == {**json.loads(data), "signature": 0, "time": 0}
    assert seal.open(signed) == (data, seal.now())
    assert Seal(b"secret", Clock()).open(signed) == (data, seal.now())


def test_each_byte_is_signed():
    seal = Seal("secret", Clock())
    signed = seal.sign(emit("x", [1]))
    for index in range(len(signed)):
        forged = bytearray(signed)
        forged[index] ^= 1
        with pytest.raises(RemoteProtocolError):
            seal.open(bytes(forged))


@pytest.mark.parametrize("data", [b"", b"{}", emit(), b'{"signature":"', b'{"signature":"' + b"0" * 64 + b'",'])
def test_what_is_not_signed_is_refused(data):
    with pytest.raises(RemoteProtocolError):
        Seal("secret", Clock()).open(data)


def test_another_secret_is_refused():
    with pytest.raises(RemoteProtocolError, match="our secret"):
        Seal("secret", Clock()).open(Seal("Secret", Clock()).sign(emit()))


@pytest.mark.parametrize("seconds", [-WINDOW - 1, WINDOW + 1])
def test_a_signature_is_good_for_some_minutes(seconds):
    clock = Clock()
    seal = Seal("secret", clock)
    signed = seal.sign(emit())
    when = seal.now()
    clock.now += 0.9 * seconds
    assert seal.open(signed) == (emit(), when)
    clock.now += 0.2 * seconds
    with pytest.raises(RemoteProtocolError, match="clocks"):
        seal.open(signed)


def test_the_methods_have_the_names_of_the_field():
    names = (envelope.EMIT, envelope.CALLBACK, envelope.DISCONNECT, envelope.ENTER, envelope.LEAVE, envelope.CLOSE)
    assert names == ("emit", "callback", "disconnect", "enter_room", "leave_room", "close_room")
