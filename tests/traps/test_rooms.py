"""Traps T45 to T49: rooms."""

import queue

import flask
import pytest

import flask_realtime
from flask_realtime import socketio

from .wire import LIMIT


def get(log):
    """Return the next entry of a queue."""
    return log.get(timeout=LIMIT)


# T45: entering without being there.


def test_t45_enter_room_of_an_unknown_client_leaves_no_empty_room(serve, enter):
    server = socketio.Server()
    peer = enter(serve(server))
    before = server.manager.rooms
    with pytest.raises(KeyError, match="unknown"):
        server.enter_room("unknown", "room")
    assert server.manager.rooms == before == {"/": {None: {peer.sid: peer.eio_sid}, peer.sid: {peer.sid: peer.eio_sid}}}


def test_t45_enter_room_in_an_unknown_namespace_is_a_valueerror(serve, enter):
    server = socketio.Server()
    peer = enter(serve(server))
    with pytest.raises(ValueError, match="/never"):
        server.enter_room(peer.sid, "room", namespace="/never")
    assert list(server.manager.rooms) == ["/"]


def test_t45_enter_room_with_the_sid_of_another_namespace_is_a_keyerror(serve, enter):
    server = socketio.Server(namespaces="*")
    peer = enter(serve(server))
    peer.join("/other")
    with pytest.raises(KeyError):
        server.enter_room(peer.sid, "room", namespace="/other")
    assert "room" not in server.manager.rooms["/other"]


# T46: entering while leaving.


def test_t46_enter_room_in_the_disconnect_handler_lasts_until_its_end(program, serve, enter, transport):
    app, extension = program(namespaces=["/", "/other"])
    server = extension.server
    log = queue.SimpleQueue()

    def disconnect():
        sid = flask.request.sid
        flask_realtime.join_room("late")
        server.enter_room(sid, "later")
        log.put(set(flask_realtime.rooms()))
        extension.emit("in vain", to="late")

    extension.on("disconnect")(disconnect)
    extension.on("disconnect", namespace="/other")(lambda: log.put("other"))
    peer = enter(serve(app, extension), transport)
    peer.join("/other")
    peer.send("1", "1/other,")
    assert get(log) == {peer.sid, "late", "later"}
    assert get(log) == "other"
    server.shutdown()  # waits for handlers
    assert server.manager.rooms["/"] == {}
    assert server.rooms(peer.sid) == []
    with pytest.raises(KeyError):
        server.enter_room(peer.sid, "after")
    assert server.manager.rooms["/"] == {}


# T47: the room of everybody and the room of one.


def test_t47_everybody_cannot_be_left(program, serve, enter):
    app, extension = program()
    peer = enter(serve(app, extension))
    with pytest.raises(ValueError, match="None"):
        extension.server.leave_room(peer.sid, None)
    assert extension.server.manager.is_connected(peer.sid, "/")
    extension.emit("news")
    assert peer.heard() == ['2["news"]']


def test_t47_everybody_is_no_room_to_be_shown(serve, enter):
    server = socketio.Server()
    peer = enter(serve(server))
    assert server.rooms(peer.sid) == [peer.sid]
    server.enter_room(peer.sid, "room")
    assert server.rooms(peer.sid) == [peer.sid, "room"]


def test_t47_room_of_ones_own_can_be_left(serve, enter):
    server = socketio.Server()
    peer = enter(serve(server))
    server.leave_room(peer.sid, peer.sid)
    assert server.rooms(peer.sid) == []
    server.emit("private", to=peer.sid)
    server.emit("news")
    server.enter_room(peer.sid, peer.sid)
    server.emit("private again", to=peer.sid)
    assert peer.heard() == ['2["news"]', '2["private again"]']


def test_t47_room_of_another_can_be_entered(serve, enter):
    server = socketio.Server()
    site = serve(server)
    peer, listener = enter(site), enter(site)
    server.enter_room(listener.sid, peer.sid)
    server.emit("private", to=peer.sid)
    assert listener.receive() == '2["private"]'
    assert peer.receive() == '2["private"]'


# T48: closing a room.


def test_t48_close_room_does_not_disconnect(program, serve, enter):
    app, extension = program()
    server = extension.server
    site = serve(app, extension)
    peers = [enter(site) for _ in range(3)]
    for close in (
        lambda: extension.close_room("room"),
        lambda: server.close_room("room"),
    ):
        for peer in peers[:2]:
            server.enter_room(peer.sid, "room")
        server.emit("before", to="room")
        close()
        server.emit("after", to="room")
        server.emit("news")
        assert [server.rooms(peer.sid) for peer in peers] == [[peer.sid] for peer in peers]
        assert "room" not in server.manager.rooms["/"]
        assert [peer.heard() for peer in peers] == [['2["before"]', '2["news"]']] * 2 + [['2["news"]']]


def test_t48_closed_room_can_be_entered_again(serve, enter):
    server = socketio.Server()
    peer = enter(serve(server))
    server.enter_room(peer.sid, "room")
    server.close_room("room")
    server.enter_room(peer.sid, "room")
    server.emit("news", to="room")
    assert peer.heard() == ['2["news"]']


def test_t48_everybody_cannot_be_closed(program, serve, enter):
    app, extension = program()
    peer = enter(serve(app, extension))
    for close in (extension.close_room, extension.server.close_room):
        with pytest.raises(ValueError, match="None"):
            close(None)
    extension.emit("news")
    assert peer.heard() == ['2["news"]']


# T49: rooms of this process.


def test_t49_rooms_and_participants_are_those_of_one_server(serve, enter):
    servers = [socketio.Server(), socketio.Server()]
    peers = [enter(serve(server)) for server in servers]
    for server, peer in zip(servers, peers, strict=True):
        server.enter_room(peer.sid, "room")
        assert list(server.manager.get_participants("/", "room")) == [(peer.sid, peer.eio_sid)]
        assert list(server.manager.get_participants("/", None)) == [(peer.sid, peer.eio_sid)]
    assert servers[0].rooms(peers[1].sid) == []
    with pytest.raises(KeyError):
        servers[0].get_session(peers[1].sid)
    servers[0].emit("news", to="room")
    assert [peer.heard() for peer in peers] == [['2["news"]'], []]
