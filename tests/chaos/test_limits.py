"""Limits and what is meant to hold a server up: lines 5, 11 and 12."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e.servers import KINDS, wait_until

from .corpus import PLACEHOLDER
from .test_bad_input import Healthy, damage
from .wires import (
    POLLING,
    UPGRADE,
    WEBSOCKET,
    Wire,
    descriptors,
    exchange,
    frame,
    open_session,
    post,
    request,
    text,
    threads,
)

SIZE = 20_000
THREADS = 8  # of gunicorn, see servers.py

OPTIONS = {
    "max_http_buffer_size": SIZE,
    "max_attachments": 3,
    "max_json_depth": 5,
    "max_namespaces": 4,
    "max_fragments": 6,
    "namespaces": "*",
}


@pytest.fixture(scope="module")
def server(start):
    return start(**OPTIONS)


def nested(levels):
    """Return an event whose payload has so many levels, its own list being the first."""
    return text('42["nothing",' + "[" * (levels - 1) + "]" * (levels - 1) + "]")


def attached(count):
    """Return an event with so many attachments."""
    return text(f'45{count}-["nothing",' + PLACEHOLDER + "]") + frame(2, b"x") * count


def parts(count):
    """Return one event in so many fragments."""
    message = b'42["nothing"]'
    pieces = [message[at : at + 1] for at in range(count - 1)] + [message[count - 1 :]]
    return b"".join(frame(0 if at else 1, piece, fin=at == count - 1) for at, piece in enumerate(pieces))


# Limit, what is just allowed, what is one too many, and how that ends.
LIMITS = [
    ("max_http_buffer_size, text", frame(1, b"3" + b"x" * (SIZE - 1)), frame(1, b"3" + b"x" * SIZE), 1009),
    (
        "max_http_buffer_size, binary",
        text('451-["nothing",' + PLACEHOLDER + "]") + frame(2, bytes(SIZE)),
        text('451-["nothing",' + PLACEHOLDER + "]") + frame(2, bytes(SIZE + 1)),
        1009,
    ),
    (
        "max_http_buffer_size, fragments together",
        frame(1, b"3" + b"x" * (SIZE // 2 - 1), fin=False) + frame(0, b"x" * (SIZE // 2)),
        frame(1, b"3" + b"x" * (SIZE // 2 - 1), fin=False) + frame(0, b"x" * (SIZE // 2 + 1)),
        1009,
    ),
    (
        "max_http_buffer_size, attachments together",
        text('452-["nothing",' + PLACEHOLDER + "]") + frame(2, bytes(SIZE // 2)) * 2,
        text('452-["nothing",' + PLACEHOLDER + "]") + frame(2, bytes(SIZE // 2)) + frame(2, bytes(SIZE // 2 + 1)),
        1009,
    ),
    ("max_attachments", attached(3), attached(4), 1009),
    ("max_json_depth", nested(5), nested(6), 1009),
    (
        "max_json_depth, objects",
        text('42["nothing",' + '{"a":' * 4 + "1" + "}" * 4 + "]"),
        text('42["nothing",' + '{"a":' * 5 + "1" + "}" * 5 + "]"),
        1009,
    ),
    ("max_fragments", parts(6), parts(7), 1008),
    (
        "max_namespaces",
        b"".join(text(f"40/{number},") for number in range(3)),
        b"".join(text(f"40/{number},") for number in range(4)),
        1008,
    ),
    ("256 characters of a namespace", text("40/" + "n" * 255 + ","), text("40/" + "n" * 256 + ","), 1008),
    ("20 digits of an id", text("43" + "9" * 20 + "[]"), text("43" + "9" * 21 + "[]"), 1008),
    ("125 bytes of a ping", frame(9, bytes(125)), frame(9, bytes(126)), 1002),
]


@pytest.mark.parametrize(("name", "allowed", "beyond", "code"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_at_the_limit_and_one_beyond(server, row, name, allowed, beyond, code):
    with Wire(server) as wire:
        wire.join()
        wire.send(allowed)
        wire.send(text('42999["sync"]'))
        assert wire.outcome(b'43999["synced"]') == "answered", "what is allowed"
    with Wire(server) as wire:
        wire.join()
        wire.send(beyond)
        assert wire.outcome() == code
    row(12, name, f"the limit passes, one more is closed with {code}")


@pytest.mark.parametrize("headers", [{}, {"Transfer-Encoding": "chunked", "Content-Length": None}], ids=["", "chunked"])
def test_the_size_of_a_body(server, row, headers):
    def body(size):
        payload = b"3" + b"x" * (size - 1)
        return b"%x\r\n%s\r\n0\r\n\r\n" % (size, payload) if headers else payload

    query = open_session(server)
    assert exchange(server, request("POST", query, headers, body(SIZE))).status == 200
    assert exchange(server, request("POST", query, headers, body(SIZE + 1))).status == 413
    assert post(server, query, b"3").status == 200, "only the request is refused"
    row(12, f"max_http_buffer_size, a body{' in chunks' if headers else ''}", "the limit passes, one more is 413")


def test_the_number_of_query_parameters(server, row):
    assert exchange(server, request(query=POLLING + "&a=b" * 62)).status == 200
    reply = exchange(server, request(query=POLLING + "&a=b" * 63))
    assert (reply.status, reply.code) == (400, 3)
    row(12, "64 query parameters", "the limit passes, one more is 400")


def test_the_number_of_connections_and_those_who_never_join(start, row):
    """Lines 11 and 12, on one server with narrow limits."""
    server = start(max_connections=3, connect_timeout=2, upgrade_timeout=1, namespaces=["/"])
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(server)) for _ in range(3)]
        assert [wire.status for wire in wires] == [101] * 3
        for query, headers in ((POLLING, {}), (WEBSOCKET, UPGRADE)):
            reply = exchange(server, request(query=query, headers=headers))
            assert (reply.status, reply.code) == (503, 4)
            assert reply.headers["Retry-After"]
        row(12, "max_connections", "3 of 3 are let in, the fourth gets 503 with Retry-After")
        begun = time.monotonic()
        assert [wire.outcome() for wire in wires] == [1008] * 3
        took = time.monotonic() - begun
    wait_until(lambda: exchange(server, request()).status == 200, what="room for another one")
    query = POLLING + "&sid=" + json.loads(exchange(server, request()).body[1:])["sid"]
    assert exchange(server, request(query=query)).body == b"1", "the poll of one that never joins"
    row(11, "who never joins is dropped", f"3 WebSockets with 1008 after {took:.1f} of 2 s, a poll with a close packet")
    query = open_session(server)
    with Wire(server, query=query.replace("polling", "websocket")) as probe:
        probe.send(text("2probe"))
        assert probe.receive() == (1, b"3probe")
        assert probe.outcome() == 1008
    assert post(server, query, '421["sync"]').status == 200, "its polling goes on"
    row(11, "a probe without an upgrade ends", "with 1008, polling goes on")
    assert damage(server) == []


# Line 5.


def test_no_post_holds_a_thread(server, row, full):
    """Ten times more of them than threads, and nobody ever polls."""
    bodies = [b"9", b"2", b"6", b"1", b"", b"4", b"x" * (SIZE + 1), b"42[", b'42["sync"', b"bA", b"451-"]
    queries = [open_session(server) for _ in range(THREADS * 10)]
    with Healthy(server) as healthy:
        before = descriptors(server)

        def one(number):
            return post(server, queries[number], bodies[number % len(bodies)]).status

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(len(queries))))
        assert set(answers) <= {200, 400, 413}
        assert server.get("/") == b"ready"
        wait_until(lambda: descriptors(server) <= before, what="the descriptors of the posts")
    row(5, "no POST holds a thread", f"{len(answers)} answered, 0 held; {healthy.figure}")


@pytest.mark.only(kind=[name for name in KINDS if not KINDS[name].tls])
def test_nor_do_waiting_polls_and_idle_websockets(server, row):
    """Where the socket can leave its server, a client that waits has no thread. TLS is bound to one."""
    count = THREADS * 10
    queries = [open_session(server) for _ in range(count)]
    before = threads(server)
    with contextlib.ExitStack() as stack:
        for query in queries:
            sock = stack.enter_context(contextlib.closing(server.socket(20)))
            sock.sendall(request(query=query))
        for _ in range(count):
            stack.enter_context(Wire(server)).join()
        begun = time.monotonic()
        assert server.get("/") == b"ready"
        took = time.monotonic() - begun
        wait_until(lambda: threads(server) <= before + 4, what="the threads of the server to be free")
    row(5, "nor do those who wait", f"{count} polls and {count} websockets, a page in {took * 1000:.0f} ms")


@pytest.mark.parametrize("what", ["headers", "body"])
def test_slow_senders(server, row, what):
    """Who sends his request byte by byte, without a session.

    The WSGI server reads the headers, so what slow ones cost is its business: a thread each, of which Werkzeug has as
    many as it wants, gunicorn eight here. The body of a request that is refused isn't waited for by us, but gunicorn
    waits for it before it takes the next request of the connection.
    """
    data = request("POST", POLLING + "&sid=x", {"Content-Length": "100"})
    data = data[:60] if what == "headers" else data + b"4"
    count = THREADS // 2 if server.kind.startswith("gunicorn") else THREADS * 10
    with Healthy(server) as healthy, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(contextlib.closing(server.socket(20))) for _ in range(count)]
        for sock in socks:
            sock.sendall(data)
        assert server.get("/") == b"ready"
        for sock in socks:
            with contextlib.suppress(OSError):
                sock.sendall(data[:1])
        assert server.get("/") == b"ready"
    row(5, f"slow {what}", f"{count} beside it, pages are answered; {healthy.figure}")


def test_slow_bodies_of_sessions(server, row):
    """Sessions that begin a body and never end it: each holds a thread of its server until its client goes."""
    count = THREADS - 2
    queries = [open_session(server) for _ in range(count)]
    with Healthy(server), contextlib.ExitStack() as stack:
        socks = []
        for query in queries:
            sock = stack.enter_context(contextlib.closing(server.socket(20)))
            sock.sendall(request("POST", query, {"Content-Length": "100"}) + b"4")
            socks.append(sock)
        assert server.get("/") == b"ready"
        for sock in socks:
            if not server.tls:
                sock.shutdown(socket.SHUT_RDWR)
    for query in queries:

        def ended(query=query):
            return post(server, query, b"3").code == 1

        wait_until(ended, what="the end of a session whose body was cut")
    row(5, "slow bodies", f"{count} hold a thread of the server each; when they are cut their sessions end")
