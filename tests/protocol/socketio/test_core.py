import builtins
import logging

import pytest
from doubles import Party

from flask_realtime.errors import ConnectionRefusedError
from flask_realtime.protocol.socketio.core import Waiter, arguments
from flask_realtime.protocol.socketio.msgpack import MsgpackCodec
from flask_realtime.protocol.socketio.packets import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Limits,
    Packet,
    TextCodec,
)


@pytest.fixture(params=[TextCodec, MsgpackCodec])
def codec(request):
    return request.param()


@pytest.fixture
def party(codec):
    return Party(codec)


# Connecting


def test_a_client_is_told_its_sid(party):
    guest = party.join()
    assert guest.take() == [Packet(CONNECT, "/", None, {"sid": guest.sid})]
    assert len(guest.sid) == 22
    assert guest.sid != guest.session.sid, "the id of the connection is a secret"


def test_the_connect_handler_runs_first(party):
    party.on("connect")
    party.answers["connect"] = lambda client: seen.extend(guest.take())
    seen = []
    guest = party.open()
    guest.join(auth={"token": 1})
    assert seen == []
    assert [call[1:] for call in party.calls] == [("connect", ({"token": 1},))]
    assert party.runtime.urgent == [True]
    assert [packet.type for packet in guest.take()] == [CONNECT]


def test_always_connect_answers_first():
    party = Party(always_connect=True)
    party.on("connect")
    party.answers["connect"] = lambda client: seen.extend(guest.take())
    seen = []
    guest = party.open()
    guest.join()
    assert [packet.type for packet in seen] == [CONNECT]
    assert guest.take() == []


REFUSALS = [
    (False, {"message": "Connection rejected by server"}),
    (ConnectionRefusedError, {"message": "Connection rejected by server"}),
    (ConnectionRefusedError("no"), {"message": "no"}),
    (ConnectionRefusedError("no", {"a": 1}), {"message": "no", "data": {"a": 1}}),
    (ConnectionRefusedError("no", 1, 2), {"message": "no", "data": [1, 2]}),
    (ConnectionRefusedError("no", object()), {"message": "no"}),
    (builtins.ConnectionRefusedError("secret"), {"message": "Connection refused by server"}),
    (RuntimeError("secret"), {"message": "Connection rejected by server"}),
]


@pytest.mark.parametrize(("answer", "told"), REFUSALS)
def test_a_refusal_is_told_and_forgotten(party, answer, told, caplog):
    party.on("connect", "disconnect")
    party.answers["connect"] = answer
    guest = party.join()
    assert guest.take() == [Packet(CONNECT_ERROR, "/", None, told)]
    assert party.core.clients["/"] == {} and guest.sids == {}
    assert party.core.rooms["/"].names() == []
    if isinstance(answer, RuntimeError):
        assert "secret" in caplog.text, "it is told to us instead"
    guest.session.close("transport close")
    assert [event for _, event, _ in party.calls] == ["connect"], "who never was in doesn't leave"


@pytest.mark.parametrize(("answer", "told"), REFUSALS)
def test_a_late_refusal_is_a_disconnect_with_its_reason(answer, told):
    party = Party(always_connect=True)
    party.on("connect", "disconnect")
    party.answers["connect"] = answer
    assert party.join().take()[1:] == [Packet(DISCONNECT, "/", None, told)]
    assert [event for _, event, _ in party.calls] == ["connect"]


@pytest.mark.parametrize("answer", [None, True, "text", 0, {}])
def test_only_false_refuses(party, answer):
    party.on("connect")
    party.answers["connect"] = answer
    assert [packet.type for packet in party.join().take()] == [CONNECT]


def test_who_was_refused_may_try_again(party):
    party.on("connect")
    party.answers["connect"] = False
    guest = party.join()
    party.answers["connect"] = True
    guest.join()
    assert [packet.type for packet in guest.take()] == [CONNECT_ERROR, CONNECT]


