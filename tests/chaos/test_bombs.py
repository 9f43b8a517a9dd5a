"""What a client sends that becomes more than it was: line 7. The peak of the serving process is what counts."""

import itertools
import select
import ssl
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from .corpus import MAX, PLACEHOLDER
from .test_bad_input import Healthy, damage
from .wires import Wire, frame, memory, open_session, request, reset_peak, text

pytestmark = pytest.mark.alone

ALLOWED = 2 * MAX + 4_000_000  # bytes of growth for each connection that attacks
KEPT = 2_000_000  # of what one thread has freed, malloc keeps for that thread; several threads take turns in reading
PIECE = bytes(65_536)
AGAIN = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@pytest.fixture(scope="module")
def server(start):
    return start(websocket_compression=True)


def pour(wire, parts):
    """Send until all is sent or the server has had enough.

    What comes back is read at the same time, as a client does that wants to be taken for a good one; in one thread,
    because a TLS socket can't be read and written at once.

    Returns:
        The close code, None for an end without one, "answered" when the server still answers afterwards.
    """
    sock, buffer = wire.socket, bytearray()
    sock.setblocking(False)
    parts = itertools.chain(parts, [text('42999["sync"]')])
    left, over = memoryview(b""), False
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        if not left and not over:
            part = next(parts, None)
            left, over = memoryview(part or b""), part is None
        try:
            data = sock.recv(65_536)
        except AGAIN:
            select.select([sock], [sock] if left else [], [], 1)
        except (ConnectionError, ssl.SSLError):
            return None
        else:
            if not data:
                return None
            buffer += data
            for opcode, payload in whole_frames(buffer):
                if opcode == 8:
                    return int.from_bytes(payload[:2], "big")
                if payload == b'43999["synced"]':
                    return "answered"
        try:
            left = left[sock.send(left[:65_536]) :] if left else left
        except AGAIN:
            pass
        except (ConnectionError, ssl.SSLError):
            left, over = memoryview(b""), True  # what it said before is still to be read
    raise AssertionError("neither cut off nor answered")


def whole_frames(buffer):
    """Take the whole frames from the front of a buffer."""
    while len(buffer) >= 2:
        size, head = buffer[1] & 127, 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:head], "big")
        if len(buffer) < head + size:
            return
        yield buffer[0] & 15, bytes(buffer[head : head + size])
        del buffer[: head + size]


def attachments():
    yield text('4510-["echo",' + PLACEHOLDER + "]")
    for _ in range(200):
        yield frame(2, bytes(MAX - 1))


def promised_attachments():
    yield text('45999999999-["echo",' + PLACEHOLDER + "]")
    for _ in range(200):
        yield frame(2, bytes(MAX - 1))


def fragments():
    yield frame(2, PIECE, fin=False)
    for _ in range(3000):
        yield frame(0, PIECE, fin=False)


def tiny_fragments():
    yield frame(1, b"4", fin=False)
    for _ in range(100):
        yield frame(0, b"2", fin=False) * 10_000


