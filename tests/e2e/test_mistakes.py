"""Set-ups that can't work well, on real servers: what their logs tell whoever made them."""

import gc
import http.client
import os
import shutil
import subprocess
import sys

import pytest
import requests
import socketio

from .raw import Polling, Request, fetch, target
from .servers import (
    HERE,
    MORE_KINDS,
    Kind,
    Server,
    free_port,
    gunicorn_help,
    gunicorn_threads,
    wait_until,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # the client's, as in test_contract_python
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMIT = 30  # seconds
OPEN = target(EIO="4", transport="polling")

NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log; {user}
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{backend}; }} }}
}}
"""


def gunicorn_with(**changes):
    """Return a function that starts gunicorn as the contract does, but for the values of some options."""

    def command(port, directory):
        words = gunicorn_threads(port, directory)
        for name, value in changes.items():
            words[words.index(("-" if len(name) == 1 else "--") + name) + 1] = value
        return words

    return command


# With one thread and no other class of workers, gunicorn takes the sync worker.
MORE_KINDS["gunicorn-sync"] = Kind(gunicorn_with(threads="1"), {"async_mode": "threading"})
MORE_KINDS["gunicorn-workers"] = Kind(gunicorn_with(w="3"), {"async_mode": "threading"}, pooled=True)


@pytest.fixture(scope="module", autouse=True)
def rubbish():
    """What the client leaves is collected among these tests, which know of it, and not in another's time."""
    yield
    gc.collect()


