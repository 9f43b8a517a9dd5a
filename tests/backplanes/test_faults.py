"""What each broker does under a kill, a freeze, a flush, a takeover."""

import logging
import threading
import time
import uuid

import pytest
import services

from flask_realtime import backplanes
from flask_realtime.errors import BackplaneError

from .conftest import publish

pytestmark = pytest.mark.services

COUNT, BATCH = 10_000, 100


@pytest.fixture
def channel():
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("name", ["streams", "rabbitmq"])
def test_nothing_is_lost_when_the_broker_is_killed_during_a_broadcast(name, broker_of, channel, opened, listening):
    body = broker_of(name)
    listeners = [listening(opened(body, channel)) for _ in range(2)]
    plane = opened(body, channel)
    killed = threading.Event()

    def kill():
        listeners[0].get(COUNT // 4)
        body.broker.kill()
        killed.set()
        body.broker.start()

    killer = threading.Thread(target=kill)
    killer.start()
    for first in range(0, COUNT, BATCH):
        if first == COUNT // 2:
            assert killed.wait(60)  # whatever the speed, half of it is published to the broker that was killed
        publish(plane, [b"%d" % number for number in range(first, first + BATCH)])
    killer.join()
    for listener in listeners:
        listener.wait(lambda listener=listener: b"%d" % (COUNT - 1) in listener.messages[-1:])
        seen, newest = 0, -1
        for number in map(int, listener.messages):
            if number > newest:  # as receivers drop what comes twice: nothing new may be older than what they know
                seen, newest = seen + 1, number
        assert seen == COUNT


@pytest.mark.parametrize("name", ["redis", "streams", "rabbitmq", "zmq"])
def test_a_broker_that_falls_silent_is_given_up(name, broker_of, channel, opened, listening):
    body = broker_of(name)
    options = {"redis_options": {"socket_timeout": 2}} if name in ("redis", "streams") else {}
    listener = listening(opened(body, channel, **options))
    plane = opened(body, channel, **options)
    plane.publish([b"before"])
    listener.get(1)
    with body.broker.frozen():
        if name != "zmq":  # which takes what the connections take
            began = time.monotonic()
            with pytest.raises(BackplaneError):
                plane.publish([bytes(100_000)] * 100)
            assert time.monotonic() - began < 15
        listener.wait(lambda: listener.errors, 45)
    listener.wait(lambda: listener.begun > 1)
    publish(plane, [b"again"])
    listener.wait(lambda: b"again" in listener.messages)


def test_a_publisher_that_was_idle_while_the_broker_restarted_notices_nothing(broker_of, channel, opened, listening):
    for name in ("redis", "streams", "rabbitmq"):
        body = broker_of(name)
        plane = opened(body, channel)
        plane.publish([b"before"])
        body.broker.kill()
        body.broker.start()
        plane.publish([b"after"])


def test_rabbitmq_keeps_an_idle_publisher_and_an_idle_listener(broker_of, channel, opened, listening):
    body = broker_of("rabbitmq")
    publisher = opened(body, channel)
    publisher.publish([b"first"])
    listener = listening(opened(body, channel, connection_options={"heartbeat": 3}))
    listener.wait(lambda: listener.quiet >= 9)  # more than the broker waits for two beats
    publisher.publish([b"last"])
    listener.get(1)
    assert not listener.errors


def test_an_exchange_of_other_properties_is_used_as_it_is(broker_of, channel, opened, listening, caplog):
    kombu = pytest.importorskip("kombu")
    body = broker_of("rabbitmq")
    with kombu.Connection(body.url) as connection:
        kombu.Exchange(channel, type="fanout", durable=False)(connection.default_channel).declare()
    plane = opened(body, channel)
    with caplog.at_level(logging.WARNING, "flask_realtime"):
        listener = listening(plane)
        plane.publish([b"x"])
        plane.publish([b"y"])
    assert listener.get(2) == [b"x", b"y"]
    assert not plane.keeps
    assert [record.name for record in caplog.records] == ["flask_realtime.backplanes"]
    assert "don't outlive" in caplog.text


def test_queues_of_closed_listeners_are_gone(broker_of, channel, opened, listening):
    kombu = pytest.importorskip("kombu")
    body = broker_of("rabbitmq")
    plane = opened(body, channel)
    listener = listening(plane)
    listener.stop()
    with kombu.Connection(body.url) as connection, pytest.raises(connection.channel_errors, match="NOT_FOUND"):
        connection.default_channel.queue_declare(plane._queue_name, passive=True)


def test_a_stream_has_about_its_length(broker_of, channel, opened):
    body = broker_of("streams")
    plane = backplanes.open(body.url + "?maxlen=500", channel)
    for _ in range(20):
        plane.publish([b"x"] * 100)
    assert 500 <= int(body.broker.ask("XLEN", channel)) < 700
    plane.close()


@pytest.mark.parametrize("command", [("DEL",), ("XTRIM", "MAXLEN", "1")])
def test_a_listener_goes_on_with_what_is_left_of_a_stream(command, broker_of, channel, opened, caplog):
    body = broker_of("streams")
    plane, publisher = opened(body, channel), opened(body, channel)
    arriving = plane.listen()
    assert next(arriving) is None
    publisher.publish([b"0"])
    assert next(arriving) == b"0"
    arriving.close()
    publisher.publish([b"1", b"2"])
    body.broker.ask(command[0], channel, *command[1:])
    publisher.publish([b"3"])
    arriving = plane.listen()
    with caplog.at_level(logging.WARNING, "flask_realtime"):
        assert next(arriving) is None
    assert "may be lost" in caplog.text
    assert next(arriving) == (b"2" if command[0] == "XTRIM" else b"3")
    arriving.close()


def test_a_stream_that_began_anew_with_older_ids_is_read_from_its_beginning(broker_of, channel, opened, caplog):
    body = broker_of("streams")
    plane = opened(body, channel)
    arriving = plane.listen()
    assert next(arriving) is None
    opened(body, channel).publish([b"new"])
    assert next(arriving) == b"new"
    arriving.close()
    body.broker.ask("DEL", channel)
    body.broker.ask("XADD", channel, "1-1", "m", "old")
    arriving = plane.listen()
    assert [next(arriving), next(arriving)] == [None, b"old"]
    arriving.close()


def test_wrong_passwords_are_refused_and_not_shown(tmp_path):
    broker = services.Redis(tmp_path, arguments=["--requirepass", "right"]).start()
    try:
        for scheme in ("redis", "redis+streams"):
            plane = backplanes.open(f"{scheme}://:wrong@127.0.0.1:{broker.port}", "channel")
            for attempt in (lambda plane=plane: plane.publish([b"x"]), lambda plane=plane: next(plane.listen())):
                with pytest.raises(BackplaneError, match=r"refuses.*(WRONGPASS|[Ii]nvalid)") as raised:
                    attempt()
                assert "wrong@" not in str(raised.value)
            plane.close()
            right = backplanes.open(f"{scheme}://:right@127.0.0.1:{broker.port}", "channel")
            right.publish([b"x"])
            right.close()
    finally:
        broker.kill()


def test_sentinels_lead_to_the_master_and_after_it_to_the_next(tmp_path, listening):
    master = services.Redis(tmp_path).start()
    replica = services.Redis(tmp_path, arguments=["--replicaof", "127.0.0.1", master.port]).start()
    sentinel = services.Sentinel(tmp_path, master).start()
    planes = [backplanes.open(sentinel.url, "channel") for _ in range(2)]
    try:
        listener = listening(planes[0])
        planes[1].publish([b"before"])
        listener.get(1)
        end = time.monotonic() + 30
        while f"port={replica.port}" not in sentinel.ask("INFO", "sentinel") + sentinel.ask(
            "SENTINEL", "REPLICAS", "mymaster"
        ).replace("\n", " ").replace("port ", "port="):
            assert time.monotonic() < end
            time.sleep(0.05)
        master.kill()
        listener.wait(lambda: listener.errors)
        listener.wait(lambda: listener.begun > 1)
        publish(planes[1], [b"after"])
        listener.wait(lambda: b"after" in listener.messages)
        assert replica.ask("ROLE").startswith("master")
    finally:
        for each in (*planes, sentinel, replica, master):
            (each.kill if hasattr(each, "kill") else each.close)()


def test_a_cluster_leads_from_any_node_to_the_owner_of_the_channel(broker_of, opened, listening):
    body = broker_of("cluster")
    channels = [f"channel-{number}" for number in range(6)]
    assert len({body.broker.owner(channel) for channel in channels}) == 3
    for channel in channels:
        listener = listening(opened(body, channel))
        plane = opened(body, channel)
        plane.publish([channel.encode()] * 3)
        assert listener.get(3) == [channel.encode()] * 3
        assert plane.listeners() == 1


def test_a_listener_follows_when_its_part_of_the_cluster_moves(broker_of, opened, listening):
    body = broker_of("cluster")
    channel = "moving"
    old = body.broker.owner(channel)
    new = next(node for node in body.broker.nodes if node is not old)
    slot = old.ask("CLUSTER", "KEYSLOT", channel)
    plane = opened(body, channel)
    listener = listening(opened(body, channel))
    plane.publish([b"before"])
    listener.get(1)

    def move(source, target):
        name = target.ask("CLUSTER", "MYID")
        for node in (target, source, *body.broker.nodes):
            assert node.ask("CLUSTER", "SETSLOT", slot, "NODE", name) == "OK"

    move(old, new)
    try:
        listener.wait(lambda: listener.begun > 1)
        publish(plane, [b"after"])
        listener.wait(lambda: b"after" in listener.messages)
    finally:
        move(new, old)
