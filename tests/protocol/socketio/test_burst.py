"""Emits that follow each other closely leave together, and nothing overtakes them."""

import threading
from types import SimpleNamespace

import pytest
from doubles import Party

from flask_realtime.protocol.engineio.frame import Frame, Joined
from flask_realtime.protocol.socketio.burst import CLOSE, WAIT, Burst


@pytest.fixture
def party():
    return Party(bursts=True)


def batches(guest):
    """Return what came since the last call, a list for each write, without the types before the payload."""
    guest.batches_seen = getattr(guest, "batches_seen", 2)  # open and CONNECT
    new, guest.batches_seen = guest.transport.batches[guest.batches_seen :], len(guest.transport.batches)
    return [[message.lstrip("0123456789") or message for message in batch] for batch in new]


def news(*numbers):
    return [f'["news",{number}]' for number in numbers]


def emit(party, *numbers, **options):
    for number in numbers:
        party.core.emit("news", [number], "/", **options)


def test_the_first_goes_out_at_once_the_next_ones_together(party):
    one, two = party.join(), party.join()
    emit(party, 0, 1, 2, 3)
    assert batches(one) == batches(two) == [news(0)]
    party.runtime.advance(WAIT)
    assert batches(one) == batches(two) == [news(1, 2, 3)]
    assert party.core.counters.events_out.value == 8


def test_emits_that_are_apart_go_out_at_once(party):
    guest = party.join()
    for number in range(3):
        emit(party, number)
        assert batches(guest) == [news(number)]
        party.runtime.advance(CLOSE)


def test_emits_to_others_go_out_at_once(party):
    one, two = party.join(), party.join()
    for number in range(4):
        for guest in (one, two):
            emit(party, number, to=guest.sid)
            assert batches(guest) == [news(number)]


def test_the_end_of_a_handler_sends_what_waits_and_its_acknowledgement_after_it(party):
    guest, other = party.join(), party.join()
    party.on("work", "quiet")
    party.answers["work"] = lambda client: emit(party, 0, 1, 2) or "done"
    party.answers["quiet"] = lambda client: emit(party, 3, 4)
    guest.emit("work", number=7)
    assert batches(other) == [news(0), news(1, 2)]
    assert batches(guest) == [news(0), news(1, 2), ['["done"]']]
    guest.emit("quiet")
    assert batches(other) == [news(3, 4)] and not party.core._burst.active


def test_a_handler_that_fails_keeps_nothing_back(party):
    guest = party.join()
    party.on("work")

    def work(client):
        emit(party, 0, 1)
        raise ValueError("wanted")

    party.answers["work"] = work
    guest.emit("work", number=1)
    assert batches(guest) == [news(0), news(1)]
    party.runtime.advance(1)
    party.answers["work"] = lambda client: emit(party, 2, 3) or object()
    guest.emit("work", number=1)
    assert batches(guest) == [news(2), news(3)]


def test_what_goes_to_several_rooms_keeps_its_order_for_each_client(party):
    one, two = party.join(), party.join()
    party.core.enter_room(one.sid, "left", "/")
    emit(party, 0)
    emit(party, 1, 2, to="left")
    emit(party, 3, 4)
    emit(party, 5, to=two.sid)
    emit(party, 6, skip=(two.sid,))
    party.runtime.advance(WAIT)
    assert batches(one) == [news(0), news(1, 2), news(3, 4), news(6)]
    assert batches(two) == [news(0), news(3, 4), news(5)]


def test_a_disconnect_comes_after_what_waits(party):
    guest = party.join()
    emit(party, 0, 1)
    party.core.disconnect(guest.sid, "/")
    emit(party, 2)
    party.runtime.advance(WAIT)
    assert batches(guest) == [news(0), news(1), ["41"]]


def test_an_emit_with_callback_comes_after_what_waits(party):
    guest = party.join()
    emit(party, 0, 1)
    emit(party, 2, callback=print)
    emit(party, 3)
    party.runtime.advance(WAIT)
    assert batches(guest) == [news(0), news(1), news(2), news(3)]


