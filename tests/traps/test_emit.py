"""Traps T9 to T18: what an emit sends, and to whom."""

import datetime
import json
import uuid

import flask
import pytest

import flask_realtime
from flask_realtime import Namespace, socketio


@pytest.fixture
def room_of_three(program, serve, dial):
    """A program and three peers; the handler ``run`` calls the function that a test puts into ``actions``."""
    app, extension = program(namespaces=["/", "/other"])
    actions = []
    extension.on("run")(lambda: actions.pop()())

    @app.get("/run")
    def run():
        actions.pop()()
        return "done"

    site = serve(app, extension)
    peers = [dial(site) for _ in range(3)]
    for peer in peers:
        peer.join()
    return extension, site, peers, actions


def who_heard(peers, packet='2["news"]'):
    """Return the indexes of the peers that got the packet, as often as they got it; they must have got nothing else."""
    found = []
    for index, peer in enumerate(peers):
        heard = [each for each in peer.heard() if each != "31[]"]  # acknowledges `run`
        assert set(heard) <= {packet}, heard
        found += [index] * len(heard)
    return found


def handle(peer, actions, action):
    """Run a function in an event handler of a peer."""
    actions.append(action)
    peer.emit("run", number=1)
    heard = []
    while (packet := peer.receive()) != "31[]":
        heard.append(packet)
    peer.give_back(heard)


# T9 and T10: data to arguments.

DATA = [
    (None, []),
    ((), []),
    ((1, 2), [1, 2]),
    ((None,), [None]),
    ((None, None), [None, None]),
    (([1, 2],), [[1, 2]]),
    ([1, 2], [[1, 2]]),
    ([], [[]]),
    ({"a": (1, 2)}, [{"a": [1, 2]}]),
    ({}, [{}]),
    ("", [""]),
    ("text", ["text"]),
    (0, [0]),
    (1.5, [1.5]),
    (False, [False]),
]


def senders(extension):
    """Return functions that emit data to everybody in the namespace ``/ns``, by name."""
    instance = next(each for each in extension.namespace_handlers if each.namespace == "/ns")
    return {
        "SocketIO": lambda data: extension.emit("e", data, namespace="/ns"),
        "Server": lambda data: extension.server.emit("e", data, namespace="/ns"),
        "Namespace": lambda data: instance.emit("e", data),
    }


@pytest.mark.parametrize("face", ["SocketIO", "Server", "Namespace"])
def test_t09_data_to_arguments(program, serve, enter, face):
    app, extension = program()
    extension.on_namespace(Namespace("/ns"))
    peer = enter(serve(app, extension), namespace="/ns")
    send = senders(extension)[face]
    for data, arguments in DATA:
        send(data)
        assert json.loads(peer.receive().removeprefix("2/ns,")) == ["e", *arguments], data


@pytest.mark.parametrize("face", ["SocketIO", "Server", "Namespace"])
def test_t09_bytes_are_one_argument(program, serve, enter, transport, face):
    app, extension = program()
    extension.on_namespace(Namespace("/ns"))
    peer = enter(serve(app, extension), transport, namespace="/ns")
    for data in (b"\x00\xff", b""):
        senders(extension)[face](data)
        assert peer.receive() == '51-/ns,["e",{"_placeholder":true,"num":0}]'
        assert peer.receive() == data


def test_t09_no_data_at_all_is_no_argument(room_of_three):
    extension, _, peers, actions = room_of_three
    extension.emit("e")
    extension.server.emit("e")
    handle(peers[0], actions, lambda: flask_realtime.emit("e"))
    assert peers[0].heard() == ['2["e"]'] * 3


def test_t09_send_follows_the_same_rules(room_of_three):
    extension, _, (peer, *_), actions = room_of_three
    for data, arguments in DATA:
        extension.send(data, to=peer.sid)
        extension.send(data, json=True, to=peer.sid)
        extension.server.send(data, to=peer.sid)
        handle(peer, actions, lambda data=data: flask_realtime.send(data))
        events = [json.loads(packet.removeprefix("2")) for packet in peer.heard()]
        assert events == [[name, *arguments] for name in ("message", "json", "message", "message")], data