def test_namespaces_are_joined_one_by_one(party):
    party.on("x", namespace="/a")
    guest = party.join()
    guest.join("/a")
    assert set(guest.sids) == {"/", "/a"} and len(set(guest.sids.values())) == 2
    guest.emit("x", namespace="/a")
    assert [(sid, event) for sid, event, _ in party.calls] == [(guest.sids["/a"], "x")]


@pytest.mark.parametrize(
    ("settings", "namespace", "fine"),
    [
        ({}, "/", True),
        ({}, "/other", False),
        ({}, "/handled", True),
        ({"namespaces": ("/other",)}, "/other", True),
        ({"namespaces": ("/other",)}, "/", False),
        ({"namespaces": ("*",)}, "/any", True),
    ],
)
def test_unknown_namespaces_are_refused(settings, namespace, fine):
    party = Party(**settings)
    party.on("x", namespace="/handled")
    guest = party.join(namespace)
    if fine:
        assert [packet.type for packet in guest.take()] == [CONNECT]
    else:
        assert guest.take() == [Packet(CONNECT_ERROR, namespace, None, {"message": "Invalid namespace"})]
    assert not guest.closed


def test_a_catch_all_alone_opens_no_namespace():
    party = Party()
    party.on("*", namespace="*")
    assert [packet.type for packet in party.join("/any").take()] == [CONNECT_ERROR]


def test_a_second_connect_ends_the_connection(party):
    guest = party.join()
    guest.join()
    assert guest.closed


def test_too_many_namespaces_end_the_connection():
    party = Party(namespaces=("*",), max_namespaces=3)
    guest = party.open()
    for i in range(3):
        guest.join(f"/{i}")
    assert not guest.closed
    guest.join("/3")
    assert guest.closed
    assert all(not clients for clients in party.core.clients.values())


def test_namespaces_that_nobody_is_in_are_forgotten():
    party = Party(namespaces=("*",))
    for i in range(50):
        party.join(f"/{i}").session.close("transport close")
    assert party.core.rooms == {} and party.core.clients == {}


def test_who_joins_nothing_in_time_is_closed(party):
    idle, joined = party.open(), party.join()
    party.runtime.advance(44)
    assert not idle.closed
    for guest in (idle, joined):
        guest.session.receive("3")
    party.runtime.advance(2)
    assert idle.closed and not joined.closed
    assert idle.transport.closed == [(1008, "no namespace joined in time")]


def test_who_was_refused_only_is_closed_in_time():
    party = Party()
    guest = party.join("/unknown")
    party.runtime.advance(46)
    assert guest.closed


def test_who_was_refused_by_a_handler_only_is_closed_in_time():
    party = Party()
    party.core.handlers.add("connect", lambda *args: False, "/")
    guest = party.join("/")
    assert not guest.closed
    party.runtime.advance(46)
    assert guest.closed


def test_a_connection_that_ends_leaves_no_timer(party):
    guest = party.open()
    guest.session.close("transport close")
    party.runtime.advance(30)
    assert party.runtime.timers == 0


# Leaving


def test_a_client_leaves_by_itself(party):
    party.on("disconnect")
    guest = party.join()
    sid = guest.sid
    guest.send(DISCONNECT)
    assert party.calls == [(sid, "disconnect", ("client disconnect",))]
    assert party.core.clients["/"] == {} and not guest.closed
    assert party.runtime.urgent == [True]
    guest.join()
    assert guest.sid != sid


@pytest.mark.parametrize("reason", ["transport close", "ping timeout", "client disconnect"])
def test_all_parts_of_a_connection_end_with_it(party, reason):
    party.on("disconnect")
    party.on("disconnect", namespace="/a")
    guest = party.join()
    guest.join("/a")
    sids = set(guest.sids.values())
    guest.session.close(reason)
    assert {(sid, args) for sid, _, args in party.calls} == {(sid, (reason,)) for sid in sids}
    assert all(not clients for clients in party.core.clients.values())


