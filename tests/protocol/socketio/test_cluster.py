"""Processes of one fleet, on a bus that hands every message to everybody when it is told to."""

import itertools
import json
import logging

import pytest
from doubles import ManualEvent, Party, StrictLock

from flask_realtime.errors import ClusterTimeoutError
from flask_realtime.protocol.socketio.cluster import (
    BEAT_INTERVAL,
    FORGOTTEN,
    MISSING,
    MOST_PENDING,
    MOST_SENDERS,
    PENDING,
    Cluster,
)
from flask_realtime.protocol.socketio.core import Waiter
from flask_realtime.protocol.socketio.envelope import Seal
from flask_realtime.protocol.socketio.packets import ACK, DISCONNECT, EVENT, TextCodec


class Fleet:
    """Some processes.

    Attributes:
        messages: What was published, each with its sender.
    """

    def __init__(self, secret=None):
        self.now, self.secret = 100.0, secret
        self.members, self.messages, self._next = [], [], 0

    def add(self, party=True, secret=None):
        """Add a process; one without clients when ``party`` is False."""
        member = Member(self, Party() if party else None, secret or self.secret)
        self.members.append(member)
        return member

    def pair(self):
        """Add two that know each other."""
        one, two = self.add(), self.add()
        for member in (one, two):
            member.cluster.subscribed()
        self.deliver()
        self.messages.clear()
        self._next = 0
        return one, two

    def deliver(self, drop=lambda message: False):
        """Hand over what was published, and what that leads to."""
        while self._next < len(self.messages):
            data = self.messages[self._next]
            self._next += 1
            if not drop(data):
                for member in self.members:
                    member.cluster.receive(data)

    @property
    def sent(self):
        """What was published, as dicts."""
        return [json.loads(data) for data in self.messages]

    def advance(self, seconds):
        self.now += seconds
        for member in self.members:
            member.cluster.tick()
        self.deliver()


class Member:
    """One process; the outlet of its own cluster."""

    def __init__(self, fleet, party, secret):
        self.fleet, self.party = fleet, party
        self.starts = 0
        codec, logger = TextCodec(), logging.getLogger("flask_realtime.tests")
        seal = Seal(secret, lambda: fleet.now) if secret else None
        core = party.core if party else None
        now = lambda: fleet.now  # noqa: E731
        self.cluster = Cluster(core, self, codec, logger, "bus", now, StrictLock, lambda event: event.set(), seal)

    def start(self):
        self.starts += 1

    def publish(self, data):
        self.fleet.messages.append(data)

    def event(self):
        return ManualEvent(self.party.runtime)

    def join(self, *rooms, namespace="/"):
        guest = self.party.join(namespace)
        for room in rooms:
            self.party.core.enter_room(guest.sids[namespace], room, namespace)
        guest.take()
        return guest


@pytest.fixture
def fleet():
    return Fleet()


def all_events(*guests):
    return [guest.events() for guest in guests]


# Emitting.


def test_everybody_gets_an_emit_once_and_its_own_process_at_once(fleet):
    one, two = fleet.pair()
    here, there = one.join(), two.join()
    assert one.cluster.emit("x", [1, "é", None], "/") == one.party.core.targets("/", None)
    assert all_events(here, there) == [[["x", 1, "é", None]], []]
    fleet.deliver()
    assert all_events(here, there) == [[], [["x", 1, "é", None]]]


def test_binary_data_at_any_depth(fleet):
    one, two = fleet.pair()
    there = two.join()
    one.cluster.emit("x", [b"\x00", {"a": [b"\xff", b""]}], "/")
    fleet.deliver()
    assert there.events() == [["x", b"\x00", {"a": [b"\xff", b""]}]]


def test_rooms_span_processes(fleet):
    one, two = fleet.pair()
    guests = [one.join("r"), one.join(), two.join("r"), two.join("s"), two.join(7)]
    one.cluster.emit("x", [], "/", "r")
    one.cluster.emit("y", [], "/", ["r", "s", 7])
    fleet.deliver()
    x, y = ["x"], ["y"]
    assert all_events(*guests) == [[x, y], [], [x, y], [y], [y]]


