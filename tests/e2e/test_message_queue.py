"""What processes that share a message queue promise: one list over all backplanes and all kinds of servers."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .brokers import BACKPLANES, meet, started, url_of
from .clients import LIMIT, Client, fence
from .servers import SELECTED, Raised, uncounted, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services]

# The two servers of a fleet: the first one makes its processes itself, the second one is forked.
MODES = {
    "threads": ("werkzeug", "gunicorn-threads"),
    "gevent": ("gevent", "gunicorn-gevent"),
    "eventlet": ("eventlet", "gunicorn-eventlet"),
}
FLEETS = {
    f"{backplane}-{mode}": (backplane, kinds)
    for backplane in BACKPLANES
    for mode, kinds in MODES.items()
    if set(kinds) <= set(SELECTED)
}
MANY = 2000
DEEP = {"list": [{"inner": [b"\x00\xff", {"deeper": (b"", bytes(range(256)))}]}], "text": "x"}
DEEP_HEARD = {"list": [{"inner": [b"\x00\xff", {"deeper": [b"", bytes(range(256))]}]}], "text": "x"}
# What emit gets -> what clients hear.
VALUES = [
    ((), []),
    ((None,), []),
    (((),), []),
    ((("one", 2, None),), ["one", 2, None]),
    (("one", 2, None), ["one", 2, None]),
    (([1, [2, []]],), [[1, [2, []]]]),
    ((0,), [0]),
    (("",), [""]),
    ((False,), [False]),
    (('ünï😀\u2028\u0000 " \\ \',"binary":',), ['ünï😀\u2028\u0000 " \\ \',"binary":']),
    (({"ключ": [1.5, {"": None}]},), [{"ключ": [1.5, {"": None}]}]),
    ((b"",), [b""]),
    ((DEEP,), [DEEP_HEARD]),
    ((b"\x01", "between", b"\x02"), [b"\x01", "between", b"\x02"]),
    (("x" * 900_000,), ["x" * 900_000]),
    ((bytes(900_000),), [bytes(900_000)]),
]


class Fleet:
    """Two servers at a broker.

    Attributes:
        url, channel: Of the message queue.
        here, there: The servers.
        celery: A worker.
    """

    def __init__(self, url, channel, servers, celery):
        self.url, self.channel, self.celery = url, channel, celery
        self.here, self.there = servers

    def run(self, program, *arguments, counted=True):
        """Run a program that emits and ends, and return what it prints; ``counted``: whether coverage may look on."""
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, self.url, self.channel]
        environment = dict(os.environ) if counted else uncounted(os.environ)
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=LIMIT, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(scope="module", params=FLEETS)
def fleet(request, broker_for, celery_for, tmp_path_factory):
    backplane, kinds = FLEETS[request.param]
    url, channel = url_of(backplane, broker_for(BACKPLANES[backplane])), f"channel-{backplane}"
    directory = tmp_path_factory.mktemp(request.param)
    with started(directory, kinds, message_queue=url, channel=channel) as servers:
        for server in servers:
            Client(server).close()
        meet(servers)
        yield Fleet(url, channel, servers, celery_for(backplane, url, channel))


@pytest.fixture(scope="session")
def celery_for(broker_for, tmp_path_factory):
    """Return a function that starts a Celery worker for a queue, unless there is one already."""
    running = {}

    def get(backplane, url, channel):
        if backplane not in running:
            folder = tmp_path_factory.mktemp(f"celery-{backplane}")
            running[backplane] = Celery(folder, broker_for("redis"), url, channel)
        return running[backplane]

    with contextlib.ExitStack() as stack:
        yield get
        for celery in running.values():
            stack.callback(celery.stop)


@pytest.fixture
def here(fleet):
    with Client(fleet.here) as client:
        yield client


@pytest.fixture
def there(fleet):
    with Client(fleet.there) as client:
        yield client


# Who gets it.


def test_an_emit_to_all_reaches_the_clients_of_all_processes_once(fleet, here, there):
    for sender in (fleet.here, fleet.there):
        sender.do("emit", "news", "all")
        assert fence(sender, here, there) == [[["news", "all"]]] * 2


def test_a_namespace_is_for_itself(fleet, here, there):
    with Client(fleet.there, "/custom") as custom:
        fleet.here.do("emit", "news", 1, namespace="/custom")
        fleet.here.do("emit", "news", 2)
        assert fence(fleet.here, here, there, custom) == [[["news", 2]], [["news", 2]], [["news", 1]]]


def test_rooms_span_the_processes(fleet, here, there):
    with Client(fleet.there) as third, Client(fleet.here) as fourth:
        for client, room in ((here, "red"), (there, "red"), (there, "blue 😀"), (third, 7)):
            client.ask("join", room)
        for number, (target, expected) in enumerate(
            [
                ("red", (here, there)),
                ("blue 😀", (there,)),
                (7, (third,)),
                (["red", "blue 😀"], (here, there)),
                ({"blue 😀", 7}, (there, third)),
                (there.sid, (there,)),
                ((there.sid, here.sid, fourth.sid), (here, there, fourth)),
                ([third.sid, "red"], (here, there, third)),
                ("nobody", ()),
                ([], ()),
                ("", ()),
            ]
        ):
            for sender in (fleet.here, fleet.there):
                sender.do("emit", "news", number, to=target)
                heard = fence(sender, here, there, third, fourth)
                want = [[["news", number]] if client in expected else [] for client in (here, there, third, fourth)]
                assert heard == want, target


def test_those_who_are_skipped_get_nothing_anywhere(fleet, here, there):
    for skipped in (there.sid, [there.sid], (there.sid, here.sid), {here.sid}):
        fleet.here.do("emit", "news", 1, skip_sid=skipped)
        names = [skipped] if isinstance(skipped, str) else skipped
        expected = [[] if client.sid in names else [["news", 1]] for client in (here, there)]
        assert fence(fleet.here, here, there) == expected


def test_a_handler_reaches_other_processes_too(fleet, here, there):
    here.ask("cast", "to one", {"to": there.sid})
    here.ask("cast", "to all but me", {"broadcast": True, "include_self": False})
    here.ask("cast", "to me", {})
    assert fence(fleet.here, here, there) == [
        [["news", "to me"]],
        [["news", "to one"], ["news", "to all but me"]],
    ]


def test_an_emit_may_keep_to_this_process(fleet, here, there):
    here.ask("join", "near")
    there.ask("join", "near")
    fleet.here.do("emit", "news", 1, ignore_queue=True)
    fleet.here.do("emit", "news", 2, to="near", ignore_queue=True)
    fleet.here.do("send", "text", ignore_queue=True)
    assert fence(fleet.here, here, there) == [[["news", 1], ["news", 2], ["message", "text"]], []]


def test_an_emit_to_a_client_of_this_process_does_not_cross_the_queue(fleet, here, there):
    with Client(fleet.here) as second:
        fence(fleet.here, here, there)
        before = [server.do("stats")["queue"] for server in (fleet.here, fleet.there)]
        for number in range(100):
            fleet.here.do("emit", "news", number, to=here.sid if number % 2 else [here.sid, second.sid])
        assert len(fence(fleet.here, here, there)[0]) == 100
        after = [server.do("stats")["queue"] for server in (fleet.here, fleet.there)]
    # The fence is one message, and processes give a sign of life now and then.
    assert after[0]["published"] - before[0]["published"] < 10
    assert after[1]["received"] - before[1]["received"] < 10


def test_what_nobody_here_is_meant_by_is_counted(fleet, here, there):
    before = fleet.there.do("stats")["queue"]["unwanted"]
    for _ in range(5):
        fleet.here.do("emit", "news", "x" * 1000, to="a room that nobody is in")
    assert fence(fleet.here, here, there) == [[], []]
    assert fleet.there.do("stats")["queue"]["unwanted"] - before == 5


# What arrives.


@pytest.mark.parametrize("values, expected", VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_values_arrive_as_they_were_given(fleet, here, there, values, expected):
    fleet.here.do("emit", "news", *values)
    assert fence(fleet.here, here, there) == [[["news", *expected]]] * 2


def test_events_of_each_sender_arrive_in_order(fleet, here, there):
    outside = threading.Thread(target=fleet.run, args=(NUMBERED, str(MANY)))
    outside.start()
    for server, name in ((fleet.here, "from here"), (fleet.there, "from there")):
        server.do("pump", name, 0, MANY, 1e9)
    outside.join()
    for client in (here, there):
        client.wait(lambda client=client: len(client.heard) >= 3 * MANY, "all events")
    for client, heard in zip((here, there), fence(fleet.here, here, there), strict=True):
        assert len(heard) == 3 * MANY
        for name in ("from here", "from there", "outside"):
            assert [number for event, number in heard if event == name] == list(range(MANY)), (client is here, name)


# Answers.


@pytest.mark.parametrize(
    "answer, result",
    [([], None), (["one"], "one"), ([1, "two", {"three": [3]}, b"\x04"], (1, "two", {"three": [3]}, b"\x04"))],
    ids=["none", "one", "several"],
)
def test_a_client_of_another_process_answers(fleet, there, answer, result):
    there.answers["question"] = lambda *asked: answer
    assert fleet.here.do("call", "question", "?", to=there.sid, timeout=LIMIT) == result
    name = f"question {time.monotonic_ns()}"
    fleet.here.do("emit", "question", b"?", to=there.sid, callback=name)
    assert answered(fleet.here, name, 1) == [[name, *answer]]
    assert fence(fleet.here, there) == [[["question", "?"], ["question", b"?"]]]


def answered(server, name, count):
    """Return what callbacks of a name got, once there are so many."""

    def found():
        return [answer for answer in server.do("answers") if answer[0] == name]

    wait_until(lambda: len(found()) >= count, what="the callback")
    return found()


def test_every_client_of_a_room_answers(fleet, here, there):
    with Client(fleet.there) as third:
        for number, client in enumerate((here, there, third)):
            client.answers["question"] = lambda asked, number=number: [asked, number]
            client.ask("join", "asked")
        name = f"room {time.monotonic_ns()}"
        fleet.here.do("emit", "question", "?", to="asked", callback=name)
        assert sorted(answered(fleet.here, name, 3)) == [[name, "?", 0], [name, "?", 1], [name, "?", 2]]
        everybody = f"everybody {time.monotonic_ns()}"
        fleet.there.do("emit", "question", "?", callback=everybody)
        assert sorted(answered(fleet.there, everybody, 3)) == [[everybody, "?", number] for number in range(3)]


def test_many_callbacks_at_a_time_get_their_own_answers(fleet, there):
    there.answers["question"] = lambda asked: [asked * 2]
    name = f"many {time.monotonic_ns()}"
    for number in range(20):
        fleet.here.do("emit", "question", number, to=there.sid, callback=f"{name} {number}")
    for number in range(20):
        assert answered(fleet.here, f"{name} {number}", 1) == [[f"{name} {number}", number * 2]]


def test_nobody_answers_a_call_to_nobody(fleet, there):
    with pytest.raises(Raised) as raised:
        fleet.here.do("call", "question", to="no such client", timeout=0.3)
    assert raised.value.name == "TimeoutError"
    with pytest.raises(Raised) as raised:
        fleet.here.do("call", "question", to=there.sid, timeout=0.3)
    assert raised.value.name == "TimeoutError"


# Clients of another process.


def test_a_client_of_another_process_is_put_out(fleet, here, there):
    with Client(fleet.there, "/custom") as custom:
        fleet.here.do("disconnect", there.sid)
        there.wait_for_end()
        fleet.here.do("disconnect", custom.sid)  # of another namespace
        fleet.here.do("disconnect", "no such client")
        assert fence(fleet.here, here, custom) == [[], []]
        assert not here.ended and not custom.ended
        fleet.here.do("disconnect", custom.sid, namespace="/custom")
        custom.wait_for_end()
        for client, namespace in ((there, "/"), (custom, "/custom")):
            journal = wait_until(lambda who=client.who: fleet.there.journal(who)[1:])
            assert journal == [[namespace, "disconnect", "server disconnect"]]


def test_rooms_of_a_client_of_another_process(fleet, here, there):
    def heard():
        fleet.there.do("emit", "news", 1, to="club")
        return [len(events) for events in fence(fleet.there, here, there)]

    def obeyed():  # what was asked for before has been done
        fence(fleet.here, here, there)

    fleet.here.do("enter_room", there.sid, "club")
    fleet.here.do("enter_room", here.sid, "club")
    obeyed()
    assert heard() == [1, 1]
    fleet.here.do("leave_room", there.sid, "club")
    fleet.here.do("leave_room", there.sid, "a room that it is not in")
    fleet.here.do("enter_room", "no such client", "club")
    obeyed()
    assert heard() == [1, 0]
    fleet.there.do("enter_room", here.sid, "other")
    fleet.here.do("enter_room", there.sid, "club")
    obeyed()
    fleet.here.do("close_room", "club")
    obeyed()
    assert heard() == [0, 0]
    assert sorted(fleet.there.do("rooms", here.sid)) == sorted([here.sid, "other"])


def test_questions_about_all_processes(fleet, here, there):
    with Client(fleet.there) as third, Client(fleet.there, "/custom") as custom:
        for client in (here, there):
            client.ask("join", "asked about")
        everybody = sorted([here.sid, there.sid, third.sid])
        for server in (fleet.here, fleet.there):
            # Those of former tests may still be about to leave.
            wait_until(lambda server=server: server.do("count") == 3, what="three clients")
            assert sorted(server.do("participants")) == everybody
            assert sorted(server.do("participants", "asked about")) == sorted([here.sid, there.sid])
            assert server.do("count", "asked about") == 2
            assert server.do("count", ["asked about", third.sid]) == 3
            assert server.do("count", "nobody") == 0
            assert server.do("participants", namespace="/custom") == [custom.sid]
            assert sorted(server.do("rooms", there.sid)) == sorted([there.sid, "asked about"])
            assert server.do("rooms", "no such client") == []


def test_a_member_that_does_not_answer_is_named(fleet, here, there):
    assert fleet.here.do("count") >= 2
    with stopped(fleet.there):
        with pytest.raises(Raised) as raised:
            fleet.here.do("count", timeout=0.5)
        assert raised.value.name == "ClusterTimeoutError"
        assert raised.value.results == [1]
        assert "1 of 1 other processes didn't answer within 0.5 s" in raised.value.message
        with pytest.raises(Raised):
            fleet.here.do("rooms", there.sid, timeout=0.2)
        assert fleet.here.do("rooms", here.sid, timeout=0.2) == [here.sid]  # asks nobody
        began = time.monotonic()
        fleet.here.do("emit", "news", "for later")
        assert time.monotonic() - began < 1
    assert fence(fleet.here, here, there) == [[["news", "for later"]]] * 2
    assert fleet.here.do("count") == 2


@contextlib.contextmanager
def stopped(server):
    """Let the process that serves, which under gunicorn isn't the one that was started, do nothing for a while."""
    process = server.get_json("/process")
    os.kill(process, signal.SIGSTOP)
    try:
        threads = Path(f"/proc/{process}/task")
        wait_until(lambda: all(") T " in (thread / "stat").read_text() for thread in threads.iterdir()))
        yield
    finally:
        os.kill(process, signal.SIGCONT)