def deflate(size):
    """Return zeros compressed as one message."""
    squeeze = zlib.compressobj(9, wbits=-15)
    packed = b"".join(squeeze.compress(PIECE) for _ in range(size // len(PIECE)))
    return (packed + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflate_bomb():
    yield frame(2, deflate(200_000_000), rsv=4)


def deflate_bomb_in_fragments():
    packed = deflate(200_000_000)
    yield frame(2, packed[:1000], rsv=4, fin=False)
    for at in range(1000, len(packed), 1000):
        yield frame(0, packed[at : at + 1000], fin=False)
    yield frame(0)


def deep_lists():
    yield text('42["x",' + "[" * (MAX - 100))


def deep_objects():
    yield text('42["x",' + '{"a":' * (MAX // 6))


def deep_and_closed():
    yield text('42["x",' + "[" * (MAX // 2 - 100) + "]" * (MAX // 2 - 100) + "]")


def long_number():
    yield text('42["x",' + "9" * (MAX - 100) + "]")


def large_message():
    yield frame(1, b"4" * (MAX + 1))


def announced_message():
    yield frame(2, size=b"\x7f\0\0\0\x01\0\0\0\0")
    for _ in range(3000):
        yield PIECE


def unmasked_data():
    yield frame(2, PIECE, mask=False) * 100


def text_messages():
    for _ in range(50):
        yield text('42["nothing","' + "x" * (MAX - 100) + '"]')


def acknowledgements():
    for first in range(0, 20_000, 500):
        yield b"".join(text(f"43{10**19 + number}[]") for number in range(first, first + 500))


def unknown_namespaces():
    for first in range(0, 20_000, 500):
        yield b"".join(text(f"40/unknown{number},") for number in range(first, first + 500))


def unknown_events():
    for first in range(0, 20_000, 500):
        yield b"".join(text(f'42["event{number}"]') for number in range(first, first + 500))


def pings():
    for _ in range(40):
        yield frame(9, bytes(125)) * 500


def pongs():
    for _ in range(40):
        yield frame(10, bytes(125)) * 500 + text("3") * 500


BOMBS = {
    attachments: 1009,
    promised_attachments: 1009,
    fragments: 1009,
    tiny_fragments: 1008,
    deflate_bomb: 1009,
    deflate_bomb_in_fragments: 1009,
    deep_lists: 1009,
    deep_objects: 1009,
    deep_and_closed: 1009,
    long_number: 1008,
    large_message: 1009,
    announced_message: 1009,
    unmasked_data: 1002,
    text_messages: "answered",
    acknowledgements: "answered",
    unknown_namespaces: "answered",
    unknown_events: "answered",
    pings: "answered",
    pongs: "answered",
}


def attack(server, bomb):
    """Open a connection, pour the bomb into it, return what came of it."""
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"} if "deflate" in bomb.__name__ else {}
    with Wire(server, headers=headers) as wire:
        assert wire.status == 101
        wire.join()
        return pour(wire, bomb())


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_connection_costs_no_more_than_it_may(server, row, full, bomb):
    times = 4 if full else 1
    with Healthy(server) as healthy:
        reset_peak(server)
        before = memory(server)
        with ThreadPoolExecutor(times) as pool:
            came = list(pool.map(lambda _: attack(server, bomb), range(times)))
        growth = memory(server, "VmHWM") - before
    assert came == [BOMBS[bomb]] * times
    green = any(name in server.kind for name in ("gevent", "eventlet"))
    assert growth <= times * ALLOWED + (0 if green else KEPT), f"{growth / 1e6:.1f} MB"
    assert damage(server) == []
    name = bomb.__name__.replace("_", " ")
    end = "served" if came[0] == "answered" else f"cut off with {came[0]}"
    row(7, f"a bomb of {name}", f"{times} x: +{growth / 1e6:.1f} MB at the peak, {end}; {healthy.figure}")


def test_a_body_without_end(server, row, full):
    """Chunks for ever, to a session and with what no one may post."""
    reset_peak(server)
    before = memory(server)
    query = open_session(server)
    head = request("POST", query, {"Transfer-Encoding": "chunked", "Content-Length": None})
    chunk = b"10000\r\n" + PIECE + b"\r\n"
    sock = server.socket(30)
    sent = 0
    try:
        sock.sendall(head)
        while sent < 200_000_000:
            sock.sendall(chunk)
            sent += len(PIECE)
    except OSError:
        pass  # it had enough
    finally:
        sock.close()
    growth = memory(server, "VmHWM") - before
    assert damage(server) == []
    if server.kind.startswith("werkzeug"):
        # Its server reads to the end, ten million bytes at a time, what was left of a body by the application.
        assert growth <= ALLOWED + 25_000_000, f"{growth / 1e6:.1f} MB"
        row(7, "a body without end", f"+{growth / 1e6:.1f} MB at the peak; Werkzeug takes the rest of it by itself")
        return
    assert growth <= ALLOWED, f"{growth / 1e6:.1f} MB"
    if server.kind in ("gunicorn-gevent", "gunicorn-eventlet"):
        # They look for the next request, --keep-alive seconds at most.
        row(7, "a body without end", f"+{growth / 1e6:.1f} MB at the peak; gunicorn throws the rest away by itself")
        return
    assert sent < 200_000_000, "all of it was taken"
    row(7, "a body without end", f"+{growth / 1e6:.1f} MB at the peak, given up after {sent / 1e6:.1f} MB")


def test_any_name_of_a_namespace(start, row):
    """Where any namespace is accepted, what they cost goes with their clients."""
    server = start(namespaces="*", max_namespaces=32)

    def join_many(number):
        with Wire(server) as wire:
            wire.join()
            return pour(wire, [b"".join(text(f"40/{number}-{name},") for name in range(40))])

    with Healthy(server):
        join_many("first")
        reset_peak(server)
        before = memory(server)
        came = {join_many(number) for number in range(50)}
        growth = memory(server, "VmHWM") - before
    assert came == {1008}
    assert growth <= ALLOWED, f"{growth / 1e6:.1f} MB"
    row(7, "2,000 namespaces", f"+{growth / 1e6:.1f} MB at the peak, each connection cut off at its 33rd")


def test_flat_json(server, row, full):
    """Very many small values take many times as much memory as their text: what would take too much is refused."""
    figures = []
    for name, piece in (("{}", "{}"), ("numbers", "1.5"), ("texts", '"ab"'), ("objects", '{"a":1}')):
        as_much = ",".join([piece] * ((MAX - 100) // (len(piece) + 1)))
        as_may = as_much[: (len(piece) + 1) * 30_000 - 1]
        for values, outcome in ((as_much, 1009), (as_may, "answered")):
            packet = text(f'42["nothing",[{values}]]')
            reset_peak(server)
            before = memory(server)
            with Wire(server) as wire:
                wire.join()
                assert pour(wire, [packet] * (20 if full else 4)) == outcome, name
            growth = memory(server, "VmHWM") - before
            assert growth <= 2 * ALLOWED, f"{name}: {growth / 1e6:.1f} MB"
        figures.append(f"{name} +{growth / 1e6:.0f} MB")
    row(7, f"{20 if full else 4} x 1 MB of flat JSON", "refused; of what is allowed: " + ", ".join(figures))