@pytest.mark.parametrize("several", [list, tuple, set, frozenset, iter, lambda rooms: dict.fromkeys(rooms).keys()])
def test_several_rooms_in_whatever_form(fleet, several):
    one, two = fleet.pair()
    guests = [one.join("r"), two.join("s"), two.join("t")]
    one.cluster.emit("x", [], "/", several(["r", "s"]))
    fleet.deliver()
    assert all_events(*guests) == [[["x"]], [["x"]], []]


def test_those_to_skip_are_skipped_everywhere(fleet):
    one, two = fleet.pair()
    guests = [one.join(), one.join(), two.join(), two.join()]
    one.cluster.emit("x", [], "/", None, {guests[0].sid, guests[2].sid})
    fleet.deliver()
    assert all_events(*guests) == [[], [["x"]], [], [["x"]]]


def test_namespaces_are_apart(fleet):
    one, two = fleet.add(), fleet.add()
    one.party.core.handlers.add("x", print, "/a")
    two.party.core.handlers.add("x", print, "/a")
    guests = [two.join(), two.join(namespace="/a")]
    one.cluster.emit("x", [], "/a")
    fleet.deliver()
    assert all_events(*guests) == [[], [["x"]]]


def test_what_concerns_only_clients_of_ours_does_not_cross_the_bus(fleet):
    one, two = fleet.pair()
    here, also = one.join(), one.join()
    there = two.join()
    one.cluster.emit("x", [], "/", here.sid)
    one.cluster.emit("x", [], "/", [here.sid, also.sid])
    one.cluster.emit("x", [], "/", [])
    one.cluster.emit("x", [], "/", here.sid, callback=print)
    one.cluster.enter_room(here.sid, "r", "/")
    one.cluster.leave_room(here.sid, "r", "/")
    one.cluster.disconnect(also.sid, "/")
    assert fleet.messages == []
    one.cluster.emit("x", [], "/", [here.sid, there.sid])
    assert len(fleet.messages) == 1


def test_an_emit_for_which_nobody_is_here_is_not_parsed(fleet):
    one, two = fleet.pair()
    two.join("r")
    one.cluster.emit("x", ["payload"], "/", "nobody")
    broken = fleet.messages[0].replace(b'"payload"', b"no JSON!!")
    two.cluster.receive(broken)
    assert (two.cluster.unwanted.value, two.cluster.refused.value) == (1, 0)


def test_what_can_not_be_sent_is_told_to_the_caller_and_costs_no_number(fleet):
    one, two = fleet.pair()
    there = two.join()
    with pytest.raises(TypeError):
        one.cluster.emit("x", [object()], "/", "elsewhere")
    with pytest.raises(TypeError):
        one.cluster.emit("x", [], "/", object())
    for name in ("connect", "disconnect"):
        with pytest.raises(ValueError, match="reserved"):
            one.cluster.emit(name, [], "/", "elsewhere")
    one.cluster.emit("x", [], "/")
    fleet.deliver()
    assert there.events() == [["x"]]
    assert two.cluster.lost.value == 0


def test_a_process_that_only_emits(fleet):
    two = fleet.add()
    two.cluster.subscribed()
    outside = fleet.add(party=False)
    there = two.join("r")
    outside.cluster.emit("x", [b"b"], "/", "r")
    outside.cluster.enter_room(there.sid, "s", "/")
    outside.cluster.emit("y", [], "/", "s")
    outside.cluster.leave_room(there.sid, "s", "/")
    outside.cluster.emit("z", [], "/", "s")
    outside.cluster.close_room("r", "/")
    outside.cluster.emit("z", [], "/", "r")
    fleet.deliver()
    assert there.events() == [["x", b"b"], ["y"]]
    outside.cluster.disconnect(there.sid, "/")
    fleet.deliver()
    assert there.take()[-1].type == DISCONNECT
    with pytest.raises(RuntimeError, match="only emits"):
        outside.cluster.emit("x", [], "/", "sid", callback=print)
    assert outside.starts >= 7


# Callbacks.


