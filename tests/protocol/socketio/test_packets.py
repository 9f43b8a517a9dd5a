import json
from collections import OrderedDict
from decimal import Decimal

import pytest

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.socketio import packets
from flask_realtime.protocol.socketio.packets import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Limits,
    Packet,
    TextCodec,
    check_depth,
)

NAN = float("nan")


def encode(packet, **options):
    return TextCodec(**options).encode(packet)


def decode(*messages, limits=Limits(), from_server=False, codec=None):  # noqa: B008
    """Feed all messages; the last one completes the packet."""
    decoder = (codec or TextCodec()).decoder(limits, from_server)
    for message in messages[:-1]:
        assert decoder.feed(message) is None
    return decoder.feed(messages[-1])


# Both ways

TABLE = [
    (Packet(CONNECT), ["0"]),
    (Packet(CONNECT, "/admin"), ["0/admin,"]),
    (Packet(CONNECT, "/", None, {"token": "123"}), ['0{"token":"123"}']),
    (Packet(CONNECT, "/admin", None, {"sid": "x"}), ['0/admin,{"sid":"x"}']),
    (Packet(DISCONNECT, "/admin"), ["1/admin,"]),
    (Packet(EVENT, "/", None, ["foo"]), ['2["foo"]']),
    (Packet(EVENT, "/", 12, ["foo"]), ['212["foo"]']),
    (Packet(EVENT, "/admin", 456, ["bar", {"a": [1, 2.5, None]}]), ['2/admin,456["bar",{"a":[1,2.5,null]}]']),
    (Packet(EVENT, "/a?b=c", None, ["x"]), ['2/a?b=c,["x"]']),
    (Packet(EVENT, "/", None, [7, "x"]), ['2[7,"x"]']),
    (Packet(EVENT, "/", None, ["grüße", "🎈"]), ['2["grüße","🎈"]']),
    (Packet(ACK, "/", 0, []), ["30[]"]),
    (Packet(ACK, "/admin", 456, ["ok"]), ['3/admin,456["ok"]']),
    (Packet(EVENT, "/", None, ["b", b"\x01"]), ['51-["b",{"_placeholder":true,"num":0}]', b"\x01"]),
    (
        Packet(EVENT, "/admin", 7, ["b", [b"\x01", {"x": b""}], b"\x02"]),
        [
            '53-/admin,7["b",[{"_placeholder":true,"num":0},{"x":{"_placeholder":true,"num":1}}],'
            '{"_placeholder":true,"num":2}]',
            b"\x01",
            b"",
            b"\x02",
        ],
    ),
    (Packet(ACK, "/", 9, [b"a"]), ['61-9[{"_placeholder":true,"num":0}]', b"a"]),
]


@pytest.mark.parametrize(("packet", "messages"), TABLE)
def test_packets_and_their_messages(packet, messages):
    assert encode(packet) == messages
    assert decode(*messages) == packet


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Packet(CONNECT_ERROR, "/", None, {"message": "no"}), '4{"message":"no"}'),
        (Packet(CONNECT_ERROR, "/x", None, "no"), '4/x,"no"'),
        (Packet(DISCONNECT, "/", None, {"message": "late"}), '1{"message":"late"}'),
    ],
)
def test_packets_that_come_from_servers_only(packet, text):
    assert encode(packet) == [text]
    assert decode(text, from_server=True) == packet
    with pytest.raises(RemoteProtocolError):
        decode(text)


# Encoding


@pytest.mark.parametrize("value", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")])
def test_all_that_is_binary_is_attached(value):
    text, attachment = encode(Packet(EVENT, "/", None, ["x", (value,)]))
    assert attachment == b"\x00\xff" and type(attachment) is bytes
    assert text == '51-["x",[{"_placeholder":true,"num":0}]]'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, (2,)), "[1,[2]]"),
        (NAN, "null"),
        ([float("inf"), -float("inf"), 1.5], "[null,null,1.5]"),
        ({"a": NAN, "b": (NAN,)}, '{"a":null,"b":[null]}'),
        ({1: "a", None: "b", False: "c"}, '{"1":"a","null":"b","false":"c"}'),
        (OrderedDict([("b", 1), ("a", 2)]), '{"b":1,"a":2}'),
        (10**30, "1" + "0" * 30),
        ("\x1e\n", '"\\u001e\\n"'),
        ("\u2028", '"\u2028"'),
        ("\ud83d", '"\\ud83d"'),
        ("é\udfff\ud800x", '"é\\udfff\\ud800x"'),
        ("</script>", '"</script>"'),
    ],
)
def test_values_as_json(value, text):
    assert encode(Packet(EVENT, "/", None, ["x", value])) == [f'2["x",{text}]']


def test_nan_beside_bytes():
    text, attachment = encode(Packet(EVENT, "/", None, ["x", NAN, b"a", "\ud800"]))
    assert text == '51-["x",null,{"_placeholder":true,"num":0},"\\ud800"]'
    assert attachment == b"a"


