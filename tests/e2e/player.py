"""Run the scenarios of client.mjs, with the official JavaScript client."""

import json
import os
import subprocess
import threading

import pytest

from .servers import HERE

TRANSPORTS = ("polling", "websocket", "upgrade")
LIMIT = 60  # seconds


def arguments(server, scenario, transport, options):
    """Return the arguments for ``subprocess`` that run a scenario."""
    command = ["node", str(HERE / "client.mjs"), scenario, server.url, transport, json.dumps(options)]
    return {"args": command, "env": environment(server), "cwd": HERE, "text": True}


def environment(server):
    """Return the environment of a Node that trusts the server."""
    return {**os.environ, "NODE_EXTRA_CA_CERTS": str(server.ca)} if server.ca else dict(os.environ)


class Player:
    """Processes of Node that run scenarios one after the other, and a new one after each failure."""

    def __init__(self):
        self._processes = {}  # by the certificate that they trust

    def play(self, server, scenario, transport, **options):
        """Run a scenario to its end; what Node says is the message of a failure."""
        process = self._processes.get(server.ca)
        if process is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = ["node", str(HERE / "client.mjs"), "--lines"]
            process = subprocess.Popen(command, env=environment(server), cwd=HERE, text=True, **pipes)
            self._processes[server.ca] = process
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        try:
            process.stdin.write(json.dumps([scenario, server.url, transport, options]) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or '{"error": "no answer"}')
        finally:
            late.cancel()
        if answer != {"ok": True, "scenario": scenario, "transport": transport}:
            self._stop(self._processes.pop(server.ca))
            pytest.fail(f"{answer.get('error', answer)}\nlog of {server.kind}:\n{server.tail(1500)}")

    @staticmethod
    def _stop(process):
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def stop(self):
        while self._processes:
            self._stop(self._processes.popitem()[1])