def test_a_callback_runs_in_the_process_of_the_emit_once_for_each_client(fleet):
    one, two = fleet.pair()
    guests = [one.join(), two.join(), two.join()]
    told = []
    one.cluster.emit("x", [], "/", None, (), lambda *args: told.append(args))
    fleet.deliver()
    for number, guest in enumerate(guests):
        (packet,) = guest.take()
        guest.send(ACK, "/", packet.id, [number, b"\xff"])
        fleet.deliver()
    assert told == [(0, b"\xff"), (1, b"\xff"), (2, b"\xff")]


def test_the_callback_of_a_sid_elsewhere(fleet):
    one, two = fleet.pair()
    there = two.join()
    told = []
    one.cluster.emit("x", [], "/", there.sid, (), lambda *args: told.append(args))
    fleet.deliver()
    (packet,) = there.take()
    there.send(ACK, "/", packet.id, [])
    fleet.deliver()
    assert told == [()]
    (emit, callback) = fleet.sent
    assert emit["callback"] == [there.sid, "/", 1]
    assert {**callback, "n": 0} == {
        **{"method": "callback", "host_id": one.cluster.host_id, "sid": there.sid, "namespace": "/", "id": 1},
        **{"args": [], "from": two.cluster.host_id, "n": 0},
    }


def test_a_callback_that_fails_is_logged(fleet, caplog):
    one, two = fleet.pair()
    there = two.join()
    one.cluster.emit("x", [], "/", there.sid, (), lambda: 1 / 0)
    fleet.deliver()
    there.send(ACK, "/", there.take()[0].id, [])
    fleet.deliver()
    assert "a callback failed" in caplog.text
    assert one.party.core.counters.handlers.errors.value == 1


def test_somebody_waits_for_a_client_elsewhere(fleet):
    one, two = fleet.pair()
    there = two.join()
    waiter = Waiter(one.event())
    assert one.cluster.emit("x", [], "/", there.sid, (), waiter) == ()
    fleet.deliver()
    there.send(ACK, "/", there.take()[0].id, ["answer"])
    fleet.deliver()
    assert waiter.event.is_set()
    assert waiter.answer == ["answer"]
    one.cluster.forget_waiter(waiter, ())
    assert one.cluster._pending == {}


def test_callbacks_that_are_never_answered_are_forgotten(fleet):
    one, _two = fleet.pair()
    for _ in range(3):
        one.cluster.emit("x", [], "/", "elsewhere", (), print)
    fleet.advance(PENDING + 1)
    assert one.cluster._pending == {}
    waiter = Waiter(one.event())
    one.cluster.emit("x", [], "/", "elsewhere", (), waiter)
    for _ in range(MOST_PENDING):
        one.cluster.emit("x", [], "/", "elsewhere", (), print)
    assert len(one.cluster._pending) == MOST_PENDING
    assert waiter.event.is_set()
    assert waiter.answer is None


# Rooms and clients elsewhere.


def test_a_client_elsewhere_enters_and_leaves_rooms(fleet):
    one, two = fleet.pair()
    there = two.join()
    one.cluster.enter_room(there.sid, "r", "/")
    fleet.deliver()
    assert two.party.core.rooms_of(there.sid, "/") == [there.sid, "r"]
    one.cluster.leave_room(there.sid, "r", "/")
    fleet.deliver()
    assert two.party.core.rooms_of(there.sid, "/") == [there.sid]
    one.cluster.enter_room("nobody", "r", "/")
    fleet.deliver()


def test_a_room_is_closed_everywhere(fleet):
    one, two = fleet.pair()
    guests = [one.join("r"), two.join("r")]
    one.cluster.close_room("r", "/")
    fleet.deliver()
    two.cluster.emit("x", [], "/", "r")
    fleet.deliver()
    assert all_events(*guests) == [[], []]
    for close in (one.cluster.close_room, lambda room, namespace: one.cluster.leave_room("sid", room, namespace)):
        with pytest.raises(ValueError, match="everybody"):
            close(None, "/")


def test_a_client_elsewhere_is_disconnected(fleet):
    one, two = fleet.pair()
    there, other = two.join(), two.join()
    one.cluster.disconnect(there.sid, "/")
    fleet.deliver()
    assert there.take()[-1].type == DISCONNECT
    assert not other.take()


