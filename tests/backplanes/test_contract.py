"""What every body promises, at a real broker."""

import itertools
import os
import subprocess
import sys
import threading
import time
import uuid

import pytest

from flask_realtime import backplanes
from flask_realtime.errors import BackplaneError

from .conftest import LIMIT, publish

pytestmark = pytest.mark.services


@pytest.fixture
def channel():
    return f"test-{uuid.uuid4().hex[:8]}"


def test_bytes_arrive_exactly_as_they_were_given(body, channel, opened, listening):
    listener = listening(opened(body, channel))
    sent = [b"{}", b"", bytes(range(256)), "Grüße, 世界".encode(), b"\r\n$5\r\n", os.urandom(900_000), b"last"]
    opened(body, channel).publish(sent)
    assert listener.get(len(sent)) == sent


def test_order_holds_for_each_of_several_senders(body, channel, opened, listening):
    listeners = [listening(opened(body, channel)) for _ in range(2)]
    batches, size = 20, 50

    def send(name):
        plane = opened(body, channel)
        for batch in range(batches):
            plane.publish([f"{name} {number}".encode() for number in range(batch * size, (batch + 1) * size)])

    senders = [threading.Thread(target=send, args=(name,)) for name in "abc"]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    for listener in listeners:
        got = [message.decode().split() for message in listener.get(3 * batches * size)]
        for name in "abc":
            assert [int(number) for who, number in got if who == name] == list(range(batches * size))


def test_each_of_several_listeners_gets_all_of_its_channel_only(body, channel, opened, listening):
    listeners = [listening(opened(body, channel)) for _ in range(3)]
    sent = [b"%d" % number for number in range(100)]
    opened(body, channel + "x").publish([b"another channel's"])
    plane = opened(body, channel)
    for message in sent:
        plane.publish([message])
    for listener in listeners:
        assert listener.get(len(sent)) == sent


def test_none_comes_first_and_again_when_it_is_quiet(body, channel, opened):
    plane = opened(body, channel)
    arriving = plane.listen()
    assert next(arriving) is None
    began = time.monotonic()
    assert [next(arriving), next(arriving)] == [None, None]
    assert 0.5 < time.monotonic() - began < 10
    arriving.close()


def test_what_is_published_once_the_subscription_stands_comes(body, channel, opened):
    publisher = opened(body, channel)
    publisher.publish([b"too early"])
    arriving = opened(body, channel).listen()
    assert next(arriving) is None
    publisher.publish([b"now"])
    assert next(filter(None, arriving)) == b"now"
    arriving.close()


LAST_WORDS = """
import os, sys
from flask_realtime import backplanes

plane = backplanes.open(sys.argv[1], sys.argv[2])
sys.modules[type(plane).__module__].LAST = 60
plane.publish([b'"%d%s"' % (number, bytes(int(sys.argv[3])).replace(b"\\0", b"x")) for number in range(40)])
plane.close()
os._exit(0)
"""


def test_what_was_published_outlives_the_process(body, channel, opened, listening):
    listener = listening(opened(body, channel))
    size = 500_000 if body.name == "zmq" else 50_000  # the others confirm each; this one has to have some left
    subprocess.run([sys.executable, "-c", LAST_WORDS, body.url, channel, str(size)], check=True, timeout=LIMIT)
    assert [message[:3].strip(b'"x') for message in listener.get(40)] == [b"%d" % number for number in range(40)]


def test_closing_ends_both_calls_in_another_thread(body, channel, opened, listening):
    plane = opened(body, channel)
    listener = listening(plane)
    plane.publish([b"x"])
    listener.get(1)
    began = time.monotonic()
    listener._going = False
    plane.close()
    plane.close()
    listener.wait(lambda: listener.ended, 5)
    assert time.monotonic() - began < 3
    with pytest.raises(BackplaneError):
        plane.publish([b"y"])
    with pytest.raises(BackplaneError):
        list(itertools.islice(plane.listen(), 2))


def test_a_broker_that_is_killed_is_noticed_and_found_again(body, channel, opened, listening):
    plane = opened(body, channel)
    listener = listening(plane)
    plane.publish([b"before"])
    listener.get(1)
    body.broker.kill()
    try:
        listener.wait(lambda: listener.errors, 15)
        with pytest.raises(BackplaneError):
            for _ in range(20):  # where a broker confirms nothing, the first may still seem to go out
                plane.publish([b"lost"])
                time.sleep(0.1)
        assert {type(error) for error in listener.errors} <= {BackplaneError, *BackplaneError.__subclasses__()}
    finally:
        body.broker.start()
    begun = listener.begun
    listener.wait(lambda: listener.begun > begun or listener.begun > 1)
    publish(plane, [b"after"])
    listener.wait(lambda: b"after" in listener.messages)


def test_a_listener_that_was_away_goes_on_where_it_was(body, channel, opened):
    plane, publisher = opened(body, channel), opened(body, channel)
    assert plane.keeps == body.keeps
    arriving = plane.listen()
    assert next(arriving) is None
    publisher.publish([b"0", b"1", b"2"])
    got = list(itertools.islice(filter(None, arriving), 2))
    arriving.close()
    publisher.publish([b"3", b"4"])
    arriving = plane.listen()
    assert next(arriving) is None
    publisher.publish([b"5"])
    for message in filter(None, arriving):
        got.append(message)
        if message == b"5":
            break
    arriving.close()
    expected = [b"0", b"1", b"2", b"3", b"4", b"5"] if body.keeps else [b"0", b"1", b"5"]
    # RabbitMQ gives again what wasn't acknowledged; receivers know it by its number.
    assert (list(dict.fromkeys(got)) if body.name == "rabbitmq" else got) == expected


def test_a_closed_port_is_an_error_soon_and_shows_no_password(body):
    plane = backplanes.open(body.closed_port(), "channel")
    for attempt in (lambda: plane.publish([b"x"]), lambda: next(plane.listen())):
        began = time.monotonic()
        with pytest.raises(BackplaneError) as raised:
            attempt()
        assert time.monotonic() - began < 8
        assert "hush" not in str(raised.value) + plane.url
        assert plane.url in str(raised.value)
    plane.close()


def test_listeners_are_counted_where_the_broker_knows(body, channel, opened, listening):
    plane = opened(body, channel)
    if body.name in ("redis", "unix", "cluster"):
        assert plane.listeners() == 0
        for _ in range(2):
            listening(opened(body, channel))
        assert plane.listeners() == 2
    else:
        assert plane.listeners() is None
