import pytest
from doubles import Floor


@pytest.fixture
def floor():
    return Floor(ping_interval=25, ping_timeout=20)


def test_the_first_ping_comes_one_interval_after_the_opening(floor):
    _, transport = floor.websocket()
    floor.runtime.advance(24.9)
    assert transport.messages[1:] == []
    floor.runtime.advance(0.2)
    assert transport.messages[1:] == ["2"]


def test_an_answered_ping_is_followed_by_the_next(floor):
    session, transport = floor.websocket()
    for _ in range(4):
        floor.runtime.advance(25)
        floor.runtime.advance(3)
        session.receive("3")
    assert transport.messages[1:] == ["2"] * 4
    assert floor.runtime.time == 4 * 28, "an interval counts from the pong"
    assert not session.closed


def test_a_ping_without_any_answer_ends_the_session(floor):
    session, transport = floor.websocket()
    floor.runtime.advance(25 + 19.9)
    assert not session.closed
    floor.runtime.advance(0.2)
    assert session.closed
    assert floor.ended == [(session.sid, "ping timeout")]
    assert transport.closed == [(1001, "ping timeout")]
    assert transport.messages[1:] == ["2"]


def test_whatever_comes_is_a_sign_of_life(floor):
    session, transport = floor.websocket()
    floor.runtime.advance(30)
    session.receive("4hello")
    floor.runtime.advance(15)  # the deadline: it was heard, so it is asked again
    assert transport.messages[1:] == ["2", "2"]
    floor.runtime.advance(20)
    assert floor.ended == [(session.sid, "ping timeout")]


def test_the_grace_period_is_told_but_not_waited_for():
    floor = Floor(ping_interval=(10, 5), ping_timeout=20)
    _, transport = floor.websocket()
    assert '"pingInterval":15000' in transport.messages[0]
    floor.runtime.advance(10)
    assert transport.messages[1:] == ["2"]


def test_many_sessions_share_the_timer(floor):
    sessions = []
    for _ in range(50):
        sessions.append(floor.websocket())
        floor.runtime.advance(0.1)
    assert floor.runtime.timers < 5
    floor.runtime.advance(25)
    assert all(transport.messages[1:] == ["2"] for _, transport in sessions)
    for session, _ in sessions[::2]:
        session.receive("3")
    floor.runtime.advance(20)
    assert {sid for sid, _ in floor.ended} == {session.sid for session, _ in sessions[1::2]}
    assert all(session.closed is bool(i % 2) for i, (session, _) in enumerate(sessions))


def test_a_closed_session_gets_no_more_pings_and_is_let_go(floor):
    import gc
    import weakref

    session, transport = floor.websocket()
    session.close("server disconnect")
    floor.runtime.advance(100)
    assert transport.messages[1:] == []
    assert floor.ended == [(session.sid, "server disconnect")]

    class Mark:
        pass

    mark = session.data = Mark()
    gone = weakref.ref(mark)
    del mark, session
    gc.collect()
    assert gone() is None


def test_a_session_that_is_closed_while_it_waits_for_a_pong_is_forgotten(floor):
    session, _ = floor.websocket()
    floor.runtime.advance(26)
    session.close("server disconnect")
    floor.runtime.advance(100)
    assert floor.ended == [(session.sid, "server disconnect")]
    assert floor.runtime.timers == 0


def test_a_polling_session_is_pinged_in_its_poll(floor):
    session = floor.polling()
    wait = floor.request(query=f"EIO=4&transport=polling&sid={session.sid}")
    answers = []
    assert wait.poll(answers.append) is None
    floor.runtime.advance(25)
    assert [[frame.message for frame in frames] for frames in answers] == [["2"]]


def test_a_client_whose_reading_is_paused_is_not_taken_for_dead(floor):
    session, _ = floor.websocket()
    session.pause(True)  # too many of its calls wait, so its pongs aren't read either
    floor.runtime.advance(100)
    assert not session.closed
    session.pause(False)
    floor.runtime.advance(100)
    assert floor.ended == [(session.sid, "ping timeout")]


def test_a_pong_out_of_turn_changes_nothing(floor):
    session, transport = floor.websocket()
    floor.runtime.advance(20)
    session.receive("3")
    floor.runtime.advance(4)
    assert transport.messages[1:] == []
    floor.runtime.advance(1)
    assert transport.messages[1:] == ["2"]


def test_pongs_that_nobody_asked_for_are_not_kept():
    floor = Floor()
    session, _ = floor.websocket()
    for _ in range(1000):
        session.receive("3")
    assert len(floor.engine.heartbeat._pings) == 1


def test_nothing_is_kept_of_those_who_have_gone(floor):
    """Not even until they would have been due: with a long interval that would add up."""
    heartbeat = floor.engine.heartbeat
    stays, _ = floor.websocket()
    for _ in range(1000):
        session, _ = floor.websocket()
        session.close("server disconnect")
    assert list(heartbeat._pings) == [stays]
    floor.runtime.advance(25)
    for _ in range(1000):
        session, _ = floor.websocket()
        floor.runtime.advance(0.001)
        session.close("server disconnect")
    assert len(heartbeat._pings) + len(heartbeat._deadlines) == 1
