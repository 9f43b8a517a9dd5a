"""Traps T50 to T59: which handler runs, with what, in which order, and what becomes of its result."""

import logging
import threading

import flask
import pytest

from flask_realtime import Namespace, send, socketio

from ..e2e.raw import Polling, WebSocket
from .engineio_server import LIMIT, plain, program, serving, wait


def registrations(extension, log):
    """Return what registers a handler of event ``e`` on each level, the strongest first."""

    def function(level):
        return lambda *args: log.append((level, *args))

    class Own(Namespace):
        def on_e(self, *args):
            log.append(("class", *args))

    class Any(Namespace):
        def on_e(self, *args):
            log.append(("any class", *args))

    return [
        ("event", (1,), lambda: extension.on_event("e", function("event"))),
        ("any event", ("e", 1), lambda: extension.on_event("*", function("any event"))),
        (
            "event, any namespace",
            (1,),
            lambda: extension.on_event("e", function("event, any namespace"), namespace="*"),
        ),
        (
            "any event, any namespace",
            ("e", 1),
            lambda: extension.on_event("*", function("any event, any namespace"), namespace="*"),
        ),
        ("class", (1,), lambda: extension.on_namespace(Own("/"))),
        ("any class", (1,), lambda: extension.on_namespace(Any("*"))),
    ]


@pytest.mark.parametrize("strongest", range(6))
def test_t50_functions_come_before_catch_alls_and_classes(strongest):
    app, extension = program()
    log = []
    levels = registrations(extension, log)
    for _, _, register in reversed(levels[strongest:]):
        register()
    extension.test_client(app).emit("e", 1)
    name, args, _ = levels[strongest]
    assert log == [(name, *args)]


def test_t50_catch_all_function_hides_the_methods_of_a_class():
    app, extension = program()
    log = []

    class Chat(Namespace):
        def on_e(self):
            log.append("class")

    extension.on_namespace(Chat("/chat"))
    extension.on_event("*", lambda event, *args: log.append(event), namespace="/chat")
    extension.test_client(app, namespace="/chat").emit("e", namespace="/chat")
    assert log == ["e"]


def test_t50_order_is_the_same_without_flask_and_the_wildcards_come_first():
    server = socketio.Server(namespaces="*")
    server.on("e", lambda sid, *args: ["event", *args])
    server.on("*", lambda event, sid, *args: ["any event", event, *args])
    server.on("e", lambda namespace, sid, *args: ["any namespace", namespace, *args], namespace="*")
    server.on("*", lambda event, namespace, sid, *args: ["both", event, namespace, *args], namespace="*")
    with plain(server) as running:
        client = Polling(running)
        client.join()
        client.join("/far")
        client.send('421["e",1]', '422["f",1]', '42/far,3["e",1]', '42/far,4["f",1]')
        answers = []
        while len(answers) < 4:
            answers += client.packets()
    assert answers == [
        '431[["event",1]]',
        '432[["any event","f",1]]',
        '43/far,3[["any namespace","/far",1]]',
        '43/far,4[["both","f","/far",1]]',
    ]


def test_t51_catch_all_of_events_and_namespaces_runs_in_flask():
    app, extension = program(namespaces="*")
    extension.on("*", namespace="*")(lambda event, *args: [flask.request.namespace, event, *args])
    client = extension.test_client(app, namespace="/far")
    assert client.emit("e", 1, 2, callback=True, namespace="/far") == ["/far", "e", 1, 2]


def test_t51_class_for_all_namespaces_runs_in_flask():
    app, extension = program(namespaces="*")

    class Any(Namespace):
        def on_connect(self, auth):
            log.append(("connect", flask.request.namespace, auth))

        def on_e(self, *args):
            return [flask.request.namespace, *args]

        def on_disconnect(self, reason):
            log.append(("disconnect", flask.request.namespace, reason))

    log = []
    extension.on_namespace(Any("*"))
    client = extension.test_client(app, namespace="/far", auth={"a": 1})
    assert client.emit("e", 1, 2, callback=True, namespace="/far") == ["/far", 1, 2]
    client.disconnect("/far")
    assert log == [("connect", "/far", {"a": 1}), ("disconnect", "/far", "client disconnect")]


def test_t52_catch_alls_get_neither_connect_nor_disconnect():
    app, extension = program()
    log = []
    extension.on_event("*", lambda event, *args: log.append(event))
    extension.on_event("*", lambda event, *args: log.append(event), namespace="*")
    client = extension.test_client(app)
    client.emit("e")
    client.disconnect()
    assert log == ["e"]


def test_t53_event_without_data_calls_the_handler_without_arguments():
    app, extension = program()
    extension.on("e")(lambda *args: len(args))
    client = extension.test_client(app)
    assert client.emit("e", callback=True) == 0
    assert client.emit("e", None, callback=True) == 1


@pytest.mark.parametrize("args", [(), (1, 2)])
def test_t53_wrong_number_of_arguments_is_a_typeerror_without_acknowledgement(args):
    app, extension = program()
    calls = []
    extension.on("e")(lambda only: calls.append(only))
    client = extension.test_client(app)
    with pytest.raises(TypeError):
        client.emit("e", *args, callback=True)
    assert calls == [] and client.acks == {}


def test_t53_wrong_number_of_arguments_reaches_the_error_handler():
    app, extension = program()
    extension.on("e")(lambda only: None)
    errors = []
    extension.on_error_default(errors.append)
    extension.test_client(app).emit("e")
    assert [type(error) for error in errors] == [TypeError]