# Processes that only emit. Each of these is all of a program.

NUMBERED = """
import sys
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])
for number in range(int(sys.argv[3])):
    socketio.emit("outside", number)
"""

BARE = """
import sys
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])
sid = sys.argv[3]
socketio.emit("news", {"text": "ü😀", "binary": [b"1"]})
socketio.emit("news", "for one", to=sid)
socketio.send("for others", skip_sid=sid)
socketio.enter_room(sid, "room")
socketio.emit("news", "for a room", to="room")
socketio.leave_room(sid, "room")
socketio.emit("news", "not heard", to="room")
for refused in (lambda: socketio.emit("news", callback=print), lambda: socketio.call("news", to=sid)):
    try:
        refused()
    except RuntimeError as error:
        print(error)
socketio.emit("last")
"""


def test_a_bare_script_emits_and_ends(fleet, here, there):
    said = fleet.run(BARE, there.sid)
    assert said.splitlines() == [
        "callbacks need a process that serves clients; this one only emits",
        "call() needs a process that serves clients; this one only emits",
    ]
    first = ["news", {"text": "ü😀", "binary": [b"1"]}]
    assert here.until("last") == [first, ["message", "for others"]]
    assert there.until("last") == [first, ["news", "for one"], ["news", "for a room"]]


PUT_OUT = """
import sys
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])
socketio.enter_room(sys.argv[3], "room")
socketio.close_room("room")
socketio.disconnect(sys.argv[3])
"""