def test_the_server_puts_a_client_out(party):
    party.on("disconnect", "x")
    guest = party.join()
    sid = guest.sid
    guest.take()
    party.core.disconnect(sid, "/")
    party.core.disconnect(sid, "/")
    party.core.disconnect("unknown", "/")
    party.core.disconnect(sid, "/unknown")
    assert guest.take() == [Packet(DISCONNECT)]
    assert party.calls == [(sid, "disconnect", ("server disconnect",))]
    guest.emit("x")
    guest.send(DISCONNECT)
    assert not guest.closed, "what crossed our disconnect is dropped"
    assert len(party.calls) == 1
    guest.join()
    guest.emit("x")
    assert len(party.calls) == 2


def test_a_packet_for_a_namespace_that_was_not_joined_ends_the_connection(party):
    for kind, number, data in ((EVENT, None, ["x"]), (ACK, 1, []), (DISCONNECT, None, None)):
        guest = party.join()
        guest.send(kind, "/a", number, data)
        assert guest.closed


def test_the_rooms_are_left_after_the_disconnect_handler(party):
    party.on("disconnect")
    seen = []
    party.answers["disconnect"] = lambda client: seen.append(
        (party.core.rooms_of(client.sid, "/"), party.core.emit("x", [], "/", "room"))
    )
    guest = party.join()
    client = guest.session.data.clients["/"]
    party.core.enter_room(guest.sid, "room", "/")
    guest.take()
    guest.send(DISCONNECT)
    assert seen == [([client.sid, "room"], (client,))]
    assert guest.take() == [], "it is told nothing more"


def test_a_disconnect_handler_that_fails_changes_nothing(party, caplog):
    party.on("disconnect")
    party.answers["disconnect"] = RuntimeError("handler")
    party.join().send(DISCONNECT)
    assert party.core.clients["/"] == {}
    assert "RuntimeError" in caplog.text


class Slow:
    """A party whose connect handler runs until it is told to end."""

    def __init__(self, **settings):
        self.party = Party(**settings)
        self.party.on("connect", "disconnect", "x")
        self.party.runtime.hold = True
        self.guest = self.party.join()
        self.sid = self.guest.sid

    def end(self):
        self.party.runtime.hold = False
        self.party.runtime.run_jobs()


@pytest.mark.parametrize("always_connect", [False, True])
def test_who_goes_during_its_connect_handler_leaves_afterwards(always_connect):
    slow = Slow(always_connect=always_connect)
    slow.guest.session.close("transport close")
    assert slow.party.calls == []
    slow.end()
    assert [call[1:] for call in slow.party.calls] == [("connect", (None,)), ("disconnect", ("transport close",))]
    assert slow.party.core.clients["/"] == {}


def test_who_goes_and_is_refused_has_never_been_there():
    slow = Slow()
    slow.party.answers["connect"] = False
    slow.guest.session.close("transport close")
    slow.end()
    assert [event for _, event, _ in slow.party.calls] == ["connect"]
    assert slow.party.core.clients["/"] == {}


def test_a_disconnect_from_within_the_connect_handler(party):
    party.on("connect", "disconnect")
    party.answers["connect"] = lambda client: party.core.disconnect(client.sid, "/")
    guest = party.join()
    assert [packet.type for packet in guest.take()] == [CONNECT, DISCONNECT]
    assert [event for _, event, _ in party.calls] == ["connect", "disconnect"]
    assert guest.sids == {}


def test_a_disconnect_packet_during_the_connect_handler():
    slow = Slow()
    slow.guest.send(DISCONNECT)
    slow.end()
    assert [call[1:] for call in slow.party.calls][1:] == [("disconnect", ("client disconnect",))]


