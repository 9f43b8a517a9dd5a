"""What several threads do at once. Each test runs many rounds; nothing waits but for what must happen."""

import logging
import random
import socket
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from doubles import KeptTransport, Party, client_frame
from green_home import LIBRARIES, Home, kernel_of
from websockets.protocol import CLIENT, OPEN, Protocol

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.io import connection as connections
from flask_realtime.io.connection import Connection
from flask_realtime.io.threads import FULL, Threads
from flask_realtime.protocol.engineio.engine import Engine
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.engineio.options import Options
from flask_realtime.protocol.engineio.polling import Polling
from flask_realtime.protocol.socketio.client import Client
from flask_realtime.protocol.socketio.core import Core, Settings
from flask_realtime.protocol.socketio.packets import TextCodec
from flask_realtime.protocol.socketio.rooms import Rooms
from flask_realtime.protocol.websocket.reader import Reader

LIMIT = 30  # seconds until something that must happen counts as lost


@pytest.fixture(autouse=True)
def quick_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run functions in threads that begin at the same moment; raise the first error."""
    barrier, errors = threading.Barrier(len(functions)), []

    def run(function):
        try:
            barrier.wait(LIMIT)
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.fixture
def threads():
    runtime = Threads()
    yield runtime
    assert runtime.stop(LIMIT)


@pytest.fixture(params=["threads", *LIBRARIES])
def runtime(request):
    """A runtime of each kind, which the test's threads use from outside."""
    if request.param == "threads":
        yield request.getfixturevalue("threads")
        return
    home = Home(kernel_of(request.param))
    stop = home.runtime.stop
    home.runtime.stop = lambda limit: home.do(stop, limit)  # it waits in its own thread
    yield home.runtime
    home.runtime.stop = stop
    home.close()


@pytest.fixture
def hub(runtime):
    return runtime.hub


# Rooms


def test_rooms_miss_nobody_and_keep_no_ghosts():
    rooms = Rooms(threading.Lock())
    for _ in range(300):
        clients = [Client(str(i), None, "/") for i in range(4)]

        def stay(client=clients[0]):
            for _ in range(5):
                rooms.enter(client, "x", None)
                assert client in rooms.members("x")
                rooms.leave(client, "x")
                assert client not in rooms.members("x")
            rooms.enter(client, "x")

        def go(client=clients[1]):
            rooms.enter(client, "x", None)
            rooms.leave_all(client)
            assert client not in rooms.members("x")
            assert client not in rooms.members(None)

        def enter_late(client=clients[1]):
            rooms.enter(client, "x", "y")

        def look(client=clients[2]):
            rooms.enter(client, "x")
            for _ in range(10):
                assert client in rooms.members("x")
                assert client in rooms.union(["x", "y"])
                rooms.names()

        together(stay, go, enter_late, look)
        assert set(rooms.members("x")) == {clients[0], clients[2]}
        assert rooms.members("y") == ()
        for client in clients:
            rooms.leave_all(client)
        assert rooms.names() == [] and rooms.members("x") == ()


def test_a_closed_room_and_its_members_agree():
    rooms = Rooms(threading.Lock())
    for _ in range(300):
        clients = [Client(str(i), None, "/") for i in range(3)]
        together(
            lambda clients=clients: [rooms.enter(client, "x") for client in clients],
            lambda: rooms.close("x"),
            lambda clients=clients: rooms.leave(clients[0], "x"),
            lambda: rooms.members("x"),
        )
        assert set(rooms.members("x")) == {client for client in clients if "x" in client.rooms}
        rooms.close("x")


# Broadcast while joining


class World:
    """A core over real threads whose clients' transports keep what they get."""

    def __init__(self, runtime, **settings):
        logger = logging.getLogger("flask_realtime.tests")
        self.core = Core(runtime, TextCodec(), lambda client, handler, event, args: None, Settings(**settings), logger)
        self.engine = Engine(
            Options(max_backlog=1 << 30), runtime, self.core.opened, self.core.received, self.core.closed, logger
        )

    def open(self):
        session = self.engine.prepare({})
        self.engine.on_connect(session)
        transport = KeptTransport()
        self.engine.open_websocket(session, transport)
        return session, transport


