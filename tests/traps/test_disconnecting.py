"""Traps T35, T36 and T41 to T44: disconnecting."""

import queue
import threading

import flask
import pytest

import flask_realtime
from flask_realtime import Namespace, socketio

from .wire import LIMIT, Gone, wait


def get(log):
    """Return the next entry of a queue."""
    return log.get(timeout=LIMIT)


@pytest.fixture(params=["client disconnect", "server disconnect", "connection closed", "transport error"])
def leave(request):
    """Return a function that makes a peer leave in one of several ways; it returns the reason that handlers get."""

    def act(server, peer):
        if request.param == "client disconnect":
            peer.send("1")
        elif request.param == "server disconnect":
            server.disconnect(peer.sid)
        elif request.param == "connection closed":
            peer.close()
            return "client disconnect" if peer.transport == "polling" else "transport close"
        else:
            try:
                peer.send("not a packet")
            except Gone:
                pass  # polling is told at once
        return request.param

    return act


# T35: arguments of disconnect handlers.


@pytest.mark.parametrize("error_handler", [False, True])
def test_t35_disconnect_handler_takes_the_reason_or_nothing(program, serve, enter, transport, leave, error_handler):
    app, extension = program(namespaces="*")
    log = queue.SimpleQueue()
    handled = []
    if error_handler:
        extension.on_error_default(handled.append)
    site = serve(app, extension)
    for handler, expected in (
        (lambda: log.put("called"), lambda reason: "called"),
        (lambda reason: log.put(reason), lambda reason: reason),
        (lambda reason=None: log.put(reason), lambda reason: reason),
        (lambda *args: log.put(args), lambda reason: (reason,)),
    ):
        extension.on("disconnect")(handler)
        reason = leave(extension.server, enter(site, transport))
        assert get(log) == expected(reason)
    assert log.empty()
    assert handled == []


@pytest.mark.parametrize("error_handler", [False, True])
def test_t35_disconnect_method_takes_the_reason_or_nothing(program, serve, dial, error_handler):
    app, extension = program()
    log = queue.SimpleQueue()

    class Without(Namespace):
        def on_disconnect(self):
            log.put("called")

    class With(Namespace):
        def on_disconnect(self, reason):
            log.put(reason)

    extension.on_namespace(Without("/without"))
    extension.on_namespace(With("/with"))
    handled = []
    if error_handler:
        extension.on_error_default(handled.append)
    peer = dial(serve(app, extension))
    for namespace, noted in (("/without", "called"), ("/with", "client disconnect")):
        peer.join(namespace)
        peer.send(f"1{namespace},")
        assert get(log) == noted
    assert log.empty()
    assert handled == []


def test_t35_disconnect_handler_of_a_server_takes_sid_and_reason_or_sid(serve, dial):
    server = socketio.Server()
    log = queue.SimpleQueue()

    class Without(socketio.Namespace):
        def on_disconnect(self, sid):
            log.put((sid,))

    class With(socketio.Namespace):
        def on_disconnect(self, sid, reason):
            log.put((sid, reason))

    server.on("disconnect", lambda sid: log.put((sid,)), namespace="/without")
    server.on("disconnect", lambda sid, reason: log.put((sid, reason)), namespace="/with")
    server.register_namespace(Without("/class/without"))
    server.register_namespace(With("/class/with"))
    peer = dial(serve(server))
    for namespace in ("/without", "/class/without", "/with", "/class/with"):
        sid = peer.join(namespace)
        peer.send(f"1{namespace},")
        assert get(log) == ((sid,) if "without" in namespace else (sid, "client disconnect"))
    assert log.empty()


# T36: a disconnect handler that fails.