@pytest.mark.parametrize(("kind", "number", "data"), [(EVENT, None, ["x"]), (ACK, 1, []), (CONNECT, None, None)])
def test_who_does_not_wait_for_the_answer_to_connect_is_closed(kind, number, data):
    slow = Slow()
    slow.guest.send(kind, "/", number, data)
    assert slow.guest.closed


def test_a_new_connect_may_come_while_the_disconnect_handler_runs():
    party = Party()
    party.on("disconnect")
    guest = party.join()
    old = guest.sid
    party.runtime.hold = True
    party.core.disconnect(old, "/")
    guest.join()
    new = guest.sid
    assert new != old
    party.runtime.run_jobs()
    assert set(party.core.clients["/"]) == {new}
    assert guest.sid == new and not guest.closed


def test_a_connection_that_ends_while_its_connect_packet_is_read_leaves_nothing():
    class Codec(TextCodec):
        def decoder(self, limits, from_server=False):
            return Decoder(super().decoder(limits, from_server))

    class Decoder:
        """Another thread ends the session just when this one has decoded its packet."""

        def __init__(self, decoder):
            self.decoder = decoder

        def feed(self, message):
            packet = self.decoder.feed(message)
            sessions[-1].close("ping timeout")
            return packet

    sessions = []
    party = Party(Codec())
    party.on("connect", "disconnect")
    session = party.engine.prepare({})
    party.engine.on_connect(session)
    sessions.append(session)
    session.receive("40")
    assert party.core.clients.get("/", {}) == {}
    assert "/" not in party.core.rooms or party.core.rooms["/"].names() == []
    events = [event for _, event, _ in party.calls]
    assert events in ([], ["connect", "disconnect"])


# Events


def test_events_reach_their_handler(party):
    party.on("x", "*")
    guest = party.join()
    guest.emit("x", 1, [b"2", {"a": None}])
    guest.emit("y")
    guest.emit(7, "seven")
    assert party.calls == [
        (guest.sid, "x", (1, [b"2", {"a": None}])),
        (guest.sid, "y", ()),
        (guest.sid, 7, ("seven",)),
    ]
    assert party.runtime.urgent == [False] * 3


def test_events_without_a_handler_are_nothing(party):
    guest = party.join()
    guest.take()
    guest.emit("x", number=1)
    assert party.calls == [] and guest.take() == [] and not guest.closed


@pytest.mark.parametrize(
    ("result", "sent"),
    [(None, []), ("a", ["a"]), ((), []), ((1, b"2"), [1, b"2"]), ([1, 2], [[1, 2]]), (0, [0]), (False, [False])],
)
def test_a_result_is_acknowledged(party, result, sent):
    party.on("x")
    party.answers["x"] = result
    guest = party.join()
    guest.take()
    guest.emit("x", number=0)
    assert guest.take() == [Packet(ACK, "/", 0, sent)]
    guest.emit("x")
    assert guest.take() == []


@pytest.mark.parametrize("result", [object(), RuntimeError("handler"), 2**70, {"a": {1, 2}}, "deep"])
def test_what_cannot_be_acknowledged_is_logged(codec, result, caplog):
    party = Party(codec)
    party.on("x")
    if result == 2**70 and isinstance(codec, TextCodec):
        result = 1j
    if result == "deep":
        result = []
        for _ in range(100_000):
            result = [result]
    party.answers["x"] = result
    guest = party.join()
    guest.take()
    guest.emit("x", number=1)
    assert guest.take() == [] and not guest.closed
    assert "'x' in '/'" in caplog.text
    while isinstance(result, list) and result:  # taken apart from outside: its end would recurse as deep
        result = result.pop()


@pytest.mark.parametrize("messages", [("9",), (b"\x00",), ("2[]",), ('51-["x"]', "2"), ("",)])
def test_broken_packets_end_the_connection(messages, caplog):
    party = Party()
    guest = party.join()
    guest.feed(*messages)
    assert guest.closed
    assert guest.transport.closed[0][0] == 1008
    assert party.core.clients["/"] == {}