@pytest.mark.parametrize("handler", [False, True])
@pytest.mark.parametrize("always_connect", [False, True])
def test_who_joins_during_broadcasts_gets_connect_first_then_all_from_then_on(runtime, handler, always_connect):
    world = World(runtime, always_connect=always_connect)
    connected = threading.Semaphore(0)
    if handler:
        world.core.handlers.add("connect", print, "/")
    world.core._connected, inner = (lambda *args: (inner(*args), connected.release())), world.core._connected
    total = 60
    for _ in range(25):
        arrivals = [world.open() for _ in range(3)]

        def emit():
            for i in range(total):
                world.core.emit("n", [i], "/")

        def join(session):
            session.receive("40")

        together(emit, *(lambda session=session: join(session) for session, _ in arrivals))
        for _ in arrivals:
            assert connected.acquire(timeout=LIMIT)
        world.core.emit("n", [total], "/")
        for session, transport in arrivals:
            first, *rest = transport.messages[1:]
            assert first.startswith('40{"sid"')
            numbers = [int(message[len('42["n",') : -1]) for message in rest]
            assert numbers == list(range(numbers[0], total + 1)), "none is missing from the first on"
            session.close("transport close")
        assert world.core.targets("/", None) == ()


def test_who_ends_while_it_joins_leaves_no_ghost(runtime):
    world = World(runtime)
    world.core.handlers.add("connect", print, "/")
    sessions = []
    for _ in range(200):
        session, _ = world.open()
        together(
            lambda session=session: session.receive("40"),
            lambda session=session: session.close("ping timeout"),
            lambda: world.core.emit("x", [], "/"),
        )
        sessions.append(session)
    assert runtime.stop(LIMIT)
    assert world.core.targets("/", None) == ()
    assert not world.core.clients.get("/")
    assert world.engine.sessions == {}


def test_a_disconnect_handler_runs_once_whoever_ends_the_client(runtime):
    world = World(runtime)
    calls = []
    world.core.invoke = lambda client, handler, event, args: calls.append(client.sid)
    world.core.handlers.add("disconnect", print, "/")
    sids = []
    for _ in range(200):
        session, _ = world.open()
        session.receive("40")
        (sid,) = world.core.clients["/"].keys() - set(sids)
        sids.append(sid)
        together(
            lambda session=session: session.close("ping timeout"),
            lambda session=session: session.receive("41"),
            lambda sid=sid: world.core.disconnect(sid, "/"),
        )
    assert runtime.stop(LIMIT)
    assert sorted(calls) == sorted(sids)


# Connection


class SlowClient:
    """The client's end of a socket pair, read in small bites."""

    def __init__(self, sock, bite=3000):
        self.sock, self.bite = sock, bite
        self.protocol = Protocol(CLIENT, state=OPEN, max_size=None)
        self.frames = []
        sock.settimeout(LIMIT)

    def read_until(self, enough):
        """Read until ``enough()`` or the end."""
        while not enough():
            data = self.sock.recv(self.bite)
            if not data:
                return
            self.protocol.receive_data(data)
            assert self.protocol.parser_exc is None
            self.frames += self.protocol.events_received()

    @property
    def messages(self):
        return [bytes(frame.data) for frame in self.frames if frame.opcode in (1, 2)]


