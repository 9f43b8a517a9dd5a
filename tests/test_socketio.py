"""The Socket.IO face without Flask, over polling requests that no server is needed for."""

import json
import queue
import threading

import pytest
from werkzeug.test import Client

from flask_realtime import socketio
from flask_realtime.errors import ClientGoneError, ConfigurationError
from flask_realtime.protocol.socketio.packets import ACK, CONNECT, DISCONNECT, EVENT, Limits, Packet, TextCodec

URL = "/socket.io/?EIO=4&transport=polling"
LIMIT = 30


class Peer:
    """A polling client that joins one namespace."""

    def __init__(self, server, namespace="/", auth=None):
        self.http, self.namespace = Client(socketio.WSGIApp(server)), namespace
        self.eio_sid = json.loads(self.http.get(URL).data[1:])["sid"]
        self.decoder, self.codec, self.came = TextCodec().decoder(Limits(), True), TextCodec(), []
        self.send(CONNECT, None, auth)
        self.answer = self.take()
        self.sid = self.answer.data.get("sid")

    def send(self, kind, number=None, data=None):
        parts = self.codec.encode(Packet(kind, self.namespace, number, data))
        assert self.http.post(f"{URL}&sid={self.eio_sid}", data="\x1e".join("4" + part for part in parts)).data == b"ok"

    def take(self):
        """Return the next packet, waiting for it."""
        while not self.came:
            for element in self.http.get(f"{URL}&sid={self.eio_sid}").get_data(as_text=True).split("\x1e"):
                if element[:1] == "4":
                    self.came.append(self.decoder.feed(element[1:]))
        return self.came.pop(0)


@pytest.fixture
def server():
    server = socketio.Server()
    yield server
    server.shutdown()


def test_handlers_get_the_sid_first(server):
    got = queue.Queue()
    server.on("connect", lambda sid, environ, auth: got.put((sid, environ["REQUEST_METHOD"], auth)))
    server.on("disconnect", lambda sid, reason: got.put((sid, reason)))

    @server.event
    def x(sid, *args):
        got.put((sid, args))
        return "done", 2

    peer = Peer(server, auth={"t": 1})
    assert got.get(timeout=LIMIT) == (peer.sid, "GET", {"t": 1})
    peer.send(EVENT, 5, ["x", 1, [2]])
    assert peer.take() == Packet(ACK, "/", 5, ["done", 2])
    assert got.get(timeout=LIMIT) == (peer.sid, (1, [2]))
    peer.send(DISCONNECT)
    assert got.get(timeout=LIMIT) == (peer.sid, "client disconnect")


def test_older_handlers_take_less(server):
    got = queue.Queue()
    server.on("connect", lambda sid, environ: got.put("connect"))
    server.on("disconnect", lambda sid: got.put("disconnect"))
    Peer(server).send(DISCONNECT)
    assert [got.get(timeout=LIMIT) for _ in range(2)] == ["connect", "disconnect"]


def test_catch_alls_get_what_they_caught(server):
    got = queue.Queue()
    server.on("*", lambda *args: got.put(("event", *args)), "/a")
    server.on("x", lambda *args: got.put(("namespace", *args)), "*")
    server.on("*", lambda *args: got.put(("both", *args)), "*")
    for namespace, event, expected in (
        ("/a", "y", lambda sid: ("event", "y", sid, 1)),
        ("/", "x", lambda sid: ("namespace", "/", sid, 1)),
        ("/", "y", lambda sid: ("both", "y", "/", sid, 1)),
    ):
        peer = Peer(server, namespace)
        peer.send(EVENT, None, [event, 1])
        assert got.get(timeout=LIMIT) == expected(peer.sid)


class Everything(socketio.Namespace):
    def __init__(self, namespace, got):
        super().__init__(namespace)
        self.got = got

    def on_connect(self, *args):
        self.got.put(("connect", *args))

    def on_disconnect(self, *args):
        self.got.put(("disconnect", *args))

    def on_x(self, *args):
        self.got.put(("x", *args))


