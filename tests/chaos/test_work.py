"""Lines 8 and 22: one client can't take the pool, and those who wait take nothing from plain HTTP."""

import contextlib
import threading
import time

import pytest
from e2e.servers import KINDS, Server, wait_until

from .peers import LIMIT, joined, joined_polling
from .watching import threads

pytestmark = pytest.mark.alone

EVENTS, PAD = 2000, "x" * 1000
PATIENT = {"ping_interval": 300}


def test_one_client_cannot_take_the_pool(start, row):
    server = start(**PATIENT)
    server.get("/hold_again")
    pid = server.get_json("/process")
    busy, other = joined(server), joined(server)
    before, came = threads(pid), server.get_json("/stats")["events_in"]

    def send():
        for number in range(EVENTS):
            busy.send(f'42["hold",{number},"{PAD}"]')

    sender = threading.Thread(target=send)
    sender.start()
    wait_until(lambda: server.get_json("/stats")["held"] == 16, limit=LIMIT, what="handlers of one client that wait")
    for number in range(20):  # another one is served meanwhile
        other.send(f'42{number}["sync"]')
        assert other.receive() == f'43{number}["synced"]'
    more, stats = threads(pid) - before, server.get_json("/stats")
    assert more <= 32
    assert stats["held"] == 16
    assert stats["events_in"] - came < EVENTS / 2, "reading from the client has to pause"
    server.get("/release")
    sender.join(LIMIT)
    wait_until(lambda: server.get_json("/stats")["held"] == EVENTS, limit=LIMIT, what="the rest of the events")
    assert sorted(server.get_json("/release")) == list(range(EVENTS))
    row(8, f"{EVENTS} slow events of one client", f"{more} more threads, none lost")
    busy.close()
    other.close()


THREADS = 4


@pytest.fixture
def small(kind, tmp_path, monkeypatch):
    """A server with few threads."""
    monkeypatch.setenv("E2E_THREADS", str(THREADS))
    server = Server(kind, tmp_path, **PATIENT)
    yield server
    server.stop()


def test_plain_http_is_not_starved(small, kind, row):
    assert kind in KINDS
    with contextlib.ExitStack() as stack:
        for _ in range(10 * THREADS):
            stack.callback(joined(small).abandon)
            stack.callback(joined_polling(small).get().abort)
        taken = []
        for _ in range(100):
            began = time.monotonic()
            assert small.get("/") == b"ready"
            taken.append(time.monotonic() - began)
    taken.sort()
    assert taken[-1] < LIMIT / 4
    figure = f"p50 {taken[50] * 1000:.0f}, p99 {taken[98] * 1000:.0f} ms"
    row(22, f"plain HTTP beside {20 * THREADS} waiting clients", figure)
