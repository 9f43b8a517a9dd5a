"""The bus over a broker of these tests' own, which does what it is told."""

import gc
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time

import pytest

from flask_realtime.backplanes import bus as module
from flask_realtime.backplanes.bus import Bus
from flask_realtime.errors import BackplaneError

LIMIT = 30


class Broker:
    """Hands what is published to all who listen.

    Attributes:
        down: Whether it can't be reached.
        batches: What was published, as it came.
    """

    keeps = False
    url = "test://broker"

    def __init__(self):
        self.down = False
        self.batches, self.queues = [], []
        self.changed = threading.Condition()
        self.count = None
        self.closed = 0

    def publish(self, messages):
        if self.down:
            raise BackplaneError("can't reach test://broker: down")
        with self.changed:
            self.batches.append(list(messages))
            self.changed.notify_all()
        for waiting in self.queues:
            for message in messages:
                waiting.put(message)

    def listen(self):
        if self.down:
            raise BackplaneError("can't reach test://broker: down")
        mine = queue.SimpleQueue()
        self.queues.append(mine)
        try:
            yield None
            while not self.down and not self.closed:
                try:
                    yield mine.get(timeout=0.01)
                except queue.Empty:
                    yield None
        finally:
            self.queues.remove(mine)
        raise BackplaneError("lost test://broker")

    def listeners(self):
        return self.count if self.count is not None else len(self.queues)

    def close(self):
        self.closed += 1

    @property
    def messages(self):
        return [message for batch in self.batches for message in batch]

    def wait(self, condition, limit=LIMIT):
        with self.changed:
            assert self.changed.wait_for(condition, limit)


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.heard, self.told = queue.SimpleQueue(), queue.SimpleQueue()
        self.fail = False

    def begin(self):
        self.told.put("begin")

    def subscribed(self, deaf):
        self.told.put("subscribed after it was deaf" if deaf else "subscribed")

    def receive(self, data):
        self.heard.put(data)

    def tick(self):
        self.told.put("tick")


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def make(broker):
    buses = []

    def make(listens=True):
        bus = Bus(lambda: broker, broker.url, listens)
        bus.listener = Ear()
        buses.append(bus)
        return bus

    yield make
    broker.down = False
    for bus in buses:
        assert bus.stop(LIMIT)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "FASTEST", 0.001)
    monkeypatch.setattr(module, "SLOWEST", 0.01)


def told(bus, what):
    while bus.listener.told.get(timeout=LIMIT) != what:
        pass


def test_nothing_begins_before_it_is_used(make, broker):
    threads = threading.active_count()
    bus = make()
    assert not bus.running
    assert not bus.subscribed
    assert bus.flush()
    assert bus.stop()
    assert (threading.active_count(), broker.closed) == (threads, 0)


def test_what_is_published_comes_in_order(make):
    bus = make()
    bus.start()
    told(bus, "begin")
    told(bus, "subscribed")
    for number in range(2000):
        assert bus.publish(b"%d" % number)
    assert [bus.listener.heard.get(timeout=LIMIT) for _ in range(2000)] == [b"%d" % number for number in range(2000)]
    assert bus.flush(LIMIT)
    assert (bus.published, bus.received, bus.waiting, bus.dropped) == (2000, 2000, 0, 0)
    told(bus, "tick")


def test_one_that_only_emits_listens_to_nothing(make, broker):
    bus = make(listens=False)
    bus.start()
    bus.publish(b"x")
    assert bus.flush(LIMIT)
    assert broker.messages == [b"x"]
    assert not broker.queues


def test_it_begins_once(make, broker):
    bus = make()
    barrier = threading.Barrier(8)

    def start():
        barrier.wait(LIMIT)
        bus.start()
        bus.publish(b"x")

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert bus.flush(LIMIT)
    assert len(broker.messages) == 8
    told(bus, "subscribed")
    assert len(broker.queues) == 1


@pytest.mark.parametrize(
    ("tries", "seconds", "most"),
    [(1, 0, 0.1), (2, 0.1, 0.2), (3, 0.3, 0.4), (30, 29.9, 0.4), (30, 30, 2), (10**6, 9e9, 2)],
)
def test_tries_are_closer_while_the_broker_may_be_back_soon(monkeypatch, tries, seconds, most):
    monkeypatch.setattr(module, "FASTEST", 0.1)
    monkeypatch.setattr(module, "SLOWEST", 2.0)
    pauses = [module.pause(tries, seconds) for _ in range(100)]
    assert all(0.7 * most < pause <= most for pause in pauses)
    assert len(set(pauses)) > 1


