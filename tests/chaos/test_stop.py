"""Line 20: a stop tells everybody at once, lets handlers end and answer, and takes no longer than they do."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from e2e.raw import fetch, target
from e2e.servers import CRASH, MORE_KINDS, Server, wait_until

from .peers import LIMIT, Followed, FollowedPoll, joined, joined_polling

SLACK = 5  # seconds that the machine may take for the end after the last handler's
ACK = '431["worked"]'
WAYS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT, "stop()": None}


@pytest.fixture
def server_of(tmp_path, monkeypatch):
    """Return a function that starts a server: ``server_of(kind, gunicorn arguments, **options)``."""
    monkeypatch.setenv("E2E_THREADS", "16")  # with TLS each client has one
    with contextlib.ExitStack() as stack:

        def make(kind, arguments="", **options):
            monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
            server = Server(kind, tmp_path, alarm=CRASH, **options)
            stack.callback(server.stop)
            return server

        yield make


class Crowd:
    """Some clients for whom nothing runs, and two for whom a handler does, until ``gate`` is there."""

    def __init__(self, server, gate, way):
        self.names, self.gate = [], gate
        # gunicorn, Flask's command and uWSGI with gevent take no more connections once they stop; uWSGI still does
        # where we stop it, and gunicorn's workers for greenlets do within the second in which they notice. Of uWSGI's
        # threads the one that gets the signal may be the one that takes connections.
        self.ends = ([ACK, "1"],)
        if server.kind in ("gunicorn-gevent", "gunicorn-eventlet", "uwsgi-threads"):
            self.ends = ([ACK], [ACK, "1"])
        elif server.kind.startswith("uwsgi"):
            if way != "stop()":
                self.ends = ([ACK],)
        elif server.kind.startswith(("gunicorn", "flask")):
            self.ends = ([ACK],)
        self.idle = [Followed(joined(server, who=self._name("idle"), tell=1)) for _ in range(3)]
        self.polls = [FollowedPoll(joined_polling(server, who=self._name("poll"), tell=1)) for _ in range(2)]
        self.between = joined_polling(server, who=self._name("between"), tell=1)
        working = joined(server, who=self._name("working"), tell=1)
        working.send(f'421["work","{gate}"]')
        assert working.receive() == '42["working"]'
        self.working = Followed(working)
        session = joined_polling(server, who=self._name("working-poll"), tell=1)
        session.send(f'421["work","{gate}"]')
        assert session.packets() == ['42["working"]']
        self.working_poll = FollowedPoll(session)
        wait_until(lambda: len(server.get_json("/sids")) == len(self.names))

    def _name(self, name):
        self.names.append(f"{name}{len(self.names)}")
        return self.names[-1]

    def are_told(self, since, code):
        """Judge what each client got; return how long it took to tell those for whom nothing ran.

        They are told while the handlers of the others still run. Those end then.
        """
        for client in self.idle:
            assert client.end().code == code
        for client in self.polls:
            assert client.end().texts == ["1"]
        assert not any(text == ACK for _, text in self.working.texts)
        self.gate.touch()
        self.released = time.monotonic()
        assert self.working.end().code == code
        assert self.working.time_of(ACK) <= self.working.told
        assert self.working_poll.end().texts in self.ends
        return max(client.told for client in [*self.idle, *self.polls]) - since

    def have_left(self, server):
        """Judge the disconnect handlers: one for each."""
        log = server.log.read_text()
        left = [log.count(f"left: {name} server disconnect\n") for name in self.names]
        assert left == [1] * len(self.names), dict(zip(self.names, left, strict=True))


def rests(server, directory):
    """Return whether none of uWSGI's threads serves a request. A client has its answer a moment before that."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stats:
        stats.settimeout(LIMIT)
        stats.connect(f"{directory}/{server.port}.stats")
        (worker,) = json.loads(b"".join(iter(lambda: stats.recv(65536), b"")))["workers"]
    return not any(core["in_request"] for core in worker["cores"])


