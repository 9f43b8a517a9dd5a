"""Traps T19 to T27: acknowledgements, callbacks, call."""

import builtins
import inspect
import queue
import threading

import flask
import pytest

import flask_realtime
from flask_realtime import Namespace, errors, socketio

from .wire import LIMIT, Gone, wait


class Task(threading.Thread):
    """A function in a thread; `result` waits for what it returns or raises."""

    def __init__(self, function, *args, **kwargs):
        super().__init__(daemon=True)
        self._call = lambda: function(*args, **kwargs)
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._call()
        except Exception as error:
            self._error = error

    def result(self):
        self.join(LIMIT)
        assert not self.is_alive(), f"waited {LIMIT} s in vain"
        if self._error is not None:
            raise self._error
        return self._value


def get(log):
    """Return the next entry of a queue."""
    return log.get(timeout=LIMIT)


# T19: call.

ANSWERS = [
    ("[]", None),
    ("[1]", 1),
    ("[null]", None),
    ("[1,2]", (1, 2)),
    ("[[1,2]]", [1, 2]),
    ("[[]]", []),
    ('[{"a":1},"b"]', ({"a": 1}, "b")),
]


@pytest.mark.parametrize("face", ["SocketIO", "Server", "Namespace"])
def test_t19_call_returns_what_the_client_answered(program, serve, enter, face):
    app, extension = program()
    instance = Namespace("/ns")
    extension.on_namespace(instance)
    peer = enter(serve(app, extension), namespace="/ns")
    owner = {"SocketIO": extension, "Server": extension.server, "Namespace": instance}[face]
    target = {"sid" if face == "Namespace" else "to": peer.sids["/ns"]}
    for number, (answer, result) in enumerate(ANSWERS, 1):
        task = Task(owner.call, "ask", "data", namespace="/ns", timeout=LIMIT, **target)
        assert peer.receive() == f'2/ns,{number}["ask","data"]'
        peer.send(f"3/ns,{number}{answer}")
        assert task.result() == result
        assert type(task.result()) is type(result)


def test_t19_call_in_a_handler_asks_the_current_client(program, serve, enter, transport):
    app, extension = program()
    extension.on("run")(lambda: ["answered", flask_realtime.call("ask", timeout=LIMIT)])
    peer = enter(serve(app, extension), transport)
    peer.emit("run", number=5)
    assert peer.receive() == '21["ask"]'
    peer.send('31["here"]')
    assert peer.receive() == '35[["answered","here"]]'


def test_t19_call_works_without_async_handlers(program, serve, enter, transport):
    app, extension = program(async_handlers=False)
    extension.on("run")(lambda: flask_realtime.call("ask", timeout=LIMIT))
    peer = enter(serve(app, extension), transport)
    peer.emit("run", number=5)
    assert peer.receive() == '21["ask"]'
    peer.send('31["here"]')
    assert peer.receive() == '35["here"]'


def test_t19_call_may_answer_with_binary_data(serve, enter, transport):
    server = socketio.Server()
    peer = enter(serve(server), transport)
    task = Task(server.call, "ask", to=peer.sid, timeout=LIMIT)
    assert peer.receive() == '21["ask"]'
    peer.send('61-1[{"_placeholder":true,"num":0}]', b"\x00\xff")
    assert task.result() == b"\x00\xff"


def test_t19_no_answer_is_the_builtin_timeouterror_too(serve, enter):
    server = socketio.Server()
    site = serve(server)
    peer = enter(site)
    with pytest.raises(builtins.TimeoutError) as raised:
        server.call("ask", to=peer.sid, timeout=0.01)
    assert isinstance(raised.value, socketio.TimeoutError)
    assert not isinstance(raised.value, errors.ClientGoneError)
    assert peer.receive() == '21["ask"]'
    peer.send('31["too late"]')
    task = Task(server.call, "ask", to=peer.sid, timeout=LIMIT)
    assert peer.receive() == '22["ask"]'
    peer.send('32["in time"]')
    assert task.result() == "in time"


