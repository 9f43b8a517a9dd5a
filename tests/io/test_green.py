"""Greenlets: the same list over gevent and eventlet. They run in a thread of their own, the test is another one."""

import importlib
import socket
import threading
import time

import pytest
from doubles import client_frame
from green_home import LIBRARIES, Home, kernel_of

from flask_realtime.io.connection import Connection
from flask_realtime.io.threads import Inbox
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.websocket.reader import Reader
from flask_realtime.typing import Habit

LIMIT = 30


@pytest.fixture(params=LIBRARIES)
def kernel(request):
    return kernel_of(request.param)


@pytest.fixture
def home(kernel):
    homes = []

    def make(**options):
        homes.append(Home(kernel, **options))
        return homes[-1]

    yield make
    for each in homes:
        each.close()


class Owner:
    inbox = None

    def __init__(self):
        self.told = []

    def pause(self, paused):
        self.told.append(paused)


class Line:
    """A client whose messages are handled by ``handler(message)``; what that returns is sent back."""

    inbox = None

    def __init__(self, home, handler):
        self.home, self.handler, self.habit, self.ran_in = home, handler, Habit(), []
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.settimeout(LIMIT)
        self.ended = threading.Event()

        def end():
            ours.close()
            self.ended.set()

        self.connection = Connection(home.runtime.hub, ours, Reader(1000), 1 << 20, None, end)
        self.connection.open(self.take, lambda reason: None, b"")

    def take(self, message):
        self.home.runtime.run(self, self.handle, (message,), self.done, None, False, self.habit)

    def handle(self, message):
        self.ran_in.append((self.home.kernel.current(), self.home.runtime.hub.leader))
        return self.handler(message)

    def done(self, token, result, error):
        if result is not None:
            self.connection.write((Frame(result),))

    def pause(self, paused):
        self.connection.pause(paused)

    def send(self, *messages):
        self.theirs.sendall(b"".join(client_frame(1, message.encode()) for message in messages))

    def receive(self, count=1):
        texts = []
        while len(texts) < count:
            head = self.exactly(2)
            texts.append(self.exactly(head[1]).decode())
        return texts

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.theirs.recv(size - len(data))
            assert more
            data += more
        return data

    def close(self):
        self.theirs.close()
        assert self.ended.wait(LIMIT)


def run(home, handler, *args, owner=None):
    """Run a handler and return what its end was told."""
    told, ended = [], threading.Event()
    give = (owner or Owner(), handler, args, lambda *answer: (told.append(answer), ended.set()), "token")
    home.runtime.hub.call_soon(home.runtime.run, *give)
    assert ended.wait(LIMIT)
    return told[0]


def test_the_result_is_told(home):
    assert run(home(), divmod, 7, 2) == ("token", (3, 1), None)


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_is_raised_is_told(home, error):
    def handler():
        raise error

    home = home()
    for _ in range(3):
        token, result, raised = run(home, handler)
        assert (token, result) == ("token", None) and raised is error


def test_a_handler_that_does_not_wait_runs_where_its_event_was_read(home):
    line = Line(home(), lambda message: message)
    for number in range(50):
        line.send(str(number))
        assert line.receive() == [str(number)]
    line.close()
    assert len({greenlet for greenlet, _ in line.ran_in}) == 1
    assert all(greenlet is leader for greenlet, leader in line.ran_in)


def test_a_handler_that_waits_holds_up_nobody(home):
    home = home()
    free = home.do(home.runtime.event)
    slow = Line(home, lambda message: free.wait(LIMIT) and message)
    quick = Line(home, lambda message: message)
    slow.send("first", "second")
    for number in range(20):
        quick.send(str(number))
        assert quick.receive() == [str(number)]
    home.do(free.set)
    assert sorted(slow.receive(2)) == ["first", "second"]
    quick.send("after")
    assert quick.receive() == ["after"]
    for line in (slow, quick):
        line.close()


def test_what_came_with_a_slow_one_is_handled_meanwhile(home):
    """All of it came in one piece, so no descriptor tells of the rest."""
    home = home()
    free = home.do(home.runtime.event)
    line = Line(home, lambda message: free.wait(LIMIT) and message if message == "slow" else message)
    line.send("slow", *map(str, range(10)))
    assert line.receive(10) == list(map(str, range(10)))
    home.do(free.set)
    assert line.receive() == ["slow"]
    line.close()


def test_in_order_one_after_the_other(home):
    home = home(ordered=True)
    begun, running = [], []

    def handler(message):
        begun.append(message)
        running.append(1)
        home.kernel.sleep(0.001)
        assert len(running) == 1
        running.pop()
        return message

    line = Line(home, handler)
    line.send(*map(str, range(10)))
    assert line.receive(10) == begun == list(map(str, range(10)))
    line.close()


def test_no_more_than_allowed_run_at_once(home):
    home = home(workers=2)
    free = home.do(home.runtime.event)
    lines = [Line(home, lambda message: free.wait(LIMIT) and message) for _ in range(6)]
    for line in lines:
        line.send("x")
    pool = home.runtime.pool
    while pool.size < 3 or not pool.waiting:
        assert pool.size <= 4
        time.sleep(0.001)
    home.do(free.set)
    for line in lines:
        assert line.receive() == ["x"]
        line.close()


def test_no_greenlet_stays_but_the_leader(home):
    home = home(workers=100)
    free = home.do(home.runtime.event)
    lines = [Line(home, lambda message: free.wait(LIMIT) and message) for _ in range(50)]
    for line in lines:
        line.send("x")
    while home.runtime.pool.size < 50:
        time.sleep(0.001)
    home.do(free.set)
    for line in lines:
        assert line.receive() == ["x"]
        line.close()
    while home.runtime.pool.size > 1:
        time.sleep(0.001)


