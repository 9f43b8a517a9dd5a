"""Bad input of every kind, beside a client that keeps the rules: lines 1, 2, 3 and the wire's half of 4."""

import contextlib
import itertools
import json
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import UnknownProtocol

import msgpack
import pytest
from e2e.servers import wait_until

from . import corpus
from .wires import POLLING, Wire, descriptors, exchange, open_session, post, request, text

pytestmark = pytest.mark.alone

AT_ONCE = 8
DAMAGE = ("Traceback", "CRITICAL", "Internal Server Error")


@pytest.fixture(scope="module")
def server(start):
    return start(connect_timeout=60)


class Healthy:
    """A client that sends an echo again and again, over a WebSocket of its own, and waits for each ack.

    Attributes:
        times: Seconds of each round trip.
        trouble: What went wrong, None while all is well.
    """

    def __init__(self, server):
        self.times, self.trouble = [], None
        self._server, self._stop = server, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            with Wire(self._server) as wire:
                wire.join()
                for number in itertools.count():
                    if self._stop.wait(0.01):
                        return
                    begun = time.monotonic()
                    wire.send(text(f'42{number}["echo",{number}]'))
                    got = wire.receive()
                    assert got == (1, f"43{number}[[{number}]]".encode()), got
                    self.times.append(time.monotonic() - begun)
        except BaseException as error:
            self.trouble = error

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.times or self.trouble, what="the healthy client's first echo")
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(30)
        assert self.trouble is None, repr(self.trouble)
        assert not self._thread.is_alive()

    @property
    def figure(self):
        times = sorted(self.times)
        p99, most = times[int(len(times) * 0.99)], times[-1]
        return f"{len(times)} of {len(times)} acks, p99 {p99 * 1000:.0f} ms, most {most * 1000:.0f} ms"


def all_at_once(judge, cases):
    """Judge cases, several at once; return the complaints."""

    def one(case):
        try:
            return judge(case)
        except TimeoutError:
            return "never answered"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(zip(cases, pool.map(one, cases), strict=True))
    return [f"{case.name}: {complaint}" for case, complaint in results if complaint]


# One judge for each kind of case: None when what came was right, else what came.


def judge_request(server):
    def judge(case):
        data = case.data
        if b"SID" in data:
            data = data.replace(b"SID", open_session(server, join=None).partition("sid=")[2].encode())
        try:
            reply = exchange(server, data, case.method, case.shut)
        except UnknownProtocol:
            if server.kind.startswith("uwsgi"):  # which answers in the version that it was asked in
                return None
            raise
        if reply.status not in case.status:
            return f"status {reply.status}, {reply.body[:80]!r}"
        if case.code is not None and reply.code != case.code:
            return f"code {reply.code}, {reply.body[:80]!r}"
        return None

    return judge


def judge_frames(server):
    def judge(case):
        with Wire(server) as wire:
            wire.join()
            wire.send(case.data)
            came = wire.outcome()
        return None if came in case.code else f"{came}, expected {case.code}"

    return judge


def judge_packets(server):
    def judge(case):
        with Wire(server) as wire:
            wire.join()
            wire.send(case.frames)
            came = wire.outcome()
        return None if came == case.code else f"{came}, expected {case.code}"

    return judge


def judge_payload(server):
    def judge(case):
        query = open_session(server)
        reply = post(server, query, case.payload)
        if (reply.status, reply.code) != (400, 3):
            return f"status {reply.status}, {reply.body[:80]!r}"
        reply = post(server, query, b"6")
        return None if (reply.status, reply.code) == (400, 1) else "the session goes on"

    return judge


class Payload(tuple):
    """A payload as a case."""

    @property
    def name(self):
        return f"payload {self[0]!r}"

    @property
    def payload(self):
        return self[0]