# python-socketio.


def foreign(**fields):
    return json.dumps({"host_id": "foreign", **fields}).encode()


def test_an_emit_of_python_socketio(fleet):
    one = fleet.add()
    guests = [one.join("r"), one.join()]
    message = {
        **{"method": "emit", "event": "x", "data": [1], "binary": False, "namespace": "/", "room": "r"},
        **{"skip_sid": guests[0].sid, "callback": None},
    }
    one.cluster.receive(foreign(**message))
    one.cluster.receive(foreign(**{**message, "skip_sid": [guests[1].sid], "room": None}))
    one.cluster.receive(foreign(**{**message, "skip_sid": None, "data": [None], "room": ["r"]}))
    assert all_events(*guests) == [[["x", 1], ["x"]], []]
    assert one.cluster.refused.value == 0


def test_a_callback_for_python_socketio(fleet):
    one = fleet.add()
    guest = one.join()
    message = {
        **{"method": "emit", "event": "x", "data": [], "binary": False, "namespace": "/", "room": guest.sid},
        **{"skip_sid": None, "callback": [guest.sid, "/", 5]},
    }
    one.cluster.receive(foreign(**message))
    guest.send(ACK, "/", guest.take()[0].id, [1, 2])
    (answer,) = fleet.sent
    expected = {"method": "callback", "host_id": "foreign", "sid": guest.sid, "namespace": "/", "id": 5, "args": [1, 2]}
    assert {name: answer[name] for name in expected} == expected


def test_a_callback_of_python_socketio(fleet):
    one = fleet.add()
    told = []
    one.cluster.emit("x", [], "/", "theirs", (), lambda *args: told.append(args))
    answer = {"method": "callback", "host_id": one.cluster.host_id, "sid": "theirs", "namespace": "/", "id": 1}
    one.cluster.receive(foreign(**answer, args=["yes"]))
    one.cluster.receive(foreign(**{**answer, "id": 9}, args=["unknown"]))
    one.cluster.receive(foreign(**{**answer, "host_id": "somebody else's"}, args=["unknown"]))
    assert told == [("yes",)]


@pytest.mark.parametrize("fields", [
    *({}, {"method": 1}, {"method": "emit"}, {"method": "emit", "event": "x", "data": 5, "namespace": "/"}),
    {"method": "emit", "event": "x", "data": [], "namespace": 5},
    {"method": "emit", "event": "x", "data": [], "room": {"a": 1}},
    {"method": "emit", "event": "x", "data": [], "room": [["nested"]]},
    {"method": "emit", "event": "connect", "data": []},
    {"method": "emit", "event": "x", "data": [], "skip_sid": 5},
    {"method": "emit", "event": "x", "data": [], "callback": 5},
    {"method": "emit", "event": "x", "data": [], "callback": [1]},
    {"method": "emit", "event": "x", "data": [[], "?"], "binary": True},
    {"method": "emit", "event": "x", "data": [{"_placeholder": True, "num": 1}], "binary": True},
    *({"method": "disconnect"}, {"method": "disconnect", "sid": 5}, {"method": "enter_room", "sid": [], "room": "r"}),
    *({"method": "leave_room", "sid": "s"}, {"method": "close_room"}, {"method": "close_room", "room": {}}),
    *({"method": "query", "what": "secrets"}, {"method": "query"}),
    *({"method": "emit", "n": "x"}, {"method": "hello", "n": 1, "host_id": 5}),
])  # fmt: skip
def test_garbage_is_refused_with_a_line(fleet, caplog, fields):
    one = fleet.add()
    guest = one.join("r")
    one.party.core.enter_room(guest.sid, ("nested",), "/")
    one.cluster.receive(foreign(**fields))
    assert one.cluster.refused.value == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "'bus'" in record.getMessage()
    assert record.exc_info is None
    one.cluster.receive(foreign(method="emit", event="x", data=[], namespace="/", room=None))
    assert guest.events() == [["x"]]


def test_what_python_socketio_may_say_one_day_is_passed_over(fleet, caplog):
    one = fleet.add()
    one.cluster.receive(foreign(method="something_new", sid=5))
    assert (caplog.messages, one.cluster.refused.value) == ([], 0)