def test_what_is_published_while_the_broker_is_away_is_sent_when_it_is_back(make, broker, caplog):
    bus = make()
    bus.start()
    told(bus, "subscribed")
    broker.down = True
    for number in range(1000):
        assert bus.publish(b"%d" % number)
    assert not bus.flush(0.05)
    assert bus.down
    broker.down = False
    assert [bus.listener.heard.get(timeout=LIMIT) for _ in range(1000)] == [b"%d" % number for number in range(1000)]
    assert bus.flush(LIMIT)
    told(bus, "subscribed after it was deaf")
    bus.stop(LIMIT)
    assert bus.reconnects == 1
    assert not bus.down
    errors = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.levelname for record in errors] == ["ERROR", "WARNING"]
    assert all(record.exc_info is None for record in errors)
    assert errors[0].getMessage().endswith("will try again")
    assert "is back after" in errors[1].getMessage()


def test_nothing_is_sent_before_the_others_listen_again(make, broker, monkeypatch):
    monkeypatch.setattr(module, "GATHERING", LIMIT)
    bus = make()
    bus.others = lambda: 2
    bus.start()
    told(bus, "subscribed")
    broker.down = True
    bus.publish(b"x")
    assert not bus.flush(0.02)
    while bus.subscribed:
        time.sleep(0.001)
    broker.count = 2
    broker.down = False
    told(bus, "subscribed after it was deaf")
    assert broker.messages == []
    broker.count = 3
    assert bus.flush(LIMIT)
    assert broker.messages == [b"x"]


def test_one_that_only_emits_waits_for_as_many_as_there_were(make, broker, monkeypatch):
    monkeypatch.setattr(module, "GATHERING", LIMIT)
    bus = make(listens=False)
    broker.count = 2
    bus.start()
    bus.publish(b"x")
    assert bus.flush(LIMIT)
    broker.down, broker.count = True, 1
    bus.publish(b"y")
    assert not bus.flush(0.02)
    broker.down = False
    assert not bus.flush(0.2)
    broker.count = 2
    assert bus.flush(LIMIT)
    assert broker.messages == [b"x", b"y"]


def test_it_waits_for_the_others_a_moment_only(make, broker, monkeypatch):
    monkeypatch.setattr(module, "GATHERING", 0.01)
    bus = make()
    bus.others = lambda: 100
    broker.down = True
    bus.start()
    bus.publish(b"x")
    assert not bus.flush(0.02)
    broker.down = False
    assert bus.flush(LIMIT)