@pytest.mark.parametrize("leaves", ["connection", "namespace", "put out"])
def test_t19_call_ends_when_the_client_goes_away(serve, enter, transport, leaves):
    server = socketio.Server()
    peer = enter(serve(server), transport)
    task = Task(server.call, "ask", to=peer.sid, timeout=LIMIT)
    assert peer.receive() == '21["ask"]'
    if leaves == "connection":
        peer.close()
    elif leaves == "namespace":
        peer.send("1")
    else:
        server.disconnect(peer.sid)
    with pytest.raises(errors.ClientGoneError):
        task.result()


def test_t19_call_to_one_who_is_not_there_does_not_wait(serve, enter):
    server = socketio.Server()
    enter(serve(server))
    with pytest.raises(TimeoutError, match="unknown"):
        server.call("ask", to="unknown", timeout=None)
    with pytest.raises(ValueError, match="broadcast"):
        server.call("ask")


def test_t19_call_waits_60_seconds_unless_told_otherwise():
    for function in (
        flask_realtime.call,
        flask_realtime.SocketIO.call,
        Namespace.call,
        socketio.Server.call,
        socketio.Namespace.call,
    ):
        assert inspect.signature(function).parameters["timeout"].default == 60, function


# T20 to T22: the server's acknowledgement.

RESULTS = [
    (None, []),
    ((), []),
    ((1, 2), [1, 2]),
    ((None,), [None]),
    ([1, 2], [[1, 2]]),
    ([], [[]]),
    ({}, [{}]),
    (0, [0]),
    ("", [""]),
    (False, [False]),
    (([1], {"a": None}), [[1], {"a": None}]),
]


def test_t20_handlers_result_becomes_the_acknowledgement(program, serve, enter, transport):
    app, extension = program()
    results = queue.SimpleQueue()
    extension.on("give")(lambda: get(results))
    peer = enter(serve(app, extension), transport)
    for number, (result, values) in enumerate(RESULTS):
        results.put(result)
        assert peer.ask("give", number=number) == values


def test_t20_result_of_a_plain_server_and_of_classes_follows_the_same_rule(serve, enter):
    server = socketio.Server()
    results = queue.SimpleQueue()

    class Chat(socketio.Namespace):
        def on_give(self, sid):
            return get(results)

    server.register_namespace(Chat("/chat"))
    server.on("give", lambda sid: get(results))
    peer = enter(serve(server))
    peer.join("/chat")
    for result, values in RESULTS:
        for namespace in ("/", "/chat"):
            results.put(result)
            assert peer.ask("give", namespace=namespace) == values


def test_t20_nobody_is_told_what_nobody_asked_for(program, serve, enter):
    app, extension = program()
    extension.on("give")(lambda: "result")
    extension.on("done")(lambda: None)
    peer = enter(serve(app, extension))
    peer.emit("give")
    assert peer.ask("done") == []


def test_t21_no_acknowledgement_without_a_handler(program, serve, enter, transport):
    app, extension = program()
    extension.on("known")(lambda: None)
    peer = enter(serve(app, extension), transport)
    peer.emit("unknown", number=1)
    assert peer.ask("known", number=2) == []


def test_t21_no_acknowledgement_of_a_handler_that_failed(program, serve, enter, transport, caplog):
    app, extension = program(async_handlers=False)
    done = threading.Event()

    def fail():
        raise LookupError("on purpose")

    extension.on("fail")(fail)
    extension.on("known")(done.set)
    peer = enter(serve(app, extension), transport)
    peer.emit("fail", number=1)
    assert peer.ask("known", number=2) == []
    assert "on purpose" in caplog.text


def test_t21_result_that_cannot_be_sent_is_logged_and_not_acknowledged(program, serve, enter, caplog):
    app, extension = program(async_handlers=False)
    extension.on("fail")(object)
    extension.on("known")(lambda: None)
    peer = enter(serve(app, extension))
    peer.emit("fail", number=1)
    assert peer.ask("known", number=2) == []
    assert "fail" in caplog.text


def test_t21_empty_acknowledgement_of_a_class_without_the_method(program, serve, enter):
    app, extension = program()
    extension.on_namespace(Namespace("/chat"))
    peer = enter(serve(app, extension), namespace="/chat")
    assert peer.ask("unknown", namespace="/chat") == []


def test_t22_acknowledgement_follows_the_disconnect_of_its_handler(program, serve, enter, transport):
    app, extension = program()

    def leave():
        flask_realtime.disconnect()
        return "bye"

    extension.on("leave")(leave)
    peer = enter(serve(app, extension), transport)
    peer.emit("leave", number=1)
    assert peer.receive() == "1"
    assert peer.receive() == '31["bye"]'