@contextmanager
def connected(hub, max_backlog=1 << 30, buffer=4096, **options):
    """Yield ``(connection, client's socket, received messages, reasons of the end)``."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    ours.setblocking(False)
    received, reasons = [], []
    connection = Connection(hub, ours, Reader(1 << 20), max_backlog, **options)
    connection.open(received.append, reasons.append, b"")
    with theirs:
        yield connection, theirs, received, reasons
    settle(hub)


def settle(hub):
    """Wait until the hub has done what was left to it."""
    done = threading.Event()
    hub.call_soon(done.set)
    assert done.wait(LIMIT)


def test_messages_of_many_writers_arrive_whole_and_in_each_ones_order(hub):
    writers, count = 8, 40
    with connected(hub) as (connection, theirs, _, _):
        client = SlowClient(theirs)

        def write(writer):
            choose = random.Random(writer)
            for i in range(count):
                size = choose.choice([10, 200, 5000, 70000])
                head = f"4{writer} {i} {size}"
                # One packet with two attachments, as Socket.IO sends it: its frames may not be torn apart.
                connection.write([Frame(head), Frame(b"%d" % writer * size), Frame(b"%d,%d" % (writer, i))])

        together(
            *(lambda writer=writer: write(writer) for writer in range(writers)),
            lambda: client.read_until(lambda: len(client.frames) == 3 * writers * count),
        )
        connection.close()
        client.read_until(lambda: client.frames[-1].opcode == 8)
    following = dict.fromkeys(range(writers), 0)
    for head, body, tail in zip(*[iter(client.messages)] * 3, strict=True):
        writer, i, size = map(int, head[1:].split())
        assert i == following[writer]
        following[writer] += 1
        assert body == b"%d" % writer * size
        assert tail == b"%d,%d" % (writer, i)
    assert set(following.values()) == {count}


def test_a_client_that_does_not_read_is_closed_at_the_limit(hub):
    ended, why = threading.Event(), []
    with connected(hub, max_backlog=100_000, slow=why.append) as (connection, theirs, _, reasons):
        connection.open(lambda message: None, lambda reason: (reasons.append(reason), ended.set()), b"")
        together(*[lambda: [connection.write([Frame(b"x" * 100)]) for _ in range(1000)]] * 2)
        assert ended.wait(LIMIT)
        assert reasons == ["transport error"]
        connection.write([Frame("4late")])
        connection.close()
        client = SlowClient(theirs)
        client.read_until(lambda: client.frames and client.frames[-1].opcode == 8)
        assert 0 < len(client.messages) < 2000, "it gets what waited, and then why"
        assert bytes(client.frames[-1].data) == (1008).to_bytes(2, "big") + b"slow consumer"
    assert len(why) == 1 and "the limit is 100000" in why[0]


def test_a_client_that_takes_nothing_is_closed_in_time(hub, monkeypatch):
    monkeypatch.setattr(connections, "STALL", 0.05)
    ended, why = threading.Event(), []
    with connected(hub, slow=why.append) as (connection, theirs, _, reasons):
        connection.open(lambda message: None, lambda reason: (reasons.append(reason), ended.set()), b"")
        connection.write([Frame(b"x" * 1_000_000)])
        assert connection.waiting > 900_000
        assert ended.wait(LIMIT)
        assert reasons == ["transport error"] and "took none of" in why[0]
        theirs.settimeout(LIMIT)
        while theirs.recv(1 << 20):
            pass


def test_a_client_that_takes_a_little_all_the_time_is_not_closed(hub, monkeypatch):
    monkeypatch.setattr(connections, "STALL", 0.2)
    with connected(hub) as (connection, theirs, _, reasons):
        connection.write([Frame(b"x" * 300_000)])
        client = SlowClient(theirs)
        client.read_until(lambda: client.frames)
        assert reasons == [] and len(client.messages[0]) == 300_000


def test_what_follows_a_message_above_the_limit_has_the_limit_to_itself(hub):
    with connected(hub, max_backlog=1000) as (connection, theirs, _, reasons):
        connection.write([Frame(b"x" * 1_000_000)])
        for _ in range(10):
            connection.write([Frame(b"y" * 90)])  # 92 bytes each
        settle(hub)
        assert reasons == []
        client = SlowClient(theirs, 65536)
        client.read_until(lambda: len(client.frames) == 11)
        assert reasons == []


def test_one_large_message_is_no_sign_of_a_slow_client(hub):
    with connected(hub, max_backlog=1000) as (connection, theirs, _, reasons):
        connection.write([Frame(b"x" * 1_000_000)])
        client = SlowClient(theirs, 65536)
        client.read_until(lambda: client.frames)
        assert reasons == [] and len(client.messages[0]) == 1_000_000


def test_close_comes_last_and_once_whatever_is_written_meanwhile(hub):
    for round_ in range(40):
        with connected(hub) as (connection, theirs, _, reasons):
            client = SlowClient(theirs, 65536)
            together(
                lambda c=connection: [c.write([Frame(f"4{i}")]) for i in range(50)],
                lambda c=connection: [c.write([Frame(b"b" * 2000)]) for _ in range(20)],
                lambda c=connection: c.close(1001, "away"),
                lambda c=connection: c.close(1008, "again"),
                lambda c=client: c.read_until(lambda: c.frames and c.frames[-1].opcode == 8),
            )
            assert [frame.opcode for frame in client.frames].count(8) == 1
            assert int.from_bytes(client.frames[-1].data[:2], "big") in (1001, 1008)
            texts = [data for data in client.messages if data[:1] == b"4"]
            assert texts == [b"4%d" % i for i in range(len(texts))], round_
            theirs.sendall(client_frame(8, client.frames[-1].data))
            client.read_until(lambda: False)
            assert reasons == [], "who closes is not told of the end"


def test_messages_both_ways_at_once(hub):
    with connected(hub) as (connection, theirs, received, _):
        client = SlowClient(theirs)
        done = threading.Event()
        wanted = 200
        connection.open(lambda message: (received.append(message), len(received) == wanted and done.set()), None, b"")
        together(
            lambda: [connection.write([Frame(b"x" * 3000)]) for _ in range(wanted)],
            lambda: [theirs.sendall(client_frame(1, b"%d" % i)) for i in range(wanted)],
            lambda: client.read_until(lambda: len(client.frames) == wanted),
        )
        assert done.wait(LIMIT)
        assert received == [str(i) for i in range(wanted)]


# The inbox of a client


class Owner:
    """Whose calls are kept in order.

    Attributes:
        pauses: What `pause` was called with.
    """

    def __init__(self):
        self.inbox = None
        self.pauses = []

    def pause(self, paused):
        self.pauses.append(paused)


def nothing(token, result, error):
    assert error is None, error


def test_no_call_is_lost_and_they_start_in_their_order(runtime):
    owner, started, ended = Owner(), [], threading.Event()
    total = 1000
    for i in range(total):
        runtime.run(owner, started.append, (i,), nothing, None)
    runtime.run(owner, ended.set, (), nothing, None)
    assert ended.wait(LIMIT)
    assert started == list(range(total))


def test_calls_given_while_the_worker_ends_are_not_lost(runtime):
    for _ in range(300):
        owner, done = Owner(), threading.Semaphore(0)
        runtime.run(owner, done.release, (), nothing, None)
        assert done.acquire(timeout=LIMIT)
        runtime.run(owner, done.release, (), nothing, None)  # the worker may be just about to leave
        assert done.acquire(timeout=LIMIT)


def test_the_first_calls_of_an_owner_from_two_threads(runtime):
    for _ in range(300):
        owner, done = Owner(), threading.Semaphore(0)
        running, overlaps = threading.Lock(), []

        def call(running=running, overlaps=overlaps, done=done):
            if not running.acquire(blocking=False):
                overlaps.append(True)
            else:
                running.release()
            done.release()

        together(*[lambda owner=owner, call=call: runtime.run(owner, call, (), nothing, None)] * 3)
        for _ in range(3):
            assert done.acquire(timeout=LIMIT)
        assert overlaps == []


def test_calls_of_many_threads_keep_each_ones_order(runtime):
    owner, started, done = Owner(), [], threading.Event()

    def give(thread):
        for i in range(200):
            runtime.run(owner, started.append, ((thread, i),), nothing, None)

    together(*(lambda thread=thread: give(thread) for thread in range(4)))
    runtime.run(owner, done.set, (), nothing, None)
    assert done.wait(LIMIT)
    assert len(started) == 800
    for thread in range(4):
        assert [i for who, i in started if who == thread] == list(range(200))


def test_a_slow_call_does_not_hold_up_the_next(threads):
    owner = Owner()
    for _ in range(20):
        slow, quick, ended = threading.Event(), threading.Event(), threading.Event()
        threads.run(owner, slow.wait, (LIMIT,), lambda *answer, ended=ended: ended.set(), None)
        threads.run(owner, quick.set, (), nothing, None)
        assert quick.wait(LIMIT), "the second call has to start while the first still runs"
        assert not ended.is_set()
        slow.set()
        assert ended.wait(LIMIT)


def test_slow_calls_of_one_owner_do_not_hold_up_another(threads):
    busy, quick, free = Owner(), threading.Event(), threading.Event()
    for _ in range(30):
        threads.run(busy, free.wait, (LIMIT,), nothing, None)
    threads.run(Owner(), quick.set, (), nothing, None)
    assert quick.wait(LIMIT)
    free.set()


def test_an_owner_has_no_more_calls_running_than_allowed():
    runtime = Threads(per_owner=3)
    owner, free = Owner(), threading.Event()
    running, most, lock, urgent = [0], [0], threading.Lock(), threading.Event()
    three = threading.Semaphore(0)

    def call():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        three.release()
        free.wait(LIMIT)
        with lock:
            running[0] -= 1

    for _ in range(3):
        runtime.run(owner, call, (), nothing, None)
    for _ in range(3):
        assert three.acquire(timeout=LIMIT)
    runtime.run(owner, urgent.set, (), nothing, None, urgent=True)
    assert urgent.wait(LIMIT), "an urgent call starts all the same"
    for _ in range(20):
        runtime.run(owner, call, (), nothing, None)
    free.set()
    assert runtime.stop(LIMIT)
    assert most[0] <= 4 and running[0] == 0


def test_ordered_calls_run_strictly_one_after_another():
    runtime = Threads(ordered=True)
    owner, log, gate = Owner(), [], threading.Semaphore(0)

    def call(i):
        log.append(("begin", i))
        gate.acquire(timeout=LIMIT)
        log.append(("end", i))

    together(
        lambda: [gate.release() for _ in range(100)],
        lambda: [runtime.run(owner, call, (i,), nothing, None) for i in range(100)],
    )
    assert runtime.stop(LIMIT)
    assert log == [(what, i) for i in range(100) for what in ("begin", "end")]


@pytest.mark.parametrize("ordered", [False, True])
def test_stop_runs_what_waits(ordered):
    for _ in range(10):
        runtime = Threads(ordered=ordered)
        owners, ran = [Owner() for _ in range(10)], []
        for i in range(200):
            runtime.run(owners[i % 10], ran.append, (i,), nothing, None)
        assert runtime.stop(LIMIT)
        assert sorted(ran) == list(range(200))


@pytest.mark.parametrize("ordered", [False, True])
def test_who_was_paused_goes_on_in_the_end(ordered):
    runtime = Threads(ordered=ordered)
    for _ in range(100):
        owner, done = Owner(), threading.Event()

        def give(owner=owner):
            for _ in range(3 * FULL):
                runtime.run(owner, int, (), nothing, None)

        together(give, give)
        runtime.run(owner, done.set, (), nothing, None)
        assert done.wait(LIMIT)
        assert owner.pauses == [True, False] * (len(owner.pauses) // 2)
    assert runtime.stop(LIMIT)


def test_a_full_inbox_pauses_its_owner(threads):
    owner, free, done = Owner(), threading.Event(), threading.Event()
    for _ in range(16 + FULL + 2):
        threads.run(owner, free.wait, (LIMIT,), nothing, None)
    threads.run(owner, done.set, (), nothing, None)
    assert owner.pauses == [True]
    free.set()
    assert done.wait(LIMIT)
    assert owner.pauses == [True, False]


# Polling


def test_polls_and_writes_lose_nothing_and_keep_the_order():
    for _ in range(30):
        polling = Polling(threading.Lock(), 1 << 30, lambda: None)
        writers, count = 3, 60
        got, more = [], threading.Event()

        def write(writer, polling=polling, count=count):
            for i in range(count):
                polling.write([Frame(f"4{writer} {i}"), Frame(b"%d %d" % (writer, i))])

        def poll(polling=polling, got=got, more=more, total=2 * writers * count):
            while len(got) < total:
                answers = []
                more.clear()

                def ready(frames, answers=answers):
                    answers.append(frames)
                    more.set()

                frames = polling.poll(ready)
                if frames is None:
                    assert more.wait(LIMIT)
                    (frames,) = answers
                got.extend(frame.message for frame in frames)

        together(poll, *(lambda writer=writer: write(writer) for writer in range(writers)))
        check_pairs(got, writers, count)


def check_pairs(got, writers, count):
    """Every packet is there once, its two frames side by side, in its writer's order."""
    assert len(got) == 2 * writers * count
    following = [0] * writers
    for text, attachment in zip(*[iter(got)] * 2, strict=True):
        assert text[1:].encode() == attachment
        writer, i = map(int, text[1:].split())
        assert i == following[writer]
        following[writer] += 1


