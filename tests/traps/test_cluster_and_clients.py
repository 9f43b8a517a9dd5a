"""Traps T98 to T101, T104 and T105: what can be seen of them in one process."""

import base64
import builtins
import queue
import threading

import pytest

import flask_realtime
from flask_realtime import socketio

from ..e2e.raw import Polling, WebSocket
from .engineio_server import LIMIT, plain, program


class Recorded(socketio.PubSubManager):
    """Keeps what is published, and what was delivered by then."""

    def __init__(self, **options):
        super().__init__("traps", **options)
        self.published, self.listening = [], threading.Event()

    def _publish(self, data):
        self.published.append(data)

    def _listen(self):
        self.listening.set()
        while True:
            yield self.messages.get()

    messages = queue.SimpleQueue()


def test_t98_own_clients_first_then_the_others():
    manager = Recorded()
    app, extension = program(client_manager=manager)
    client = extension.test_client(app)
    extension.emit("e", 1)
    assert [event["args"] for event in client.get_received()] == [[1]]
    assert manager.flush(LIMIT)
    assert [data["method"] for data in manager.published] == ["hello", "emit"]


def test_t99_the_subscription_stands_before_the_first_client_is_in():
    manager = Recorded()
    app, extension = program(client_manager=manager)
    assert not manager.listening.is_set()
    extension.test_client(app)
    assert manager.listening.wait(LIMIT)


def test_t100_messages_are_those_of_python_socketio():
    manager = Recorded(write_only=True)
    manager.emit("e", (1, b"\xff"), namespace="/chat", room="r", skip_sid="s")
    assert manager.flush(LIMIT)
    (data,) = manager.published
    structure = [1, {"_placeholder": True, "num": 0}]
    assert {name: value for name, value in data.items() if name not in ("host_id", "n")} == {
        **{"method": "emit", "event": "e", "data": [structure, "/w=="], "binary": True, "namespace": "/chat"},
        **{"room": "r", "skip_sid": ["s"], "callback": None},
    }


def test_t101_process_that_only_writes_may_do_all_but_wait_for_answers():
    manager = Recorded(write_only=True)
    manager.disconnect("s", "/")
    manager.enter_room("s", "/", "r")
    manager.leave_room("s", "/", "r")
    manager.close_room("r", "/")
    assert manager.flush(LIMIT)
    assert [data["method"] for data in manager.published] == ["disconnect", "enter_room", "leave_room", "close_room"]
    with pytest.raises(RuntimeError, match="only emits"):
        manager.emit("e", callback=print, data=None, room="s")


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
