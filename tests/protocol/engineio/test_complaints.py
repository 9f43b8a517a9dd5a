import logging

import pytest
from doubles import Floor, StrictLock

from flask_realtime.protocol.engineio.complaints import Complaints


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def complain(clock):
    return Complaints(logging.getLogger("flask_realtime.tests"), lambda: clock[0], StrictLock())


def test_a_kind_is_told_once_a_second_with_the_number_of_those_left_out(complain, clock, caplog):
    for second in range(3):
        clock[0] = second
        for number in range(4):
            complain(logging.WARNING, "%s: bad", number)
    assert caplog.messages == ["0: bad", "0: bad (and 3 more like it before)", "0: bad (and 3 more like it before)"]


def test_kinds_do_not_silence_each_other(complain, caplog):
    complain(logging.WARNING, "%s: bad", 1)
    complain(logging.WARNING, "%s: worse", 1)
    assert caplog.messages == ["1: bad", "1: worse"]


def test_what_the_level_drops_is_not_counted(complain, caplog):
    caplog.set_level(logging.WARNING)
    complain(logging.INFO, "bad")
    complain(logging.INFO, "bad")
    caplog.set_level(logging.INFO)
    complain(logging.INFO, "bad")
    assert caplog.messages == ["bad"]


def test_a_hundred_bad_clients_are_one_line(caplog):
    floor = Floor()
    for _ in range(100):
        session, transport = floor.websocket()
        session.receive("9")
        assert transport.closed
    assert len(caplog.messages) == 1
    floor.runtime.advance(1)
    floor.websocket()[0].receive("9")
    assert "and 99 more" in caplog.messages[1]


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("EIO=4&transport=polling", {"Origin": "http://evil.org"}),
        ("EIO=4&transport=polling", {"host": "evil.org"}),
        ("EIO=3&transport=polling", {}),
        ("EIO=4&transport=smoke", {}),
        ("EIO=4&transport=polling&sid=nobody", {}),
    ],
)
def test_a_hundred_bad_requests_are_few_lines(query, headers, caplog):
    caplog.set_level(logging.INFO)
    floor = Floor(allowed_hosts=["example.com"])
    for _ in range(100):
        assert floor.request(query=query, **headers).status == 400
    assert 1 <= len(caplog.messages) <= 2