def test_a_packet_that_is_too_large_says_so():
    guest = Party().join()
    guest.feed('599-["x"]')
    assert guest.transport.closed[0][0] == 1009


def test_events_are_logged_for_who_debugs(caplog):
    caplog.set_level("DEBUG")
    party = Party()
    party.on("x")
    guest = party.join()
    guest.emit("x")
    assert f"< {guest.sid} / 'x'" in caplog.text


# Emitting


def test_an_emit_reaches_whom_it_should(party):
    a, b, c = party.join(), party.join(), party.join()
    core = party.core
    core.enter_room(a.sid, "room", "/")
    core.enter_room(b.sid, "room", "/")
    core.enter_room(c.sid, "other", "/")
    for guest in (a, b, c):
        guest.take()

    def got(*args, **options):
        reached = core.emit("x", [1, b"2"], "/", *args, **options)
        events = [guest.events() for guest in (a, b, c)]
        assert all(event in ([], [["x", 1, b"2"]]) for event in events)
        names = "".join(name for name, event in zip("abc", events, strict=True) if event)
        assert len(reached) == len(names)
        return names

    assert got() == "abc"
    assert got("room") == "ab"
    assert got(a.sid) == "a"
    assert got(["room", "other"]) == "abc"
    assert got(("room", a.sid)) == "ab"
    assert got({c.sid}) == "c"
    assert got(frozenset()) == ""
    assert got([]) == ""
    assert got("") == ""
    assert got("unknown") == ""
    assert got("room", skip=(a.sid,)) == "b"
    assert got(None, {a.sid, b.sid}) == "c"
    assert core.emit("x", [], "/unknown") == ()


def test_an_emit_is_encoded_once():
    count = []

    class Codec(TextCodec):
        def encode(self, packet):
            count.append(packet)
            return super().encode(packet)

    party = Party(Codec())
    guests = [party.join() for _ in range(10)]
    del count[:]
    party.core.emit("x", [], "/")
    assert len(count) == 1
    assert all(guest.events() == [["x"]] for guest in guests)


@pytest.mark.parametrize("event", ["connect", "disconnect", "connect_error", "disconnecting"])
def test_reserved_names_are_not_emitted(party, event):
    with pytest.raises(ValueError, match="reserved"):
        party.core.emit(event, [], "/")


@pytest.mark.parametrize("callback", [None, print])
def test_what_cannot_be_sent_reaches_nobody(party, callback):
    guest = party.join()
    guest.take()
    with pytest.raises(TypeError):
        party.core.emit("x", [object()], "/", None, (), callback)
    assert guest.take() == []
    assert not guest.session.data.clients["/"].acks


# Acknowledgements


def test_each_recipient_acknowledges_for_itself(party):
    answers = []
    a, b = party.join(), party.join()
    for guest in (a, b):
        guest.take()
    party.core.emit("x", ["q"], "/", None, (), lambda *args: answers.append(args))
    for guest, values in ((b, []), (a, [1, b"2"])):
        (packet,) = guest.take()
        assert packet.data == ["x", "q"]
        guest.send(ACK, "/", packet.id, values)
        guest.send(ACK, "/", packet.id, ["again"])
    assert answers == [(), (1, b"2")]
    assert not a.closed


def test_unknown_acknowledgements_are_ignored(party):
    guest = party.join()
    guest.send(ACK, "/", 99, ["x"])
    party.core.emit("x", [], "/", None, (), print)
    guest.send(ACK, "/", 99, ["x"])
    assert not guest.closed


def test_a_callback_that_fails_is_logged(party, caplog):
    guest = party.join()

    def callback():
        raise RuntimeError("in the callback")

    party.core.emit("x", [], "/", None, (), callback)
    guest.send(ACK, "/", 1, [])
    assert "in the callback" in caplog.text and not guest.closed