@pytest.mark.parametrize("error_handler", [False, True])
@pytest.mark.parametrize("error", [TypeError, LookupError])
def test_t36_disconnect_handler_that_fails_runs_once_and_leaves_nothing(
    program, serve, dial, transport, leave, error, error_handler
):
    app, extension = program()
    server = extension.server
    log = queue.SimpleQueue()
    handled = []

    def fail(reason):
        flask_realtime.join_room("late")
        log.put(flask.request.sid)
        raise error("on purpose")

    extension.on("disconnect")(fail)
    if error_handler:
        extension.on_error_default(lambda error: handled.append(type(error)))
    peer = dial(serve(app, extension), transport)
    sid = peer.join()
    server.enter_room(sid, "room")
    leave(server, peer)
    assert get(log) == sid
    server.shutdown()  # waits for handlers
    assert server.get_environ(sid) is None
    assert server.rooms(sid) == []
    assert server.manager.rooms["/"] == {}
    assert server.environ == {}
    assert log.empty()
    assert handled == ([error] if error_handler else [])


# T41: what holds while the disconnect handler runs.


def test_t41_disconnect_handler_sees_its_client_as_it_was(program, serve, enter, transport, leave):
    app, extension = program()
    server = extension.server
    log = queue.SimpleQueue()

    def connect():
        flask.session["name"] = "flask's"
        server.save_session(flask.request.sid, {"name": "server's"})
        flask_realtime.join_room("room")

    def disconnect():
        sid = flask.request.sid
        extension.emit("in vain", to=sid)
        extension.emit("in vain")
        log.put(
            {
                "sid": sid,
                "rooms": set(flask_realtime.rooms()),
                "flask": flask.session["name"],
                "server": server.get_session(sid),
                "connected": server.manager.is_connected(sid, "/"),
                "environ": server.get_environ(sid) is not None,
            }
        )

    extension.on("connect")(connect)
    extension.on("disconnect")(disconnect)
    peer = enter(serve(app, extension), transport)
    leave(server, peer)
    assert get(log) == {
        "sid": peer.sid,
        "rooms": {peer.sid, "room"},
        "flask": "flask's",
        "server": {"name": "server's"},
        "connected": False,
        "environ": True,
    }


def test_t41_emit_to_oneself_while_leaving_is_not_sent(program, serve, enter, transport):
    app, extension = program(namespaces=["/", "/other"])
    left = threading.Event()

    def disconnect():
        flask_realtime.emit("in vain")
        flask_realtime.emit("in vain", broadcast=True)
        left.set()

    extension.on("disconnect")(disconnect)
    peer = enter(serve(app, extension), transport)
    peer.send("1")
    wait(left)
    peer.join("/other")
    assert peer.heard("/other") == []


# T42: one namespace of a connection.


def test_t42_disconnect_ends_one_namespace_and_not_the_connection(program, serve, dial, transport):
    app, extension = program(namespaces=["/", "/other"])
    log = queue.SimpleQueue()
    for namespace in ("/", "/other"):
        extension.on("disconnect", namespace=namespace)(lambda reason: log.put((flask.request.namespace, reason)))
    extension.on("e", namespace="/other")(lambda: "served")
    extension.on("e")(lambda: "served again")
    peer = dial(serve(app, extension), transport)
    first = peer.join()
    peer.join("/other")
    extension.server.disconnect(first)
    assert peer.receive() == "1"
    assert get(log) == ("/", "server disconnect")
    assert peer.ask("e", namespace="/other") == ["served"]
    assert peer.join() != first
    assert peer.ask("e") == ["served again"]
    peer.send("1/other,")
    assert get(log) == ("/other", "client disconnect")
    peer.close()
    assert get(log) == ("/", "client disconnect" if transport == "polling" else "transport close")
    assert log.empty()


def test_t42_end_of_the_connection_is_the_end_of_all_namespaces(program, serve, dial, transport):
    app, extension = program(namespaces="*")
    log = queue.SimpleQueue()
    names = ["/a", "/b", "/c"]
    extension.on("disconnect", namespace="*")(lambda reason: log.put((flask.request.namespace, reason)))
    peer = dial(serve(app, extension), transport)
    for name in names:
        peer.join(name)
    peer.close()
    reason = "client disconnect" if transport == "polling" else "transport close"
    assert {get(log) for _ in names} == {(name, reason) for name in names}
    assert log.empty()


