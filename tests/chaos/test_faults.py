"""Line 23: what goes wrong in a handler stays in that handler."""

import json
import re

import pytest
from e2e.servers import wait_until

from .peers import LIMIT, joined, joined_polling

NOTHING = re.compile("CRITICAL")  # what fails here is to be logged, with its traceback
FAULTS = ["raises", "exits", "interrupts", "recurses", "returns no data", "returns a generator", "returns a circle"]


@pytest.fixture(scope="module")
def server(start):
    return start(alarm=NOTHING, ping_interval=300)


def sid_of(peer):
    peer.send('427["whoami"]')
    answer = peer.receive()
    assert answer.startswith("437[")
    return json.loads(answer[3:])[0]["sid"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_its_event_alone_and_is_logged_once(server, row, fault):
    peer = joined(server)
    sid = sid_of(peer)
    before = server.get_json("/stats")["handlers"]["errors"]
    peer.send(f'421["fault",{json.dumps(fault)}]')
    peer.send('422["sync"]')
    assert peer.receive() == '432["synced"]'  # and no acknowledgement of the first
    wait_until(lambda: server.get_json("/stats")["handlers"]["errors"] > before)
    peer.send('423["echo","again"]')
    assert peer.receive() == '433[["again"]]'
    assert server.get_json("/stats")["handlers"]["errors"] == before + 1
    assert server.log.read_text().count(f"{sid}: the handler of 'fault' in '/' failed") == 1
    peer.close()
    row(23, f"a handler that {fault}", "fails alone, logged once")


def test_a_fault_over_polling_gets_no_acknowledgement(server):
    session = joined_polling(server)
    session.send('421["fault","raises"]')
    session.send('422["sync"]')
    assert session.packets() == ['432["synced"]']


def test_a_blocked_handler_blocks_nobody(server, row):
    peer, other = joined(server), joined(server)
    server.get("/hold_again")
    peer.send('421["hold",1]')
    wait_until(lambda: server.get_json("/stats")["held"] == 1)
    for one in (peer, other):
        one.send('422["sync"]')
        assert one.receive() == '432["synced"]'
    server.get("/release")
    assert peer.receive() == "431[1]"
    peer.close()
    other.close()
    row(23, "a handler that blocks", "blocks nobody, is acknowledged at its end")


def test_a_huge_return_value_arrives(server, row):
    size = 20_000_000
    peer = joined(server)
    peer.socket.settimeout(LIMIT)
    peer.send(f'421["make_text",{size}]')
    answer = peer.receive()
    assert len(answer) == size + len('431[""]') and answer[:5] + answer[-2:] == '431["' + '"]'
    peer.send('422["sync"]')
    assert peer.receive() == '432["synced"]'
    peer.close()
    row(23, "a return value of 20 MB", "arrives")
