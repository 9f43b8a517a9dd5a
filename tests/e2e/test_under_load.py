"""A stop and a restart while clients send as fast as they are answered: no accepted event is lost, and all are told."""

import contextlib
import json
import signal
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed

from .servers import CRASH, PROFILES, SELECTED, STOP_LIMIT, Server, wait_until
from .test_wire import joined, websocket

pytestmark = pytest.mark.e2e

CLIENTS = 8
IN_FLIGHT = 5
ENOUGH = 20  # acknowledgements of each client before the signal, and after a restart
LIMIT = 30  # seconds
# Servers whose master replaces a worker at SIGHUP.
RESTARTS = [name for name in SELECTED if name.startswith(("gunicorn", "uwsgi"))]


class Sender(threading.Thread):
    """A client that sends events and keeps what is acknowledged, until it is told that it is over.

    Attributes:
        acknowledged: Numbers, in the order in which they came.
        code: Of the close frame that ended the first connection.
        back: Set when it was served again after that.
    """

    def __init__(self, server, name, marks, returns):
        super().__init__(daemon=True)
        self.server, self.name, self.marks, self.returns = server, name, marks, returns
        self.acknowledged = []
        self.busy, self.back = threading.Event(), threading.Event()
        self.code = self.trouble = None

    def run(self):
        try:
            with websocket(self.server) as peer:
                joined(peer)
                self.code = self._send_until_closed(peer)
            if self.returns:
                self._return()
        except Exception as error:
            self.trouble = error

    def _send_until_closed(self, peer):
        number = 0
        try:
            while True:
                while number < len(self.acknowledged) + IN_FLIGHT:
                    with contextlib.suppress(ConnectionClosed):  # what has come before is still to be read
                        peer.send(f"42{number}{json.dumps(['mark', str(self.marks), self.name, number])}")
                    number += 1
                text = peer.recv(timeout=LIMIT)
                if text == "2":
                    peer.send("3")
                elif text.startswith("43"):
                    self.acknowledged.append(json.loads(text[text.index("[") :])[0])
                    if len(self.acknowledged) == ENOUGH:
                        self.busy.set()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def _return(self):
        end = time.monotonic() + LIMIT
        while True:
            try:
                with websocket(self.server) as peer:
                    joined(peer)
                    for number in range(ENOUGH):
                        peer.send(f'42{number}["echo",{number}]')
                        while (text := peer.recv(timeout=LIMIT)) != f"43{number}[[{number}]]":
                            assert text == "2", text
                    self.back.set()
                    return
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)


@contextlib.contextmanager
def under_load(server, marks, returns=False):
    """Run clients that send; judge at the end what became of each event."""
    senders = [Sender(server, f"client{number}", marks, returns) for number in range(CLIENTS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        assert sender.busy.wait(LIMIT), sender.trouble
    yield senders
    for sender in senders:
        sender.join(2 * LIMIT)
        assert not sender.is_alive() and sender.trouble is None, repr(sender.trouble)
    handled = [line.split() for line in marks.read_text().splitlines()]
    for sender in senders:
        own = sorted(int(number) for name, number in handled if name == sender.name)
        assert own == sorted(sender.acknowledged), f"{sender.name}: handled, but not acknowledged, or twice"
        assert own == list(range(len(own)))  # handlers of one client run side by side, so answers may overtake others


@pytest.fixture
def server(kind, directory):
    server = Server(kind, directory, alarm=CRASH, **PROFILES["default"])
    yield server
    if server.process.poll() is None:
        server.stop()


def test_a_stop_under_load(server, tmp_path):
    with under_load(server, tmp_path / "marks") as senders:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(STOP_LIMIT) == 0
    assert [sender.code for sender in senders] == [1001] * CLIENTS
    server.stop()  # judges the log


@pytest.mark.parametrize("kind", RESTARTS, indirect=True)
def test_a_restart_under_load(server, tmp_path):
    with under_load(server, tmp_path / "marks", returns=True) as senders:
        before = server.get_json("/process")
        server.process.send_signal(signal.SIGHUP)
    assert [sender.code for sender in senders] == [1012] * CLIENTS
    assert all(sender.back.is_set() for sender in senders)
    # gunicorn's workers for greenlets notice within a second, and serve pages until then.
    wait_until(lambda: server.get_json("/process") != before, limit=LIMIT, what="the new worker's pages")
