import json
import urllib.parse

import pytest
from doubles import KeptTransport, StrictLock

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.engineio import polling
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.engineio.polling import Polling

# Payloads


@pytest.mark.parametrize(
    ("payload", "packets"),
    [
        ("4hello", ["4hello"]),
        ("4a\x1e2\x1e4b", ["4a", "2", "4b"]),
        ("bAQIDBA==", [b"\x01\x02\x03\x04"]),
        ("4€\x1ebAQ==\x1e6", ["4€", b"\x01", "6"]),
        ("b", [b""]),
        ("4", ["4"]),
    ],
)
def test_payloads(payload, packets):
    assert polling.decode(payload) == packets
    assert polling.encode([Frame(packet) for packet in packets]) == payload


BAD = ["", "\x1e", "4a\x1e", "\x1e4a", "4a\x1e\x1e4b", "bA", "b!!!!", "bAQ\n==", "bä", "b\ud800"]


@pytest.mark.parametrize("payload", BAD)
def test_bad_payloads(payload):
    with pytest.raises(RemoteProtocolError):
        polling.decode(payload)


def test_a_payload_may_hold_many_packets():
    assert polling.decode("\x1e".join(["4"] * 10_000)) == ["4"] * 10_000


# JSONP


PAYLOADS = ['4["a\\"b"]', "4a\x1e4b", "4\u2028\u2029", "4</script><!--", "4\\n\n\r\t\\\\", "4🎈"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_script_hands_over_the_payload(payload):
    script = polling.wrap("3", payload)
    assert script.startswith("___eio[3](") and script.endswith(");")
    assert json.loads(script[len("___eio[3](") : -2]) == payload
    assert script.isascii()
    assert "<" not in script and ">" not in script


@pytest.mark.parametrize("index", ["0);alert(1);(", "x1y2", "1\n2", "１"])
def test_nothing_but_the_digits_of_the_index_gets_into_the_script(index):
    digits = "".join(char for char in index if char in "0123456789")
    assert polling.wrap(index, "4") == f'___eio[{digits}]("4");'


@pytest.mark.parametrize(
    ("payload", "form"),
    [
        ("4hello", "4hello"),
        ("4a\x1e4b", "4a\x1e4b"),
        ("4a\nb", "4a\\nb"),
        ('42["a\\nb"]', '42["a\\\\nb"]'),
        ("4a&b=c+d %41", "4a&b=c+d %41"),
        ("", ""),
    ],
)
def test_the_form_is_undone(payload, form):
    assert polling.unwrap("d=" + urllib.parse.quote(form)) == payload


@pytest.mark.parametrize("body", ["", "4hello", "e=4", "dd=4"])
def test_a_body_without_its_field_is_refused(body):
    with pytest.raises(RemoteProtocolError):
        polling.unwrap(body)


# The transport


class Poll:
    """A poll: keeps how it was answered."""

    def __init__(self):
        self.answers = []

    def __call__(self, frames):
        self.answers.append([frame.message for frame in frames])


def make(limit=100):
    slow = []
    return Polling(StrictLock(), limit, lambda: slow.append(True)), slow


def taken(frames):
    return [frame.message for frame in frames]


def test_what_was_written_before_waits_for_the_poll():
    transport, _ = make()
    transport.write([Frame("4a")])
    transport.write([Frame("4b"), Frame(b"c")])
    assert transport.holds
    assert transport.waiting == len("4a") + len("4b") + len("bYw==")
    assert taken(transport.poll(Poll())) == ["4a", "4b", b"c"]
    assert not transport.holds and transport.waiting == 0


def test_a_waiting_poll_gets_what_is_written_at_once():
    transport, _ = make()
    poll = Poll()
    assert transport.poll(poll) is None
    transport.write([Frame("4a"), Frame("4b")])
    transport.write([Frame("4c")])
    assert poll.answers == [["4a", "4b"]]
    assert taken(transport.poll(poll)) == ["4c"]


def test_only_one_poll_waits():
    transport, _ = make()
    poll = Poll()
    transport.poll(poll)
    with pytest.raises(RemoteProtocolError):
        transport.poll(Poll())
    transport.write([Frame("4a")])
    assert poll.answers == [["4a"]]


def test_a_withdrawn_poll_is_not_answered():
    transport, _ = make()
    poll = Poll()
    transport.poll(poll)
    assert transport.forget(poll)
    assert not transport.forget(poll)
    transport.write([Frame("4a")])
    assert poll.answers == []
    assert taken(transport.poll(Poll())) == ["4a"]


def test_release_ends_a_waiting_poll_only():
    transport, _ = make()
    transport.release([Frame("6")])
    poll = Poll()
    transport.poll(poll)
    transport.release([Frame("6")])
    assert poll.answers == [["6"]]


def test_a_client_that_never_polls_is_slow():
    transport, slow = make(limit=10)
    transport.write([Frame("4" + "a" * 9)])
    assert slow == []
    transport.write([Frame("4")])
    assert slow == [True]


def test_one_large_message_for_a_waiting_poll_is_not_slow():
    transport, slow = make(limit=10)
    poll = Poll()
    transport.poll(poll)
    transport.write([Frame("4" * 1000)])
    assert slow == [] and len(poll.answers) == 1


def test_one_large_message_between_polls_is_not_slow():
    transport, slow = make(limit=10)
    transport.write([Frame("4" * 1000)])
    assert slow == [], "as over WebSocket the limit is for a client that is behind already"
    transport.write([Frame("4")])
    assert slow == [True]


def test_while_an_upgrade_is_under_way_polls_do_not_wait():
    transport, _ = make()
    transport.draining = True
    assert transport.poll(Poll()) == []


def test_after_the_upgrade_all_goes_to_the_successor():
    transport, _ = make()
    successor = KeptTransport()
    transport.write([Frame("4a"), Frame("4b")])
    transport.upgrade(successor)
    transport.write([Frame("4c")])
    assert successor.messages == ["4a", "4b", "4c"]
    transport.close(1000)
    transport.pause(True)
    assert not transport.closed, "it is the successor that is closed"


def test_an_upgrade_with_nothing_waiting_writes_nothing():
    transport, _ = make()
    successor = KeptTransport()
    transport.upgrade(successor)
    assert successor.batches == []


def test_close_ends_the_waiting_poll_with_a_close_packet():
    transport, _ = make()
    poll = Poll()
    transport.poll(poll)
    transport.close()
    transport.close()
    transport.write([Frame("4late")])
    assert poll.answers == [["1"]]
    assert transport.poll(Poll()) == []


def test_close_comes_in_the_poll_behind_what_waits():
    transport, _ = make()
    transport.write([Frame("4a"), Frame("4b")])
    transport.close()
    assert taken(transport.poll(Poll())) == ["4a", "4b"]
    assert transport.holds
    assert taken(transport.poll(Poll())) == ["1"]
    assert not transport.holds
    assert transport.poll(Poll()) == []


def test_an_upgrade_takes_all_at_once():
    transport, _ = make()
    transport.write([Frame("4a")])
    transport.close()
    successor = KeptTransport()
    transport.upgrade(successor)
    assert successor.messages == ["4a", "1"]
