"""The bodies in native threads of processes that are patched, or not, as the bus runs them."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from .conftest import BODIES

pytestmark = pytest.mark.services

PROGRAM = Path(__file__).with_name("native_threads.py")


@pytest.mark.parametrize("library", ["none", "gevent", "eventlet"])
@pytest.mark.parametrize("name", BODIES)
def test_publishing_and_listening_each_have_a_native_thread(library, name, broker_of):
    if library != "none":
        pytest.importorskip(library)
    body = broker_of(name)
    channel = f"test-{uuid.uuid4().hex[:8]}"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", PROGRAM, library, body.url, channel],
        capture_output=True, text=True, timeout=100, cwd=PROGRAM.parent.parent.parent,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["errors"] == [], run.stderr
    assert said["heard"] == [1500, 1500]
    assert said["held_up"] < 1
    assert said["closing"] < 3