def test_an_upgrade_amid_writes_and_polls_loses_nothing(runtime):
    logger = logging.getLogger("flask_realtime.tests")
    for _ in range(60):
        engine = Engine(
            Options(max_backlog=1 << 30), runtime, lambda s: None, lambda s, m: None, lambda s, r: None, logger
        )
        session = engine.prepare({})
        engine.open_polling(session)
        transport, polled, writers, count = KeptTransport(), [], 2, 60

        def write(writer, session=session, count=count):
            for i in range(count):
                session.send([Frame(f"4{writer} {i}"), Frame(b"%d %d" % (writer, i))])

        def client(session=session, transport=transport, polled=polled):
            assert session.begin_probe(transport)
            assert not session.receive_probe(transport, "2probe")
            for _ in range(5):
                polled.extend(frame.message for frame in session.polling.poll(None) or ())
            assert session.receive_probe(transport, "5")

        together(client, *(lambda writer=writer: write(writer) for writer in range(writers)))
        assert transport.messages[0] == "3probe"
        check_pairs(polled + transport.messages[1:], writers, count)
        session.close("transport close")


def test_only_one_of_several_polls_waits():
    for _ in range(200):
        polling, refused, answered = Polling(threading.Lock(), 100, lambda: None), [], []

        def poll(polling=polling, refused=refused, answered=answered):
            try:
                polling.poll(answered.append)
            except RemoteProtocolError:
                refused.append(True)

        together(poll, poll, poll)
        assert len(refused) == 2
        polling.write([Frame("4")])
        assert len(answered) == 1