# T23 to T25: numbers, and acknowledgements that nobody waits for.


def test_t23_numbers_of_the_server_count_from_1_for_each_client(serve, enter):
    server = socketio.Server(namespaces="*")
    site = serve(server)
    one, two = enter(site), enter(site)
    one.join("/other")
    for number in (1, 2, 3):
        server.emit("ask", to=one.sid, callback=lambda *args: None)
        assert one.receive() == f'2{number}["ask"]'
    server.emit("ask", to=two.sid, callback=lambda *args: None)
    assert two.receive() == '21["ask"]'
    server.emit("ask", to=one.sids["/other"], namespace="/other", callback=lambda *args: None)
    assert one.receive() == '2/other,1["ask"]'


@pytest.mark.parametrize("number", [0, 1, 7, 4294967295])
def test_t23_client_may_number_as_it_likes(program, serve, enter, number):
    app, extension = program()
    extension.on("e")(lambda: "done")
    peer = enter(serve(app, extension))
    assert peer.ask("e", number=number) == ["done"]
    assert peer.ask("e", number=number) == ["done"]


@pytest.mark.parametrize("stray", ["30[]", '30["x"]', "31[]", "399[1,2]", "34294967295[]"])
def test_t24_stray_acknowledgements_do_no_harm(serve, enter, transport, stray):
    server = socketio.Server()
    answers = queue.SimpleQueue()
    server.on("sync", lambda sid: None)
    peer = enter(serve(server), transport)
    peer.send(stray, stray)
    peer.ask("sync")  # so that they come before the server waits for anything
    for number in (1, 2):
        server.emit("ask", to=peer.sid, callback=lambda *args: answers.put(args))
        assert peer.receive() == f'2{number}["ask"]'
        peer.send(f"3{number}[{number}]")
        assert get(answers) == (number,)


def test_t24_acknowledgement_0_leaves_callbacks_in_place(serve, enter):
    server = socketio.Server()
    answers = queue.SimpleQueue()
    peer = enter(serve(server))
    server.emit("ask", to=peer.sid, callback=lambda *args: answers.put(args))
    assert peer.receive() == '21["ask"]'
    peer.send("30[0]", "31[1]")
    assert get(answers) == (1,)


@pytest.mark.parametrize("data", ["null", "1", '"text"', "{}", ""])
def test_t25_acknowledgement_that_is_no_list_ends_its_connection_only(serve, enter, dial, transport, data):
    server = socketio.Server()
    left = queue.SimpleQueue()
    server.on("disconnect", lambda sid, reason: left.put((sid, reason)))
    site = serve(server)
    peer, other = dial(site, transport), enter(site)
    sid = peer.join()
    called = []
    server.emit("ask", to=sid, callback=lambda *args: called.append(args))
    assert peer.receive() == '21["ask"]'
    try:
        peer.send(f"31{data}")
    except Gone:
        pass  # polling is told at once
    assert get(left) == (sid, "transport error")
    assert peer.wait_until_gone() == []
    assert called == []
    assert other.heard() == []


def test_t25_repeated_acknowledgement_is_ignored(serve, enter):
    server = socketio.Server()
    answers = queue.SimpleQueue()
    peer = enter(serve(server))
    for number in (1, 2):
        server.emit("ask", to=peer.sid, callback=lambda *args: answers.put(args))
        assert peer.receive() == f'2{number}["ask"]'
    peer.send('31["first"]', '31["again"]', '32["second"]')
    assert [get(answers), get(answers)] == [("first",), ("second",)]
    assert answers.empty()


def test_t25_acknowledgement_of_another_client_is_not_taken(serve, enter):
    server = socketio.Server()
    answers = queue.SimpleQueue()
    server.on("sync", lambda sid: None)
    site = serve(server)
    peer, other = enter(site), enter(site)
    server.emit("ask", to=peer.sid, callback=lambda *args: answers.put(args))
    assert peer.receive() == '21["ask"]'
    other.send('31["forged"]')
    other.ask("sync")
    server.emit("ask", to=other.sid, callback=lambda *args: answers.put(args))
    assert other.receive() == '21["ask"]'
    other.send('31["other"]')
    assert get(answers) == ("other",)
    peer.send('31["right"]')
    assert get(answers) == ("right",)