def judge_fine(server):
    def judge(case):
        with Wire(server) as wire:
            wire.join()
            wire.send(text(case.packets[0]))
            wire.send(text('42999["sync"]'))
            came = wire.outcome(b'43999["synced"]')
        if came != "answered":
            return f"over a WebSocket: {came}"
        query = open_session(server)
        if post(server, query, case.payload + b'\x1e42999["sync"]').status != 200:
            return "refused in a payload"
        body = b""
        while b'43999["synced"]' not in body:
            reply = exchange(server, request(query=query))
            if reply.status != 200:
                return f"the poll was answered {reply.status}"
            body += reply.body
        return None

    return judge


def damage(server):
    """Return the lines of the log that tell of an error of ours."""
    lines = server.log.read_text(errors="replace").splitlines()
    return [line for line in lines if any(word in line for word in DAMAGE)]


def test_nothing_a_client_sends_makes_an_error_of_ours(server, row):
    packets = list(corpus.packet_cases())
    payloads = [Payload((octets,)) for octets in corpus.PAYLOADS]
    fine = [corpus.Packets(f"fine {packet[:40]!a}", (packet,)) for packet in corpus.FINE]
    begun = time.monotonic()
    with Healthy(server) as healthy:
        before = descriptors(server)
        complaints = [
            *all_at_once(judge_request(server), list(corpus.http_cases())),
            *all_at_once(judge_frames(server), list(corpus.frame_cases())),
            *all_at_once(judge_packets(server), [*packets, corpus.LARGE]),
            *all_at_once(judge_payload(server), [*packets, *payloads]),
            *all_at_once(judge_fine(server), fine),
        ]
        took = time.monotonic() - begun
        wait_until(lambda: descriptors(server) <= before, what="the descriptors of the bad clients")
    assert complaints == []
    assert damage(server) == []
    assert server.get("/") == b"ready"
    total = corpus.count()
    assert total >= 300
    row(1, "nothing a client sends makes an error of ours", f"{total} of {total} refused, {len(fine)} odd ones served")
    row(2, "every end says why", f"{len(list(corpus.frame_cases())) + len(packets) + 1} close codes right")
    row(3, "the others do not notice", f"{healthy.figure}, in {took:.1f} s")


def test_who_cuts_the_line_at_any_point_does_no_harm(server, row, full):
    """Resets: within the handshake, within a frame, within a message, in the middle of a poll and of a body."""
    dice = random.Random(7)
    streams = [
        request(query="EIO=4&transport=websocket", headers=corpus.UPGRADE) + text("40") + text('421["echo",1]') * 20,
        request("POST", POLLING, body=b"4" * 200),
        request(),
    ]
    rounds = 600 if full else 60
    cuts = [(streams[number % 3], dice.randrange(1, len(streams[number % 3]))) for number in range(rounds)]

    def cut(case):
        stream, at = case
        with contextlib.closing(server.socket(20)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
            sock.sendall(stream[:at])

    with Healthy(server) as healthy, ThreadPoolExecutor(AT_ONCE) as pool:
        before = descriptors(server)
        list(pool.map(cut, cuts))
        wait_until(lambda: descriptors(server) <= before, what="the descriptors of those that were cut")
    assert damage(server) == []
    row(3, "nor that others are cut", f"{rounds} resets: {healthy.figure}")


# Line 4, over the wire. In a namespace whose one handler takes anything.

GOOD = (
    *('42/any,["event",1,"two",{"three":[3,null,true]}]'),
    *('42/any,7["event","é\\u0000"]', "43/any,1[1]", "40/custom,{}"),
    *('42/any,12["a",' + "[" * 20 + "]" * 20 + "]", "41/custom,"),
    *("6", "3", '452-/any,3["b",{"_placeholder":true,"num":1}]'),
)
PIECES = (
    *('"', "[", "]", "{", "}", ",", ":", "/", "-", "0", "9", "\\"),
    *("\\u", "\x1e", "\0", "é", "\U0001f600", "1e999", "null"),
    *("_placeholder", "NaN", "[[[[", '{"a":', "/any,", "42", "45", "1-", '"num":', "true", " ", "\n"),
)


def mutate(dice, packet):
    """Return a packet with one to four changes."""
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(packet) + 1)
        kind = dice.randrange(5)
        if kind == 0:
            packet = packet[:at] + dice.choice(PIECES) + packet[at:]
        elif kind == 1:
            packet = packet[:at] + packet[at + dice.randrange(1, 4) :]
        elif kind == 2:
            packet = packet[:at] + chr(dice.randrange(32, 127)) + packet[at + 1 :]
        elif kind == 3:
            packet = packet[:at] + packet[dice.randrange(len(packet) + 1) :]
        else:
            packet = packet[:at]
    return packet