def waiter(party):
    return Waiter(party.runtime.event())


def test_a_waiter_gets_its_answer(party):
    guest = party.join()
    waiting = waiter(party)
    party.core.emit("x", [], "/", guest.sid, (), waiting)
    guest.send(ACK, "/", 1, ["yes"])
    assert waiting.event.is_set() and waiting.answer == ["yes"] and not waiting.gone


@pytest.mark.parametrize("leave", [lambda guest: guest.send(DISCONNECT), lambda guest: guest.session.close("x")])
def test_a_waiter_is_told_when_nobody_can_answer(party, leave):
    guest = party.join()
    waiting = waiter(party)
    party.core.emit("x", [], "/", guest.sid, (), waiting)
    leave(guest)
    assert waiting.event.is_set() and waiting.gone and waiting.answer is None


def test_a_waiter_for_one_who_is_leaving_is_told_at_once(party):
    party.on("disconnect")
    waiting = waiter(party)
    party.answers["disconnect"] = lambda client: party.core.emit("x", [], "/", client.sid, (), waiting)
    party.join().send(DISCONNECT)
    assert waiting.event.is_set()


def test_a_waiter_whose_time_is_over_is_forgotten(party):
    guest = party.join()
    waiting = waiter(party)
    clients = party.core.emit("x", [], "/", guest.sid, (), waiting)
    party.core.forget_waiter(waiting, clients)
    assert guest.session.data.clients["/"].acks == {}
    guest.send(ACK, "/", 1, ["late"])
    assert waiting.answer is None


def test_pending_acknowledgements_are_bounded(caplog):
    party = Party(max_pending_acks=3)
    guest = party.join()
    answers = []
    first = waiter(party)
    party.core.emit("x", [], "/", guest.sid, (), first)
    for i in range(3):
        party.core.emit("x", [], "/", guest.sid, (), lambda i=i: answers.append(i))
    assert first.gone and first.event.is_set()
    assert "3 pending acknowledgements" in caplog.text
    for number in range(1, 5):
        guest.send(ACK, "/", number, [])
    assert answers == [0, 1, 2]


# Rooms


def test_rooms_of_a_client(party):
    guest = party.join()
    core = party.core
    core.enter_room(guest.sid, "a", "/")
    core.enter_room(guest.sid, 7, "/")
    assert core.rooms_of(guest.sid, "/") == [guest.sid, "a", 7]
    core.leave_room(guest.sid, "a", "/")
    core.leave_room(guest.sid, "a", "/")
    core.leave_room("unknown", "a", "/")
    core.close_room(7, "/")
    core.close_room(7, "/")
    core.close_room("x", "/unknown")
    assert core.rooms_of(guest.sid, "/") == [guest.sid]
    assert core.rooms_of("unknown", "/") == []


def test_errors_of_rooms(party):
    with pytest.raises(ValueError, match="not connected"):
        party.core.enter_room("unknown", "a", "/")
    guest = party.join()
    with pytest.raises(KeyError):
        party.core.enter_room("unknown", "a", "/")
    with pytest.raises(ValueError, match="everybody"):
        party.core.leave_room(guest.sid, None, "/")
    with pytest.raises(ValueError, match="everybody"):
        party.core.close_room(None, "/")


def test_a_connect_handler_may_enter_rooms(party):
    party.on("connect")
    party.answers["connect"] = lambda client: party.core.enter_room(client.sid, "a", "/")
    guest = party.join()
    assert party.core.rooms_of(guest.sid, "/") == [guest.sid, "a"]


def test_what_is_emitted_during_the_connect_handler_comes_behind_its_answer(party):
    party.on("connect")
    party.answers["connect"] = lambda client: party.core.emit("welcome", [b"1"], "/", client.sid) and None
    guest = party.join()
    assert [packet.type for packet in guest.take()] == [CONNECT, EVENT]