def test_a_client_that_is_being_let_in_gets_each_once(party):
    guest, late = party.join(), party.open()
    party.on("connect")
    party.runtime.hold = True
    late.join()
    emit(party, 0, 1, 2)
    party.runtime.hold = False
    party.runtime.run_jobs()
    emit(party, 3)
    party.runtime.advance(WAIT)
    assert [event[1] for event in guest.events()] == [0, 1, 2, 3]
    assert [event[1] for event in late.events()] == [0, 1, 2, 3]


def test_very_many_do_not_wait(party):
    guest = party.join()
    emit(party, *range(65))
    assert batches(guest) == [news(0), news(*range(1, 65))]


def test_flushing_and_sending_at_once(party):
    guest = party.join()
    emit(party, 0, 1)
    party.core.flush()
    assert batches(guest) == [news(0), news(1)]
    emit(party, 2)
    party.core.send_at_once()
    emit(party, 3, 4)
    assert batches(guest) == [news(2), news(3), news(4)]
    party.runtime.advance(1)
    assert batches(guest) == []


def test_what_is_sent_while_the_burst_is_being_sent_gets_in_line(party):
    guest, other = party.join(), party.join()
    write = guest.transport.write

    def writing(frames):
        write(frames)
        if len(frames) == 2:
            emit(party, 3)  # as another thread might
            party.core.disconnect(other.sid, "/")

    guest.transport.write = writing
    emit(party, 0, 1, 2)
    party.runtime.advance(WAIT)
    assert batches(guest) == [news(0), news(1, 2), news(3)]
    assert batches(other) == [news(0), news(1, 2), news(3), ["41"]]


def test_an_error_of_a_transport_does_not_stop_the_next_burst(party):
    guest = party.join()
    write, failed = guest.transport.write, []

    def failing(frames):
        if len(frames) == 2 and not failed:
            failed.append(frames)
            raise RuntimeError("of ours")
        write(frames)

    guest.transport.write = failing
    emit(party, 0, 1, 2)
    with pytest.raises(RuntimeError):
        party.core.flush()
    emit(party, 3, 4)
    party.core.flush()
    assert batches(guest) == [news(0), news(3, 4)]


def test_the_joined_forms_are_the_parts_one_after_the_other():
    parts = [Frame('42["a"]'), Frame(b"\x00\x01"), Frame("2")]
    joined = Joined(parts)
    for _ in range(2):
        assert joined.websocket == b"".join(part.websocket for part in parts)
        assert joined.polling == '42["a"]\x1ebAAE=\x1e2'
    with pytest.raises(AttributeError):
        print(joined.message)


class Lock:
    """A lock; ``then[n]()`` is called when it has been released for the n-th time."""

    def __init__(self):
        self._lock, self.released, self.then = threading.Lock(), 0, {}

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self._lock.release()
        self.released += 1
        self.then.pop(self.released, lambda: None)()


class Peer:
    """A client, and its session, that takes what is sent after ``free`` is set."""

    def __init__(self, free=None):
        self.session, self.free, self.got, self.entered = self, free, [], threading.Event()

    def send(self, frames):
        self.entered.set()
        assert self.free is None or self.free.wait(30)
        self.got.append([frame.message for frame in frames])


def test_who_is_done_leaves_the_next_one_undisturbed():
    """A thread that has sent all, and one that begins to just then: a third one still gets in line."""
    lock, free = Lock(), threading.Event()
    runtime = SimpleNamespace(lock=lambda: lock, call_later=lambda seconds, function: None)
    burst, quick, slow = Burst(runtime, False), Peer(), Peer(free)
    burst.add((quick,), [Frame("4first")], True)

    def next_one():
        burst.add((slow,), [Frame("4second")], True)
        other.start()
        assert slow.entered.wait(30)

    other = threading.Thread(target=burst.flush)
    lock.then[lock.released + 3] = next_one  # entered, took all, found nothing more
    burst.flush()
    assert quick.got and other.is_alive()
    burst.add((slow,), [Frame("4third")])
    burst.flush()
    free.set()
    other.join(30)
    assert slow.got == [["4second"], ["4third"]]