# T26 and T27: callbacks.


def test_t26_callback_of_a_room_runs_once_for_each_client(serve, enter):
    server = socketio.Server()
    answers = queue.SimpleQueue()
    site = serve(server)
    peers = [enter(site) for _ in range(3)]
    server.emit("ask", to=peers[0].sid, callback=lambda *args: answers.put(args))
    assert peers[0].receive() == '21["ask"]'
    for peer in peers[:2]:
        server.enter_room(peer.sid, "room")
    server.emit("ask", to="room", callback=lambda *args: answers.put(args))
    assert peers[0].receive() == '22["ask"]'
    assert peers[1].receive() == '21["ask"]'
    assert peers[2].heard() == []
    peers[0].send('32["one"]')
    peers[1].send('31["two","values"]')
    assert {get(answers), get(answers)} == {("one",), ("two", "values")}
    assert answers.empty()


def note_context(log):
    """Return a callback that notes its arguments and what it sees of the context."""

    def callback(*args):
        if flask.has_request_context():
            request = flask.request
            seen = (request.sid, request.namespace, request.event["message"], flask.session.get("name"))
        else:
            seen = None
        log.put((args, seen))

    return callback


@pytest.mark.parametrize("by", ["function", "extension"])
def test_t27_callback_runs_in_the_context_of_the_emitter(program, serve, enter, by):
    app, extension = program()
    log = queue.SimpleQueue()

    def ask(sid):
        flask.session["name"] = "emitter"
        emit = flask_realtime.emit if by == "function" else extension.emit
        emit("ask", to=sid, callback=note_context(log))

    extension.on("ask")(ask)
    site = serve(app, extension)
    emitter, answerer = enter(site), enter(site)
    emitter.emit("ask", answerer.sid)
    assert answerer.receive() == '21["ask"]'
    answerer.send("31[1,2]")
    assert get(log) == ((1, 2), (emitter.sid, "/", None, "emitter"))


def test_t27_callback_runs_though_the_emitter_has_left(program, serve, enter):
    app, extension = program()
    log = queue.SimpleQueue()
    left = threading.Event()

    def ask(sid):
        flask.session["name"] = "emitter"
        flask_realtime.emit("ask", to=sid, callback=note_context(log))

    extension.on("ask")(ask)
    extension.on("disconnect")(left.set)
    site = serve(app, extension)
    emitter, answerer = enter(site), enter(site)
    emitter.emit("ask", answerer.sid)
    assert answerer.receive() == '21["ask"]'
    emitter.close()
    wait(left)
    answerer.send("31[1]")
    assert get(log) == ((1,), (emitter.sid, "/", None, "emitter"))


def test_t27_callback_of_an_emit_outside_of_a_handler_has_no_context(program, serve, enter):
    app, extension = program()
    log = queue.SimpleQueue()
    peer = enter(serve(app, extension))
    extension.emit("ask", to=peer.sid, callback=note_context(log))
    assert peer.receive() == '21["ask"]'
    peer.send("31[1]")
    assert get(log) == ((1,), None)


def test_t27_callback_of_an_emit_in_a_route_has_no_context(program, serve, enter):
    app, extension = program()
    log = queue.SimpleQueue()

    @app.get("/ask")
    def ask():
        flask_realtime.emit("ask", namespace="/", broadcast=True, callback=note_context(log))
        return "done"

    site = serve(app, extension)
    peer = enter(site)
    assert site.get("/ask") == (200, "done")
    assert peer.receive() == '21["ask"]'
    peer.send("31[1]")
    assert get(log) == ((1,), None)


def test_t27_error_of_a_callback_reaches_the_error_handler(program, serve, enter):
    app, extension = program()
    log = queue.SimpleQueue()

    def fail(*args):
        raise LookupError("on purpose")

    extension.on("ask")(lambda: flask_realtime.emit("ask", callback=fail))
    extension.on_error()(lambda error: log.put((type(error), flask.request.event["message"])))
    peer = enter(serve(app, extension))
    peer.emit("ask")
    assert peer.receive() == '21["ask"]'
    peer.send("31[]")
    assert get(log) == (LookupError, None)
