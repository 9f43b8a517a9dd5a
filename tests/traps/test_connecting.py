"""Traps T29 to T34 and T37 to T40: connecting."""

import builtins
import json
import queue
import threading

import flask
import pytest

import flask_realtime
from flask_realtime import Namespace, socketio

from .wire import LIMIT, Gone, refusal, wait

REJECTED = {"message": "Connection rejected by server"}


class Broken(Exception):
    """What handlers of these tests raise on purpose."""


def get(log):
    """Return the next entry of a queue."""
    return log.get(timeout=LIMIT)


def end(peer, *packets):
    """Send what ends the connection, and wait for that; return the packets that came before."""
    try:
        peer.send(*packets)
    except Gone:
        pass  # polling is told at once
    return peer.wait_until_gone()


# T29: arguments of connect handlers.

AUTH = [({"token": 1}, {"token": 1}), (None, None), ({}, None)]


def flask_handlers(log):
    """Return connect handlers for Flask, each with a function from auth to what it notes."""
    return [
        (lambda: log.put("called"), lambda auth: "called"),
        (lambda auth: log.put(auth), lambda auth: auth),
        (lambda auth=5: log.put(auth), lambda auth: auth),
        (lambda *args: log.put(args), lambda auth: (auth,)),
        (lambda auth, more=6: log.put((auth, more)), lambda auth: (auth, 6)),
    ]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("sent, given", AUTH)
def test_t29_connect_handler_takes_auth_or_nothing(program, serve, enter, number, sent, given):
    app, extension = program()
    log = queue.SimpleQueue()
    handler, expected = flask_handlers(log)[number]
    extension.on("connect")(handler)
    enter(serve(app, extension), auth=sent)
    assert get(log) == expected(given)
    assert log.empty()


@pytest.mark.parametrize("sent, given", AUTH)
def test_t29_connect_method_takes_auth_or_nothing(program, serve, enter, sent, given):
    app, extension = program()
    log = queue.SimpleQueue()

    class Without(Namespace):
        def on_connect(self):
            log.put("called")

    class With(Namespace):
        def on_connect(self, auth):
            log.put(auth)

    extension.on_namespace(Without("/without"))
    extension.on_namespace(With("/with"))
    site = serve(app, extension)
    enter(site, namespace="/without", auth=sent)
    enter(site, namespace="/with", auth=sent)
    assert [get(log), get(log)] == ["called", given]
    assert log.empty()


@pytest.mark.parametrize("sent, given", AUTH)
def test_t29_connect_handler_of_a_server_takes_environ_and_auth_or_environ(serve, dial, sent, given):
    server = socketio.Server()
    log = queue.SimpleQueue()

    class Without(socketio.Namespace):
        def on_connect(self, sid, environ):
            log.put((sid, environ["REQUEST_METHOD"]))

    class With(socketio.Namespace):
        def on_connect(self, sid, environ, auth):
            log.put((sid, environ["REQUEST_METHOD"], auth))

    server.register_namespace(Without("/class/without"))
    server.register_namespace(With("/class/with"))
    server.on("connect", lambda sid, environ: log.put((sid, environ["REQUEST_METHOD"])), namespace="/without")
    server.on("connect", lambda sid, environ, auth: log.put((sid, environ["REQUEST_METHOD"], auth)), namespace="/with")
    peer = dial(serve(server))
    for namespace in ("/without", "/class/without"):
        sid = peer.join(namespace, sent)
        assert get(log) == (sid, "GET")
    for namespace in ("/with", "/class/with"):
        sid = peer.join(namespace, sent)
        assert get(log) == (sid, "GET", given)
    assert log.empty()


def test_t29_connect_handler_of_too_many_arguments_refuses(program, serve, dial, caplog):
    app, extension = program()
    extension.on("connect")(lambda auth, more: None)
    assert refusal(dial(serve(app, extension)).connect()) == REJECTED
    assert "TypeError" in caplog.text


# T30: a TypeError inside of the handler.


