"""Nothing is left behind by clients that came and went, and one that stops reading harms nobody else."""

import contextlib
import itertools
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from .raw import Polling, WebSocket
from .servers import wait_until

pytestmark = pytest.mark.e2e

WARM_UP = 200
CYCLES = int(os.environ.get("E2E_CYCLES", "600"))
AT_ONCE = 8
SETTLED = 30  # seconds until all must be as before
SLACK = 3  # threads and descriptors that may come and go with the statistics themselves
OBJECTS = 50  # of one type; a leak of one in ten cycles is more


def polling_clean(server):
    session = Polling(server)
    session.join()
    session.send("1")


def polling_abrupt(server):
    session = Polling(server)
    session.join()
    session.get().abort()


def websocket_open(server):
    peer = WebSocket(server)
    assert peer.receive()[0] == "0"
    peer.send("40")
    assert peer.receive().startswith("40{")
    return peer


def websocket_clean(server):
    websocket_open(server).close()


def websocket_abrupt(server):
    websocket_open(server).abandon()


def upgrade_open(server):
    session = Polling(server)
    session.join()
    peer = WebSocket(server, sid=session.sid)
    peer.send("2probe")
    assert peer.receive() == "3probe"
    return session, peer


def upgrade_clean(server):
    _, peer = upgrade_open(server)
    peer.send("5")
    peer.send('421["sync"]')
    assert peer.receive() == '431["synced"]'
    peer.close()


def upgrade_abrupt(server):
    _, peer = upgrade_open(server)
    peer.send("5")
    peer.abandon()


def upgrade_broken(server):
    """The attempt breaks off at the probe; the session then ends on polling."""
    session, peer = upgrade_open(server)
    peer.abandon()
    session.send("1")


WAYS = {
    "polling": (polling_clean, polling_abrupt),
    "websocket": (websocket_clean, websocket_abrupt),
    "upgrade": (upgrade_clean, upgrade_abrupt, upgrade_broken),
}


def run(server, ways, cycles):
    """Run the cycles, eight at a time; the first failure is raised."""
    turns = [way for way, _ in zip(itertools.cycle(ways), range(cycles), strict=False)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for result in [pool.submit(way, server) for way in turns]:
            result.result()


def quiet(server):
    """Wait until nobody is connected any more and return the statistics."""

    def none_left():
        stats = server.get_json("/stats")
        return stats if stats["connected"] == stats["sessions"] == 0 else None

    return wait_until(none_left, limit=SETTLED, what="the end of all sessions")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("transport", WAYS)
def test_nothing_is_left_after_many_clients(server_for, transport):
    server = server_for("resources")
    quiet(server)
    server.fill_pool()
    run(server, WAYS[transport], WARM_UP)
    before = quiet(server)
    run(server, WAYS[transport], CYCLES)
    after = {}

    def as_before():
        after.update(quiet(server))
        return all(after[key] <= before[key] + SLACK for key in ("threads", "descriptors"))

    with contextlib.suppress(AssertionError):
        wait_until(as_before, limit=SETTLED)
    left = {key: (before[key], after[key]) for key in ("threads", "descriptors") if after[key] > before[key] + SLACK}
    assert not left, f"before and after: {left}"
    grown = {
        name: (before["objects"].get(name, 0), count)
        for name, count in after["objects"].items()
        if count > before["objects"].get(name, 0) + OBJECTS
    }
    assert not grown, f"objects before and after: {grown}"


ROUNDS, COUNT, SIZE = 20, 10, 100_000  # 20 MB in all, 1 MB at a time


@pytest.mark.timeout(120)
@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_client_that_stops_reading_is_closed_and_the_others_get_all(server_for, transport):
    server = server_for("resources")
    slow_name = uuid.uuid4().hex
    if transport == "websocket":
        slow = WebSocket(server, receive_buffer=4096, who=slow_name)
        assert slow.receive()[0] == "0"
        slow.send("40")
        assert slow.receive().startswith("40{")
    else:
        slow = Polling(server, who=slow_name)
        slow.join()
    try:
        good = websocket_open(server)
        expected = 0
        for _ in range(ROUNDS):
            good.send(f'42["flood",{expected},{COUNT},{SIZE}]')
            for _ in range(COUNT):
                message = good.receive()
                assert message is not None, f"the reading client was closed after {expected} messages"
                head = f'42["flooded",{expected},"'
                assert message.startswith(head) and len(message) == len(head) + SIZE + 2
                expected += 1
        assert expected * SIZE == 20_000_000

        def closed():
            return [detail for _, event, detail in server.journal(slow_name) if event == "disconnect"]

        assert len(wait_until(closed, what="the end of the client that does not read")) == 1
        good.send('421["sync"]')
        assert good.receive() == '431["synced"]'
        good.close()
        if transport == "polling":
            assert slow.poll().status in (200, 400)
    finally:
        if transport == "websocket":
            slow.abandon()
    quiet(server)


@pytest.mark.timeout(60)
def test_idle_clients_hold_no_threads(server_for):
    """Forty idle clients cost neither forty threads nor the service of others."""
    server = server_for("resources")
    quiet(server)
    server.fill_pool()
    websocket_clean(server)
    before = server.get_json("/stats")["threads"]
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.callback(websocket_open(server).abandon)
            session = Polling(server)
            session.join()
            stack.callback(session.get().abort)
        stats = server.get_json("/stats")
        assert stats["connected"] == 40
        if not server.row.tls:
            assert stats["threads"] <= before + 10, f"{before} threads before, {stats['threads']} with 40 clients"
        websocket_clean(server)
    quiet(server)
