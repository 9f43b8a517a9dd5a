"""Traps T60, T62 to T65 and T68: what Socket.IO packets carry, and what happens to those that are broken."""

import contextlib
import dataclasses
import json
import math
import queue

import pytest

from flask_realtime import ConnectionRefusedError, socketio

from ..e2e.raw import Polling, WebSocket
from .engineio_server import get, plain, program

TEXT, BINARY, CLOSE = 1, 2, 8


@contextlib.contextmanager
def joined(**options):
    """Serve, and yield ``(server, log, client)`` with a WebSocket client that has joined the namespace ``/``."""
    server = socketio.Server(**options)
    log = queue.Queue()
    server.on("*", lambda event, sid, *args: log.put((event, *args)))
    server.on("disconnect", lambda sid, reason: log.put(("disconnect", reason)))
    with plain(server) as running:
        client = WebSocket(running)
        try:
            client.receive()
            client.send("40")
            assert client.receive().startswith("40{")
            yield server, log, client
        finally:
            client.abandon(reset=False)


@pytest.mark.parametrize(
    ("data", "received"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[1:3], b"bc"),
        ([1, [b"a", {"k": b"b"}]], [1, [b"a", {"k": b"b"}]]),
        ({"t": (1, (b"a", (memoryview(b"b"),)))}, {"t": [1, [b"a", [b"b"]]]}),
        (b"", b""),
    ],
)
def test_t60_bytes_are_found_at_any_depth_of_lists_tuples_and_dict_values(data, received):
    app, extension = program()
    client = extension.test_client(app)
    extension.emit("e", data)
    assert client.get_received() == [{"name": "e", "args": [received], "namespace": "/"}]


def test_t60_bytes_among_several_arguments_and_in_acknowledgements():
    app, extension = program()
    extension.on("e")(lambda *args: args)
    client = extension.test_client(app)
    extension.emit("e", (b"a", 1, b"b"))
    assert client.get_received()[0]["args"] == [b"a", 1, b"b"]
    assert client.emit("e", b"c", {"d": memoryview(b"d")}, callback=True) == [b"c", {"d": b"d"}]


def test_t60_binary_event_on_the_wire():
    with joined() as (server, _, client):
        server.emit("e", ({"a": b"one"}, (memoryview(b"two"),)))
        packet = '451-["e",{"a":{"_placeholder":true,"num":0}},[{"_placeholder":true,"num":1}]]'
        assert client.frame() == (TEXT, packet.replace("451-", "452-").encode())
        assert client.frame() == (BINARY, b"one")
        assert client.frame() == (BINARY, b"two")


@pytest.mark.parametrize("json_module", [None, json])
@pytest.mark.parametrize("data", [{b"key": 1}, {1, 2}, [{b"x"}], object()])
def test_t60_what_cannot_be_sent_is_a_typeerror_at_the_sender(data, json_module):
    app, extension = program(json=json_module)
    client = extension.test_client(app)
    with pytest.raises(TypeError):
        extension.emit("e", data)
    with pytest.raises(TypeError):
        client.emit("e", data)
    assert client.get_received() == []


@pytest.mark.parametrize("beside", [None, b"bytes", (1, 2)])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_t62_numbers_that_json_does_not_have_are_sent_as_null(number, beside):
    app, extension = program()
    client = extension.test_client(app)
    extension.emit("e", {"a": [number, (number,)], "b": beside})
    (event,) = client.get_received()
    assert event["args"] == [{"a": [None, [None]], "b": list(beside) if isinstance(beside, tuple) else beside}]


def test_t62_number_inside_of_an_object_that_flask_makes_json_of_is_sent_as_null():
    @dataclasses.dataclass
    class Point:
        x: float

    app, extension = program()
    client = extension.test_client(app)
    extension.emit("e", [Point(1.5), Point(math.nan)])
    assert client.get_received()[0]["args"] == [[{"x": 1.5}, {"x": None}]]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_t62_bare_tokens_from_a_client_are_refused(number):
    with joined() as (_, log, client):
        client.send(f'42["e",{number}]')
        assert client.frame()[0] == CLOSE
        assert get(log) == ("disconnect", "transport error")


def test_t63_object_that_looks_like_a_placeholder_is_data_in_a_text_packet():
    with joined() as (_, log, client):
        for number in ("0", "-1", '"x"', "99"):
            client.send(f'42["e",{{"_placeholder":true,"num":{number}}}]')
            assert get(log) == ("e", {"_placeholder": True, "num": json.loads(number)})
    app, extension = program()
    receiver = extension.test_client(app)
    extension.emit("e", {"_placeholder": True, "num": 0})
    assert receiver.get_received()[0]["args"] == [{"_placeholder": True, "num": 0}]


