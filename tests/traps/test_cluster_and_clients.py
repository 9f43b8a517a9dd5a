"""Traps T99, T101, T104 and T105: what can be seen of them in one process."""

import base64
import builtins
import threading

import pytest

import flask_realtime
from flask_realtime import socketio

from ..e2e.raw import Polling, WebSocket
from .engineio_server import LIMIT, plain, program


def test_t99_message_queue_is_refused_when_the_program_starts():
    # Not in this release. A program that needs one learns it at once, not when its first client connects.
    with pytest.raises(ValueError, match="message queues"):
        program(message_queue="redis://")
    with pytest.raises(ValueError, match="message queues"):
        socketio.Server(client_manager=object())


def test_t101_process_that_only_writes_is_refused_when_it_is_made():
    # SocketIO(message_queue=...) without an application is the field's way to emit from another process.
    extension = flask_realtime.SocketIO(message_queue="redis://")
    with pytest.raises(ValueError, match="message queues"):
        extension.init_app(None)


def test_t101_message_queue_of_none_is_no_queue():
    app, extension = program(message_queue=None)
    assert extension.test_client(app).is_connected()


@pytest.mark.parametrize("name", ["ConnectionError", "ConnectionRefusedError", "TimeoutError"])
def test_t104_errors_inherit_from_the_builtins(name):
    error = getattr(socketio, name)
    assert error is not getattr(builtins, name)
    assert issubclass(error, (getattr(builtins, name)))
    assert issubclass(error, socketio.SocketIOError)
    assert getattr(socketio.exceptions, name) is error


def test_t104_call_without_an_answer_is_caught_by_the_builtin_name():
    app, extension = program()
    client = extension.test_client(app)
    with pytest.raises(builtins.TimeoutError):
        extension.call("e", to=client.sids["/"], timeout=0.01)
    with pytest.raises(builtins.TimeoutError):
        extension.call("e", to="nobody", timeout=LIMIT)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (builtins.ConnectionRefusedError, "Connection refused by server"),
        (flask_realtime.ConnectionRefusedError, "no room left"),
        (socketio.exceptions.ConnectionRefusedError, "no room left"),
    ],
)
def test_t104_refusals_of_both_kinds_refuse_and_only_ours_shows_its_text(error, message):
    app, extension = program()

    @extension.on("connect")
    def connect():
        raise error("no room left")

    client = extension.test_client(app)
    assert not client.is_connected()
    assert client.refusals["/"] == {"message": message}


WRITERS, EACH = 4, 50


def write(server, number):
    for count in range(EACH):
        one, two = f"{number}-{count}-1".encode(), f"{number}-{count}-2".encode()
        server.emit("e", ([number, count], one, {"two": two}))


def writing(server):
    """Emit packets with attachments from several threads at once."""
    threads = [threading.Thread(target=write, args=(server, number)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    return threads


def check(messages):
    """Check that each text is followed by its own attachments, and that nothing is missing."""
    assert len(messages) == WRITERS * EACH * 3
    following = [0] * WRITERS
    for text, one, two in zip(messages[::3], messages[1::3], messages[2::3], strict=True):
        number, count = map(int, one.decode().split("-")[:2])
        assert text.startswith(f'452-["e",[{number},{count}],')
        assert (one, two) == (f"{number}-{count}-1".encode(), f"{number}-{count}-2".encode())
        assert count == following[number]
        following[number] += 1


def test_t105_attachments_of_several_threads_do_not_interleave_over_websocket():
    server = socketio.Server()
    with plain(server) as running:
        client = WebSocket(running)
        client.receive()
        client.send("40")
        client.receive()
        threads = writing(server)
        messages = []
        while len(messages) < WRITERS * EACH * 3:
            opcode, payload = client.frame()
            assert opcode in (1, 2)
            messages.append(payload.decode() if opcode == 1 else payload)
        for thread in threads:
            thread.join()
        check(messages)
        client.close()


def test_t105_attachments_of_several_threads_do_not_interleave_over_polling():
    server = socketio.Server()
    with plain(server) as running:
        client = Polling(running)
        client.join()
        threads = writing(server)
        check(polled(client, WRITERS * EACH * 3))
        for thread in threads:
            thread.join()


def polled(client, count):
    messages = []
    while len(messages) < count:
        messages += [decoded(packet) for packet in client.packets()]
    return messages


def decoded(packet):
    return packet if packet[0] == "4" else base64.b64decode(packet[1:])


def test_t105_attachments_do_not_interleave_while_the_client_upgrades():
    server = socketio.Server()
    with plain(server) as running:
        client = Polling(running)
        client.join()
        websocket = WebSocket(running, sid=client.sid)
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        threads = writing(server)
        websocket.send("5")
        messages = []
        while len(messages) < WRITERS * EACH * 3:
            opcode, payload = websocket.frame()
            assert opcode in (1, 2)
            messages.append(payload.decode() if opcode == 1 else payload)
        for thread in threads:
            thread.join()
        check(messages)
        websocket.close()