def test_changed_packets_over_the_wire(server, row, full):
    total, each = (20_000 if full else 1_000), 2  # the first wrong one ends the connection

    def connection(seed):
        dice = random.Random(seed)
        packets = [mutate(dice, dice.choice(GOOD)) for _ in range(each)]
        frames = [corpus.frame(1, packet.encode(), key=dice.randbytes(4)) for packet in packets]
        with Wire(server) as wire:
            wire.join("40/any,")
            if seed % 2:
                for frame in frames:
                    wire.send(frame)
            else:  # the bytes are changed as well
                stream = bytearray(b"".join(frames))
                for _ in range(dice.randrange(1, 4)):
                    stream[dice.randrange(len(stream))] ^= 1 << dice.randrange(8)
                wire.send(stream)
            # A frame whose length has grown, or an attachment that is awaited, may swallow the question: so ask on.
            for _ in range(3):
                wire.send(corpus.frame(1, b'42/any,999["sync"]', key=dice.randbytes(4)))
            wire.send(corpus.frame(8, struct.pack("!H", 1000), key=dice.randbytes(4)) + bytes(70_000))
            answered = wire.outcome(b'43/any,999["sync",0]')
            if answered in ("answered", 1000, 1002, 1007, 1008, 1009):
                return None
            return f"seed {seed}: {answered} after {packets!a}"

    with Healthy(server) as healthy, ThreadPoolExecutor(AT_ONCE) as pool:
        before = descriptors(server)
        wrong = [answer for answer in pool.map(connection, range(total // each)) if answer]
        wait_until(lambda: descriptors(server) <= before, what="the descriptors of the changed")
    assert wrong == []
    assert damage(server) == []
    row(4, "changed packets over the wire", f"{total}, no error of ours; beside them {healthy.figure}")


def test_msgpack(start, row):
    """The other coding: every prefix of a good packet, and every byte of it changed."""
    server = start(serializer="msgpack")
    good = msgpack.packb({"type": 2, "nsp": "/", "data": ["nothing", {"a": [1, b"b", 1.5]}], "id": 3})
    hello = msgpack.packb({"type": 0, "nsp": "/"})
    cases = [good[:size] for size in range(len(good))]
    cases += [json.dumps({"type": 2}).encode(), b"\x91" * 5000, b"\x81\xa1a" * 5000, b"\xdf\xff\xff\xff\xff", b"\xc1"]
    types = ({"type": 7}, {"type": -1}, {"type": "2"}, {"type": None})
    for changes in (*types, {"nsp": 1}, {"nsp": "x"}, {"id": -1}, {"id": "1"}, {"data": 1}, {"data": []}):
        cases.append(msgpack.packb({"type": 2, "nsp": "/", "data": ["nothing"], **changes}))

    def judge(data):
        with Wire(server) as wire:
            wire.receive()
            wire.send(corpus.frame(2, hello))
            assert wire.receive()[0] == 2
            wire.send(corpus.frame(2, data))
            came = wire.outcome()
        return None if came in (1008, 1009) else f"{data!r}: {came}"

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [answer for answer in pool.map(judge, cases) if answer]
    assert wrong == []
    assert damage(server) == []
    row(1, "nor what comes as MessagePack", f"{len(cases)} of {len(cases)} refused")
