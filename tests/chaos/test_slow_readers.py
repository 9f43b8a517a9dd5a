"""Lines 9, 13 and 14: clients that read slowly, in small bites, or not at all."""

import threading
import time
import uuid

import pytest
from e2e.servers import wait_until

from .peers import LIMIT, joined, joined_polling
from .watching import Most, descriptors, memory, threads

pytestmark = pytest.mark.alone

SLOW, GOOD = 10, 20
ROUND, SIZE = 10, 100_000  # a megabyte at a time
ALLOWED = 8 * 1024 + SLOW * 2 * 1024  # KB; the limit of each is a megabyte, and a copy of it may be under way


@pytest.mark.timeout(600)
def test_slow_readers_are_cut_off_and_the_others_get_all(start, row, full):
    server = start(ping_interval=300)
    pid = server.get_json("/process")
    names = [uuid.uuid4().hex for _ in range(SLOW)]
    slow = [joined(server, receive_buffer=4096, who=name) for name in names]
    good = [joined(server) for _ in range(GOOD)]
    cut, memory_before = server.get_json("/stats")["slow_clients"], memory(pid)
    rounds = 60 if full else 12
    first, failed, waits = 0, [], []

    def read(peer, first):
        try:
            for number in range(first, first + ROUND):
                message = peer.receive()
                head = f'42["flooded",{number},"'
                assert message.startswith(head) and len(message) == len(head) + SIZE + 2, message[:60]
        except Exception as error:
            failed.append(error)

    with Most(memory, pid) as most:
        for _ in range(rounds):
            began = time.monotonic()
            good[0].send(f'42["flood",{first},{ROUND},{SIZE}]')
            readers = [threading.Thread(target=read, args=(peer, first)) for peer in good]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(LIMIT)
                assert not reader.is_alive()
            assert not failed, failed[:3]
            waits.append(time.monotonic() - began)
            first += ROUND
    for name in names:
        wait_until(lambda name=name: [event for _, event, _ in server.journal(name)] == ["connect", "disconnect"])
    growth = most.value - memory_before
    assert growth < ALLOWED, f"{growth} KB"
    assert server.get_json("/stats")["slow_clients"] == cut + SLOW
    for peer in good:
        peer.close()
    for peer in slow:
        peer.abandon()
    row(9, f"{SLOW} of {SLOW + GOOD} don't read {rounds} MB", f"cut off, {growth} KB more; all for the others")


@pytest.mark.timeout(180)
@pytest.mark.long
def test_a_client_that_takes_nothing_for_ten_seconds_is_cut_off(start, row):
    server = start(ping_interval=300)
    name = uuid.uuid4().hex
    slow, good = joined(server, receive_buffer=4096, who=name), joined(server)
    waiting = server.get_json("/stats")["bytes_waiting"]
    sent = 0
    while server.get_json("/stats")["bytes_waiting"] == waiting:
        good.send(f'42["flood",{sent},1,{SIZE}]')
        assert good.receive().startswith(f'42["flooded",{sent},')
        sent += 1
    began = time.monotonic()
    wait_until(lambda: [event for _, event, _ in server.journal(name)] == ["connect", "disconnect"], limit=40)
    took = time.monotonic() - began
    assert took > 5
    row(9, "a client that takes nothing is cut off", f"after {took:.1f} s")
    good.close()
    slow.abandon()


@pytest.mark.timeout(300)
def test_frames_stay_whole(start, row, full):
    """Large messages both ways to a client that reads in bites, with pings of both protocols in between."""
    server = start(ping_interval=0.05, ping_timeout=LIMIT, max_http_buffer_size=6_000_000, max_backlog=32_000_000)
    peer = joined(server, receive_buffer=8192)
    peer.socket.settimeout(LIMIT)
    sizes = [5_000_000] * (20 if full else 3) + [3_000_000] * 2
    writing = threading.Lock()
    pings, pongs, asked, owed = 0, 0, 0, 0
    for number, size in enumerate(sizes):
        text = chr(65 + number) * size
        for _ in range(3):
            peer.send("are you there", opcode=9)
            asked += 1
        sender = threading.Thread(target=_send, args=(peer, writing, f'42{number}["echo","{text}"]'))
        sender.start()
        if server.row.tls:  # one TLS socket can't be read and written in two threads at a time
            sender.join(LIMIT)
        while True:
            opcode, payload = peer.frame()
            if opcode == 10:
                assert payload == b"are you there"
                pongs += 1
            elif payload == b"2":
                pings, owed = pings + 1, owed + 1
            else:
                assert opcode == 1
                assert payload.decode() == f'43{number}[["{text}"]]'
                break
            # Not while our own large message is under way: it would wait for the lock and leave the socket unread.
            if writing.acquire(blocking=False):
                for _ in range(owed):
                    peer.send("3")
                    peer.send("are you there", opcode=9)
                    asked += 1
                owed = 0
                writing.release()
        sender.join(LIMIT)
    while pongs < asked:
        opcode, payload = peer.frame()
        assert opcode == 10 or payload == b"2"
        pongs += opcode == 10
    assert pings and pongs
    peer.abandon()
    row(13, f"{len(sizes)} messages of up to 5 MB both ways, whole", f"all, among {pings} pings and {pongs} pongs")


def _send(peer, writing, text):
    with writing:
        peer.send(text)


QUIET = 6  # of each sort


@pytest.mark.timeout(180)
def test_vanished_clients_leave_nothing(start, row):
    """They keep their sockets open and neither read nor answer."""
    server = start(ping_interval=1, ping_timeout=1)
    server.fill_pool()
    pid = server.get_json("/process")
    joined(server).close()
    joined_polling(server).send("1")
    wait_until(lambda: not server.get_json("/sids"))
    server.get_json("/stats")
    before = {figure: figure(pid) for figure in (threads, descriptors)}
    gone = server.get_json("/stats")["tally"].get("disconnect", 0)
    quiet = [joined(server) for _ in range(QUIET)]
    full_window = [joined(server, receive_buffer=4096) for _ in range(QUIET)]
    polls = [joined_polling(server).get() for _ in range(QUIET)]
    speaker = joined(server)
    speaker.send('42["flood",0,9,100000]')
    began = time.monotonic()
    everybody = 3 * QUIET + 1
    wait_until(lambda: server.get_json("/stats")["tally"]["disconnect"] == gone + everybody, limit=LIMIT)
    noticed = time.monotonic() - began
    wait_until(
        lambda: all(figure(pid) <= held + 1 for figure, held in before.items()),  # one that serves our own requests
        limit=LIMIT,
        what=f"as few threads and descriptors as before, {list(before.values())}",
    )
    left = time.monotonic() - began - noticed
    stats = server.get_json("/stats")
    assert (stats["connected"], stats["sessions"], stats["bytes_waiting"]) == (0, 0, 0)
    for peer in [*quiet, *full_window, speaker]:
        peer.abandon()
    for poll in polls:
        poll.abort()
    row(14, f"{everybody} vanished clients", f"noticed after {noticed:.1f} s (1 + 1), nothing left {left:.1f} s later")