def test_class_based_namespaces(server):
    got = queue.Queue()
    handlers = Everything("/c", got)
    server.register_namespace(handlers)
    assert server.namespace_handlers == {"/c": handlers} and handlers.server is server
    assert not handlers.is_asyncio_based()
    peer = Peer(server, "/c")
    assert got.get(timeout=LIMIT)[:2] == ("connect", peer.sid)
    peer.send(EVENT, None, ["unknown"])
    peer.send(EVENT, None, ["x", 1])
    assert got.get(timeout=LIMIT) == ("x", peer.sid, 1)
    handlers.enter_room(peer.sid, "room")
    assert handlers.rooms(peer.sid) == [peer.sid, "room"]
    handlers.emit("hello", {"a": 1}, room="room")
    handlers.send("text", to=peer.sid)
    assert [peer.take().data for _ in range(2)] == [["hello", {"a": 1}], ["message", "text"]]
    handlers.leave_room(peer.sid, "room")
    handlers.enter_room(peer.sid, "closed")
    handlers.close_room("closed")
    assert handlers.rooms(peer.sid) == [peer.sid]
    handlers.save_session(peer.sid, {"a": 1})
    with handlers.session(peer.sid) as session:
        session["b"] = 2
    assert handlers.get_session(peer.sid) == {"a": 1, "b": 2}
    with pytest.raises(socketio.TimeoutError):
        handlers.call("ask", to=peer.sid, timeout=0.01)
    handlers.disconnect(peer.sid)
    assert got.get(timeout=LIMIT) == ("disconnect", peer.sid, "server disconnect")
    with pytest.raises(ValueError, match="Not a namespace"):
        server.register_namespace(object())


def test_a_namespace_class_for_all(server):
    got = queue.Queue()
    server.register_namespace(Everything("*", got))
    server.on("other", print, "/a")
    peer = Peer(server, "/a")
    assert got.get(timeout=LIMIT)[:3] == ("connect", "/a", peer.sid)
    peer.send(EVENT, None, ["x", 1])
    assert got.get(timeout=LIMIT) == ("x", "/a", peer.sid, 1)


def test_emitting(server):
    a, b = Peer(server), Peer(server)
    server.enter_room(a.sid, "room")
    server.emit("all")
    server.emit("room", (1, 2), room="room")
    server.emit("not b", [1], skip_sid=b.sid)
    server.emit("not a", "x", skip_sid=[a.sid])
    server.send({"a": 1}, to=[a.sid, b.sid])
    assert [a.take().data for _ in range(4)] == [["all"], ["room", 1, 2], ["not b", [1]], ["message", {"a": 1}]]
    assert [b.take().data for _ in range(3)] == [["all"], ["not a", "x"], ["message", {"a": 1}]]
    server.leave_room(a.sid, "room")
    server.close_room("room")
    assert server.rooms(a.sid) == [a.sid]


def test_callbacks(server):
    got, peer = queue.Queue(), Peer(server)
    server.emit("ask", callback=lambda *args: got.put(args))
    packet = peer.take()
    peer.send(ACK, packet.id, [1, 2])
    assert got.get(timeout=LIMIT) == (1, 2)


@pytest.mark.parametrize(("values", "result"), [([], None), ([1], 1), ([1, 2], (1, 2)), ([[1]], [1]), ([None], None)])
def test_call(server, values, result):
    peer, got = Peer(server), queue.Queue()
    caller = threading.Thread(target=lambda: got.put(server.call("ask", "q", to=peer.sid, timeout=LIMIT)))
    caller.start()
    packet = peer.take()
    assert packet.data == ["ask", "q"]
    peer.send(ACK, packet.id, values)
    assert got.get(timeout=LIMIT) == result
    caller.join(LIMIT)


def test_calls_that_fail(server):
    peer = Peer(server)
    with pytest.raises(ValueError, match="broadcast"):
        server.call("ask")
    with pytest.raises(TimeoutError, match="no client"):
        server.call("ask", sid="nobody")
    with pytest.raises(socketio.TimeoutError, match=r"within 0\.01 s"):
        server.call("ask", to=peer.sid, timeout=0.01)
    assert peer.take().data == ["ask"]
    got = queue.Queue()

    def call():
        try:
            server.call("ask", to=peer.sid, timeout=LIMIT)
        except ClientGoneError as error:
            got.put(error)

    caller = threading.Thread(target=call)
    caller.start()
    peer.take()
    server.disconnect(peer.sid)
    assert "disconnected" in str(got.get(timeout=LIMIT))
    caller.join(LIMIT)


