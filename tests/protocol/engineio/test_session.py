import pytest
from doubles import Floor, KeptTransport

from flask_realtime.protocol.engineio.frame import Frame


@pytest.fixture
def floor():
    return Floor()


def poll(floor, session):
    """Poll once; return the messages, or None when there is nothing."""
    wait = floor.request(query=f"EIO=4&transport=polling&sid={session.sid}")
    frames = wait.poll(lambda frames: None)
    return None if frames is None else [frame.message for frame in frames]


def probing(floor):
    """Open over polling and begin an upgrade.

    Returns:
        ``(session, transport, receive, lost)``.
    """
    session, transport = floor.polling(), KeptTransport()
    started = floor.upgrade(query=f"EIO=4&transport=websocket&sid={session.sid}").start(transport)
    return session, transport, *started


# Receiving


def test_messages_go_up(floor):
    session, _ = floor.websocket()
    session.receive("4hello")
    session.receive(b"\x01")
    session.receive("4")
    assert floor.messages == [(session.sid, "hello"), (session.sid, b"\x01"), (session.sid, "")]


def test_a_noop_is_nothing(floor):
    session, _ = floor.websocket()
    session.receive("6")
    assert floor.messages == [] and not session.closed


@pytest.mark.parametrize("packet", ["0", "0{}", "2", "2probe", "5", "7", "9x", "x", "", "\ud800", "٤"])
def test_what_a_client_may_not_send_ends_the_session(floor, packet, caplog):
    session, transport = floor.websocket()
    session.receive(packet)
    assert floor.ended == [(session.sid, "transport error")]
    assert [code for code, _ in transport.closed] == [1008]
    session.receive("4late")
    assert floor.messages == []
    assert session.sid in caplog.text


def test_a_close_packet_ends_the_session(floor):
    session, transport = floor.websocket()
    session.receive("1")
    assert floor.ended == [(session.sid, "client disconnect")]
    assert transport.closed == [(1000, "")]


def test_a_close_packet_by_post_ends_the_waiting_poll(floor):
    session = floor.polling()
    answers = []
    floor.request(query=f"EIO=4&transport=polling&sid={session.sid}").poll(answers.append)
    session.receive("1")
    assert [[frame.message for frame in frames] for frames in answers] == [["6"]]
    assert floor.ended == [(session.sid, "client disconnect")]


# Closing


@pytest.mark.parametrize("again", ["server disconnect", "transport close"])
def test_only_the_first_end_counts(floor, again):
    session, transport = floor.websocket()
    session.close("ping timeout", 1001, "gone")
    session.close(again)
    session.lost()
    assert floor.ended == [(session.sid, "ping timeout")]
    assert transport.closed == [(1001, "gone")]
    assert session.reason == "ping timeout"
    assert floor.engine.sessions == {}


def test_nothing_is_sent_after_the_end(floor):
    session, transport = floor.websocket()
    session.close("server disconnect")
    session.send((Frame("4late"),))
    session.pause(True)
    session.close("server disconnect")
    assert transport.messages[1:] == [] and transport.pauses == []


def test_a_lost_transport_ends_the_session(floor):
    session, _ = floor.websocket()
    session.lost()
    assert floor.ended == [(session.sid, "transport close")]


def test_the_last_packets_of_a_polling_session_are_kept_for_a_while(floor):
    session = floor.polling()
    session.send((Frame("4bye"),))
    session.close("server disconnect")
    answers = [floor.request(query=f"EIO=4&transport=polling&sid={session.sid}") for _ in range(3)]
    assert [(answer.status, answer.body) for answer in answers[:2]] == [(200, b"4bye"), (200, b"1")]
    assert answers[2].status == 400
    assert floor.engine.farewells == {}


def test_the_last_packets_are_not_kept_for_ever(floor):
    session = floor.polling()
    session.close("server disconnect")
    assert len(floor.engine.farewells) == 1
    floor.runtime.advance(31)
    assert floor.engine.farewells == {}


def test_close_all(floor):
    polling, (websocket, transport) = floor.polling(), floor.websocket()
    floor.engine.close_all()
    assert sorted(floor.ended) == sorted(
        [(polling.sid, "server disconnect"), (websocket.sid, "server disconnect")]
    )
    assert transport.closed == [(1001, "server shutting down")]


