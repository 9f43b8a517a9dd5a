"""A program under the reloader: a change and Ctrl-C end the serving process in good order."""

import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .servers import free_port, wait_until

pytestmark = pytest.mark.e2e

LIMIT = 30
HEADS = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "threading": "",
}
PROGRAM = """
from flask import Flask
from flask_realtime import SocketIO

app = Flask(__name__)
socketio = SocketIO(app)

@app.route("/")
def index():
    return "version 1"

@socketio.on("disconnect")
def left(reason):
    print("left:", reason, flush=True)

if __name__ == "__main__":
    socketio.run(app, port={port}, debug=True, reloader_options={{"reloader_type": "stat"}}, allow_unsafe_werkzeug=True)
"""


class Program:
    def __init__(self, mode, directory):
        self.port = free_port()
        self.file, self.log = directory / "program.py", directory / "program.log"
        self.file.write_text(f"{HEADS[mode]}\n{PROGRAM.format(port=self.port)}")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(self.file)],
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # as a terminal's, which sends Ctrl-C to all of it
            )

    def says(self, text):
        """Whether its page has this text."""
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=LIMIT).read() == text
        except OSError:
            return False

    def connect(self):
        return connect(f"ws://127.0.0.1:{self.port}/socket.io/?EIO=4&transport=websocket", proxy=None)


@pytest.fixture(params=list(HEADS))
def program(request, tmp_path):
    program = Program(request.param, tmp_path)
    yield program
    if program.process.poll() is None:
        os.killpg(program.process.pid, signal.SIGKILL)
        program.process.wait()


def join(peer):
    assert peer.recv(timeout=LIMIT)[0] == "0"
    peer.send("40")
    assert peer.recv(timeout=LIMIT).startswith("40{")


def code(peer):
    """Wait for the end and return its code."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            peer.recv(timeout=LIMIT)
    return closed.value.rcvd.code if closed.value.rcvd else None


def test_a_change_and_an_interrupt(program):
    wait_until(lambda: program.says(b"version 1"), limit=LIMIT, what="the program")
    with program.connect() as peer:
        join(peer)
        text = program.file.read_text().replace("version 1", "version 2")
        program.file.write_text(text)
        later = program.file.stat().st_mtime + 10  # whatever the file system's clock is worth
        os.utime(program.file, (later, later))
        assert code(peer) == 1001
    wait_until(lambda: program.says(b"version 2"), limit=LIMIT, what="the changed program")
    with program.connect() as peer:
        join(peer)
        os.killpg(program.process.pid, signal.SIGINT)
        assert code(peer) == 1001
    assert program.process.wait(LIMIT) == 0
    log = program.log.read_text()
    assert log.count("left: server disconnect") == 2, log
    assert "Traceback" not in log and "KeyboardInterrupt" not in log, log