def test_t09_values_that_only_flask_knows_are_sent_as_flask_sends_them(room_of_three):
    extension, _, (peer, *_), _ = room_of_three
    number, day = uuid.uuid4(), datetime.date(2024, 2, 29)
    extension.emit("e", {"number": number, "day": day}, to=peer.sid)
    assert json.loads(peer.receive()[1:]) == ["e", {"number": str(number), "day": "Thu, 29 Feb 2024 00:00:00 GMT"}]


def test_t10_a_tuple_of_none_is_one_null(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.emit("e", (None,))
    extension.emit("e", (None,), to=peers[0].sid)
    assert [peer.heard() for peer in peers] == [['2["e",null]'] * 2, ['2["e",null]'], ['2["e",null]']]


# T11: several arguments.


def test_t11_several_positional_arguments_are_several(room_of_three):
    extension, _, (peer, *_), actions = room_of_three
    extension.emit("e", 1, 2, to=peer.sid)
    extension.emit("e", None, None, to=peer.sid)
    handle(peer, actions, lambda: flask_realtime.emit("e", [1], {"a": 2}, "three"))
    assert peer.heard() == ['2["e",1,2]', '2["e",null,null]', '2["e",[1],{"a":2},"three"]']


def test_t11_several_arguments_may_hold_binary_data(room_of_three):
    extension, _, (peer, *_), _ = room_of_three
    extension.emit("e", b"one", {"two": b"two"}, to=peer.sid)
    packet = '52-["e",{"_placeholder":true,"num":0},{"two":{"_placeholder":true,"num":1}}]'
    assert peer.heard() == [packet, b"one", b"two"]


# T12: targets that are false.

EMPTY = ["", [], (), set(), frozenset(), 0, False]


@pytest.mark.parametrize("word", ["to", "room"])
@pytest.mark.parametrize("target", EMPTY, ids=repr)
def test_t12_an_empty_target_is_nobody(room_of_three, word, target):
    extension, _, peers, actions = room_of_three
    for send in (extension.emit, extension.server.emit):
        send("news", **{word: target})
    for send in (extension.send, extension.server.send):
        send("news", **{word: target})
    handle(peers[0], actions, lambda: flask_realtime.emit("news", **{word: target}))
    handle(peers[0], actions, lambda: flask_realtime.send("news", **{word: target}))
    handle(peers[0], actions, lambda: flask_realtime.emit("news", broadcast=True, **{word: target}))
    assert who_heard(peers) == []


@pytest.mark.parametrize("room", [0, "", False])
def test_t12_a_room_with_a_false_name_can_be_addressed(room_of_three, room):
    extension, _, peers, actions = room_of_three
    handle(peers[1], actions, lambda: flask_realtime.join_room(room))
    extension.emit("news", to=room)
    extension.server.emit("news", room=room)
    assert who_heard(peers) == [1, 1]


def test_t12_none_is_everybody(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.emit("news", to=None, room=None)
    assert who_heard(peers) == [0, 1, 2]
    extension.server.emit("news", to=None, room=None)
    assert who_heard(peers) == [0, 1, 2]


def test_t12_call_with_an_empty_target_asks_nobody(room_of_three):
    extension, _, peers, _ = room_of_three
    with pytest.raises(TimeoutError):
        extension.call("news", to="")
    assert who_heard(peers) == []


# T13: several rooms.


@pytest.mark.parametrize("collection", [list, tuple, set, frozenset])
def test_t13_several_rooms_are_a_union(room_of_three, collection):
    extension, _, peers, _ = room_of_three
    for peer in peers[:2]:
        for room in ("a", "b"):
            extension.server.enter_room(peer.sid, room)
    extension.server.enter_room(peers[2].sid, "c")
    for send in (extension.emit, extension.server.emit):
        send("news", to=collection(["a", "b", peers[0].sid, "empty"]))
        assert who_heard(peers) == [0, 1]
        send("news", room=collection(["a", "c"]))
        assert who_heard(peers) == [0, 1, 2]


def test_t13_a_tuple_is_rooms_not_the_name_of_one(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.server.enter_room(peers[0].sid, "a")
    extension.server.enter_room(peers[1].sid, ("a", "b"))
    extension.emit("news", to=("a", "b"))
    assert who_heard(peers) == [0]


def test_t13_bytes_and_numbers_are_names_of_rooms(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.server.enter_room(peers[0].sid, b"ab")
    extension.server.enter_room(peers[1].sid, 97)
    extension.emit("news", to=b"ab")
    assert who_heard(peers) == [0]
    extension.emit("news", to=97)
    assert who_heard(peers) == [1]


def test_t13_a_list_inside_a_list_is_an_error(room_of_three):
    extension, _, peers, _ = room_of_three
    with pytest.raises(TypeError):
        extension.emit("news", to=["a", ["b"]])
    assert who_heard(peers) == []


def test_t13_an_iterator_of_rooms_is_not_silently_nobody(room_of_three):
    """It may be a union or an error. To reach nobody without a word is neither."""
    extension, _, peers, _ = room_of_three
    extension.server.enter_room(peers[0].sid, "a")
    try:
        extension.emit("news", to=(room for room in ["a", "b"]))
    except TypeError:
        return
    assert who_heard(peers) == [0]


# T14: clients to leave out.


@pytest.mark.parametrize("collection", [list, tuple, set, frozenset, iter, dict.fromkeys])
def test_t14_skip_sid_takes_any_collection(room_of_three, collection):
    extension, _, peers, actions = room_of_three
    sids = [peers[0].sid, peers[2].sid]
    for send in (extension.emit, extension.server.emit):
        send("news", skip_sid=collection(sids))
        assert who_heard(peers) == [1]
    for send in (extension.send, extension.server.send):
        send("news", skip_sid=collection(sids))
        assert who_heard(peers, '2["message","news"]') == [1]
    handle(peers[0], actions, lambda: flask_realtime.emit("news", broadcast=True, skip_sid=collection(sids)))
    assert who_heard(peers) == [1]


def test_t14_skip_sid_takes_one(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.emit("news", skip_sid=peers[1].sid)
    extension.server.emit("news", skip_sid=peers[1].sid)
    assert who_heard(peers) == [0, 0, 2, 2]


@pytest.mark.parametrize("nobody", [None, [], "", "unknown"])
def test_t14_skip_sid_of_nobody_skips_nobody(room_of_three, nobody):
    extension, _, peers, _ = room_of_three
    extension.emit("news", skip_sid=nobody)
    assert who_heard(peers) == [0, 1, 2]


# T15: include_self.


def test_t15_include_self_outside_of_a_context_leaves_nobody_out(room_of_three):
    extension, _, peers, _ = room_of_three
    extension.emit("news", include_self=False)
    assert who_heard(peers) == [0, 1, 2]


def test_t15_include_self_in_a_route_leaves_nobody_out(room_of_three):
    extension, site, peers, actions = room_of_three
    for action in (
        lambda: extension.emit("news", include_self=False),
        lambda: flask_realtime.emit("news", namespace="/", broadcast=True, include_self=False),
    ):
        actions.append(action)
        assert site.get("/run") == (200, "done")
        assert who_heard(peers) == [0, 1, 2]


def test_t15_include_self_and_skip_sid_are_both_left_out(room_of_three):
    extension, _, peers, actions = room_of_three
    skip = peers[1].sid
    for action in (
        lambda: extension.emit("news", include_self=False, skip_sid=skip),
        lambda: flask_realtime.emit("news", broadcast=True, include_self=False, skip_sid=skip),
    ):
        handle(peers[0], actions, action)
        assert who_heard(peers) == [2]
    for action in (
        lambda: extension.send("news", include_self=False, skip_sid=[skip]),
        lambda: flask_realtime.send("news", broadcast=True, include_self=False, skip_sid=[skip]),
    ):
        handle(peers[0], actions, action)
        assert who_heard(peers, '2["message","news"]') == [2]


def test_t15_emit_to_oneself_without_oneself_is_nobody(room_of_three):
    _, _, peers, actions = room_of_three
    handle(peers[0], actions, lambda: flask_realtime.emit("news", to=flask.request.sid, include_self=False))
    handle(peers[0], actions, lambda: flask_realtime.emit("news", include_self=False))
    assert who_heard(peers) == []


# T16: one name, several audiences.


def test_t16_function_emits_to_the_sender(room_of_three):
    _, _, peers, actions = room_of_three
    handle(peers[1], actions, lambda: flask_realtime.emit("news"))
    handle(peers[1], actions, lambda: flask_realtime.emit("news", broadcast=False))
    assert who_heard(peers) == [1, 1]


def test_t16_function_emits_to_all_with_broadcast(room_of_three):
    _, _, peers, actions = room_of_three
    handle(peers[1], actions, lambda: flask_realtime.emit("news", broadcast=True))
    assert who_heard(peers) == [0, 1, 2]


def test_t16_extension_and_server_emit_to_the_whole_namespace_also_in_a_handler(room_of_three):
    extension, _, peers, actions = room_of_three
    handle(peers[1], actions, lambda: extension.emit("news"))
    handle(peers[1], actions, lambda: extension.server.emit("news"))
    assert who_heard(peers) == [0, 0, 1, 1, 2, 2]


def test_t16_class_emits_to_its_whole_namespace(program, serve, dial):
    app, extension = program()

    class Chat(Namespace):
        def on_tell(self):
            self.emit("news")
            self.send("news")

    extension.on_namespace(Chat("/chat"))
    site = serve(app, extension)
    peers = [dial(site), dial(site)]
    for peer in peers:
        peer.join()
        peer.join("/chat")
    peers[0].emit("tell", namespace="/chat", number=1)
    assert peers[0].receive() == '2/chat,["news"]'
    assert peers[0].receive() == '2/chat,["message","news"]'
    assert peers[0].receive() == "3/chat,1[]"
    assert [peer.heard() for peer in peers] == [[], ['2/chat,["news"]', '2/chat,["message","news"]']]


# T17: to and room.


def test_t17_to_wins_over_room(room_of_three):
    extension, _, peers, actions = room_of_three
    to, room = peers[1].sid, peers[2].sid
    extension.emit("news", to=to, room=room)
    extension.server.emit("news", to=to, room=room)
    handle(peers[0], actions, lambda: flask_realtime.emit("news", to=to, room=room))
    assert who_heard(peers) == [1, 1, 1]


# T18: nobody there.


def test_t18_emit_before_anybody_came_is_not_kept(program, serve, dial):
    app, extension = program()
    extension.emit("news")
    extension.emit("news", to="room")
    extension.emit("news", namespace="/never")
    peer = dial(serve(app, extension))
    extension.emit("news")
    peer.join()
    assert peer.heard() == []


def test_t18_emit_to_unknown_targets_is_silent(room_of_three):
    extension, _, peers, _ = room_of_three
    for send in (extension.emit, extension.server.emit):
        send("news", to="unknown")
        send("news", to=["unknown", "unheard-of"])
        send("news", namespace="/never")
        send("news", to=peers[0].sid, namespace="/other")
    assert who_heard(peers) == []


def test_t18_emit_to_one_who_has_left_is_silent(serve, enter):
    server = socketio.Server()
    server.on("here", lambda sid: True)
    site = serve(server)
    peer, other = enter(site), enter(site)
    peer.ask("here")  # its connecting is over, so the disconnect is done at once
    server.disconnect(peer.sid)
    server.emit("news", to=peer.sid)
    server.emit("news")
    assert peer.receive() == "1"
    old, new = peer.sid, peer.join()
    assert old != new
    assert peer.heard() == []
    assert other.heard() == ['2["news"]']