@pytest.mark.parametrize("number", ["1", "-1", "0.0", "true", "null", '"0"', "[0]", "1e999"])
def test_t63_placeholder_of_no_attachment_ends_the_connection(number):
    with joined() as (_, log, client):
        client.send(f'451-["e",{{"_placeholder":true,"num":{number}}}]')
        client.send(b"attachment", opcode=BINARY)
        assert client.frame()[0] == CLOSE
        assert get(log) == ("disconnect", "transport error")


def test_t64_binary_event_without_attachments_is_complete():
    with joined() as (_, log, client):
        client.send('450-["e",1]')
        assert get(log) == ("e", 1)
        client.send('42["e",2]')
        assert get(log) == ("e", 2)


def test_t64_text_is_no_attachment():
    with joined() as (_, log, client):
        client.send('451-["e",{"_placeholder":true,"num":0}]')
        client.send("4text")
        assert client.frame()[0] == CLOSE
        assert get(log) == ("disconnect", "transport error")


def test_t64_attachment_without_its_packet_ends_the_connection():
    with joined() as (_, log, client):
        client.send(b"attachment", opcode=BINARY)
        assert client.frame()[0] == CLOSE
        assert get(log) == ("disconnect", "transport error")


BROKEN = [
    "",
    "2",
    "2[]",
    "2{}",
    '2"x"',
    "2[true]",
    "2[null]",
    '2[["x"]]',
    '2["e"',
    '2["e"]]',
    "3[1]",
    "31",
    "31{}",
    "4{}",
    '1"x"',
    "7",
    "a",
    '-1["e"]',
    '5["e"]',
    '5-["e"]',
    "52-[]",
    '599999999999-["e"]',
    '511-["e"]',
    f'2{"1" * 101}["e"]',
    '2["disconnect"]',
    "40",
    '2/other,["e"]',
    "2" + "[" * 10000,
    '2["e",' + "9" * 5000 + "]",
]


@pytest.mark.parametrize("packet", BROKEN, ids=lambda packet: ascii(packet[:14]))
def test_t65_broken_packet_ends_the_connection(packet):
    with joined() as (_, log, client):
        client.send("4" + packet)
        assert client.frame()[0] == CLOSE
        assert get(log) == ("disconnect", "transport error")


def test_t65_ids_and_attachment_counts_within_the_limits_are_taken():
    with joined(max_attachments=2) as (server, log, client):
        server.on("ack", lambda sid: "ok")
        client.send('4299999999999999999999["ack"]')
        assert client.receive() == '4399999999999999999999["ok"]'
        client.send('452-["e",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]')
        client.send(b"zero", opcode=BINARY)
        client.send(b"one", opcode=BINARY)
        assert get(log) == ("e", b"one", b"zero")


def test_t65_namespace_without_comma_and_unknown_namespace():
    server = socketio.Server(namespaces=["/", "/chat"])
    with plain(server) as running:
        client = Polling(running)
        client.send("40/chat")
        (answer,) = client.packets()
        assert answer.startswith('40/chat,{"sid":')
        client.send("40/unknown,")
        assert client.packets() == ['44/unknown,{"message":"Invalid namespace"}']
        client.send("41/chat", "40/chat,")
        (answer,) = client.packets()
        assert answer.startswith('40/chat,{"sid":')


def test_t65_query_behind_a_namespace_belongs_to_its_name():
    server = socketio.Server()
    server.on("e", lambda sid: "here", namespace="/chat")
    with plain(server) as running:
        client = Polling(running)
        client.send("40/chat?token=a,{}")
        assert client.packets() == ['44/chat?token=a,{"message":"Invalid namespace"}']


def test_t68_bytes_in_auth_and_in_refusals_fail_at_the_sender(caplog):
    app, extension = program()
    with pytest.raises(TypeError, match="bytes"):
        extension.test_client(app, auth={"token": b"secret"})

    @extension.on("connect")
    def connect(auth):
        raise ConnectionRefusedError("no", b"data")

    client = extension.test_client(app)
    # There is no packet that could carry the data; the client is still refused, with the message.
    assert not client.is_connected()
    assert client.refusals["/"] == {"message": "no"}