def test_an_error_of_ours_does_not_end_the_listening(fleet, caplog, monkeypatch):
    one = fleet.add()
    monkeypatch.setattr(one.party.core, "disconnect", lambda sid, namespace: 1 / 0)
    one.cluster.receive(foreign(method="disconnect", sid="s", namespace="/"))
    assert "ZeroDivisionError" in caplog.text


# Numbers.


def test_what_comes_twice_counts_once(fleet):
    one, two = fleet.pair()
    there = two.join()
    for number in range(3):
        one.cluster.emit("x", [number], "/")
    for data in (*fleet.messages, *fleet.messages[1:]):
        two.cluster.receive(data)
    assert there.events() == [["x", 0], ["x", 1], ["x", 2]]
    assert (two.cluster.repeated.value, two.cluster.lost.value) == (2, 0)


def test_what_is_missing_is_counted_and_told(fleet, caplog):
    one, two = fleet.pair()
    there = two.join()
    for number in range(10):
        one.cluster.emit("x", [number], "/")
    fleet.deliver(drop=lambda data: b"[3]" in data or b"[4]" in data)
    assert len(there.events()) == 8
    assert two.cluster.lost.value == 2
    assert "2 messages of the process" in caplog.text


def test_whoever_wants_to_know_is_told_what_is_missing(fleet):
    one, two = fleet.pair()
    told = []
    two.cluster.on_gap = told.append
    for number in range(10):
        one.cluster.emit("x", [number], "/")
    fleet.deliver(drop=lambda data: b"[3]" in data or b"[4]" in data or b"[8]" in data)
    assert told == [2, 1]
    two.cluster.subscribed()
    assert told == [2, 1]
    two.cluster.subscribed(True)
    assert told == [2, 1, 0]


def test_an_error_of_whoever_is_told_of_a_gap_is_logged(fleet, caplog):
    two = fleet.pair()[1]
    two.cluster.on_gap = lambda missing: 1 / missing
    two.cluster.subscribed(True)
    assert "ZeroDivisionError" in caplog.text
    assert two.party.core.counters.handlers.errors.value == 1


def test_a_process_without_clients_tells_nobody_of_gaps(fleet):
    one = fleet.add(party=False)
    one.cluster.on_gap = lambda missing: 1 / missing
    one.cluster.subscribed(True)


def test_a_loss_at_the_end_shows_at_the_next_sign_of_life(fleet):
    one, two = fleet.pair()
    one.cluster.emit("x", [], "/")
    fleet.deliver(drop=lambda data: True)
    assert two.cluster.lost.value == 0
    fleet.advance(BEAT_INTERVAL + 1)
    assert two.cluster.lost.value == 1
    fleet.advance(BEAT_INTERVAL + 1)
    assert (two.cluster.lost.value, two.cluster.repeated.value) == (1, 0)


def test_a_newcomer_misses_nothing_of_what_was_before(fleet):
    one = fleet.add()
    for _ in range(5):
        one.cluster.emit("x", [], "/")
    fleet.deliver()
    two = fleet.add()
    one.cluster.emit("x", [], "/")
    fleet.deliver()
    assert two.cluster.lost.value == 0


def test_a_process_that_was_forked_is_somebody_else(fleet):
    one, two = fleet.pair()
    there = two.join()
    one.cluster.emit("x", [], "/")
    before = one.cluster.host_id
    one.cluster.begin()
    assert one.cluster.host_id != before
    one.cluster.emit("y", [], "/")
    fleet.deliver()
    assert there.events() == [["x"], ["y"]]
    assert two.cluster.lost.value == two.cluster.repeated.value == 0


def test_the_first_thing_that_a_process_does_may_have_a_callback(fleet, monkeypatch):
    one, two = fleet.add(), fleet.add()
    there, answers = two.join(), []
    monkeypatch.setattr(one, "start", lambda: one.starts or one.cluster.begin() or setattr(one, "starts", 1))
    one.cluster.emit("x", [], "/", there.sid, (), lambda *args: answers.append(args))
    fleet.deliver()
    (packet,) = there.take()
    there.send(ACK, "/", packet.id, ["yes"])
    fleet.deliver()
    assert answers == [("yes",)]


