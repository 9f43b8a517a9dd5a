import pytest
from doubles import StrictLock

from flask_realtime.protocol.socketio.client import Client
from flask_realtime.protocol.socketio.rooms import Rooms


@pytest.fixture
def rooms():
    return Rooms(StrictLock())


def client(name):
    return Client(name, None, "/")


def sids(members):
    return [member.sid for member in members]


def test_members_are_in_the_order_of_entering(rooms):
    a, b = client("a"), client("b")
    assert rooms.enter(a, None, "a", "x")
    assert rooms.enter(b, None, "x")
    rooms.enter(a, "x")
    assert sids(rooms.members("x")) == ["a", "b"]
    assert sids(rooms.members(None)) == ["a", "b"]
    assert sids(rooms.members("a")) == ["a"]
    assert list(a.rooms) == [None, "a", "x"]


def test_an_unknown_room_has_nobody_and_is_not_kept(rooms):
    for i in range(100):
        assert rooms.members(f"room {i}") == ()
    assert rooms.names() == []
    assert rooms._kept == {}


def test_who_left_is_gone(rooms):
    a, b = client("a"), client("b")
    rooms.enter(a, "x", "y")
    rooms.enter(b, "x")
    before = rooms.members("x")
    rooms.leave(a, "x")
    rooms.leave(a, "x")
    rooms.leave(a, "unknown")
    assert sids(rooms.members("x")) == ["b"]
    assert sids(before) == ["a", "b"], "what was handed out doesn't change"
    assert list(a.rooms) == ["y"]


def test_an_empty_room_is_forgotten(rooms):
    a = client("a")
    rooms.enter(a, "x")
    rooms.members("x")
    rooms.leave(a, "x")
    assert rooms.names() == [] and rooms.members("x") == () and rooms._kept == {}


def test_who_left_for_good_enters_no_more(rooms):
    a = client("a")
    rooms.enter(a, None, "x")
    rooms.leave_all(a)
    rooms.leave_all(a)
    assert not rooms.enter(a, "y")
    rooms.leave(a, "x")
    assert rooms.names() == []
    assert a.rooms is None


def test_a_closed_room(rooms):
    a, b = client("a"), client("b")
    rooms.enter(a, "x", "y")
    rooms.enter(b, "x")
    rooms.members("x")
    rooms.close("x")
    rooms.close("x")
    assert rooms.members("x") == ()
    assert list(a.rooms) == ["y"] and list(b.rooms) == []
    rooms.enter(a, "x")
    assert sids(rooms.members("x")) == ["a"]


def test_a_union_has_each_once_in_order(rooms):
    a, b, c = client("a"), client("b"), client("c")
    rooms.enter(a, "x")
    rooms.enter(b, "x", "y")
    rooms.enter(c, "y", "z")
    assert sids(rooms.union(["x", "y", "none"])) == ["a", "b", "c"]
    assert sids(rooms.union([])) == []


def test_a_room_may_be_any_hashable(rooms):
    a = client("a")
    names = [0, "", False, ("a", 1), frozenset((1,)), 2.5]
    rooms.enter(a, *names)
    for name in names:
        assert sids(rooms.members(name)) == ["a"]


def test_a_room_that_is_closed_while_it_is_listed_is_not_kept(rooms):
    a = client("a")
    rooms.enter(a, "x")
    rooms._lock.meanwhile = lambda: rooms.close("x")
    assert rooms.members("x") == ()
    assert rooms._kept == {}
