"""Doubles of the ports in `flask_realtime.typing`: a runtime whose clock is moved by hand, a transport that keeps."""

import heapq
import itertools
import logging

from websockets.frames import Frame as ClientFrame
from websockets.frames import Opcode

from flask_realtime.protocol.engineio.engine import Engine
from flask_realtime.protocol.engineio.frame import MESSAGE
from flask_realtime.protocol.engineio.options import Options
from flask_realtime.protocol.engineio.requests import Request, answer
from flask_realtime.protocol.socketio.core import Core, Settings
from flask_realtime.protocol.socketio.packets import CONNECT, EVENT, Limits, Packet, TextCodec

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
    "Sec-WebSocket-Version": "13",
}


class StrictLock:
    """A lock that tells of a deadlock instead of making one.

    Attributes:
        meanwhile: Called once before the lock is taken next: what "another thread" does just then.
    """

    def __init__(self):
        self.taken = False
        self.meanwhile = None

    def __enter__(self):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        assert not self.taken, "a lock is taken twice in one call chain: with threads this is a deadlock"
        self.taken = True

    def __exit__(self, *error):
        self.taken = False


class ManualEvent:
    """An event; waiting for it lets the runtime's clock run out instead of blocking."""

    def __init__(self, runtime):
        self._runtime, self._set = runtime, False

    def set(self):
        self._set = True

    def is_set(self):
        return self._set

    def wait(self, timeout=None):
        if not self._set:
            self._runtime.waited.append(timeout)
            self._runtime.while_waiting()
        return self._set


class ManualTimer:
    def __init__(self, due, number, function):
        self.due, self.number, self.function = due, number, function

    def cancel(self):
        self.function = None

    def __lt__(self, other):
        return (self.due, self.number) < (other.due, other.number)


class FinishedTask:
    def join(self, timeout=None):
        pass


class ManualRuntime:
    """The runtime port without threads: handlers run inline, or when told; time passes when told.

    Attributes:
        time: What the clock says, in seconds.
        hold: Whether handlers wait in `jobs` for `run_jobs`.
        jobs: Handlers that wait.
        urgent: Of each handler that was run or waits, whether it was urgent.
        waited: Timeouts of the waits for events.
        while_waiting: Called when an event is waited for: what comes in meanwhile.
    """

    def __init__(self):
        self.time = 0.0
        self.hold = False
        self.jobs, self.urgent, self.waited, self.locks = [], [], [], []
        self.while_waiting = lambda: None
        self._timers, self._numbers = [], itertools.count()

    def call_soon(self, function, *args):
        function(*args)

    def run(self, owner, handler, args, done, token, urgent=False, habit=None, size=0):
        self.urgent.append(urgent)
        self.jobs.append((handler, args, done, token))
        if not self.hold:
            self.run_jobs()

    def run_jobs(self):
        """Run what waits, in order, and what that leads to."""
        while self.jobs:
            handler, args, done, token = self.jobs.pop(0)
            try:
                result = handler(*args)
            except Exception as error:
                done(token, None, error)
            else:
                done(token, result, None)

    def call_later(self, seconds, function):
        assert seconds >= 0
        timer = ManualTimer(self.time + seconds, next(self._numbers), function)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def timers(self):
        """How many calls are due some time."""
        return sum(timer.function is not None for timer in self._timers)

    def advance(self, seconds):
        """Let time pass and do what comes due, each at its time."""
        end = self.time + seconds
        while self._timers and self._timers[0].due <= end:
            timer = heapq.heappop(self._timers)
            self.time = max(self.time, timer.due)
            if timer.function is not None:
                timer.function()
        self.time = end

    def spawn(self, function, *args, **kwargs):
        function(*args, **kwargs)
        return FinishedTask()

    def event(self):
        return ManualEvent(self)

    def lock(self):
        self.locks.append(StrictLock())
        return self.locks[-1]

    def sleep(self, seconds):
        self.advance(seconds)

    def now(self):
        return self.time


class KeptTransport:
    """The transport port: keeps what it is told.

    Attributes:
        batches: Lists of messages, one for each write.
        closed: ``(code, reason)`` of each close.
        pauses: What `pause` was called with.
    """

    def __init__(self):
        self.batches, self.closed, self.pauses = [], [], []

    def write(self, frames):
        self.batches.append([frame.message for frame in frames])

    def close(self, code=1000, reason=""):
        self.closed.append((code, reason))

    def pause(self, paused):
        self.pauses.append(paused)

    @property
    def messages(self):
        return [message for batch in self.batches for message in batch]