@pytest.mark.parametrize(
    ("result", "args"), [(None, []), ((), []), ((1, 2), [1, 2]), ([1], [[1]]), ("a", ["a"]), ((None,), [None])]
)
def test_arguments(result, args):
    assert arguments(result) == args


def test_a_refused_client_answers_nobody():
    party = Party()
    party.on("connect")
    waiter = Waiter(party.runtime.event())

    def refuse(client):
        party.core.emit("ask", [], "/", client.sid, (), waiter)
        return False

    party.answers["connect"] = refuse
    party.open().join()
    assert waiter.event.is_set()
    assert waiter.answer is None


def test_what_crosses_a_late_refusal_is_dropped():
    party = Party(always_connect=True)
    party.on("connect", "event")
    party.answers["connect"] = False
    guest = party.open()
    guest.join()
    guest.emit("event")
    assert not guest.closed
    assert [event for _, event, _ in party.calls] == ["connect"]


def test_two_that_disconnect_a_client_tell_it_once():
    party = Party()
    guest = party.join()
    guest.take()
    sid, write = guest.sid, guest.transport.write

    def write_while_another_disconnects(frames):
        guest.transport.write = write
        write(frames)
        party.core.disconnect(sid, "/")

    guest.transport.write = write_while_another_disconnects
    party.core.disconnect(sid, "/")
    assert [packet.type for packet in guest.take()] == [DISCONNECT]


def test_a_thousand_unknown_acknowledgements_are_one_line(caplog):
    caplog.set_level(logging.INFO)
    party = Party()
    guest = party.join()
    for number in range(1000):
        guest.send(ACK, "/", number, [])
    assert not guest.closed
    assert sum("unknown acknowledgement" in message for message in caplog.messages) == 1


def test_what_a_client_sends_after_its_own_disconnect_ends_the_connection():
    party = Party()
    party.on("disconnect")
    party.runtime.hold = True
    guest = party.join()
    guest.feed("1")
    assert not guest.closed
    guest.emit("late")
    assert guest.closed
    assert guest.transport.closed[0][0] == 1008


def test_also_while_its_connect_handler_runs():
    party = Party(always_connect=True)
    party.on("connect")
    party.runtime.hold = True
    guest = party.open()
    guest.join()
    guest.feed("1")
    assert not guest.closed
    guest.emit("late")
    assert guest.closed


@pytest.mark.parametrize("data", ["x" * 300_000, b"x" * 300_000, [{"a": [1.5]}] * 700], ids=["text", "bytes", "flat"])
def test_what_a_client_sends_too_early_is_bounded_by_its_size(data):
    party = Party(options={"max_http_buffer_size": 10_000_000}, always_connect=True, limits=Limits(depth=64))
    party.on("connect", "event")
    party.runtime.hold = True
    guest = party.open()
    guest.join()
    for _ in range(3):
        guest.emit("event", data)
        assert not guest.closed
    for _ in range(2):
        guest.emit("event", data)
    assert guest.closed


def test_one_large_early_packet_is_kept():
    party = Party(always_connect=True, limits=Limits(attachment_bytes=5_000_000))
    party.on("connect", "event")
    party.runtime.hold = True
    guest = party.open()
    guest.join()
    guest.emit("event", bytes(4_000_000))
    party.runtime.run_jobs()
    assert [event for _, event, _ in party.calls] == ["connect", "event"]


def test_a_burst_right_behind_the_answer_to_connect_is_no_fault():
    party = Party(max_early=10)
    party.on("connect", "event")
    guest = party.open()
    write = guest.transport.write

    def burst(frames):
        write(frames)
        guest.transport.write = write
        for number in range(50):  # the thread that sent the answer has come no further
            guest.emit("event", number)

    guest.transport.write = burst
    guest.join()
    assert not guest.closed
    assert [args for _, event, args in party.calls if event == "event"] == [(number,) for number in range(50)]