def test_sessions_are_kept_by_namespace(server):
    server.on("x", print, "/a")
    peer, other = Peer(server), Peer(server, "/a")
    server.get_session(peer.sid)["a"] = 1
    assert server.get_session(peer.sid) == {"a": 1}
    server.save_session(other.sid, {"b": 2}, "/a")
    with server.session(other.sid, "/a") as session:
        session["c"] = 3
    assert server.get_session(other.sid, "/a") == {"b": 2, "c": 3}
    for call in (server.get_session, server.transport, lambda sid: server.save_session(sid, {})):
        with pytest.raises(KeyError):
            call("nobody")


def test_what_is_known_of_a_client(server):
    peer = Peer(server)
    assert server.transport(peer.sid) == "polling"
    assert server.get_environ(peer.sid)["REQUEST_METHOD"] == "GET"
    assert server.get_environ("nobody") is None
    assert server.environ[peer.eio_sid] is server.get_environ(peer.sid)
    server.eio.disconnect(peer.eio_sid)
    assert server.environ == {}


def test_the_manager(server):
    a, b = Peer(server), Peer(server)
    manager = server.manager
    manager.enter_room(a.sid, "/", "room")
    assert manager.get_rooms(a.sid, "/") == [a.sid, "room"]
    assert manager.rooms["/"]["room"] == {a.sid: a.eio_sid}
    assert set(manager.rooms["/"][None]) == {a.sid, b.sid}
    assert manager.get_namespaces() == ["/"]
    assert list(manager.get_participants("/", "room")) == [(a.sid, a.eio_sid)]
    assert manager.is_connected(a.sid, "/") and not manager.is_connected("nobody", "/")
    assert manager.sid_from_eio_sid(b.eio_sid, "/") == b.sid
    assert manager.sid_from_eio_sid("nobody", "/") is None
    assert manager.eio_sid_from_sid(b.sid, "/") == b.eio_sid
    assert manager.eio_sid_from_sid("nobody", "/") is None
    manager.emit("x", (1, 2), "/", room="room", skip_sid=b.sid)
    manager.emit("y", None, "/", to=[a.sid, b.sid], skip_sid=[b.sid])
    assert [a.take().data for _ in range(2)] == [["x", 1, 2], ["y"]]
    manager.leave_room(a.sid, "/", "room")
    manager.close_room("room", "/")
    assert manager.get_rooms(a.sid, "/") == [a.sid]
    manager.disconnect(b.sid, "/")
    assert b.take().type == DISCONNECT


def test_decorators(server):
    @server.event(namespace="/a")
    def named(sid):
        pass

    @server.on("other")
    def handler(sid):
        pass

    assert server.handlers == {"/a": {"named": named}, "/": {"other": handler}}
    assert list(server.namespaces) == ["/"]
    with pytest.raises(ValueError, match="something to call"):
        server.on("x", "y")


def test_background(server):
    ran = []
    server.start_background_task(ran.append, 1).join(LIMIT)
    server.sleep(0)
    assert ran == [1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"client_manager": object()}, "client_manager"),
        ({"serializer": "yaml"}, "serializer"),
        ({"serializer": object()}, "serializer"),
        ({"async_mode": "green"}, "async_mode"),
        ({"ping_interval": 0}, "ping_interval"),
    ],
)
def test_options_that_cannot_work(options, match):
    with pytest.raises(ConfigurationError, match=match):
        socketio.Server(**options)


@pytest.mark.parametrize(("namespaces", "accepted"), [("/a", ["/a"]), (["/a", "/b"], ["/a", "/b"]), ("*", ["*"])])
def test_namespaces_option(namespaces, accepted):
    assert list(socketio.Server(namespaces=namespaces).namespaces) == accepted


def test_serializers():
    codec = TextCodec()
    assert socketio.Server(serializer=codec).core.codec is codec
    assert type(socketio.Server(serializer="msgpack").core.codec).__name__ == "MsgpackCodec"


def test_the_older_name_of_the_application(server):
    assert Client(socketio.Middleware(server)).get("/other").status_code == 404
