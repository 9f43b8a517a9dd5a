"""Short user code runs in the hub; when it isn't short after all, another thread goes on with everything else."""

import socket
import threading

import pytest
from doubles import client_frame

from flask_realtime.io.connection import Connection
from flask_realtime.io.hub import SHORT, Hub
from flask_realtime.io.threads import Threads
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.websocket.reader import Reader
from flask_realtime.typing import Habit

LIMIT = 30


class Line:
    """A client whose messages are handled by ``handler(message)``; what that returns is sent back."""

    def __init__(self, runtime, handler, habit, ordered=False):
        self.runtime, self.handler, self.habit = runtime, handler, habit
        self.inbox = None
        self.threads = []
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.settimeout(LIMIT)
        self.ended = threading.Event()

        def end():
            ours.close()
            self.ended.set()

        self.connection = Connection(runtime.hub, ours, Reader(1000), 1 << 20, None, end)
        self.connection.open(self.take, lambda reason: None, b"")

    def take(self, message):
        self.runtime.run(self, self.handle, (message,), self.done, None, False, self.habit)

    def handle(self, message):
        self.threads.append(threading.get_ident())
        return self.handler(message)

    def done(self, token, result, error):
        if result is not None:
            self.connection.write((Frame(result),))

    def pause(self, paused):
        self.connection.pause(paused)

    def send(self, *messages):
        self.theirs.sendall(b"".join(client_frame(1, message.encode()) for message in messages))

    def receive(self, count=1):
        """Return so many messages."""
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


@pytest.fixture
def runtime():
    runtime = Threads(hub=Hub())
    yield runtime
    assert runtime.stop(LIMIT)


@pytest.fixture
def line(runtime):
    lines = []

    def make(handler, habit=None):
        lines.append(Line(runtime, handler, habit or trusted()))
        return lines[-1]

    yield make
    for each in lines:
        each.close()


def trusted():
    """Return the habit of code that has shown to be short."""
    habit = Habit()
    habit.mean = 0.0
    return habit


def leader(runtime):
    """Return the thread that leads the hub, once it does nothing else."""
    found = []
    seen = threading.Event()
    runtime.hub.call_soon(lambda: (found.append(threading.get_ident()), seen.set()))
    assert seen.wait(LIMIT)
    return found[0]


def test_code_that_has_shown_to_be_short_runs_in_the_hub(runtime, line):
    client = line(lambda message: message, Habit())
    for number in range(200):
        client.send(str(number))
        assert client.receive() == [str(number)]
    assert client.habit.mean < SHORT
    assert client.threads[0] != leader(runtime)
    assert leader(runtime) in client.threads


def test_a_call_that_waits_holds_up_nobody_else(runtime, line):
    go = threading.Event()
    slow, other = line(lambda message: go.wait(LIMIT) and message), line(lambda message: message)
    first = leader(runtime)
    slow.send("a")
    other.send("b")
    assert other.receive() == ["b"]
    assert leader(runtime) != first and slow.threads == [first]
    assert slow.habit.rest > 0 and slow.habit.fine == 128
    go.set()
    assert slow.receive() == ["a"]
    for number in range(50):
        other.send(str(number))
        assert other.receive() == [str(number)]


def test_what_came_with_a_call_that_waits_is_handled_meanwhile_and_once(runtime, line):
    go = threading.Event()
    client = line(lambda message: message if message != "wait" else go.wait(LIMIT) and "waited")
    client.send("1", "2", "wait", "3", "4")
    client.send("5")
    assert client.receive(2) == ["1", "2"]  # though it was to be joined with the answers to the others
    assert client.receive(3) == ["3", "4", "5"]
    go.set()
    assert client.receive() == ["waited"]
    client.send("6")
    assert client.receive() == ["6"]


def test_a_call_may_wait_for_the_same_client(runtime, line):
    answered = threading.Event()

    def handler(message):
        if message == "answer":
            answered.set()
            return None
        client.connection.write((Frame("question"),))
        return "thanks" if answered.wait(LIMIT) else "in vain"

    client = line(handler)
    client.send("ask")
    assert client.receive() == ["question"]
    client.send("answer")
    assert client.receive() == ["thanks"]