def test_a_bare_script_puts_a_client_out(fleet, here, there):
    fleet.run(PUT_OUT, there.sid)
    there.wait_for_end()
    assert not here.ended


THREADS = """
import sys, threading
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])

def emit(name):
    for number in range(100):
        socketio.emit(name, number)

for name in "abcdefgh":
    threading.Thread(target=emit, args=(name,)).start()
"""


def test_eight_threads_emit_at_once(fleet, here, there):
    fleet.run(THREADS)
    for client in (here, there):
        client.wait(lambda client=client: len(client.heard) >= 800, "all events")
        for name in "abcdefgh":
            assert [number for event, number in client.heard if event == name] == list(range(100))


FORKED = """
import multiprocessing, os, sys, threading
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])
done = threading.Event()

def child(name):
    socketio.emit("news", name)

def busy():
    for _ in range(5000):
        socketio.emit("busy", to="a room that nobody is in")
        if done.is_set():
            break

thread = threading.Thread(target=busy)
thread.start()
socketio.emit("news", "before")
socketio.flush()  # Python itself can't fork while another thread imports, and drivers do when they connect
for number in range(4):
    if os.fork() == 0:
        child(f"forked {number}")
        sys.exit()
    os.wait()
done.set()
thread.join()
fork = multiprocessing.get_context("fork")
process = fork.Process(target=child, args=("multiprocessing",))
process.start()
process.join()
with fork.Pool(2) as pool:
    pool.map(child, ["pool 1", "pool 2"])
    pool.close()
    pool.join()
child("after")
"""