def test_a_poll_is_withdrawn_or_answered_but_never_both():
    for _ in range(300):
        polling, answered, forgotten = Polling(threading.Lock(), 100, lambda: None), [], []
        ready = answered.append
        polling.poll(ready)
        together(
            lambda p=polling: p.write([Frame("4a")]),
            lambda p=polling, ready=ready, forgotten=forgotten: forgotten.append(p.forget(ready)),
        )
        assert len(answered) + sum(forgotten) == 1
        if forgotten[0]:
            assert [frame.message for frame in polling.poll(ready)] == ["4a"]


def test_a_session_that_ends_while_it_upgrades_takes_the_websocket_along():
    threads = Threads()
    ended = []
    engine = Engine(
        Options(),
        threads,
        lambda session: None,
        lambda session, message: None,
        lambda session, reason: ended.append(reason),
        logging.getLogger("flask_realtime.tests"),
    )
    session, transport = engine.prepare({}), KeptTransport()
    closer = threading.Thread(target=session.close, args=("server disconnect",), daemon=True)
    write = transport.write

    def write_while_it_ends(frames):
        transport.write = write
        write(frames)
        closer.start()  # it ends the session at once, or as soon as the upgrade is over

    engine.open_polling(session)
    assert session.begin_probe(transport)
    session.receive_probe(transport, "2probe")
    session.send((Frame("4waits"),))
    transport.write = write_while_it_ends
    session.receive_probe(transport, "5")
    closer.join(LIMIT)
    assert not closer.is_alive()
    threads.stop(0)
    assert ended == ["server disconnect"]
    assert transport.closed


def test_emits_of_threads_that_wait_for_each_other_keep_their_order():
    """One emits and passes the baton, the next one emits: whatever was kept for a moment stays before it."""
    threads, count = 4, 500
    runtime = Threads()
    party = Party()
    party.core = Core(
        runtime, party.codec, party.invoke, Settings(), party.logger, clock=time.perf_counter, join=False
    )
    party.engine.on_connect, party.engine.on_message = party.core.opened, party.core.received
    guest = party.join()
    batons = [threading.Semaphore(0) for _ in range(threads)]

    def runner(place):
        for round_ in range(count):
            assert batons[place].acquire(timeout=LIMIT)
            party.core.emit("news", [round_ * threads + place], "/")
            batons[(place + 1) % threads].release()

    batons[0].release()
    together(*[lambda place=place: runner(place) for place in range(threads)])
    party.core.flush()
    while party.core._burst.active:
        settle(runtime.hub)
    assert [number for _, number in guest.events()] == list(range(threads * count))
    assert len(guest.transport.batches) < threads * count, "some were sent together"
    runtime.stop(0)