@pytest.fixture
def start(directory):
    """Return a function that starts a server; its log is judged at the end."""
    servers = []

    def start(kind, **options):
        servers.append(Server(kind, directory, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def told(server, words):
    """Return the lines of a log with some words, as soon as there is one."""

    def lines():
        return [line for line in server.tail(100_000).splitlines() if words in line]

    return wait_until(lines, what=f"{words!r} in the log")


def echo(server, transports):
    """Connect python-socketio's client, and let it hear itself."""
    with requests.Session() as session:
        session.trust_env = False
        client = socketio.Client(reconnection=False, http_session=session, handle_sigint=False)
        client.connect(server.url, transports=transports, wait_timeout=LIMIT)
        try:
            return client.call("echo", "x", timeout=LIMIT)
        finally:
            client.disconnect()


TOLD = ("async_mode is", "gunicorn runs", "one request at a time", "patched by", "has patched", "came without")


def test_a_sound_server_is_told_nothing(kind, start):
    server = start(kind)
    assert fetch(server, "GET", OPEN).status == 200
    assert [line for line in server.tail(100_000).splitlines() if any(words in line for words in TOLD)] == []


def test_several_workers_are_told_once_for_each(start):
    server = start("gunicorn-workers")
    for _ in range(30):
        assert fetch(server, "GET", OPEN).status == 200
    lines = told(server, "gunicorn runs 3 workers, each of which knows only its own clients")
    assert 1 <= len(lines) <= 3
    assert "use -w 1" in lines[0]


def test_an_unknown_session_id_with_several_workers_names_them(start):
    server = start("gunicorn-workers")
    for _ in range(3):
        assert fetch(server, "GET", target(EIO="4", transport="polling", sid="nobody")).status == 400
    lines = told(server, "a client came with an unknown session id: gunicorn runs 3 workers")
    assert 1 <= len(lines) <= 3 and "use -w 1" in lines[0]


def test_one_worker_is_told_nothing_until_a_session_id_is_unknown(start):
    server = start("gunicorn-threads")
    assert fetch(server, "GET", OPEN).status == 200
    for _ in range(3):
        assert fetch(server, "GET", target(EIO="4", transport="polling", sid="nobody")).status == 400
    (line,) = told(server, "a client came with an unknown session id")
    assert "it was here before a restart" in line
    assert [line for line in server.tail().splitlines() if not line.startswith("[") and "session id" not in line] == []


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
def test_the_sync_worker_serves_and_is_told(transports, start):
    server = start("gunicorn-sync")
    waiting = [Polling(server).get() for _ in range(3)]
    assert echo(server, transports) == ["x"]
    for poll in waiting:
        poll.abort()
    (line,) = told(server, "gunicorn's sync worker handles one request at a time here: clients that wait don't count")
    assert "Use --threads 100 or -k gevent" in line


class Gunicorn:
    """A gunicorn that runs a program of the test's own; it need not answer.

    Args:
        folder: Where the program and the log go.
        program: Its text.
        options: Of gunicorn.
    """

    def __init__(self, folder, program, *options):
        self.port = free_port()
        self.log = folder / "log"
        (folder / "mistaken.py").write_text(program)
        command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", *options]
        if "--no-control-socket" in gunicorn_help():
            command.append("--no-control-socket")
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "mistaken:app"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def tail(self, size=4000):
        return self.log.read_text(errors="replace")[-size:]

    def stop(self):
        # QUIT: without regard to requests, which some of these will never answer.
        self.process.terminate() if self.answers() else self.process.send_signal(3)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def answers(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status in (200, 404)
        except OSError:
            return False
        finally:
            connection.close()


PROGRAM = """
from flask import Flask
from flask_realtime import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, {options})
"""


@pytest.fixture
def gunicorn(tmp_path):
    """Return a function that starts gunicorn with a program."""
    running = []

    def start(program, *options):
        running.append(Gunicorn(tmp_path, program, "-w", "1", *options))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_threads_under_a_green_mode_are_told_without_a_request(library, gunicorn):
    server = gunicorn(PROGRAM.format(options=f"async_mode={library!r}"), "--threads", "4")
    (line,) = told(server, f"gunicorn's gthread worker uses threads, but async_mode is '{library}'")
    assert f"gunicorn -k {'gevent' if library == 'gevent' else 'flask_realtime.io.gunicorn.EventletWorker'}" in line


def test_a_green_worker_under_threads_is_told_without_a_request(gunicorn):
    server = gunicorn(PROGRAM.format(options="async_mode='threading'"), "-k", "gevent")
    (line,) = told(server, "gunicorn's gevent worker belongs to gevent, but async_mode is 'threading'")
    assert "leave async_mode out" in line


def test_a_program_that_patches_under_the_threaded_worker_is_told_without_a_request(gunicorn):
    server = gunicorn("from gevent import monkey\nmonkey.patch_all()\n" + PROGRAM.format(options=""), "--threads", "4")
    (line,) = told(server, "gunicorn's gthread worker uses threads, but async_mode is 'gevent'")
    assert "remove gevent's monkey patching" in line


def test_run_does_nothing_while_gunicorn_loads_the_program(gunicorn):
    server = gunicorn(PROGRAM.format(options="") + f"socketio.run(app, port={free_port()})\n", "--threads", "4")
    (line,) = told(server, "socketio.run() is ignored under gunicorn")
    assert "__main__" in line
    assert wait_until(server.answers, what="gunicorn")


@pytest.fixture
def flask_run(directory):
    """Return a function that starts `flask run`, and kills it at the end: it may do nothing else any more."""
    servers = []

    def start(**changes):
        MORE_KINDS["flask-run-green"] = MORE_KINDS["flask-run"]._replace(**changes)
        servers.append(Server("flask-run-green", directory))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def test_flask_run_of_a_program_for_gevent_is_told_at_the_first_request(flask_run):
    server = flask_run(options={"async_mode": "gevent"})
    request = Request(server, "GET", OPEN)
    assert len(told(server, "this server uses threads, but async_mode is 'gevent'")) == 1
    request.abort()


def test_flask_run_of_a_program_that_eventlet_has_patched_is_told_at_the_start(flask_run):
    server = flask_run(options={}, patch="eventlet")
    assert len(told(server, "Werkzeug can't serve Socket.IO in a process that eventlet has patched")) == 1


def test_an_nginx_that_lets_no_websocket_through_is_told_once(start, tmp_path):
    if not shutil.which("nginx"):
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    server = start("gunicorn-threads")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX.format(directory=tmp_path, user=user, port=port, backend=server.port)
    (tmp_path / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(tmp_path), "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"]
    nginx = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        handshake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }

        def refused():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
            try:
                connection.request("GET", target(EIO="4", transport="websocket"), headers=handshake)
                return connection.getresponse().status == 400
            except OSError:
                return False
            finally:
                connection.close()

        wait_until(refused, what="nginx")
        assert refused() and refused()
        (line,) = told(server, "a WebSocket handshake came without `Upgrade: websocket` and `Connection: upgrade`")
        assert "proxy_set_header Upgrade $http_upgrade;" in line
    finally:
        nginx.terminate()
        nginx.wait(LIMIT)