@pytest.mark.parametrize("error_handler", [False, True])
@pytest.mark.parametrize("kind", ["function", "function without auth", "method", "method without auth"])
def test_t30_typeerror_inside_does_not_run_the_handler_again(program, serve, dial, kind, error_handler):
    app, extension = program()
    runs = []

    def fail():
        runs.append(kind)
        raise TypeError("on purpose")

    class With(Namespace):
        def on_connect(self, auth):
            fail()

    class Without(Namespace):
        def on_connect(self):
            fail()

    if kind == "function":
        extension.on("connect")(lambda auth: fail())
    elif kind == "function without auth":
        extension.on("connect")(lambda: fail())
    else:
        extension.on_namespace((With if kind == "method" else Without)("/"))
    if error_handler:
        extension.on_error_default(lambda error: None)
    assert refusal(dial(serve(app, extension)).connect(auth={"token": 1})) == REJECTED
    assert runs == [kind]


@pytest.mark.parametrize("auth", [None, {"token": 1}])
@pytest.mark.parametrize("arguments", [2, 3])
def test_t30_typeerror_inside_does_not_run_a_servers_handler_again(serve, dial, auth, arguments):
    server = socketio.Server()
    runs = []

    def fail():
        runs.append(arguments)
        raise TypeError("on purpose")

    server.on("connect", (lambda sid, environ: fail()) if arguments == 2 else (lambda sid, environ, auth: fail()))
    assert refusal(dial(serve(server)).connect(auth=auth)) == REJECTED
    assert runs == [arguments]


# T31: what refuses.


@pytest.mark.parametrize("result", [None, True, 0, "", {}, [], "text", 1])
def test_t31_any_result_but_false_accepts(program, serve, enter, result):
    app, extension = program()
    extension.on("connect")(lambda: result)
    extension.on("e")(lambda: "served")
    assert enter(serve(app, extension)).ask("e") == ["served"]


REFUSALS = [
    (socketio.ConnectionRefusedError(), REJECTED),
    (socketio.ConnectionRefusedError("no"), {"message": "no"}),
    (socketio.ConnectionRefusedError(7), {"message": "7"}),
    (socketio.ConnectionRefusedError("no", {"code": 7}), {"message": "no", "data": {"code": 7}}),
    (socketio.ConnectionRefusedError("no", 1, [2]), {"message": "no", "data": [1, [2]]}),
    (flask_realtime.ConnectionRefusedError("no", None), {"message": "no", "data": None}),
    (builtins.ConnectionRefusedError("secret"), {"message": "Connection refused by server"}),
]


@pytest.mark.parametrize("error, payload", REFUSALS, ids=repr)
@pytest.mark.parametrize("error_handler", [False, True])
def test_t31_refusals(program, serve, dial, transport, error, payload, error_handler):
    app, extension = program()

    def refuse():
        raise error

    extension.on("connect")(refuse)
    handled = []
    if error_handler:
        extension.on_error_default(handled.append)
    assert refusal(dial(serve(app, extension), transport).connect()) == payload
    assert handled == []


@pytest.mark.parametrize("error, payload", REFUSALS, ids=repr)
def test_t31_refusals_of_a_plain_server(serve, dial, error, payload):
    server = socketio.Server()

    @server.event
    def connect(sid, environ):
        raise error

    assert refusal(dial(serve(server)).connect()) == payload


def test_t31_false_refuses(program, serve, dial):
    app, extension = program()
    answers = [None, False]
    extension.on("connect")(lambda: answers.pop())
    peer = dial(serve(app, extension))
    assert refusal(peer.connect()) == REJECTED
    peer.join()  # the connection stays, and another attempt may succeed


def test_t31_refused_client_leaves_nothing_behind(serve, dial):
    server = socketio.Server()
    left = []

    @server.event
    def connect(sid, environ):
        server.enter_room(sid, "room")
        return False

    server.on("disconnect", lambda sid, reason: left.append(sid))
    peer = dial(serve(server))
    refusal(peer.connect())
    assert list(server.manager.get_participants("/", None)) == []
    assert list(server.manager.get_participants("/", "room")) == []
    assert server.manager.rooms["/"] == {}
    assert left == []


# T32 and T33: handlers that fail.


def check_that_it_is_outside(peer, extension, events):
    """Check that a refused peer gets no broadcasts, and that its events aren't handled but end its connection."""
    extension.emit("news")
    extension.emit("news", to="room")
    assert list(extension.server.manager.get_participants("/", None)) == []
    assert end(peer, '20["e"]') == []
    assert events == []


