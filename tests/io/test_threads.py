import queue
import threading
import time

import pytest

from flask_realtime.io.hub import Hub, Timer
from flask_realtime.io.threads import FULL_BYTES, Inbox, Pool, Threads

LIMIT = 30


class Owner:
    inbox = None

    def pause(self, paused):
        pass


@pytest.fixture
def runtime():
    runtime = Threads()
    yield runtime
    runtime.stop(LIMIT)


def run(runtime, handler, *args, owner=None):
    """Run a handler and return what its end was told."""
    told, ended = [], threading.Event()
    runtime.run(owner or Owner(), handler, args, lambda *answer: (told.append(answer), ended.set()), "token")
    assert ended.wait(LIMIT)
    return told[0]


def test_the_result_is_told(runtime):
    assert run(runtime, divmod, 7, 2) == ("token", (3, 1), None)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_is_raised_is_told(runtime, error):
    def handler():
        raise error

    for _ in range(3):
        token, result, raised = run(runtime, handler)
        assert (token, result) == ("token", None) and raised is error


def test_an_error_of_ours_is_logged_and_the_worker_goes_on(runtime, caplog):
    owner = Owner()

    def done(token, result, error):
        raise RuntimeError("while it ended")

    runtime.run(owner, int, (), done, None)
    assert run(runtime, int, owner=owner)[1] == 0
    assert "while it ended" in caplog.text


class StandingHub(Hub):
    """Its clock stands still."""

    def call_later(self, seconds, function):
        return Timer(0, 0, function)


def test_one_thread_is_enough_for_quick_calls():
    runtime = Threads(hub=StandingHub())
    for _ in range(100):
        run(runtime, int)
    assert runtime.pool.size == 1
    assert runtime.stop(LIMIT)


def test_the_pool_grows_while_calls_wait_and_not_beyond_its_limit():
    runtime = Threads(workers=5)
    free, started = threading.Event(), threading.Semaphore(0)

    def call():
        started.release()
        free.wait(LIMIT)

    for _ in range(8):
        runtime.run(Owner(), call, (), lambda *answer: None, None)
    for _ in range(5):
        assert started.acquire(timeout=LIMIT)
    assert runtime.pool.size == 5
    free.set()
    assert runtime.stop(LIMIT)


def test_a_full_pool_is_asked_once_for_each_owner(monkeypatch):
    """The clock looks at those who are held up; it must not ask again while the pool has no thread for them."""
    runtime = Threads(workers=1)
    free, started = threading.Event(), threading.Event()
    runtime.run(Owner(), lambda: (started.set(), free.wait(LIMIT)), (), lambda *answer: None, None)
    assert started.wait(LIMIT)
    looks, is_stuck = [], Inbox.is_stuck
    monkeypatch.setattr(Inbox, "is_stuck", lambda inbox: (looks.append(inbox), is_stuck(inbox))[1])
    ran = []
    for number in range(3):
        owner = Owner()
        for call in range(5):
            runtime.run(owner, ran.append, ((number, call),), lambda *answer: None, None)
    end = time.monotonic() + LIMIT
    while len(looks) < 60:
        assert time.monotonic() < end
        time.sleep(0.001)
    assert runtime.pool.waiting == 3
    free.set()
    assert runtime.stop(LIMIT)
    assert sorted(ran) == [(number, call) for number in range(3) for call in range(5)]


def test_idle_threads_end_but_for_one(monkeypatch):
    monkeypatch.setattr("flask_realtime.io.threads.IDLE", 0.01)
    runtime = Threads()
    barrier = threading.Barrier(4)
    for _ in range(4):
        runtime.run(Owner(), barrier.wait, (LIMIT,), lambda *answer: None, None)
    end = time.monotonic() + LIMIT
    while runtime.pool.size != 1 or barrier.n_waiting:
        assert time.monotonic() < end
    assert run(runtime, int)[1] == 0
    runtime.stop(LIMIT)


def test_stop_tells_of_what_still_runs():
    runtime = Threads()
    started, free = threading.Event(), threading.Event()
    runtime.run(Owner(), lambda: (started.set(), free.wait(LIMIT)), (), lambda *answer: None, None)
    assert started.wait(LIMIT)
    assert not runtime.stop(0.05)
    free.set()


def test_stop_from_within_a_handler_does_not_wait_for_itself():
    runtime = Threads()
    assert run(runtime, runtime.stop, LIMIT)[1] is True


def test_stop_before_anything_ran():
    assert Threads().stop(0)
    assert Pool(1, Hub()).stop(0)


def test_a_stopped_runtime_begins_anew():
    runtime = Threads()
    for _ in range(3):
        assert run(runtime, int)[1] == 0
        assert runtime.stop(LIMIT)


def test_the_rest_of_the_port(runtime):
    ran = []
    runtime.call_soon(ran.append, 1)
    task = runtime.spawn(ran.append, 2)
    task.join(LIMIT)
    assert ran == [1, 2] and task.daemon
    event = runtime.event()
    timer = runtime.call_later(0.001, event.set)
    assert event.wait(LIMIT)
    timer.cancel()
    with runtime.lock():
        before = runtime.now()
        runtime.sleep(0)
        assert runtime.now() >= before


def test_a_thread_that_cannot_start_loses_no_call(monkeypatch):
    runtime = Threads()
    runtime.hub.start()
    start = threading.Thread.start

    def fail_once(thread):
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail_once)
    ran = threading.Event()
    try:
        runtime.pool.submit(ran.set)
        assert ran.wait(LIMIT)
    finally:
        runtime.stop(0)


class Paused(Owner):
    """An owner that notes when it is paused."""

    def __init__(self):
        self.told = queue.Queue()

    def pause(self, paused):
        self.told.put(paused)


@pytest.mark.parametrize("ordered", [False, True])
def test_an_owner_whose_calls_keep_much_is_paused_until_they_have_ended(ordered):
    runtime, owner, go = Threads(ordered), Paused(), threading.Event()
    ended = threading.Semaphore(0)
    for _ in range(8):
        runtime.run(owner, go.wait, (LIMIT,), lambda *answer: ended.release(), None, False, None, FULL_BYTES)
    assert owner.told.get(timeout=LIMIT) is True
    go.set()
    for _ in range(8):
        assert ended.acquire(timeout=LIMIT)
    last = True
    while last:
        last = owner.told.get(timeout=LIMIT)
    assert owner.inbox.size == 0 or runtime.stop(LIMIT)
    runtime.stop(LIMIT)
    assert owner.inbox.size == 0 and not owner.inbox.paused


def test_no_more_calls_are_started_than_may_keep_so_much(runtime):
    owner, go, running, ended = Paused(), threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def handler():
        running.release()
        go.wait(LIMIT)

    for _ in range(8):
        runtime.run(owner, handler, (), lambda *answer: ended.release(), None, False, None, FULL_BYTES)
    assert running.acquire(timeout=LIMIT)
    looks = queue.Queue()
    for _ in range(10):  # of the pool's clock
        runtime.call_later(0.006, lambda: looks.put(owner.inbox.running))
        assert looks.get(timeout=LIMIT) == 1
    go.set()
    for _ in range(8):
        assert ended.acquire(timeout=LIMIT)