def test_t42_module_function_ends_the_current_namespace(program, serve, dial):
    app, extension = program(namespaces="*")
    extension.on("leave", namespace="*")(lambda: flask_realtime.disconnect())
    extension.on("e", namespace="*")(lambda: flask.request.namespace)
    peer = dial(serve(app, extension))
    peer.join("/a")
    peer.join("/b")
    peer.emit("leave", namespace="/a")
    assert peer.receive() == "1/a,"
    assert peer.ask("e", namespace="/b") == ["/b"]


# T43: events after the end.


def test_t43_events_that_cross_a_disconnect_are_dropped(program, serve, enter, transport):
    app, extension = program(namespaces=["/", "/other"])
    events = []
    extension.on("e")(lambda: events.append("e"))
    extension.on("sync", namespace="/other")(lambda: None)
    peer = enter(serve(app, extension), transport)
    peer.join("/other")
    extension.server.disconnect(peer.sid)
    peer.emit("e")
    peer.emit("e", number=3)
    peer.send("31[]")
    assert peer.receive() == "1"
    assert peer.ask("sync", namespace="/other") == []
    assert events == []


def test_t43_handlers_that_run_already_run_to_their_end(program, serve, enter, transport):
    app, extension = program()
    log = queue.SimpleQueue()
    gate = threading.Event()

    def slow():
        log.put("begins")
        wait(gate)
        extension.emit("done", to=flask.request.sid)
        log.put(("ends", flask.request.sid))

    extension.on("slow")(slow)
    extension.on("disconnect")(lambda reason: log.put(reason))
    site = serve(app, extension)
    peer, other = enter(site, transport), enter(site)
    peer.emit("slow")
    assert get(log) == "begins"
    extension.server.disconnect(peer.sid)
    assert peer.receive() == "1"
    assert get(log) == "server disconnect"
    gate.set()
    assert get(log) == ("ends", peer.sid)
    assert other.heard() == []


# T44: sids that nobody has.


def test_t44_unknown_sids_on_the_server(serve, enter):
    server = socketio.Server(namespaces=["/", "/empty"])
    peer = enter(serve(server))
    for namespace in ("/", "/never"):
        server.disconnect("unknown", namespace=namespace)
        server.leave_room("unknown", "room", namespace=namespace)
        server.close_room("unknown", namespace=namespace)
        server.emit("news", to="unknown", namespace=namespace)
        assert server.rooms("unknown", namespace=namespace) == []
        assert server.get_environ("unknown", namespace=namespace) is None
        with pytest.raises(KeyError):
            server.get_session("unknown", namespace=namespace)
        with pytest.raises(KeyError):
            server.save_session("unknown", {}, namespace=namespace)
        with pytest.raises(KeyError), server.session("unknown", namespace=namespace):
            pass
        with pytest.raises(KeyError):
            server.transport("unknown", namespace=namespace)
    with pytest.raises(KeyError):
        server.enter_room("unknown", "room")
    assert peer.heard() == []


def test_t44_unknown_sids_in_flask(program, serve, enter):
    app, extension = program()
    log = []

    def run():
        flask_realtime.disconnect("unknown")
        flask_realtime.leave_room("room", sid="unknown")
        flask_realtime.close_room("unknown")
        flask_realtime.emit("news", to="unknown")
        log.append(flask_realtime.rooms("unknown"))
        with pytest.raises(KeyError):
            flask_realtime.join_room("room", sid="unknown")

    extension.on("run")(run)
    peer = enter(serve(app, extension))
    assert peer.ask("run") == []
    assert log == [[]]
    assert peer.heard() == []


def test_t44_sid_of_one_who_has_left_is_unknown(serve, enter):
    server = socketio.Server()
    server.on("here", lambda sid: True)
    peer = enter(serve(server))
    peer.ask("here")  # its connecting is over, so the disconnect is done at once
    server.disconnect(peer.sid)
    assert peer.receive() == "1"
    server.disconnect(peer.sid)
    assert server.get_environ(peer.sid) is None
    with pytest.raises(KeyError):
        server.get_session(peer.sid)
    with pytest.raises(KeyError):
        server.enter_room(peer.sid, "room")
    with pytest.raises(KeyError):
        server.transport(peer.sid)