@pytest.mark.parametrize("kind", ["function", "method"])
def test_t32_connect_handler_that_fails_refuses(program, serve, dial, transport, kind, caplog):
    app, extension = program()
    events = []

    def connect():
        flask_realtime.join_room("room")
        raise Broken("on purpose")

    class Root(Namespace):
        def on_connect(self):
            connect()

        def on_e(self):
            events.append("e")

    if kind == "function":
        extension.on("connect")(connect)
        extension.on("e")(lambda: events.append("e"))
    else:
        extension.on_namespace(Root("/"))
    peer = dial(serve(app, extension), transport)
    assert refusal(peer.connect()) == REJECTED
    assert "on purpose" in caplog.text
    check_that_it_is_outside(peer, extension, events)


def test_t32_connect_handler_of_a_server_that_fails_refuses(serve, dial, transport):
    server = socketio.Server()
    events = []

    @server.event
    def connect(sid, environ, auth):
        return auth["token"]

    server.on("e", lambda sid: events.append("e"))
    peer = dial(serve(server), transport)
    assert refusal(peer.connect()) == REJECTED
    server.emit("news")
    assert end(peer, '20["e"]') == []
    assert events == []


def test_t32_disconnect_handler_does_not_run_for_one_who_was_never_in(program, serve, dial):
    app, extension = program()
    log = queue.SimpleQueue()

    def connect():
        raise Broken

    extension.on("connect")(connect)
    extension.on("disconnect")(lambda: log.put("left /"))
    extension.on("disconnect", namespace="/other")(lambda: log.put("left /other"))
    peer = dial(serve(app, extension))
    refusal(peer.connect())
    peer.join("/other")
    peer.close()
    assert get(log) == "left /other"
    assert log.empty()


@pytest.mark.parametrize("result", [None, True, "", {"a": 1}, False])
@pytest.mark.parametrize("installed", ["on_error", "on_error_default"])
def test_t33_handled_error_still_refuses(program, serve, dial, transport, installed, result):
    app, extension = program()
    events, handled = [], []

    def connect():
        flask_realtime.join_room("room")
        raise Broken

    def handler(error):
        handled.append((type(error), flask.request.event["message"]))
        return result

    extension.on("connect")(connect)
    extension.on("e")(lambda: events.append("e"))
    if installed == "on_error":
        extension.on_error()(handler)
    else:
        extension.on_error_default(handler)
    peer = dial(serve(app, extension), transport)
    assert refusal(peer.connect()) == REJECTED
    assert handled == [(Broken, "connect")]
    check_that_it_is_outside(peer, extension, events)


def test_t33_error_handler_that_fails_refuses_too(program, serve, dial):
    app, extension = program()

    def fail(*args):
        raise Broken

    extension.on("connect")(fail)
    extension.on_error_default(fail)
    assert refusal(dial(serve(app, extension)).connect()) == REJECTED


def test_t33_error_handler_may_refuse_with_a_message(program, serve, dial):
    app, extension = program()

    def connect():
        raise Broken

    def handler(error):
        raise flask_realtime.ConnectionRefusedError("come back later")

    extension.on("connect")(connect)
    extension.on_error_default(handler)
    assert refusal(dial(serve(app, extension)).connect()) == {"message": "come back later"}


# T34: events with reserved names.


@pytest.mark.parametrize("number", ["", "1"])
@pytest.mark.parametrize("kind", ["functions", "methods", "catch-all"])
def test_t34_clients_cannot_forge_connect(program, serve, enter, transport, kind, number):
    app, extension = program()
    log = listen(extension, kind)
    peer = enter(serve(app, extension), transport, auth={"token": "true"})
    assert get(log) == ("connect", {"token": "true"})
    assert end(peer, f'2{number}["connect",{{"token":"forged"}}]') == []
    assert get(log) == ("disconnect", "transport error")
    assert log.empty()


@pytest.mark.parametrize("number", ["", "1"])
@pytest.mark.parametrize("kind", ["functions", "methods", "catch-all"])
def test_t34_clients_cannot_forge_disconnect(program, serve, enter, transport, kind, number):
    app, extension = program()
    log = listen(extension, kind)
    peer = enter(serve(app, extension), transport)
    assert get(log) == ("connect", None)
    assert end(peer, f'2{number}["disconnect","forged"]') == []
    assert get(log) == ("disconnect", "transport error")
    assert log.empty()