def test_forked_processes_emit(fleet, here, there):
    fleet.run(FORKED, counted=False)  # coverage has a lock that a fork copies, while another thread holds it
    expected = ["before", "multiprocessing", "pool 1", "pool 2", "after", *(f"forked {number}" for number in range(4))]
    for client in (here, there):
        client.wait(lambda client=client: len(client.heard) >= len(expected), "all events")
    for heard in fence(fleet.here, here, there):
        assert sorted(heard) == sorted(["news", text] for text in expected)


TASKS = """
import os
from celery import Celery
from flask_realtime import SocketIO

app = Celery("tasks", broker=os.environ["TEST_BROKER"])
app.conf.task_default_queue = os.environ["TEST_CHANNEL"]
socketio = SocketIO(message_queue=os.environ["TEST_QUEUE"], channel=os.environ["TEST_CHANNEL"])

@app.task
def work(steps):
    for step in range(steps):
        socketio.emit("progress", step)
    socketio.emit("progress", {"done": b"1"})
"""


class Celery:
    """A Celery worker with two processes, whose tasks emit. What is to be done comes from a Redis of its own."""

    def __init__(self, folder, redis, url, channel):
        self.folder = folder
        (folder / "tasks.py").write_text(TASKS)
        self.environment = {**os.environ, "TEST_BROKER": redis.url, "TEST_QUEUE": url, "TEST_CHANNEL": channel}
        pytest.importorskip("celery", reason="needs Celery: pip install celery")
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "2", *quiet]
        with (folder / "log").open("w") as log:
            self.worker = subprocess.Popen(command, cwd=folder, env=self.environment, stdout=log, stderr=log)

    def delay(self, program):
        """Run a program that asks for tasks."""
        command = [sys.executable, "-c", f"import tasks\n{program}"]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=LIMIT)

    def log(self):
        return (self.folder / "log").read_text()

    def stop(self):
        self.worker.send_signal(signal.SIGTERM)
        try:
            code = self.worker.wait(LIMIT)
        finally:
            self.worker.kill()
            self.worker.wait()
        assert code == 0 and "Traceback" not in self.log(), self.log()


def test_celery_tasks_emit(fleet, here, there):
    fleet.celery.delay("for _ in range(4): tasks.work.delay(3)")
    for client in (here, there):
        client.wait(lambda client=client: len(client.heard) >= 16, f"progress; {fleet.celery.log()}")
        heard = [value for _, value in client.heard]
        # Two processes work at a time; each of them emits in order.
        assert sorted(map(str, heard)) == sorted(["0", "1", "2", "{'done': b'1'}"] * 4)
        assert heard[0] == 0 and heard[-1] == {"done": b"1"}