def test_any_thread_may_call_and_submit_and_spawn(home):
    home = home()
    ran = []
    for give in (home.runtime.hub.call_soon, home.runtime.pool.submit, home.runtime.spawn):
        done = threading.Event()
        give(lambda done=done: (ran.append(home.kernel.ident()), done.set()))
        assert done.wait(LIMIT)
    assert set(ran) == {home.runtime.hub.home} != {threading.get_ident()}


def test_timers_come_in_their_order(home):
    home = home()
    ran, done = [], threading.Event()
    call_later = home.runtime.call_later
    call_later(0.03, lambda: (ran.append("c"), done.set()))
    call_later(0.01, lambda: ran.append("a"))
    call_later(0.02, lambda: ran.append("b"))
    call_later(0.02, lambda: ran.append("cancelled")).cancel()
    assert done.wait(LIMIT)
    assert ran == ["a", "b", "c"]


def test_an_error_in_the_loop_ends_nothing(home, caplog):
    home = home()
    home.runtime.hub.call_soon(lambda: 1 / 0)
    home.runtime.pool.submit(lambda: 1 / 0)
    done = threading.Event()
    home.runtime.call_later(0, lambda: 1 / 0)
    home.runtime.call_later(0.001, done.set)
    assert done.wait(LIMIT)
    assert run(home, int)[1] == 0
    assert caplog.text.count("ZeroDivisionError") == 3


def test_a_task_can_be_waited_for(home):
    home = home()
    ran = []

    def wait():
        task = home.runtime.spawn(lambda: (home.runtime.sleep(0.001), ran.append(1)))
        task.join(LIMIT)
        return list(ran)

    assert home.do(wait) == [1]


def test_stop_waits_for_handlers_and_the_runtime_begins_anew(home):
    home = home()
    runtime, free, started, ended = home.runtime, home.do(home.runtime.event), threading.Event(), []

    def stop_and_begin():
        return runtime.stop(LIMIT), runtime.hub.running, runtime.hub.start()

    for _ in range(2):
        runtime.pool.submit(lambda: (started.set(), free.wait(LIMIT), ended.append(1)))
        assert started.wait(LIMIT)
        assert not home.do(runtime.pool.stop, 0.01)
        home.do(free.set)
        assert home.do(stop_and_begin) == (True, False, None)
        assert ended.pop() == 1
        home.do(free.clear)
        started.clear()


def test_locks_are_native(home):
    """A greenlet that waited for one would stop the whole thread; other threads may."""
    assert type(home().runtime.lock()).__module__ == "_thread"


@pytest.fixture
def start_timeout(kernel):
    """Starts the library's own timeout, which is raised in the greenlet that has started it."""
    timeout = importlib.import_module(kernel.name).Timeout
    return getattr(timeout, "start_new", timeout)


def test_a_timeout_that_a_handler_leaves_behind_ends_nothing(home, start_timeout, caplog):
    home = home()
    line = Line(home, lambda message: start_timeout(0.001) and message)
    line.send("one")
    assert line.receive() == ["one"]
    end = time.monotonic() + LIMIT
    while "left behind" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.001)
    line.handler = lambda message: message
    line.send("two")
    assert line.receive() == ["two"]
    line.close()


def test_who_ends_the_greenlet_of_a_handler_later_strikes_nobody(home):
    home = home()
    seen = []
    line = Line(home, lambda message: (seen.append(home.kernel.current()), home.kernel.sleep(0), message)[-1])
    kill = importlib.import_module(home.kernel.name).kill
    line.send("one")
    assert line.receive() == ["one"]
    while home.runtime.hub.astray or home.runtime.pool.size > 1:
        time.sleep(0.001)
    home.do(kill, seen[0])
    for message in ("two", "three"):
        line.send(message)
        assert line.receive() == [message]
    line.close()


def test_whoever_only_yields_lets_messages_in_at_every_turn(home):
    home = home()
    seen = threading.Event()
    line = Line(home, lambda message: seen.set())

    def work():
        line.send("one")
        turns = 0
        while not seen.is_set():
            turns += 1
            home.kernel.sleep(0)
        return turns

    assert run(home, work)[1] <= 3
    line.close()


def test_the_leader_is_replaced_wherever_it_waits(home, caplog):
    """A handler of the log may, for one."""
    home = home()
    free = home.do(home.runtime.event)
    line = Line(home, lambda message: message)
    home.runtime.hub.call_soon(free.wait, LIMIT)
    for message in ("one", "two"):
        line.send(message)
        assert line.receive() == [message]
    home.do(free.set)
    line.send("three")
    assert line.receive() == ["three"]
    line.close()
    while home.runtime.pool.size > 1:
        time.sleep(0.001)


def test_stop_from_another_thread(home):
    home = home()
    begun = threading.Event()
    home.runtime.hub.call_soon(begun.set)
    assert begun.wait(LIMIT)
    ended = []
    home.runtime.at_home(lambda: ended.append(home.kernel.ident()), LIMIT)
    assert ended == [home.runtime.hub.home]


def test_other_threads_leave_to_the_loop_what_is_to_be_looked_after(home):
    """Were it added while the loop is about to look after nothing any more, it would be forgotten."""
    runtime = home().runtime
    held, free, looked = threading.Event(), threading.Event(), threading.Event()

    class Looked(Inbox):
        def is_done(self):
            looked.set()
            return True

    runtime.hub.call_soon(lambda: (held.set(), free.wait(LIMIT)))
    assert held.wait(LIMIT)
    runtime.pool.watch(Looked(threading.Lock()), print)
    assert not runtime.pool._inboxes
    free.set()
    assert looked.wait(LIMIT)