def listen(extension, kind):
    """Register handlers and return a queue of what they get."""
    log = queue.SimpleQueue()

    class Root(Namespace):
        def on_connect(self, auth):
            log.put(("connect", auth))

        def on_disconnect(self, reason):
            log.put(("disconnect", reason))

    if kind == "methods":
        extension.on_namespace(Root("/"))
    else:
        extension.on("connect")(lambda auth: log.put(("connect", auth)))
        extension.on("disconnect")(lambda reason: log.put(("disconnect", reason)))
    if kind == "catch-all":
        extension.on("*")(lambda *args: log.put(args))
    return log


@pytest.mark.parametrize("event", ["connect", "disconnect"])
def test_t34_binary_events_cannot_be_forged_either(serve, enter, transport, event):
    server = socketio.Server()
    log = queue.SimpleQueue()
    server.on("connect", lambda *args: log.put(("connect", len(args))))
    server.on("disconnect", lambda sid, reason: log.put(("disconnect", reason)))
    peer = enter(serve(server), transport)
    assert get(log)[0] == "connect"
    assert end(peer, f'51-["{event}",{{"_placeholder":true,"num":0}}]') == []
    assert get(log) == ("disconnect", "transport error")
    assert log.empty()


RESERVED = ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]


@pytest.mark.parametrize("event", RESERVED)
def test_t34_no_reserved_name_reaches_a_handler(program, serve, enter, event):
    app, extension = program()
    events = []
    extension.on("*")(lambda *args: events.append(args))
    assert end(enter(serve(app, extension)), f'2["{event}",1]') == []
    assert events == []


@pytest.mark.parametrize("event", RESERVED)
def test_t34_servers_cannot_emit_reserved_names(program, serve, enter, event):
    app, extension = program()
    peer = enter(serve(app, extension))
    for emit in (extension.emit, extension.server.emit):
        with pytest.raises(ValueError, match=event):
            emit(event)
    assert peer.heard() == []


# T37 and T38: what a connect handler does.


def test_t37_emit_in_the_connect_handler_follows_connect_on_the_wire(program, serve, dial, transport):
    app, extension = program()

    def connect():
        flask_realtime.emit("first", b"binary")
        flask_realtime.emit("second", broadcast=True)
        extension.emit("third", to=flask.request.sid)

    extension.on("connect")(connect)
    peer = dial(serve(app, extension), transport)
    peer.join()
    assert peer.heard() == [
        '51-["first",{"_placeholder":true,"num":0}]',
        b"binary",
        '2["second"]',
        '2["third"]',
    ]


def test_t37_what_a_refused_client_was_sent_is_dropped(program, serve, dial, transport):
    app, extension = program(namespaces=["/", "/other"])

    def connect():
        flask_realtime.emit("first")
        return False

    extension.on("connect")(connect)
    peer = dial(serve(app, extension), transport)
    assert refusal(peer.connect()) == REJECTED
    peer.join("/other")
    assert peer.heard("/other") == []


def test_t37_call_in_the_connect_handler_ends_by_its_timeout(program, serve, dial):
    app, extension = program()
    log = queue.SimpleQueue()

    def connect():
        try:
            flask_realtime.call("ask", timeout=0.01)
        except TimeoutError:
            log.put("timeout")

    extension.on("connect")(connect)
    peer = dial(serve(app, extension))
    peer.join()
    assert get(log) == "timeout"
    assert peer.receive() == '21["ask"]'


def test_t37_with_always_connect_the_order_is_the_same(program, serve, dial, transport):
    app, extension = program(always_connect=True)
    extension.on("connect")(lambda: flask_realtime.emit("first"))
    peer = dial(serve(app, extension), transport)
    peer.join()
    assert peer.receive() == '2["first"]'