def test_what_waits_is_bounded(make, broker, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_MESSAGES", 5)
    monkeypatch.setattr(module, "BATCH_MESSAGES", 1)
    bus = make(listens=False)
    broker.down = True
    bus.start()
    taken = [bus.publish(b"%d" % number) for number in range(20)]
    assert sum(taken) in (5, 6)  # one more when the first is on its way
    assert bus.dropped == 20 - sum(taken)
    monkeypatch.setattr(module, "MOST_MESSAGES", 100_000)
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    assert not bus.publish(b"x" * 1001)
    broker.down = False
    assert bus.flush(LIMIT)
    assert len(broker.messages) == sum(taken)
    assert len([line for line in caplog.messages if "were dropped" in line]) == 1


def test_what_has_waited_too_long_is_not_sent(make, broker, monkeypatch):
    monkeypatch.setattr(module, "STALE", -1)
    bus = make(listens=False)
    bus.start()
    bus.publish(b"x")
    assert bus.flush(LIMIT)
    assert (broker.messages, bus.dropped) == ([], 1)


@pytest.mark.parametrize("where", ["publish", "listen"])
def test_an_error_of_a_driver_is_an_outage_too(make, broker, caplog, where):
    bus = make()
    ways = [lambda *args: 1 / 0, getattr(broker, where)]
    setattr(broker, where, lambda *args: ways.pop(0)(*args) if len(ways) > 1 else ways[0](*args))
    bus.start()
    told(bus, "subscribed")
    bus.publish(b"x")
    assert bus.listener.heard.get(timeout=LIMIT) == b"x"
    assert "ZeroDivisionError" in caplog.text


def test_a_subscription_that_just_ends_is_made_again(make, broker):
    bus = make()
    listen = broker.listen
    broker.listen = lambda: iter([None])
    bus.start()
    told(bus, "subscribed")
    broker.listen = listen
    told(bus, "subscribed after it was deaf")
    while not broker.queues:
        time.sleep(0.001)
    bus.publish(b"x")
    assert bus.listener.heard.get(timeout=LIMIT) == b"x"


def test_behind_a_broker_that_keeps_what_is_missed_nobody_was_deaf(make, broker):
    broker.keeps = True
    bus = make()
    bus.start()
    told(bus, "subscribed")
    broker.down = True
    while bus.subscribed:
        time.sleep(0.001)
    broker.down = False
    told(bus, "subscribed")


def test_the_end_sends_what_waits(make, broker):
    bus = make()
    bus.start()
    for number in range(5000):
        bus.publish(b"%d" % number)
    assert bus.stop(LIMIT)
    assert len(broker.messages) == 5000
    assert broker.closed
    assert not bus.publish(b"late") or True
    assert bus.stop()


def test_the_end_does_not_wait_for_a_broker_that_is_away(make, broker, caplog):
    bus = make(listens=False)
    broker.down = True
    bus.start()
    bus.publish(b"x")
    while not bus.down:
        time.sleep(0.001)
    assert not bus.stop(2)
    assert "1 messages for test://broker were not sent" in caplog.text


def test_both_threads_have_ended_when_it_has(make, broker):
    bus = make()
    bus.start()
    bus.publish(b"1")
    broker.wait(lambda: broker.messages)
    threads = bus._threads
    assert [thread.locked() for thread in threads] == [True, True]
    assert bus.stop()
    assert [thread.locked() for thread in threads] == [False, False]


def test_it_may_begin_again(make, broker):
    bus = make()
    bus.start()
    told(bus, "subscribed")
    bus.stop(LIMIT)
    broker.closed = 0
    bus.start()
    told(bus, "begin")
    told(bus, "subscribed")
    bus.publish(b"x")
    assert bus.listener.heard.get(timeout=LIMIT) == b"x"


def test_a_bus_that_nobody_keeps_goes(broker):
    bus = Bus(lambda: broker, broker.url, False)
    del bus
    gc.collect()


PROGRAM = """
import os, sys, multiprocessing, threading
{patch}
from flask_realtime.backplanes.bus import Bus

class Pipe:
    keeps, url = False, "test://pipe"
    def publish(self, messages):
        for message in messages:
            os.write(1, b"%d %s\\n" % (os.getpid(), message))
    def close(self): pass

bus = Bus(Pipe, "test://pipe", False)
def emit(what):
    bus.start()
    bus.publish(what)
{program}
"""


def run(program, patch=""):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(program=program, patch=patch)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("library", ["", "gevent", "eventlet"])
def test_a_process_that_ends_at_once_has_sent_all(library):
    if library:
        pytest.importorskip(library, reason=f"needs flask_realtime[{library}]")
    patch = {"": "", "gevent": "from gevent import monkey; monkey.patch_all()"}.get(
        library, "import eventlet; eventlet.monkey_patch()"
    )
    lines = run("for number in range(100): emit(b'%d' % number)", patch)
    assert [line[1] for line in lines] == [str(number) for number in range(100)]


def test_a_forked_process_begins_anew():
    lines = run("""
emit(b"parent")
bus.flush()
child = os.fork()
if child == 0:
    emit(b"child")
    bus.flush()
    os._exit(0)
os.waitpid(child, 0)
emit(b"parent")
""")
    assert [line[1] for line in lines] == ["parent", "child", "parent"]
    assert lines[0][0] == lines[2][0] != lines[1][0]


def test_a_process_of_multiprocessing_has_sent_all():
    lines = run("""
context = multiprocessing.get_context("fork")
emit(b"parent")
bus.flush()
child = context.Process(target=emit, args=(b"child",))
child.start()
child.join()
assert child.exitcode == 0
""")
    assert [line[1] for line in lines] == ["parent", "child"]


def test_what_the_parent_had_not_sent_is_not_sent_twice():
    lines = run("""
bus._lock.acquire()
bus._lock.release()
for number in range(1000):
    emit(b"%d" % number)
child = os.fork()
if child == 0:
    emit(b"child")
    bus.flush()
    os._exit(0)
os.waitpid(child, 0)
""")
    assert sorted(line[1] for line in lines) == sorted(["child", *map(str, range(1000))])


def test_messages_are_bytes_as_given(make):
    bus = make()
    bus.start()
    told(bus, "subscribed")
    message = json.dumps({"a": "é" * 500_000}).encode() + bytes(range(256))
    bus.publish(message)
    assert bus.listener.heard.get(timeout=LIMIT) == message
    assert os.getpid() == bus._pid
