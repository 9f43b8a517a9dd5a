"""Brokers that go and come back, and what nobody should have sent: what is lost, what is told, who notices.

``BROKER_DOWN`` is how many seconds a broker is away that is killed in the midst of a broadcast.
"""

import collections
import contextlib
import hashlib
import hmac
import itertools
import json
import os
import random
import subprocess
import sys
import time

import pytest
import services

from .brokers import meet, queue, record, started, url_of
from .clients import LIMIT, Client, fence
from .servers import CRASH, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(600)]

EVENTS, RATE = 10_000, 1500  # of each sender, and how many a second
DOWN = float(os.environ.get("BROKER_DOWN", "2"))  # seconds
BACK = 5  # seconds after which a process has to be subscribed again
PASSWORD = "hush-hush"
PROTECTED = ["--requirepass", PASSWORD]
BROKERS = {
    "redis": lambda folder: services.Redis(folder, arguments=PROTECTED),
    "streams": lambda folder: services.Redis(folder, persistent=True, arguments=PROTECTED),
    "amqp": services.RabbitMQ,
}
MAY_BE_LOST = 1500  # of a sender, by plain publish and subscribe: what was on its way
LOSES_NOTHING = ("streams", "amqp")


class Outage:
    """A broker that is there or not, and what its URL is, with a password in it.

    Attributes:
        name: Of the backplane.
        broker, url: Of the queue.
    """

    def __init__(self, name, folder):
        self.name, self.broker = name, BROKERS[name](folder)
        self.url = url_of(name, self.broker)
        if "redis" in self.url:
            self.url = self.url.replace("://", f"://:{PASSWORD}@")
        self.masked = self.url.replace(PASSWORD, "***").replace("guest:guest", "guest:***")

    def servers(self, directory, **options):
        """Return a context of two servers."""
        return pair(directory, message_queue=self.url, channel="faults", **options)


def pair(directory, **options):
    """Run two servers."""
    return started(directory, ("gunicorn-threads", "gevent"), alarm=CRASH, **options)


@pytest.fixture(scope="module", params=BROKERS)
def outage(request, tmp_path_factory):
    outage = Outage(request.param, tmp_path_factory.mktemp(request.param))
    yield outage
    outage.broker.stop()


def gaps(server):
    """Return what the program was told of messages that are missing."""
    return [values[0] for name, *values in server.do("answers") if name == "gap"]


def told(server, text):
    """Return the lines of a log that have a text."""
    return [line for line in server.log.read_text().splitlines() if text in line]


def test_a_broker_that_is_away_at_the_start(outage, tmp_path):
    with outage.servers(tmp_path) as servers:
        with contextlib.ExitStack() as stack:
            here, there = [stack.enter_context(Client(server)) for server in servers]
            for server, client in zip(servers, (here, there), strict=True):
                assert not queue(server)["connected"]
                assert client.ask("echo", 1) == [[1]]
                server.do("emit", "news", "own")
                assert fence(server, client) == [[["news", "own"]]]
            outage.broker.start()
            began = time.monotonic()
            meet(servers)
            assert time.monotonic() - began < BACK
            for client in (here, there):
                client.heard.clear()  # what waited has come meanwhile, or comes before the fence
            for sender in servers:
                sender.do("emit", "news", sender.port)
                for heard in fence(sender, here, there):
                    assert heard[-1] == ["news", sender.port]
        for server in servers:
            (line,) = told(server, "will try again")
            assert outage.masked in line
            assert len(told(server, "is back after")) == 1
            log = server.log.read_text()
            assert PASSWORD not in log and "guest:guest" not in log and "Traceback" not in log


class Counting(Client):
    """A client that keeps the numbers of events, and when each came.

    Attributes:
        numbers, times: By the event's name.
    """

    def __init__(self, server):
        self.numbers, self.times = collections.defaultdict(list), collections.defaultdict(list)
        super().__init__(server)

    def _take(self, kind, number, text):
        super()._take(kind, number, text)
        event, *values = self.heard.pop()
        self.numbers[event] += values
        self.times[event].append(time.monotonic())

    def last(self, event):
        """Return whether the last event has come."""
        return self.numbers[event][-1:] == [EVENTS - 1]

    def figures(self, event):
        numbers = self.numbers[event]
        return {
            "lost": EVENTS - len(set(numbers)),
            "doubled": len(numbers) - len(set(numbers)),
            "reordered": sum(one > two for one, two in itertools.pairwise(numbers)),
        }

    def silence(self, event):
        """Return the longest time between two events, in milliseconds."""
        times = self.times[event]
        return round(1000 * max(two - one for one, two in itertools.pairwise(times)))