def test_t38_disconnect_in_the_connect_handler_follows_connect_on_the_wire(program, serve, dial, transport):
    app, extension = program()
    log = queue.SimpleQueue()

    def connect():
        flask_realtime.disconnect()
        log.put("connect ends")

    extension.on("connect")(connect)
    extension.on("disconnect")(lambda reason: log.put(reason))
    peer = dial(serve(app, extension), transport)
    sid = peer.join()
    assert peer.receive() == "1"
    assert [get(log), get(log)] == ["connect ends", "server disconnect"]
    extension.emit("news")
    extension.emit("news", to=sid)
    again = peer.join()
    assert again != sid
    assert peer.receive() == "1"
    assert [get(log), get(log)] == ["connect ends", "server disconnect"]
    assert log.empty()


def test_t38_disconnect_and_refusal_in_the_connect_handler_is_a_refusal(program, serve, dial, transport):
    app, extension = program(namespaces=["/", "/other"])
    left = []

    def connect():
        flask_realtime.disconnect()
        return False

    extension.on("connect")(connect)
    extension.on("disconnect")(lambda: left.append(1))
    peer = dial(serve(app, extension), transport)
    assert refusal(peer.connect()) == REJECTED
    peer.join("/other")
    assert peer.heard("/other") == []
    assert left == []


def test_t38_client_that_leaves_meanwhile_is_told_off_after_the_connect_handler(program, serve, dial):
    app, extension = program()
    log = queue.SimpleQueue()
    gate = threading.Event()

    def connect():
        log.put("connect begins")
        wait(gate)
        log.put("connect ends")

    extension.on("connect")(connect)
    extension.on("disconnect")(lambda reason: log.put(reason))
    peer = dial(serve(app, extension), "polling")
    peer.send("0")
    assert get(log) == "connect begins"
    peer.send("1")
    gate.set()
    assert [get(log), get(log)] == ["connect ends", "client disconnect"]


# T39: CONNECT that can't be.


def test_t39_second_connect_to_a_namespace_ends_the_connection(program, serve, enter, transport):
    app, extension = program()
    log = queue.SimpleQueue()
    extension.on("connect")(lambda: log.put("connect"))
    extension.on("disconnect")(lambda reason: log.put(reason))
    peer = enter(serve(app, extension), transport)
    assert get(log) == "connect"
    assert end(peer, "0") == []
    assert get(log) == "transport error"
    assert log.empty()


def test_t39_namespace_that_is_not_accepted_is_refused_with_an_object(program, serve, enter, transport):
    app, extension = program()
    extension.on("e")(lambda: "served")
    peer = enter(serve(app, extension), transport)
    assert peer.connect("/unknown") == '4/unknown,{"message":"Invalid namespace"}'
    assert peer.ask("e") == ["served"]


# T40: always_connect.


def test_t40_always_connect_answers_before_the_handler_runs(program, serve, dial, transport):
    app, extension = program(always_connect=True)
    gate = threading.Event()
    extension.on("connect")(lambda: wait(gate))
    peer = dial(serve(app, extension), transport)
    peer.join()
    gate.set()


@pytest.mark.parametrize("error, payload", [(None, REJECTED), *REFUSALS, (Broken(), REJECTED)], ids=repr)
def test_t40_always_connect_refuses_by_a_disconnect_with_the_reason(program, serve, dial, error, payload):
    app, extension = program(always_connect=True)

    def connect():
        if error is not None:
            raise error
        return False

    left = []
    extension.on("connect")(connect)
    extension.on("disconnect")(lambda: left.append(1))
    peer = dial(serve(app, extension))
    peer.join()
    packet = peer.receive()
    assert packet[0] == "1"
    assert json.loads(packet[1:]) == payload
    assert list(extension.server.manager.get_participants("/", None)) == []
    assert left == []


def test_t40_events_wait_for_the_connect_handler(program, serve, dial, transport):
    """The client has been told that it is in, but nobody has looked yet whether it may be."""
    app, extension = program(always_connect=True)
    handled, posted = threading.Event(), threading.Event()
    early = []

    def connect():
        wait(posted)
        early.append(handled.wait(0.3))  # it must not come; the only way to see that is to give it a moment
        return False

    extension.on("connect")(connect)
    extension.on("e")(lambda: handled.set())
    peer = dial(serve(app, extension), transport)
    peer.join()
    peer.emit("e", number=1)
    posted.set()
    assert peer.receive() == f"1{json.dumps(REJECTED, separators=(',', ':'))}"
    assert early == [False], "an event was handled before the connect handler had accepted the client"
