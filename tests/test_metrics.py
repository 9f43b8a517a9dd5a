import subprocess
import sys

import flask
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from flask_realtime import SocketIO, engineio
from flask_realtime.metrics import METRICS, Collector, exposition, socketio_metrics


class Fixed:
    """Has the numbers 1, 2, 3..., in the order of a real server's."""

    def __init__(self):
        server = engineio.Server()
        numbers = iter(range(1, 100))

        def number(value):
            return {key: number(inner) for key, inner in value.items()} if isinstance(value, dict) else next(numbers)

        self.numbers = number(server.stats())

    def stats(self):
        return self.numbers


def leaves(value):
    return [leaf for inner in value.values() for leaf in leaves(inner)] if isinstance(value, dict) else [value]


def samples(registry):
    """Return what Prometheus reads: (name, labels) -> value."""
    body, content_type = exposition(registry)
    assert content_type.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(body.decode()))
    assert all(family.documentation.endswith(".") for family in families)
    return {
        (sample.name, tuple(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_each_number_is_shown_once():
    source, registry = Fixed(), CollectorRegistry()
    socketio_metrics(source, registry)
    shown = samples(registry)
    assert sorted(shown.values()) == sorted(leaves(source.numbers))
    assert len(shown) == len(leaves(source.numbers)) > 20


def test_the_names():
    source, registry = Fixed(), CollectorRegistry()
    registry.register(Collector(source))
    shown = samples(registry)
    numbers = source.numbers
    assert shown["flask_realtime_clients", (("transport", "polling"),)] == numbers["clients"]["polling"]
    assert shown["flask_realtime_connects_total", ()] == numbers["connects"]
    reasons = numbers["disconnects"]
    assert shown["flask_realtime_disconnects_total", (("reason", "ping timeout"),)] == reasons["ping timeout"]
    assert shown["flask_realtime_events_received_total", ()] == numbers["events_in"]
    assert shown["flask_realtime_events_sent_total", ()] == numbers["events_out"]
    assert shown["flask_realtime_bad_input_total", (("kind", "http"),)] == numbers["bad_input"]["http"]
    assert shown["flask_realtime_handler_seconds_total", ()] == numbers["handlers"]["seconds"]
    assert shown["flask_realtime_pool_threads_max", ()] == numbers["pool"]["most"]


def test_every_metric_is_described_without_asking():
    class Silent:
        def stats(self):
            raise AssertionError("asked")

    described = [family.name for family in Collector(Silent()).describe()]
    assert len(set(described)) == len(METRICS)


def test_the_default_registry_is_that_of_the_process():
    app = flask.Flask(__name__)
    socketio = SocketIO()
    collector = socketio_metrics(socketio)  # before there is an application
    try:
        socketio.init_app(app)
        assert REGISTRY.get_sample_value("flask_realtime_clients", {"transport": "websocket"}) == 0
        with pytest.raises(ValueError, match="flask_realtime_clients"):
            socketio_metrics(socketio)
    finally:
        REGISTRY.unregister(collector)


def test_what_is_missing_is_named():
    program = """
import sys
sys.modules["prometheus_client"] = None
from flask_realtime import SocketIO
from flask_realtime.health import health_blueprint
health_blueprint(SocketIO())
print("without")
health_blueprint(SocketIO(), metrics=True)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "without\n")
    assert "pip install 'flask_realtime[metrics]'" in run.stderr.splitlines()[-1]