def test_a_client_that_does_not_poll_is_closed_as_slow():
    floor = Floor(max_backlog=100)
    session = floor.polling()
    session.send((Frame("4" + "a" * 60),))
    assert not session.closed
    session.send((Frame("4" + "a" * 60),))
    assert floor.ended == [(session.sid, "transport error")]


# Upgrading


def test_an_upgrade_takes_over_with_all_that_waits(floor):
    session, transport, receive, _ = probing(floor)
    assert session.transport_name == "polling"
    session.send((Frame("4a"),))
    receive("2probe")
    assert transport.messages == ["3probe"]
    assert poll(floor, session) == ["4a"]
    session.send((Frame("4b"),))
    receive("5")
    session.send((Frame("4c"),))
    assert session.transport_name == "websocket"
    assert transport.messages == ["3probe", "4b", "4c"]
    receive("4hello")
    assert floor.messages == [(session.sid, "hello")]
    session.pause(True)
    assert transport.pauses == [True]
    assert session.probe is None


def test_the_probe_releases_a_waiting_poll(floor):
    session, _, receive, _ = probing(floor)
    answers = []
    floor.request(query=f"EIO=4&transport=polling&sid={session.sid}").poll(answers.append)
    receive("2probe")
    assert [[frame.message for frame in frames] for frames in answers] == [["6"]]
    assert poll(floor, session) == [], "and later polls don't wait"


@pytest.mark.parametrize(
    "packets", [["5"], ["4hello"], ["2"], ["2probe", "2probe"], ["2probe", "4x"], [b"2probe"], ["3probe"]]
)
def test_a_wrong_probe_fails_and_polling_goes_on(floor, packets):
    session, transport, receive, _ = probing(floor)
    for packet in packets:
        receive(packet)
    assert [code for code, _ in transport.closed] == [1008]
    assert session.transport_name == "polling" and not session.closed
    session.send((Frame("4still here"),))
    assert poll(floor, session) == ["4still here"]
    assert poll(floor, session) is None, "polls wait again"
    assert floor.messages == []


def test_a_lost_probe_lets_polling_go_on_and_another_try(floor):
    session, _, receive, lost = probing(floor)
    receive("2probe")
    lost("transport close")
    assert not session.closed
    again = KeptTransport()
    receive, _ = floor.upgrade(query=f"EIO=4&transport=websocket&sid={session.sid}").start(again)
    receive("2probe")
    receive("5")
    assert session.transport_name == "websocket"


def test_an_upgrade_that_hangs_is_given_up(floor):
    session, transport, receive, _ = probing(floor)
    receive("2probe")
    floor.runtime.advance(10.1)
    assert transport.closed == [(1008, "upgrade timeout")]
    assert session.transport_name == "polling" and not session.closed
    assert not session.polling.draining


def test_a_finished_upgrade_has_no_timeout(floor):
    _, transport, receive, _ = probing(floor)
    receive("2probe")
    receive("5")
    floor.runtime.advance(10.1)
    assert transport.closed == []


def test_a_second_probe_is_refused(floor):
    session, _, _, _ = probing(floor)
    assert floor.upgrade(query=f"EIO=4&transport=websocket&sid={session.sid}").status == 400
    assert not session.begin_probe(KeptTransport())


def test_the_probe_goes_down_with_its_session(floor):
    session, transport, receive, lost = probing(floor)
    session.close("server disconnect")
    assert transport.closed == [(1000, "")]
    receive("2probe")
    receive("5")
    lost("transport close")
    assert session.closed and transport.messages == []
    assert floor.ended == [(session.sid, "server disconnect")]


def ended_while_upgrading(floor):
    """Close a session whose client has the pong, so has stopped to poll, but hasn't sent its upgrade packet yet."""
    session, transport, receive, lost = probing(floor)
    receive("2probe")
    session.send((Frame("4bye"),))
    session.close("server disconnect", 1001, "enough")
    assert transport.closed == []
    return session, transport, receive, lost