def stops(server, way, row, gate):
    """Stop a server that a crowd is connected to."""
    crowd = Crowd(server, gate, way)
    if server.kind == "uwsgi-threads":  # would run nothing at its end, else
        wait_until(lambda: rests(server, gate.parent), what="uWSGI to have no request")
    began = time.monotonic()
    if WAYS[way] is None:
        assert server.get("/stop") == b"stopping"
    else:
        server.process.send_signal(WAYS[way])
    if crowd.ends == ([ACK, "1"],):
        for client in crowd.idle:
            client.end()
        assert crowd.between.packets() == ["1"]
        answer = fetch(server, "GET", target(EIO="4", transport="polling"))
        assert answer.status == 503 and answer.headers["Retry-After"]
    told = crowd.are_told(began, 1001)
    assert server.process.wait(LIMIT) == 0
    took = time.monotonic() - crowd.released
    assert took < SLACK
    crowd.have_left(server)
    row(20, f"{way}: told in, ended in", f"{told:.2f} s, {took:.2f} s after its last handler's end")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.long(kind=["werkzeug-tls"], way=[way for way in WAYS if way != "SIGTERM"])
def test_a_stop_tells_all_and_lets_handlers_end(server_of, kind, way, row, tmp_path):
    stops(server_of(kind), way, row, tmp_path / "gate")


def test_a_crowd_is_told_little_by_little(server_of, kind, row):
    """Line 21: those who come back to another server don't come all at once. Meanwhile the others are served."""
    server = server_of(kind)
    crowd = [Followed(joined(server)) for _ in range(60)]
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: any(client.told for client in crowd))
    last = crowd[-1]
    last.peer.send('421["echo",1]')
    for client in crowd:
        assert client.end().code == 1001
    assert last.time_of("431[[1]]") <= last.told
    assert server.process.wait(LIMIT) == 0
    moments = [client.told for client in crowd]
    row(21, "60 clients told within", f"{max(moments) - min(moments):.2f} s")
    assert max(moments) - min(moments) > 0.4


OTHERS = [("gunicorn-tls", "SIGTERM"), ("flask-run", "Ctrl-C")]
OTHERS += [("uwsgi-threads", "SIGTERM"), ("uwsgi-router", "stop()")]


@pytest.mark.parametrize(("other", "way"), OTHERS)
def test_other_servers_stop_so_too(server_of, rows, other, way, tmp_path):
    assert other in MORE_KINDS
    stops(server_of(other), way, lambda *figures: rows(figures[0], figures[1], other, figures[2]), tmp_path / "gate")


@pytest.mark.parametrize("other", ["gunicorn-threads", "gunicorn-gevent", "gunicorn-eventlet", "gunicorn-tls"])
@pytest.mark.parametrize("way", ["HUP", "max_requests"])
@pytest.mark.long(other=["gunicorn-tls"], way=["max_requests"])
def test_a_worker_that_is_replaced_says_so(server_of, rows, other, way, tmp_path):
    server = server_of(other, "--max-requests 80" if way == "max_requests" else "")
    before = server.get_json("/process")
    crowd = Crowd(server, tmp_path / "gate", way)
    began = time.monotonic()
    if way == "HUP":
        server.process.send_signal(signal.SIGHUP)
    # The one that is under way when the worker ends waits for the next worker.
    visitor = threading.Thread(target=_visit, args=(server, crowd.idle[0], 80 if way == "max_requests" else 0))
    visitor.start()
    told = crowd.are_told(began, 1012)
    visitor.join()
    wait_until(lambda: not os.path.exists(f"/proc/{before}"), limit=LIMIT, what="the old worker's end")
    crowd.have_left(server)
    after = joined(server)
    assert server.get_json("/process") != before
    after.close()
    rows(20, f"{way}: told in", other, f"{told:.2f} s with 1012")


def _visit(server, idle, count):
    for _ in range(count):
        if idle.told:
            break
        with contextlib.suppress(OSError):  # the worker's last connections are cut by it
            fetch(server, "GET", "/")


@pytest.mark.only(kind=["werkzeug", "werkzeug-tls"])  # gunicorn ends its worker itself then
def test_a_second_signal_does_not_wait_for_handlers(server_of, kind, tmp_path):
    server = server_of(kind, shutdown_timeout=LIMIT)
    working = joined(server)
    working.send(f'421["work","{tmp_path / "never"}"]')
    assert working.receive() == '42["working"]'
    idle, working = Followed(joined(server)), Followed(working)
    server.process.send_signal(signal.SIGINT)
    assert idle.end().code == 1001
    os.kill(server.process.pid, signal.SIGINT)
    assert working.end().code == 1001
    assert server.process.wait(LIMIT / 2) == 0