def test_t54_send_makes_the_plain_events_message_and_json():
    app, extension = program()
    log = []
    extension.on("message")(lambda data: log.append(("message", data)))
    extension.on("json")(lambda data: log.append(("json", data)))
    extension.on("go")(lambda: [send("text"), send({"a": 1}, json=True), send("everybody", broadcast=True)])
    client = extension.test_client(app)
    client.send("text")
    client.send({"a": 1}, json=True)
    client.emit("message", "as an event")
    assert log == [("message", "text"), ("json", {"a": 1}), ("message", "as an event")]
    client.emit("go")
    extension.send("context-free")
    assert client.get_received() == [
        {"name": "message", "args": "text", "namespace": "/"},
        {"name": "json", "args": {"a": 1}, "namespace": "/"},
        {"name": "message", "args": "everybody", "namespace": "/"},
        {"name": "message", "args": "context-free", "namespace": "/"},
    ]


def test_t55_class_methods_are_found_by_their_prefix_on_one_instance():
    app, extension = program()

    class Chat(Namespace):
        def __init__(self):
            super().__init__("/")
            self.calls = 0

        def on_count(self):
            self.calls += 1
            return self.calls

        def count(self):
            raise AssertionError("has no prefix")

    chat = Chat()
    chat.on_late = lambda: "any attribute"
    extension.on_namespace(chat)
    one, two = extension.test_client(app), extension.test_client(app)
    assert [client.emit("count", callback=True) for client in (one, two, one)] == [1, 2, 3]
    assert one.emit("late", callback=True) == "any attribute"
    for name in ("on_count", "no such", "no-such", "", "_count"):
        # The class exists but has no such method: an empty acknowledgement.
        assert one.emit(name, callback=True) == []
    assert chat.calls == 3


def test_t56_events_of_one_client_start_in_their_order():
    app, extension = program()
    started = []
    extension.on("e")(started.append)
    extension.on("last")(lambda: "done")
    with serving(app, extension.server) as running:
        client = WebSocket(running)
        client.receive()
        client.send("40")
        client.receive()
        for number in range(200):
            client.send(f'42["e",{number}]')
        client.send('421["last"]')
        assert client.receive() == '431["done"]'
        client.close()
    assert started == list(range(200))


def test_t56_slow_handler_does_not_hold_up_the_next_event():
    app, extension = program()
    following = threading.Event()
    extension.on("slow")(lambda: following.wait(LIMIT))
    extension.on("next")(following.set)
    with serving(app, extension.server) as running:
        client = Polling(running)
        client.join()
        client.send('421["slow"]', '42["next"]')
        assert client.packets() == ["431[true]"]


def test_t56_without_async_handlers_the_next_event_waits():
    app, extension = program(async_handlers=False)
    log, begun, released = [], threading.Event(), threading.Event()

    @extension.on("slow")
    def slow():
        begun.set()
        wait(released)
        log.append("slow")

    extension.on("next")(lambda: log.append("next"))
    with serving(app, extension.server) as running:
        client = Polling(running)
        client.join()
        client.send('42["slow"]', '421["next"]')
        wait(begun)
        released.set()
        assert client.packets() == ["431[]"]
    assert log == ["slow", "next"]


def test_t57_handler_that_fails_is_logged_and_the_connection_lives(caplog):
    app, extension = program()

    @extension.on("bad")
    def bad():
        raise LookupError("my mistake")

    extension.on("good")(lambda: "fine")
    with serving(app, extension.server) as running:
        client = Polling(running)
        client.join()
        client.send('421["bad"]', '422["good"]')
        assert client.packets() == ['432["fine"]']
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "flask_realtime.socketio"
    assert record.exc_info[0] is LookupError


def test_t58_result_of_the_error_handler_is_acknowledged():
    app, extension = program()
    seen = []

    @extension.on_error("/")
    def on_error(error):
        seen.append((str(error), flask.request.event))
        return {"error": str(error)}

    @extension.on("bad")
    def bad(*args):
        raise LookupError("bad")

    @extension.on("*")
    def anything(event, *args):
        raise LookupError("any")

    client = extension.test_client(app)
    assert client.emit("bad", 1, callback=True) == {"error": "bad"}
    assert client.emit("other", 1, callback=True) == {"error": "any"}
    assert seen == [("bad", {"message": "bad", "args": (1,)}), ("any", {"message": "*", "args": ("other", 1)})]


def test_t58_handler_of_a_namespace_comes_before_the_default_one():
    app, extension = program()

    def bad():
        raise LookupError

    for namespace in ("/", "/chat"):
        extension.on_event("bad", bad, namespace=namespace)
    extension.on_error("/chat")(lambda error: "of the namespace")
    extension.on_error_default(lambda error: "default")
    client = extension.test_client(app)
    client.connect("/chat")
    assert client.emit("bad", callback=True) == "default"
    assert client.emit("bad", callback=True, namespace="/chat") == "of the namespace"


def test_t59_registering_again_replaces_the_handler_and_decorators_stack():
    app, extension = program()

    @extension.on("one")
    @extension.on("two")
    @extension.event
    def three():
        return "all three"

    extension.on("e")(lambda: "first")
    extension.on("e")(lambda: "second")
    client = extension.test_client(app)
    assert three() == "all three"
    assert [client.emit(name, callback=True) for name in ("one", "two", "three")] == ["all three"] * 3
    assert client.emit("e", callback=True) == "second"
