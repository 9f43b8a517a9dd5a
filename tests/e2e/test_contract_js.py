"""The contract as the official JavaScript client sees it, over every transport, against every kind of server."""

import json
import subprocess

import pytest

from .player import LIMIT, TRANSPORTS, arguments
from .servers import HERE, PROFILES, Server

pytestmark = pytest.mark.e2e

# Scenario of client.mjs -> profile of the server.
SCENARIOS = {
    "connect_with_auth": "default",
    "refused": "default",
    "unknown_namespace": "default",
    "namespaces": "default",
    "catch_all": "default",
    "echo": "default",
    "send": "default",
    "ack_from_server": "default",
    "ack_from_client": "default",
    "binary": "default",
    "binary_in_tuples": "default",
    "rooms": "default",
    "emit_elsewhere": "default",
    "server_disconnect": "default",
    "client_disconnect": "default",
    "large": "default",
    "order": "default",
    "reconnect": "default",
    "many_clients": "default",
    "connect_crash": "hostile",
    "megabyte": "large",
    "heartbeat": "heartbeat",
    "silent": "heartbeat",
}
ORDERED = ("order", "binary", "echo")
MSGPACK = (
    "connect_with_auth",
    "refused",
    "unknown_namespace",
    "namespaces",
    "catch_all",
    "echo",
    "ack_from_server",
    "ack_from_client",
    "binary",
    "rooms",
    "server_disconnect",
    "large",
    "order",
    "many_clients",
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_javascript_client(play, front_for, scenario, transport):
    play(front_for(SCENARIOS[scenario]), scenario, transport)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ORDERED)
def test_javascript_client_with_handlers_one_after_another(play, front_for, scenario, transport):
    play(front_for("strict"), scenario, transport, strict=True)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", MSGPACK)
def test_javascript_client_with_msgpack(play, front_for, scenario, transport):
    play(front_for("msgpack"), scenario, transport, parser="msgpack")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_javascript_client_comes_back_after_a_restart(play, kind, directory, transport):
    server = Server(kind, directory, **PROFILES["default"])
    try:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(**arguments(server, "restart", transport, {"limit": LIMIT}), **pipes) as client:
            try:
                assert json.loads(client.stdout.readline() or "null") == {"event": "ready"}, client.stderr.read()
                server.stop()
                assert json.loads(client.stdout.readline() or "null") == {"event": "disconnected"}, client.stderr.read()
                server = Server(kind, directory, port=server.port, **PROFILES["default"])
                output, errors = client.communicate("restarted\n", timeout=LIMIT)
                assert client.returncode == 0, f"{errors}\nlog of {kind}:\n{server.tail(1500)}"
                assert json.loads(output.splitlines()[-1])["ok"]
            finally:
                client.kill()
    finally:
        if server.process.poll() is None:
            server.stop()


def test_each_scenario_of_the_client_is_run():
    listed = subprocess.run(["node", "client.mjs", "--list"], cwd=HERE, capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) == {*SCENARIOS, "restart"}
