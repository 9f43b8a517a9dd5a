"""The brokers, each started when the first test asks for it, and the list of bodies that the contract runs over."""

import contextlib
import gc
import threading
import time
import warnings

import pytest
import services

from flask_realtime import backplanes
from flask_realtime.errors import BackplaneError

LIMIT = 60
"""Seconds after which something that should happen won't."""


BROKERS = {
    "redis": lambda folder: services.Redis(folder),
    "persistent-redis": lambda folder: services.Redis(folder, persistent=True),
    "cluster": services.RedisCluster,
    "rabbitmq": services.RabbitMQ,
    "kafka": services.Kafka,
    "zmq": services.ZmqProxy,
}


@pytest.fixture(scope="session")
def brokers(tmp_path_factory):
    """Return a function: a key of ``BROKERS`` -> the running broker."""
    running = {}

    def get(name):
        if name not in running:
            broker = BROKERS[name](tmp_path_factory.mktemp(name))
            running[name] = broker.start()
        return running[name]

    yield get
    for broker in running.values():
        broker.stop()


class Body:
    """One of the bodies, at its broker.

    Attributes:
        keeps: Whether it goes on where it was.
    """

    def __init__(self, name, broker):
        self.name, self.broker, self.url = name, broker, broker.url
        self.keeps = name in ("streams", "rabbitmq", "kafka")
        if name == "streams":
            self.url = self.url.replace("redis://", "redis+streams://")
        if name == "unix":
            self.url = f"unix://{broker.socket}"

    def open(self, channel, **options):
        return backplanes.open(self.url, channel, **options)

    def closed_port(self):
        """Return a URL of the same kind, with a password, of a port that nobody listens on."""
        port = services.free_port()
        return {
            "redis": f"redis://user:hush@127.0.0.1:{port}/0",
            "unix": "unix://user:hush@/nowhere/at/all.sock",
            "cluster": f"redis+cluster://user:hush@127.0.0.1:{port}",
            "streams": f"redis+streams://user:hush@127.0.0.1:{port}",
            "rabbitmq": f"amqp://user:hush@127.0.0.1:{port}//",
            "kafka": f"kafka://127.0.0.1:{port}",
            "zmq": f"zmq+tcp://127.0.0.1:{port}+{services.free_port()}",
        }[self.name]


BODIES = {
    "redis": "redis",
    "unix": "redis",
    "cluster": "cluster",
    "streams": "persistent-redis",
    "rabbitmq": "rabbitmq",
    "kafka": "kafka",
    "zmq": "zmq",
}


# kafka-python leaves the sockets of connections that failed to the garbage collector.
LEAVES_SOCKETS = [pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]


@pytest.fixture(params=[pytest.param(name, marks=LEAVES_SOCKETS if name == "kafka" else ()) for name in BODIES])
def body(request, broker_of):
    yield broker_of(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def broker_of(brokers):
    """Return a function: a key of ``BODIES`` -> `Body`."""
    return lambda name: Body(name, brokers(BODIES[name]))


def publish(plane, messages, limit=LIMIT):
    """Publish as the bus does: all again, until it works."""
    end = time.monotonic() + limit
    while True:
        try:
            return plane.publish(messages)
        except BackplaneError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Listening:
    """What a backplane hears, in a thread of its own that listens again whenever it fails, as the bus does.

    Attributes:
        messages: All that came.
        errors: What was raised.
        quiet: How often None came.
    """

    def __init__(self, plane):
        self.plane = plane
        self.messages, self.errors = [], []
        self.quiet = self.begun = self.ended = 0
        self._going = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.wait(lambda: self.begun)

    def _run(self):
        while self._going:
            first = True
            try:
                for data in self.plane.listen():
                    with self._changed:
                        if data is not None:
                            assert not first
                            self.messages.append(data)
                        self.begun += first
                        self.quiet += data is None and not first
                        first = False
                        self._changed.notify_all()
                    if not self._going:
                        break
            except Exception as error:
                with self._changed:
                    error.__cause__ = None
                    self.errors.append(error.with_traceback(None))  # a traceback would keep connections
                    self._changed.notify_all()
                time.sleep(0.05)
            with self._changed:
                self.ended += 1
                self._changed.notify_all()

    def wait(self, condition, limit=LIMIT):
        with self._changed:
            reached = self._changed.wait_for(condition, limit)
            state = f"{len(self.messages)} messages, begun {self.begun}, quiet {self.quiet}, {self.errors[-3:]}"
        assert reached, state

    def get(self, count, limit=LIMIT):
        """Return the messages when there are so many."""
        self.wait(lambda: len(self.messages) >= count, limit)
        return self.messages

    def stop(self):
        self._going = False
        self.plane.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def listening():
    """Return `Listening`, whose objects end with the test."""
    made = []

    def listen(plane):
        made.append(Listening(plane))
        return made[-1]

    yield listen
    for each in made:
        each.stop()


@pytest.fixture
def opened():
    """Return a function that opens a backplane which is closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def open(body, channel, **options):
            plane = body.open(channel, **options)
            stack.callback(plane.close)
            return plane

        yield open