def test_a_process_that_was_forked_waits_for_no_thread_that_stayed_behind(fleet):
    one = fleet.add()
    with one.cluster._sending, one.cluster._lock:
        one.cluster.begin()
        one.cluster.emit("x", [], "/")
    assert [message["method"] for message in fleet.sent] == ["emit"]


def test_senders_that_are_silent_are_forgotten(fleet):
    one, two = fleet.pair()
    for number in range(MOST_SENDERS + 10):
        two.cluster.receive(foreign(method="close_room", room="r", host_id=f"h{number}", n=1))
    assert len(two.cluster._senders) == MOST_SENDERS
    fleet.advance(FORGOTTEN + 1)
    fleet.advance(BEAT_INTERVAL)
    assert set(two.cluster._senders) <= {one.cluster.host_id}


# Members.


def test_members_know_each_other(fleet):
    one, two, three = (fleet.add() for _ in range(3))
    outside = fleet.add(party=False)
    for member in (one, two, three):
        member.cluster.subscribed()
        fleet.deliver()
    outside.cluster.emit("x", [], "/")
    fleet.deliver()
    ids = {member.cluster.host_id for member in (one, two, three)}
    for member in (one, two, three):
        assert set(member.cluster.members) == ids - {member.cluster.host_id}
    three.cluster.end()
    fleet.deliver()
    assert one.cluster.members == [two.cluster.host_id]
    assert len(fleet.sent) == len([message for message in fleet.sent if message["method"] != "bye"]) + 1
    three.cluster.end()
    assert not fleet.deliver()