def test_a_client_that_stopped_polling_is_told_of_the_end_by_its_websocket(floor):
    # The JavaScript client never polls again when its WebSocket ends now; it would hang until its ping timeout.
    session, transport, receive, lost = ended_while_upgrading(floor)
    receive("5")
    assert transport.messages == ["3probe", "4bye", "1"]
    assert transport.closed == [(1001, "enough")]
    assert floor.engine.farewells == {}
    receive("4late")
    lost("transport close")
    assert floor.messages == [] and floor.ended == [(session.sid, "server disconnect")]


def test_a_client_that_polls_after_all_is_told_there(floor):
    session, transport, _, lost = ended_while_upgrading(floor)
    answers = [floor.request(query=f"EIO=4&transport=polling&sid={session.sid}") for _ in range(2)]
    assert [answer.body for answer in answers] == [b"4bye", b"1"]
    lost("transport close")
    floor.runtime.advance(31)
    assert transport.messages == ["3probe"]


def test_a_client_that_never_finishes_its_upgrade_is_let_go(floor):
    _, transport, receive, _ = ended_while_upgrading(floor)
    floor.runtime.advance(10.1)
    assert transport.closed == [(1008, "upgrade timeout")]
    receive("5")
    assert transport.messages == ["3probe"]


@pytest.mark.parametrize("packet", ["2probe", "4early", "x"])
def test_after_the_end_an_upgrade_only_goes_on_as_it_should(floor, packet):
    _, transport, receive, _ = ended_while_upgrading(floor)
    receive(packet)
    assert transport.closed == [(1008, "unexpected packet during the upgrade")]
    receive("5")
    assert transport.messages == ["3probe"]


def test_after_the_upgrade_a_lost_websocket_is_the_end(floor):
    session, _, receive, lost = probing(floor)
    receive("2probe")
    receive("5")
    lost("transport close")
    assert floor.ended == [(session.sid, "transport close")]


def between(session, function):
    """Run a function as another thread would: when the session's polling transport takes its lock next."""
    session.polling._lock.meanwhile = function


def test_a_writer_during_the_switch_does_not_overtake_what_waits(floor):
    session, transport, receive, _ = probing(floor)
    receive("2probe")
    session.send((Frame("4first"),))
    between(session, lambda: session.send((Frame("4second"),)))
    receive("5")
    session.send((Frame("4third"),))
    assert transport.messages == ["3probe", "4first", "4second", "4third"]


def test_a_writer_during_the_opening_does_not_overtake_what_waits(floor):
    transport = KeptTransport()
    upgrade = floor.upgrade()
    (session,) = floor.engine.sessions.values()
    session.send((Frame("4first"),))
    between(session, lambda: session.send((Frame("4second"),)))
    upgrade.start(transport)
    assert transport.messages[1:] == ["4first", "4second"]


# Opening


def test_the_open_packet_comes_first(floor):
    upgrade = floor.upgrade()
    (session,) = floor.engine.sessions.values()
    session.send((Frame("4early"),))
    transport = KeptTransport()
    upgrade.start(transport)
    assert transport.messages[0].startswith('0{"sid":"' + session.sid)
    assert '"upgrades":[]' in transport.messages[0]
    assert transport.messages[1:] == ["4early"]


def test_a_session_that_was_closed_before_its_websocket_came(floor):
    upgrade = floor.upgrade()
    (session,) = floor.engine.sessions.values()
    session.close("server disconnect")
    transport = KeptTransport()
    upgrade.start(transport)
    assert transport.closed
    floor.runtime.advance(100)
    assert floor.ended == [(session.sid, "server disconnect")]


def test_a_switch_that_fails_ends_the_session(floor):
    upgrade = floor.upgrade()
    (session,) = floor.engine.sessions.values()
    upgrade.abort()
    assert floor.ended == [(session.sid, "transport error")]


def test_ids_are_long_and_never_twice(floor):
    sids = {floor.polling().sid for _ in range(100)}
    assert len(sids) == 100
    assert {len(sid) for sid in sids} == {22}


def test_who_is_paused_stays_so_over_the_upgrade(floor):
    session, transport, receive, _ = probing(floor)
    session.pause(True)
    receive("2probe")
    receive("5")
    assert transport.pauses == [True]