def test_a_python_whose_encoder_has_no_core(monkeypatch):
    monkeypatch.setattr(json.encoder, "c_make_encoder", None)
    assert "".join(packets._make_encode()(["ä", {"b": 1.5}], 0)) == '["ä",{"b":1.5}]'


def test_white_space_around_a_payload():
    for text in ('2 ["a"]', '2["a"]\n', '2\t["a"] '):
        assert decode(text).data == ["a"]
    for text in ('2["a"]["b"]', "2 ", '2["a"] x', '2["a",]'):
        with pytest.raises(RemoteProtocolError, match="isn't JSON"):
            decode(text)


@pytest.mark.parametrize("value", [{1, 2}, object(), Decimal(1), 1j, {"a": [object()]}, {b"key": 1}, {(1,): 1}])
def test_what_json_does_not_know_is_refused_by_name(value):
    with pytest.raises(TypeError):
        encode(Packet(EVENT, "/", None, ["x", value]))


def test_a_default_is_asked_for_what_json_does_not_know():
    def default(value):
        if isinstance(value, Decimal):
            return [str(value), b"raw"]
        raise TypeError("no")

    text, attachment = encode(Packet(EVENT, "/", None, ["x", Decimal("1.5"), b"2"]), default=default)[:2]
    assert text == '52-["x",["1.5",{"_placeholder":true,"num":0}],{"_placeholder":true,"num":1}]'
    assert attachment == b"raw"
    with pytest.raises(TypeError):
        encode(Packet(EVENT, "/", None, ["x", object()]), default=default)


@pytest.mark.parametrize("extra", [1, NAN, b"x"])
def test_data_that_contains_itself_is_a_value_error(extra):
    data = [extra]
    data.append(data)
    with pytest.raises(ValueError):
        encode(Packet(EVENT, "/", None, ["x", data]))


@pytest.mark.parametrize("kind", [CONNECT, CONNECT_ERROR, DISCONNECT])
def test_bytes_go_in_events_and_acknowledgements_only(kind):
    with pytest.raises(TypeError):
        encode(Packet(kind, "/", None, {"a": b"x"}))


# A custom json


class Custom:
    """Indents, and leaves control characters as they are."""

    @staticmethod
    def dumps(obj, **kwargs):
        return json.dumps(obj, ensure_ascii=False).replace("\\u001e", "\x1e")

    @staticmethod
    def loads(text, **kwargs):
        return json.loads(text, parse_int=str)


def test_a_custom_json_is_used_both_ways():
    codec = TextCodec(Custom)
    packet = Packet(EVENT, "/", None, ["x", {"a": (b"1", bytearray(b"2"))}, "\x1e\ud800"])
    text, *attachments = codec.encode(packet)
    assert text.startswith('52-["x", {"a": [')
    assert "\x1e" not in text, "it separates packets in a polling payload"
    text.encode()
    assert attachments == [b"1", b"2"]
    assert decode("2[7]", codec=codec).data == ["7"]


# Decoding


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "7",
        "9[]",
        "-1",
        " 2[]",
        "2",
        "2[]",
        "2{}",
        '2"foo"',
        "2null",
        "2[null]",
        "2[true]",
        "2[1.5]",
        "2[[]]",
        "2[{}]",
        '2["foo"',
        '2["foo"]]',
        '2["foo"]x',
        "2['foo']",
        '2["\n"]',
        '2["\\x"]',
        "2[NaN]",
        '2["x",NaN]',
        '2["x",Infinity]',
        '2["x",-Infinity]',
        '2["x",' + "9" * 5000 + "]",
        "2/admin",
        '2/admin["foo"]',
        '2["connect"]',
        '2["disconnect"]',
        '2["disconnecting"]',
        '2["newListener"]',
        '2["removeListener"]',
        '2["connect_error"]',
        "3",
        "3[]",
        "31",
        "31{}",
        '31"x"',
        "31null",
        "0[]",
        '0"x"',
        "0[",
        "1{}",
        "1[]",
        "4{}",
        "5",
        "5[]",
        '5["x"]',
        '51["x"]',
        '5x-["x"]',
        '5-["x"]',
        '5-1-["x"]',
        "51-",
        "51-[]",
        "51-{}",
        '61-["x"]',
        '50-["x",{"_placeholder":true,"num":0}]',
        "2٣[\"x\"]",
    ],
)
def test_text_that_is_no_packet(text):
    with pytest.raises(RemoteProtocolError):
        decode(text)


@pytest.mark.parametrize(
    "number", ["-1", "1", "1.0", "null", '"0"', "true", "[]", "99999999999999999999", "{}"]
)
def test_a_placeholder_out_of_range(number):
    with pytest.raises(RemoteProtocolError):
        decode('51-["x",{"_placeholder":true,"num":' + number + "}]", b"a")


def test_a_placeholder_without_a_number():
    with pytest.raises(RemoteProtocolError):
        decode('51-["x",{"_placeholder":true}]', b"a")