def test_many_calls_that_wait_lose_nothing(runtime, line):
    turns = threading.Semaphore(0)
    habit = trusted()
    clients = [line(lambda message: turns.acquire(timeout=LIMIT) and message, habit) for _ in range(20)]
    for client in clients:
        habit.rest = 0  # as if it had been forgiven
        client.send(*map(str, range(5)))
    for _ in range(100):
        turns.release()
    for client in clients:
        assert sorted(client.receive(5)) == list("01234")
    assert leader(runtime) == runtime.hub.leader


def test_answers_to_what_came_in_one_piece_leave_in_one_piece(runtime, line, monkeypatch):
    runtime.hub._called.set()  # nobody watches over it: on a busy machine 5 ms pass without a fault of ours
    client = line(lambda message: message)
    sent = []
    offer = client.connection._offer
    monkeypatch.setattr(Connection, "_offer", lambda self, data: sent.append(bytes(data)) or offer(data))
    client.send(*"abcdefgh")
    assert client.receive(8) == list("abcdefgh")
    assert len(sent) == 1


def test_answers_that_are_kept_to_be_joined_count_for_the_limit(runtime, line):
    runtime.hub._called.set()  # nobody watches over it
    client = line(lambda message: None)
    large = Frame(b"x" * 50_000)

    waiting = []

    def handler(message):
        for _ in range(100):
            client.connection.write((large,))
            waiting.append(client.connection.waiting)

    client.handler = handler
    client.send("a", "b")
    assert client.ended.wait(LIMIT)
    assert 500_000 < max(waiting) < (1 << 20) + 200_000


def test_a_leader_in_the_middle_of_a_call_ends_with_its_hub():
    runtime = Threads(hub=Hub())
    go = threading.Event()
    client = Line(runtime, lambda message: go.wait(LIMIT) and message, trusted())
    client.send("a")
    while not runtime.hub.astray:
        leader(runtime)
    assert runtime.stop(0) is False
    assert client.ended.wait(LIMIT)
    go.set()
    client.theirs.close()


def test_code_that_stops_the_hub_from_within(line):
    runtime = Threads(hub=Hub())
    client = Line(runtime, lambda message: runtime.hub.stop(0), trusted())
    client.send("a")
    assert client.ended.wait(LIMIT)
    client.theirs.close()


def test_a_faulty_connection_of_a_former_leader_is_ended_by_the_new_one(runtime, line):
    go = threading.Event()
    client = line(lambda message: None if go.wait(LIMIT) else "in vain")
    client.connection._on_message = lambda message: (client.take(message), 1 / 0)
    client.send("a")
    while not runtime.hub.astray:
        leader(runtime)
    go.set()
    assert client.ended.wait(LIMIT)


def test_trust_comes_back(runtime, line):
    client = line(lambda message: message)
    habit = client.habit
    habit.rest, habit.fine = 5, 512
    for number in range(8):
        client.send(str(number))
        assert client.receive() == [str(number)]
    assert habit.rest < 0 and leader(runtime) in client.threads
    habit.rest = -4096
    client.send("x")
    assert client.receive() == ["x"]
    leader(runtime)
    assert (habit.rest, habit.fine) == (0, 256)


def test_very_many_messages_in_one_piece_do_not_keep_the_hub(runtime, line):
    runtime.hub._called.set()  # nobody watches over it
    client = line(lambda message: message)
    texts = [str(number) for number in range(100)]
    client.send(*texts)
    assert client.receive(100) == texts
    first = client.threads[0]
    assert 64 <= client.threads.count(first) < 100 and first == leader(runtime)


def test_without_a_deputy_the_hub_runs_no_code(runtime, line, monkeypatch):
    client = line(lambda message: message)
    started = threading.Thread.start

    def start(thread):
        if thread.name == "flask_realtime-deputy":
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    for text in "ab":
        client.send(text)
        assert client.receive() == [text]
    assert leader(runtime) not in client.threads
    monkeypatch.undo()
    client.send("c")
    assert client.receive() == ["c"]
    assert client.threads[-1] == leader(runtime)