OUTSIDE = """
import sys, time
from flask_realtime import SocketIO

socketio = SocketIO(message_queue=sys.argv[1], channel="faults")
count, rate = int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
for number in range(count):
    time.sleep(max(0, number / rate - (time.monotonic() - began)))
    socketio.emit("outside", number)
assert socketio.flush(150)
"""


@pytest.mark.alone
def test_a_broker_that_is_killed_in_the_midst_of_a_broadcast(outage, tmp_path):
    if outage.broker.process is None:
        outage.broker.start()
    with outage.servers(tmp_path) as servers, contextlib.ExitStack() as stack:
        here, there = [stack.enter_context(Counting(server)) for server in servers]
        meet(servers)
        servers[0].do("pump", "inside", 0, EVENTS, RATE)
        command = [sys.executable, "-c", OUTSIDE, outage.url, str(EVENTS), str(RATE)]
        outside = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        stack.callback(outside.kill)
        for event in ("inside", "outside"):
            there.wait(lambda event=event: len(there.numbers[event]) >= EVENTS // 4, "the first events")

        outage.broker.kill()
        time.sleep(DOWN)  # so long is it away
        outage.broker.start()
        back = time.monotonic()
        for server in servers:
            wait_until(lambda server=server: queue(server)["connected"], 60, "the way to the broker")
        seconds = time.monotonic() - back

        errors = outside.communicate(timeout=200)[1]
        assert outside.returncode == 0, errors
        for client in (here, there):
            for event in ("inside", "outside"):
                so_far = f"{len(client.numbers[event])} so far, queues {[queue(server) for server in servers]}"
                what = f"the last event from {event} to {'here' if client is here else 'there'}; {so_far}"
                client.wait(lambda client=client, event=event: client.last(event), what, 200)
        counted = [queue(server) for server in servers]
        for server in servers:
            wait_until(lambda server=server: sum(gaps(server)) == queue(server)["lost"], what="news of what is missing")
            assert gaps(server).count(0) == (outage.name not in LOSES_NOTHING)
    figures = {
        "a process to its own clients": here.figures("inside"),
        "a process to another's clients": there.figures("inside"),
        "an external process to one's clients": here.figures("outside"),
        "an external process to another's clients": there.figures("outside"),
        "counted as lost": [numbers["lost"] for numbers in counted],
        "counted as repeated": [numbers["repeated"] for numbers in counted],
        "seconds until both were subscribed": round(seconds, 2),
        "longest silence of a process's own events in ms": here.silence("inside"),
    }
    record(outage.name, figures)

    others = list(figures.values())[1:4]
    assert here.numbers["inside"] == list(range(EVENTS))
    for stream in others:
        assert stream["doubled"] == stream["reordered"] == 0, figures
        assert stream["lost"] == 0 or outage.name not in LOSES_NOTHING, figures
        assert stream["lost"] < MAY_BE_LOST
    for counted_lost, lost in zip(
        figures["counted as lost"], (others[1]["lost"], others[0]["lost"] + others[2]["lost"]), strict=True
    ):
        assert lost <= counted_lost <= lost + 2, figures  # they have lost a word of each other too
    assert [numbers["dropped"] for numbers in counted] == [0, 0]
    assert seconds < BACK
    for log in (*(server.log.read_text() for server in servers), errors):
        assert log.count("will try again") == log.count("is back after") == 1, log
        assert "Traceback" not in log


# What nobody should have sent.

SIGNED = "a secret of these tests"
FIELDS = {
    "emit": ["event", "data", "namespace", "room", "skip_sid", "callback", "binary", "host_id", "n"],
    "callback": ["host_id", "sid", "namespace", "id", "args", "from", "n"],
    "disconnect": ["sid", "namespace", "host_id", "n"],
    "enter_room": ["sid", "room", "namespace", "host_id", "n"],
    "leave_room": ["sid", "room", "namespace", "host_id", "n"],
    "close_room": ["room", "namespace", "host_id", "n"],
    "hello": ["host_id", "n"],
    "beat": ["host_id", "n"],
    "bye": ["host_id", "n"],
    "query": ["host_id", "n", "id", "what", "namespace", "subject"],
    "answer": ["host_id", "n", "id", "result", "from"],
}
WRONG = [None, True, 7, -1, 1.5, 10**40, "", "x", "/", [], [[]], [None, 1], {}, {"a": [1]}, [{"_placeholder": True}]]


def garbage():
    """Return 300 messages: noise, JSON that is no message, and messages with wrong fields."""
    dice = random.Random(5)
    yield from (dice.randbytes(size) for size in range(60))
    yield from (b"1", b"null", b'"text"', b"[]", b"{}", b"NaN", b"\x80\x04K\x01.", b'{"method":', b"[" * 100_000)
    yield from (
        b"[" * 900 + b"]" * 900,
        b'{"method":"emit","data":' + b"[" * 90_000,
        b'{"method": "emit", "namespace": ',
    )
    yield from (json.dumps({"method": value}).encode() for value in WRONG)
    methods = list(FIELDS)
    for number in range(300 - 60 - 12 - len(WRONG)):
        method = methods[number % len(methods)]
        fields = {name: dice.choice(WRONG) for name in FIELDS[method] if dice.random() < 0.8}
        yield json.dumps({"method": method, **fields}).encode()


@pytest.fixture
def redis(tmp_path):
    broker = services.Redis(tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture
def channel(redis):
    """A function that publishes bytes, and all that was published."""
    driver = pytest.importorskip("redis", reason="needs redis-py: pip install redis")
    with driver.Redis(port=redis.port) as connection, connection.pubsub() as subscription:
        subscription.subscribe("safety")
        assert subscription.get_message(timeout=LIMIT)["type"] == "subscribe"
        yield Channel(connection, subscription)


class Channel:
    """The channel, without the package."""

    def __init__(self, connection, subscription):
        self._connection, self._subscription = connection, subscription

    def publish(self, data):
        self._connection.publish("safety", data)

    def heard(self, wanted):
        """Return the next message for which ``wanted(data)`` is true."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            message = self._subscription.get_message(timeout=1)
            if message and wanted(message["data"]):
                return message["data"]
        raise AssertionError("no such message came")


def test_garbage_on_the_channel_harms_nobody(redis, channel, tmp_path):
    messages = list(garbage())
    assert len(messages) == 300
    with pair(tmp_path, message_queue=redis.url, channel="safety") as servers:
        with Client(servers[0]) as here, Client(servers[1]) as there:
            meet(servers)
            before = [queue(server) for server in servers]
            for data in messages:
                channel.publish(data)
            for server in servers:
                fence(server, here, there)
                server.do("emit", "news", server.port)
                assert fence(server, here, there) == [[["news", server.port]]] * 2
            for server, old in zip(servers, before, strict=True):
                new = queue(server)
                assert new["received"] - old["received"] >= 300
                assert 100 < new["refused"] - old["refused"] <= 300
                assert new["reconnects"] == 0 and new["connected"]
                assert server.do("count") >= 2
            assert not here.ended and not there.ended
        for server in servers:
            log = server.log.read_text()
            assert "Traceback" not in log and "will try again" not in log, log
            assert len(told(server, "is ignored")) < 20  # one line a second


def test_with_a_secret_only_what_is_signed_and_new_is_obeyed(redis, channel, tmp_path):
    options = {"message_queue": redis.url, "channel": "safety", "message_queue_secret": SIGNED}
    with pair(tmp_path, **options) as servers:
        with Client(servers[0]) as here, Client(servers[1]) as there:
            meet(servers)
            servers[0].do("emit", "news", "signed")
            assert fence(servers[0], here, there) == [[["news", "signed"]]] * 2
            signed = channel.heard(lambda data: b"signed" in data and b'"news"' in data)
            servers[0].do("enter_room", there.sid, "room")
            entered = channel.heard(lambda data: b"enter_room" in data)
            before = [queue(server) for server in servers]

            mark = signed.index(b'"news"')
            moment = signed.index(b'"time":') + 8
            forged = [
                json.dumps({"method": "emit", "event": "evil", "data": [1], "namespace": "/", "room": None}).encode(),
                json.dumps({"method": "disconnect", "sid": there.sid, "namespace": "/"}).encode(),
                signed[:mark] + b'"evil"' + signed[mark + 6 :],
                signed[:moment] + b"9" + signed[moment + 1 :],
                signed.replace(b'{"signature":"', b'{"signature":"0', 1),
                with_another_secret(there.sid),
                b"garbage",
            ]
            replayed = [signed, entered]
            for data in [*forged, *replayed, *replayed]:
                channel.publish(data)
            for server in servers:
                assert fence(server, here, there) == [[], []]
            assert not there.ended
            after = [queue(server) for server in servers]
            assert [new["refused"] - old["refused"] for new, old in zip(after, before, strict=True)] == [7, 7]
            # The one that it pretends to come from knows that it has not sent it again.
            assert [new["repeated"] - old["repeated"] for new, old in zip(after, before, strict=True)] == [0, 4]
        for server in servers:
            assert "Traceback" not in server.log.read_text()


def with_another_secret(sid):
    """Return a message that would put a client out, signed with a secret that isn't the fleet's."""
    body = b'"time":%.3f,"method":"disconnect","sid":"%b","namespace":"/","host_id":"x","n":1}' % (
        time.time(),
        sid.encode(),
    )
    signature = hmac.new(b"another secret", body, hashlib.sha256).hexdigest().encode()
    return b'{"signature":"%b",%b' % (signature, body)