@pytest.mark.parametrize("value", ["1", "false", '"true"', "null"])
def test_what_only_looks_like_a_placeholder_stays(value):
    text = '51-["x",{"_placeholder":' + value + ',"num":0}]'
    assert decode(text, b"a").data[1] == {"_placeholder": json.loads(value), "num": 0}


def test_a_placeholder_in_plain_text_stays():
    assert decode('2["x",{"_placeholder":true,"num":0}]').data[1] == {"_placeholder": True, "num": 0}


def test_one_attachment_may_stand_in_several_places():
    placeholder = '{"_placeholder":true,"num":0}'
    assert decode(f'51-["x",{placeholder},[{placeholder}]]', b"a").data == ["x", b"a", [b"a"]]


def test_no_attachments_are_fine():
    assert decode('50-["x"]') == Packet(EVENT, "/", None, ["x"])


def test_text_among_attachments():
    decoder = TextCodec().decoder(Limits())
    assert decoder.feed('52-["x"]') is None
    assert decoder.feed(b"a") is None
    with pytest.raises(RemoteProtocolError, match="attachment 2 of 2"):
        decoder.feed('2["x"]')


def test_an_attachment_of_nothing():
    with pytest.raises(RemoteProtocolError):
        decode(b"a")
    decoder = TextCodec().decoder(Limits())
    decoder.feed('51-["x"]')
    decoder.feed(b"a")
    with pytest.raises(RemoteProtocolError):
        decoder.feed(b"b")


def test_one_packet_after_the_other():
    decoder = TextCodec().decoder(Limits())
    for i in range(3):
        assert decoder.feed('51-["x",{"_placeholder":true,"num":0}]') is None
        assert decoder.feed(b"%d" % i).data == ["x", b"%d" % i]
        assert decoder.feed('2["y"]').data == ["y"]


# Limits


@pytest.mark.parametrize(("count", "fine"), [(10, True), (11, False), (9999999999, False)])
def test_the_number_of_attachments(count, fine):
    decoder = TextCodec().decoder(Limits())
    if fine:
        assert decoder.feed(f'5{count}-["x"]') is None
    else:
        with pytest.raises(RemoteProtocolError) as caught:
            decoder.feed(f'5{count}-["x"]')
        assert caught.value.code == 1009


def test_the_size_of_attachments_together():
    decoder = TextCodec().decoder(Limits(attachment_bytes=10))
    decoder.feed('53-["x"]')
    decoder.feed(b"12345")
    decoder.feed(b"67890")
    with pytest.raises(RemoteProtocolError) as caught:
        decoder.feed(b"1")
    assert caught.value.code == 1009


def test_the_length_of_a_namespace():
    limits = Limits(namespace=8)
    assert decode('2/1234567,["x"]', limits=limits).namespace == "/1234567"
    with pytest.raises(RemoteProtocolError):
        decode('2/12345678,["x"]', limits=limits)


def test_the_digits_of_an_id():
    assert decode("3" + "9" * 20 + "[]").id == 10**20 - 1
    with pytest.raises(RemoteProtocolError):
        decode("3" + "9" * 21 + "[]")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_the_depth_of_a_payload(opening, closing):
    levels = len(opening.replace('"a":', ""))
    for depth, fine in ((63 // levels, True), (64 // levels + 1, False), (100_000, False)):
        text = '2["x",' + opening * depth + "1" + closing * depth + "]"
        if fine:
            assert decode(text).data[0] == "x"
        else:
            with pytest.raises(RemoteProtocolError) as caught:
                decode(text)
            assert caught.value.code == 1009


@pytest.mark.parametrize("value", ["{},", "[],", '"ab",', '{"a":1},', "1,"])
def test_the_memory_of_many_small_values(value):
    limits = Limits(memory=1_000_000)
    few, many = 2_000, 60_000
    assert len(decode('2["x",[' + value * few + "0]]", limits=limits).data[1]) == few + 1
    with pytest.raises(RemoteProtocolError) as caught:
        decode('2["x",[' + value * many + "0]]", limits=limits)
    assert caught.value.code == 1009


def test_one_large_value_takes_little_more_memory_than_its_text():
    text = "one, two and three. " * 40_000
    assert decode(json.dumps(["x", text], separators=(",", ":")).join(["2", ""]), limits=Limits()).data == ["x", text]


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("[[[]]]", True),
        ("[[[[]]]]", False),
        ("[[],[],[],[[]],{}]", True),
        ('"[[[[["', True),
        (r'"\"[[[[["', True),
        (r'"\\",[[[[', False),
        ('"[[[[[', True),
        ('["]]]]",[[[]]]]', False),
        ("[" * 1000, False),
        ("", True),
    ],
)
def test_depth_is_counted_outside_of_strings(text, fine):
    if fine:
        check_depth(text, 3)
    else:
        with pytest.raises(RemoteProtocolError):
            check_depth(text, 3)