class Floor:
    """An engine with its calls upwards recorded.

    Attributes:
        refusal: What the next connect answers.
        messages: ``(sid, message)``.
        ended: ``(sid, reason)``.
    """

    def __init__(self, **options):
        self.runtime = ManualRuntime()
        self.refusal = None
        self.messages, self.ended = [], []
        self.engine = Engine(
            Options(**options),
            self.runtime,
            lambda session: self.refusal,
            lambda session, message: self.messages.append((session.sid, message)),
            lambda session, reason: self.ended.append((session.sid, reason)),
            logging.getLogger("flask_realtime.tests"),
        )

    def request(self, method="GET", query="EIO=4&transport=polling", websocket=True, scheme="http", **headers):
        """Decide a request; a header's name is written with underscores."""
        named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        named.setdefault("host", "example.com")
        request = Request(method, query, lambda name: named.get(name.lower()), scheme, {"made by": "test"}, websocket)
        return answer(self.engine, request)

    def upgrade(self, query="EIO=4&transport=websocket", **headers):
        """Decide a proper WebSocket request."""
        named = {name.replace("-", "_"): value for name, value in UPGRADE.items()}
        return self.request(query=query, **{**named, **headers})

    def polling(self):
        """Open a session over polling."""
        before = set(self.engine.sessions)
        answered = self.request()
        assert answered.status == 200
        (sid,) = set(self.engine.sessions) - before
        return self.engine.sessions[sid]

    def websocket(self):
        """Open a session over a WebSocket.

        Returns:
            ``(session, transport)``.
        """
        before = set(self.engine.sessions)
        transport = KeptTransport()
        self.upgrade().start(transport)
        (sid,) = set(self.engine.sessions) - before
        return self.engine.sessions[sid], transport


def client_frame(opcode, payload=b"", fin=True, rsv1=False):
    """Return a client's frame as the websockets library makes it."""
    data = ClientFrame(Opcode(opcode), payload).serialize(mask=True)
    return bytes([data[0] & 0x7F | fin << 7 | rsv1 << 6]) + data[1:]  # also what the library wouldn't write


def octets(data):
    """Return the bytes one by one."""
    return [data[i : i + 1] for i in range(len(data))]


class Party:
    """A Socket.IO core on an engine, both on a manual runtime, with clients whose transports keep what they get.

    Attributes:
        calls: ``(sid, event, args)`` of each handler's call.
        answers: What the handler of an event returns, by event; an exception is raised, a function gets the client.

    Args:
        codec: `TextCodec` when None.
        options: Of the engine.
        bursts: Whether emits that follow each other closely are kept for a moment.
        **settings: Of the core.
    """

    def __init__(self, codec=None, options=None, bursts=False, **settings):
        self.runtime = ManualRuntime()
        self.calls, self.answers = [], {}
        self.codec = codec or TextCodec()
        self.logger = logging.getLogger("flask_realtime.tests")
        clock = self.runtime.now if bursts else None
        self.core = Core(
            self.runtime, self.codec, self.invoke, Settings(**settings), self.logger, clock=clock, join=False
        )
        self.engine = Engine(
            Options(**(options or {})),
            self.runtime,
            self.core.opened,
            self.core.received,
            self.core.closed,
            self.logger,
        )

    def invoke(self, client, handler, event, args):
        self.calls.append((client.sid, event, tuple(args)))
        answer = self.answers.get(event)
        if callable(answer) and not isinstance(answer, type):
            answer = answer(client)
        if isinstance(answer, BaseException) or (isinstance(answer, type) and issubclass(answer, BaseException)):
            raise answer
        return answer

    def on(self, *events, namespace="/"):
        """Register handlers; what they do is in `answers`."""
        for event in events:
            self.core.handlers.add(event, print, namespace)

    def open(self):
        """Open a connection and join nothing."""
        return Guest(self)

    def join(self, namespace="/", auth=None):
        """Open a connection and join one namespace."""
        guest = Guest(self)
        guest.join(namespace, auth)
        return guest


class Guest:
    """The other end of a connection.

    Attributes:
        sids: By namespace.
    """

    def __init__(self, party):
        self.party = party
        self.session = party.engine.prepare({})
        party.engine.on_connect(self.session)
        self.transport = KeptTransport()
        party.engine.open_websocket(self.session, self.transport)
        self._decoder = party.codec.decoder(Limits(depth=1000, attachments=1000), from_server=True)
        self._seen = 1  # the open packet

    @property
    def sids(self):
        return {namespace: client.sid for namespace, client in self.session.data.clients.items()}

    @property
    def sid(self):
        return self.sids["/"]

    @property
    def closed(self):
        return self.session.closed

    def feed(self, *messages):
        """Send Engine.IO messages."""
        for message in messages:
            self.session.receive(MESSAGE + message if isinstance(message, str) else message)

    def send(self, kind, namespace="/", number=None, data=None):
        """Send a packet."""
        self.feed(*self.party.codec.encode(Packet(kind, namespace, number, data)))

    def join(self, namespace="/", auth=None):
        self.send(CONNECT, namespace, None, auth)

    def emit(self, *data, namespace="/", number=None):
        self.send(EVENT, namespace, number, list(data))

    def take(self):
        """Return the packets that came since the last call."""
        messages, self._seen = self.transport.messages[self._seen :], len(self.transport.messages)
        packets = []
        for message in messages:
            packet = self._decoder.feed(message[1:] if isinstance(message, str) else message)
            if packet is not None:
                packets.append(packet)
        return packets

    def events(self):
        """Return the data of the events that came since the last call."""
        return [packet.data for packet in self.take() if packet.type == EVENT]