def test_who_gives_no_sign_of_life_is_no_member_any_more(fleet):
    one, two = fleet.pair()
    fleet.members.remove(two)
    for _ in range(int(MISSING // BEAT_INTERVAL)):
        assert one.cluster.members
        fleet.advance(BEAT_INTERVAL + 0.1)
    assert one.cluster.members == []


def test_nobody_is_missing_only_because_the_bus_was_away(fleet):
    one, _ = fleet.pair()
    fleet.now += 100
    assert one.cluster.members == []
    one.cluster.subscribed()
    assert len(one.cluster.members) == 1


def test_a_sign_of_life_is_given_every_few_seconds(fleet):
    one = fleet.add()
    one.cluster.tick()
    assert fleet.messages == []
    one.cluster.subscribed()
    for _ in range(20):
        fleet.advance(1)
    assert [message["method"] for message in fleet.sent] == ["hello", *["beat"] * 4]
    one.cluster.end()
    fleet.advance(BEAT_INTERVAL + 1)
    assert fleet.sent[-1]["method"] == "bye"


# Asking.


def ask(member, what, subject=None, namespace="/"):
    query = member.cluster.ask(what, namespace, subject, member.event())
    member.fleet.deliver()
    return query


def test_others_are_asked(fleet):
    one, two = fleet.pair()
    three = fleet.add()
    three.cluster.subscribed()
    fleet.deliver()
    guests = [two.join("r", 7), two.join(), three.join("r")]
    query = ask(one, "count")
    assert query.event.is_set()
    assert sorted(query.results) == [1, 2]
    assert sorted(itertools.chain(*ask(one, "sids", "r").results)) == sorted([guests[0].sid, guests[2].sid])
    assert sorted(itertools.chain(*ask(one, "sids", ["r", 7]).results)) == sorted([guests[0].sid, guests[2].sid])
    assert sorted(ask(one, "rooms", guests[0].sid).results) == [[], [guests[0].sid, "r", 7]]


def test_who_is_alone_has_the_answer_at_once(fleet):
    one = fleet.add()
    query = ask(one, "count")
    assert query.event.is_set()
    assert query.results == []
    assert fleet.messages == []


def test_who_does_not_answer_is_named(fleet):
    one, _two = fleet.pair()
    three = fleet.add()
    three.cluster.subscribed()
    fleet.deliver()
    fleet.members.remove(three)
    query = ask(one, "count")
    assert not query.event.is_set()
    assert (query.missing, query.results) == ({three.cluster.host_id}, [0])
    one.cluster.forget(query)
    assert one.cluster._queries == {}
    with pytest.raises(TimeoutError) as raised:
        raise ClusterTimeoutError("late", sorted(query.missing), query.results)
    assert raised.value.missing == [three.cluster.host_id]


@pytest.mark.parametrize("how", ["says so", "is silent"])
def test_nobody_waits_for_a_process_that_goes(fleet, how):
    one, two = fleet.pair()
    if how == "says so":
        query = one.cluster.ask("count", "/", None, one.event())
        two.cluster.end()
        fleet.messages[:] = [data for data in fleet.messages if b"query" not in data]
        fleet.deliver()
        assert not query.missing
    else:
        fleet.members.remove(two)
        query = ask(one, "count")
        for _ in range(10):
            fleet.advance(BEAT_INTERVAL + 1)
        assert query.missing
    assert query.event.is_set()


def test_an_answer_that_nobody_waits_for_is_ignored(fleet):
    one, _two = fleet.pair()
    query = one.cluster.ask("count", "/", None, one.event())
    one.cluster.forget(query)
    fleet.deliver()
    assert query.results == []
    assert not query.event.is_set()


# Signatures.


def test_a_fleet_with_a_secret(caplog):
    fleet = Fleet(secret="s")
    one, two = fleet.pair()
    there = two.join()
    one.cluster.emit("x", [1], "/")
    fleet.deliver()
    assert there.events() == [["x", 1]]
    (signed,) = fleet.messages
    stranger = Fleet(secret="other").add()
    stranger.cluster.emit("x", [2], "/")
    forged = [signed.replace(b"[1]", b"[2]"), *stranger.fleet.messages, foreign(method="emit", event="x", data=[2])]
    for data in forged:
        two.cluster.receive(data)
    two.cluster.receive(signed)
    assert there.events() == []
    assert (two.cluster.refused.value, two.cluster.repeated.value) == (3, 1)


def test_a_message_that_was_kept_and_is_sent_again_is_refused_however_late():
    fleet = Fleet(secret="s")
    one, two = fleet.pair()
    one.cluster.disconnect("sid", "/")
    fleet.deliver()
    (kept,) = fleet.messages
    disconnects = []
    two.party.core.disconnect = lambda sid, namespace: disconnects.append(sid)
    for _ in range(100):
        fleet.advance(10)
        two.cluster.receive(kept)
    three = fleet.add()
    three.party.core.disconnect = two.party.core.disconnect
    three.cluster.receive(kept)
    assert disconnects == []


def test_a_newcomer_obeys_nothing_that_was_signed_before_it_came():
    fleet = Fleet(secret="s")
    one, _ = fleet.pair()
    one.cluster.emit("x", ["before"], "/")
    fleet.deliver()
    (kept,) = fleet.messages
    fleet.now += 1
    three = fleet.add()
    there = three.join()
    three.cluster.subscribed()
    fleet.members.remove(one)  # or the newcomer hears it first
    for _ in range(2):
        three.cluster.receive(kept)
    assert (there.events(), three.cluster.repeated.value, three.cluster.refused.value) == ([], 2, 0)
    one.cluster.emit("x", ["after"], "/")
    fleet.deliver()
    assert there.events() == [["x", "after"]]
    assert three.cluster.lost.value == 0


def test_a_sign_of_life_that_is_sent_again_brings_nobody_back():
    fleet = Fleet(secret="s")
    one, two = fleet.pair()
    fleet.advance(BEAT_INTERVAL + 1)
    (beat,) = [data for data in fleet.messages if b'"beat"' in data and one.cluster.host_id.encode() in data]
    one.cluster.end()
    fleet.members.remove(one)
    fleet.deliver()
    two.cluster.receive(beat)
    assert (two.cluster.members, two.cluster.repeated.value) == ([], 1)


def test_an_event_is_what_core_sends(fleet):
    one, two = fleet.pair()
    there = two.join()
    one.cluster.emit("x", [1], "/")
    fleet.deliver()
    (packet,) = there.take()
    assert (packet.type, packet.data, packet.id) == (EVENT, ["x", 1], None)
