import os
import socket
import threading

import pytest

from flask_realtime.io.hub import Hub

LIMIT = 30


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.stop()


def settle(hub):
    done = threading.Event()
    hub.call_soon(done.set)
    assert done.wait(LIMIT)


class Watched:
    """Notes what it is told; reads what comes."""

    def __init__(self, sock, error=None):
        self.sock, self.error, self.calls, self.told = sock, error, [], threading.Event()

    def note(self, what):
        self.calls.append(what)
        self.told.set()

    def readable(self):
        if self.error is not None:
            raise self.error
        self.note(("readable", self.sock.recv(100)))

    def writable(self):
        self.note("writable")

    def failed(self):
        self.note("failed")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_calls_run_in_order_in_the_hubs_thread(hub):
    ran = []
    for i in range(100):
        hub.call_soon(lambda i=i: ran.append((i, threading.current_thread())))
    settle(hub)
    assert [i for i, _ in ran] == list(range(100))
    assert {thread for _, thread in ran} == {hub.thread}


def test_timers_run_in_the_order_of_time(hub):
    ran, done = [], threading.Event()
    hub.call_later(0.03, lambda: (ran.append("c"), done.set()))
    hub.call_later(0.01, lambda: ran.append("a"))
    hub.call_later(0.01, lambda: ran.append("b"))
    hub.call_later(0.02, lambda: ran.append("cancelled")).cancel()
    assert done.wait(LIMIT)
    assert ran == ["a", "b", "c"]


def test_a_sleeping_hub_is_woken_for_a_timer_only_when_it_is_due_earlier(hub, monkeypatch):
    asleep = threading.Event()
    hub.call_later(300, int)
    hub.call_soon(asleep.set)
    assert asleep.wait(LIMIT)
    woken = []
    monkeypatch.setattr(hub, "_wake", lambda: woken.append(1))
    while not hub._asleep or hub._wakes_at == float("inf"):
        pass
    hub.call_later(400, int)
    assert woken == []
    hub.call_later(200, int)
    assert woken == [1]
    monkeypatch.undo()


def test_cancelled_timers_are_not_kept_until_they_are_due(hub):
    for _ in range(1000):
        hub.call_later(3600, lambda: None).cancel()
    settle(hub)
    assert len(hub._timers) < 500


def test_an_error_does_not_end_the_loop(hub, caplog):
    hub.call_soon(lambda: 1 / 0)
    hub.call_later(0, lambda: 1 / 0)
    done = threading.Event()
    hub.call_later(0.001, done.set)
    assert done.wait(LIMIT)
    assert caplog.text.count("ZeroDivisionError") >= 2


def test_a_socket_is_watched_until_it_is_not(hub, pair):
    ours, theirs = pair
    watched = Watched(ours)
    hub.call_soon(hub.watch, ours, watched)
    theirs.send(b"a")
    assert watched.told.wait(LIMIT)
    assert watched.calls == [("readable", b"a")]
    hub.call_soon(hub.unwatch, ours)
    hub.call_soon(hub.unwatch, ours)
    settle(hub)
    theirs.send(b"b")
    settle(hub)
    assert watched.calls == [("readable", b"a")]


def test_writing_only(hub, pair):
    ours, theirs = pair
    watched = Watched(ours)
    theirs.send(b"a")
    hub.call_soon(hub.watch_write_only, ours, watched, True)
    assert watched.told.wait(LIMIT)
    hub.call_soon(hub.watch_write_only, ours, watched, True)
    hub.call_soon(hub.watch_write_only, ours, watched, False)
    settle(hub)
    assert set(watched.calls) == {"writable"}


def test_one_that_fails_is_told_and_the_others_go_on(hub, pair, caplog):
    ours, theirs = pair
    watched = Watched(ours, RuntimeError("of ours"))
    hub.call_soon(hub.watch, ours, watched)
    hub.call_soon(setattr, hub, "reading", watched)  # as if it had failed in the midst of it
    theirs.send(b"a")
    assert watched.told.wait(LIMIT)
    hub.call_soon(hub.unwatch, ours)
    settle(hub)
    assert watched.calls[0] == "failed" and hub.reading is None
    assert "of ours" in caplog.text


def test_a_stopped_hub_starts_again(hub):
    assert not hub.running
    settle(hub)
    first = hub.thread
    assert hub.running
    hub.stop()
    hub.stop()
    assert not hub.running and not first.is_alive()
    settle(hub)
    assert hub.thread is not first


def test_a_hub_may_be_stopped_from_within(hub):
    hub.call_soon(hub.stop)
    thread = hub.thread
    thread.join(LIMIT)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_starts_a_hub_of_its_own(hub):
    settle(hub)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        done = threading.Event()
        running = hub.running
        hub.call_soon(done.set)
        os.write(writer, b"y" if done.wait(LIMIT) and not running else b"n")
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as result:
        assert result.read() == b"y"
    os.waitpid(child, 0)
    settle(hub)


def test_a_stop_ends_though_the_hub_begins_anew_meanwhile(hub):
    """What is closed last may have something to be done, which starts another loop; a stop waits for its own only."""
    ours, theirs = socket.socketpair()
    begun = threading.Event()

    class Late:
        def failed(self):
            hub.call_soon(begun.set)

    hub.call_soon(hub.watch, ours, Late())
    stopping = threading.Thread(target=hub.stop, args=(0,), daemon=True)
    stopping.start()
    assert begun.wait(LIMIT)
    stopping.join(LIMIT)
    assert not stopping.is_alive()
    ours.close()
    theirs.close()
