"""Transports of kombu that confirm nothing, by the one that needs no broker."""

import pytest

from flask_realtime import backplanes

from .conftest import Listening

pytest.importorskip("kombu")


def test_messages_go_through_a_transport_without_confirmations():
    planes = [backplanes.open("memory://", "channel") for _ in range(3)]
    listeners = [Listening(plane) for plane in planes[:2]]
    sent = [b"%d" % number for number in range(100)] + [bytes(range(256))]
    planes[2].publish(sent)
    try:
        for listener in listeners:
            assert listener.get(len(sent)) == sent
            listener.wait(lambda listener=listener: listener.quiet)
            assert not listener.errors
        assert not planes[0].keeps
        assert planes[0].listeners() is None
    finally:
        for listener in listeners:
            listener.stop()
        planes[2].close()


def test_options_reach_kombu():
    plane = backplanes.open(
        "memory://", "other",
        exchange_options={"durable": False}, queue_options={"durable": False}, producer_options={"compression": "gzip"},
    )  # fmt: skip
    listener = Listening(plane)
    plane.publish([b"x" * 1000])
    try:
        assert listener.get(1) == [b"x" * 1000]
    finally:
        listener.stop()
