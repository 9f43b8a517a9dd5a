"""The contract as the official JavaScript client sees it, over every transport, against every kind of server."""

import json
import os
import shutil
import subprocess
import threading

import pytest

from .servers import HERE, PROFILES, Server

pytestmark = pytest.mark.e2e

TRANSPORTS = ("polling", "websocket", "upgrade")
LIMIT = 60  # seconds

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


@pytest.fixture(scope="module", autouse=True)
def javascript():
    """Skip without Node or the packages of package.json."""
    if not shutil.which("node") or not (HERE / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("needs Node and its packages: run `npm install` in tests/e2e")


def arguments(server, scenario, transport, options):
    """Return the arguments for ``subprocess`` that run a scenario."""
    environment = dict(os.environ)
    if server.ca:
        environment["NODE_EXTRA_CA_CERTS"] = str(server.ca)
    command = ["node", str(HERE / "client.mjs"), scenario, server.url, transport, json.dumps(options)]
    return {"args": command, "env": environment, "cwd": HERE, "text": True}


class Player:
    """One process of Node that runs scenarios one after the other, and a new one after each failure."""

    def __init__(self):
        self._process = None

    def play(self, server, scenario, transport, **options):
        """Run a scenario to its end; what Node says is the message of a failure."""
        if self._process is None:
            environment = dict(os.environ)
            if server.ca:
                environment["NODE_EXTRA_CA_CERTS"] = str(server.ca)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = ["node", str(HERE / "client.mjs"), "--lines"]
            self._process = subprocess.Popen(command, env=environment, cwd=HERE, text=True, **pipes)
        process = self._process
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        try:
            process.stdin.write(json.dumps([scenario, server.url, transport, options]) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or '{"error": "no answer"}')
        finally:
            late.cancel()
        if answer != {"ok": True, "scenario": scenario, "transport": transport}:
            self.stop()
            pytest.fail(f"{answer.get('error', answer)}\nlog of {server.kind}:\n{server.tail(1500)}")

    def stop(self):
        process, self._process = self._process, None
        if process is not None:
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def play(kind, front):
    player = Player()
    yield player.play
    player.stop()


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
def test_javascript_client_comes_back_after_a_restart(kind, directory, transport):
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
