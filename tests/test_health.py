import logging

import flask
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from flask_realtime import SocketIO
from flask_realtime.health import health_blueprint


@pytest.fixture
def site():
    """Return a function: arguments of the blueprint -> the extension and a client of the application."""
    made = []

    def make(url_prefix=None, **arguments):
        app = flask.Flask(__name__)
        socketio = SocketIO(app)
        made.append(socketio)
        app.register_blueprint(health_blueprint(socketio, **arguments), url_prefix=url_prefix)
        return socketio, app.test_client()

    yield make
    for socketio in made:
        socketio.server.shutdown()


def asked(client, path):
    answer = client.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.mimetype == "application/json"
    return answer.status_code, answer.json


def test_a_server_is_alive_and_ready(site):
    _, client = site()
    assert asked(client, "/healthz") == (200, {"status": "ok"})
    assert asked(client, "/readyz") == (200, {"status": "ready"})
    assert client.get("/metrics").status_code == 404


def test_a_server_that_stops_is_alive_and_not_ready(site):
    socketio, client = site()
    socketio.server.shutdown()
    assert asked(client, "/readyz") == (503, {"status": "stopping"})
    assert asked(client, "/healthz") == (200, {"status": "ok"})


def test_checks_decide_too_and_their_errors_stay_inside(site, caplog):
    works = {"queue": True, "disk": None}

    def database():
        raise ConnectionError("secret of the database")

    checks = {"queue": lambda: works["queue"], "disk": lambda: works["disk"]}
    _, client = site(checks=checks)
    assert asked(client, "/readyz") == (200, {"status": "ready"})
    checks["database"] = database
    works["queue"] = False
    with caplog.at_level(logging.ERROR, "flask_realtime.health"):
        assert asked(client, "/readyz") == (503, {"status": "failed", "failed": ["queue", "database"]})
    assert "the check 'database' failed" in caplog.text
    assert "secret of the database" in caplog.text
    assert asked(client, "/healthz") == (200, {"status": "ok"})


def test_metrics_are_shown_when_wanted(site):
    socketio, client = site(metrics=True, url_prefix="/internal")
    socketio.test_client(client.application)
    answer = client.get("/internal/metrics")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.mimetype == "text/plain"
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "flask_realtime_clients" in names
    assert all(name.startswith("flask_realtime_") for name in names)
    openmetrics = client.get("/internal/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.mimetype == "application/openmetrics-text"
    assert openmetrics.text.endswith("# EOF\n")


def test_metrics_of_a_registry_are_shown_together(site):
    registry = CollectorRegistry()
    Gauge("orders", "Open orders.", registry=registry).set(3)
    _, client = site(metrics=registry)
    names = {family.name for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert {"orders", "flask_realtime_clients"} <= names


def test_two_applications_of_one_process_have_metrics_each(site):
    first, one = site(metrics=True)
    _, other = site(metrics=True)
    first.test_client(one.application)
    line = "flask_realtime_connects_total 1.0"
    assert line in one.get("/metrics").text
    assert line not in other.get("/metrics").text
