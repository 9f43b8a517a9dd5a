"""Lines 10, 15 and 16: what clients cost while they are here, and after they have gone."""

import contextlib
import itertools
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e.servers import KINDS, wait_until

from .peers import LIMIT, joined, joined_polling
from .watching import Most, descriptors, memory, threads

pytestmark = pytest.mark.alone

AT_ONCE = 8
THREADS = 40  # at most
TLS_THREADS = 100  # each request and each connection that is being closed holds one there
KB_IN_ROUND_TWO = 2048  # in all, in short form: what the allocator takes in steps
TRACED = any(name.startswith("COVERAGE_PROCESS") for name in os.environ)  # coverage keeps something of each thread


def closes(server):
    joined(server).close()


def breaks_off(server):
    joined(server).abandon()


def polls(server):
    joined_polling(server, who="").send("1")  # without a name: the journal keeps those for ever


WAYS = (closes, breaks_off, closes, polls)


def churn(server, count, until=float("inf")):
    """Connect and leave, some at a time; return how many did."""
    turns = itertools.islice(itertools.cycle(WAYS), count)
    done = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while time.monotonic() < until and (batch := list(itertools.islice(turns, 500))):
            list(pool.map(lambda way: way(server), batch))
            done += len(batch)
    return done


def settled(server):
    """Wait until all have left; return the application's counts."""

    def nobody():
        stats = server.get_json("/stats")
        return stats if stats["connected"] == stats["sessions"] == 0 else None

    return wait_until(nobody, limit=LIMIT)["tally"]


@pytest.fixture(scope="module")
def server(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    server = start(ping_interval=300)
    server.fill_pool()
    yield server
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.timeout(900)
def test_churn_leaves_nothing(server, row, full):
    count = 5000 if full else 500
    pid = server.get_json("/process")
    start = settled(server)
    churn(server, count)
    tally = settled(server)
    assert tally["connect"] - start.get("connect", 0) == count
    before = memory(pid), threads(pid), descriptors(pid)
    began = time.monotonic()
    with Most(threads, pid) as most:
        churn(server, count)
    rate = count / (time.monotonic() - began)
    tally = settled(server)
    for event in ("connect", "disconnect"):
        assert tally[event] - start.get(event, 0) == 2 * count
    assert most.value <= (TLS_THREADS if server.row.tls else THREADS)
    assert server.get_json("/stats")["connects"] == sum(server.get_json("/stats")["disconnects"].values())
    wait_until(lambda: threads(pid) <= before[1] + 3 and descriptors(pid) <= before[2] + 3, limit=LIMIT)
    growth = memory(pid) - before[0]
    assert TRACED or growth <= max(KB_IN_ROUND_TWO, 0.5 * count)
    figure = f"{rate:.0f}/s, {growth} KB more in round two, {most.value} threads at most"
    row(15, f"{count} connects, one disconnect each", figure)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_idle_clients_cost_little(server, kind, row, full, transport):
    count = 1000 if full else 300
    settled(server)
    pid = server.get_json("/process")
    if server.row.tls:
        count = 50  # each holds a thread there
    with contextlib.ExitStack() as stack:
        before = memory(pid), threads(pid)
        for _ in range(count):
            if transport == "websocket":
                stack.callback(joined(server).abandon)
            else:
                stack.callback(joined_polling(server).get().abort)
        assert len(server.get_json("/sids")) == count
        cost, more = (memory(pid) - before[0]) / count, threads(pid) - before[1]
        if not server.row.tls:
            assert cost <= 25
            assert more <= 12  # the server's own pool
    row(10, f"each of {count} idle clients, {transport}", f"{cost:.1f} KB, {more} threads in all")


SOAK, SOAK_SECONDS = 100_000, 600


@pytest.mark.timeout(SOAK_SECONDS + 300)
@pytest.mark.only(kind=[name for name in KINDS if not KINDS[name].tls])
@pytest.mark.long
def test_soak(server, kind, row):
    pid = server.get_json("/process")
    until = time.monotonic() + SOAK_SECONDS / 2  # for each of two kinds
    first = churn(server, SOAK // 10, until)
    settled(server)
    before = memory(pid)
    more = churn(server, SOAK - first, until)
    settled(server)
    each = (memory(pid) - before) / max(more, 1)
    assert each <= 0.1 or memory(pid) - before <= KB_IN_ROUND_TWO
    row(16, f"{first + more} connects in a row", f"{each:.3f} KB left of each after the first {first}")
