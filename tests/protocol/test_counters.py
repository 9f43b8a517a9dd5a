import itertools
import sys
import threading

import pytest

from flask_realtime.protocol.counters import Calls, Counter, Counters, Tally


@pytest.fixture
def switching():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run functions at the same time, each in a thread of its own."""
    barrier = threading.Barrier(len(functions))

    def run(function):
        barrier.wait()
        function()

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_reading_does_not_count():
    counter = Counter(threading.Lock())
    assert [counter.value for _ in range(3)] == [0, 0, 0]
    counter.one()
    assert [counter.value for _ in range(3)] == [1, 1, 1]
    counter.add(7)
    counter.one()
    assert counter.value == 9


def test_nothing_is_lost_or_counted_twice_under_threads(switching):
    counter = Counter(threading.Lock())
    tally = Tally(threading.Lock(), ("a", "b"))
    seen = []

    def count():
        for _ in range(5000):
            counter.one()
            counter.add(3)
            tally.one("a")

    together(count, count, count, lambda: seen.extend(counter.value for _ in range(2000)))
    assert counter.value == 3 * 5000 * 4
    assert seen == sorted(seen)
    assert tally.value == {"a": 15000, "b": 0}


def test_a_new_label_begins_with_one():
    tally = Tally(threading.Lock(), ("a",))
    tally.one("z")
    assert tally.value == {"a": 0, "z": 1}


def test_a_value_is_a_copy():
    tally = Tally(threading.Lock(), ("a",))
    tally.value["a"] = 5
    assert tally.value == {"a": 0}


def test_calls_are_timed_when_they_have_ended():
    calls = Calls(threading.Lock(), itertools.count(0, 2).__next__)
    inside = []

    def function(*args):
        inside.append(calls.value)
        return args

    assert calls.run(function, 1, 2) == (1, 2)
    assert inside == [{"calls": 1, "errors": 0, "seconds": 0, "running": 1}]
    assert calls.value == {"calls": 1, "errors": 0, "seconds": 2, "running": 0}


def test_a_call_that_raises_has_ended_too():
    calls = Calls(threading.Lock(), itertools.count().__next__)
    with pytest.raises(SystemExit):
        calls.run(sys.exit)
    assert calls.value == {"calls": 1, "errors": 0, "seconds": 1, "running": 0}


def test_calls_are_exact_under_threads(switching):
    calls = Calls(threading.Lock(), itertools.repeat(1).__next__)
    running = []

    def work():
        for _ in range(3000):
            calls.run(str)

    together(work, work, work, lambda: running.extend(calls.value["running"] for _ in range(1000)))
    assert calls.value == {"calls": 9000, "errors": 0, "seconds": 0, "running": 0}
    assert min(running) >= 0


def test_all_labels_are_there_from_the_beginning():
    counters = Counters(threading.Lock(), itertools.count().__next__, ("gone", "lost"))
    assert counters.disconnects.value == {"gone": 0, "lost": 0}
    assert set(counters.bad_input.value) == {"http", "websocket", "engineio", "socketio"}
    assert set(counters.refusals.value) == {
        *("origin", "host", "sid", "connect", "connections", "request", "stopping"),
    }


def test_adding_one_is_no_call_of_ours():
    called = []
    counter = Counter(threading.Lock())
    sys.setprofile(lambda frame, event, argument: called.append(event))
    counter.one()
    sys.setprofile(None)
    assert "call" not in called
