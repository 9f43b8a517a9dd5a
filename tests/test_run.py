import contextlib
import gc
import http.client
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import flask
import pytest

from flask_realtime import SocketIO
from flask_realtime.run import RunOptions, _port, run

LIMIT = 30
OPTIONS = RunOptions(None, None, {}, None, None, False, {})


@pytest.fixture
def app():
    app = flask.Flask("site_under_test")
    app.add_url_rule("/", "page", lambda: "page")
    app.add_url_rule("/broken", "broken", lambda: 1 / 0)
    return app


def need(mode):
    """Skip the test where what the mode needs isn't installed."""
    if mode != "threading":
        pytest.importorskip(mode, reason=f"needs flask_realtime[{mode}]", exc_type=ImportError)


class Running:
    """`SocketIO.run` in a thread."""

    def __init__(self, app, mode="threading", **options):
        self.extension = SocketIO(app, async_mode=mode)
        self.thread = threading.Thread(
            target=lambda: self.extension.run(app, port=0, **options), name="runs", daemon=True
        )
        self.thread.start()
        end = time.monotonic() + LIMIT
        while self.extension.wsgi_server is None:
            assert time.monotonic() < end and self.thread.is_alive()
        self.port = self.extension.wsgi_server.server_port

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def end(self):
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        assert self.extension.wsgi_server is None


def test_a_server_runs_until_it_is_stopped(app, caplog):
    running = Running(app)
    assert running.get("/") == (200, b"page")
    status, body = running.get("/socket.io/?EIO=4&transport=polling")
    assert status == 200 and b'"upgrades":["websocket"]' in body
    ended = threading.Event()
    running.extension.server.eio.on("disconnect", print)
    running.extension.start_background_task(lambda: (running.thread.join(LIMIT), ended.set()))
    running.extension.stop()
    running.end()
    assert ended.wait(LIMIT)
    assert running.extension.server.eio.engine.sessions == {}
    assert "meant for development" in caplog.text


def test_a_server_may_run_again(app):
    running = Running(app, allow_unsafe_werkzeug=True)
    running.extension.stop()
    running.end()
    extension = running.extension
    running.thread = threading.Thread(target=lambda: extension.run(app, port=0), daemon=True)
    running.thread.start()
    end = time.monotonic() + LIMIT
    while extension.wsgi_server is None:
        assert time.monotonic() < end
    running.port = extension.wsgi_server.server_port
    assert running.get("/socket.io/?EIO=4&transport=polling")[0] == 200
    extension.stop()
    running.end()


def test_a_request_is_answered_to_its_end_before_the_program_ends(app, monkeypatch):
    monkeypatch.setattr("flask_realtime.run.GRACE", LIMIT)
    order = []

    def page():
        yield b"begun"
        server, end = running.extension.wsgi_server, time.monotonic() + LIMIT
        running.extension.stop()
        while server.socket.fileno() != -1:  # as long as it takes connections
            assert time.monotonic() < end
        follower.join(0.2)
        order.append("answered")
        yield b", ended"

    app.add_url_rule("/long", "long", lambda: page())
    running = Running(app, allow_unsafe_werkzeug=True)
    follower = running.extension.start_background_task(lambda: (running.thread.join(LIMIT), order.append("ended")))
    assert running.get("/long") == (200, b"begun, ended")
    running.end()
    follower.join(LIMIT)
    assert order == ["answered", "ended"]


def test_the_program_ends_however_long_a_request_takes(app):
    free = threading.Event()

    def page():
        yield b"begun"
        running.extension.stop()
        yield str(free.wait(LIMIT)).encode()

    app.add_url_rule("/long", "long", lambda: page())
    running = Running(app, allow_unsafe_werkzeug=True)
    visitor = threading.Thread(target=running.get, args=("/long",))
    visitor.start()
    running.end()
    assert visitor.is_alive()
    free.set()
    visitor.join(LIMIT)
    assert not visitor.is_alive()


@pytest.mark.parametrize("mode", ["threading", "gevent", "eventlet"])
def test_a_server_of_another_thread_is_stopped_before_anybody_came(app, mode):
    need(mode)
    running = Running(app, mode, allow_unsafe_werkzeug=True)
    running.extension.stop()
    running.end()


def test_the_debugger_is_under_our_layer(app):
    running = Running(app, debug=True, use_reloader=False)
    assert app.debug
    status, body = running.get("/broken")
    assert status == 500 and b"ZeroDivisionError" in body
    running.extension.stop()
    running.end()


def test_requests_are_not_logged_when_told_so(app, caplog):
    caplog.set_level(logging.INFO)
    running = Running(app, log_output=False, allow_unsafe_werkzeug=True)
    running.get("/")
    running.extension.stop()
    running.end()
    assert "GET /" not in caplog.text
    assert "meant for development" not in caplog.text


def test_a_reset_behind_an_answer_leaves_no_descriptor(app):
    """Werkzeug looks for what is left of a request, and a selector that meets an error there isn't closed."""

    def selectors():
        count = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # that of the list itself
                count += "eventpoll" in os.readlink(f"/proc/self/fd/{name}")
        return count

    running = Running(app)
    assert running.get("/") == (200, b"page")
    gc.collect()
    gc.disable()  # which would close them in the end
    try:
        before = selectors()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", running.port), LIMIT) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\nhalf of it")
                assert sock.recv(12) == b"HTTP/1.1 405"
        running.extension.stop()
        running.end()
        end = time.monotonic() + LIMIT
        while selectors() > before:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        gc.enable()


@pytest.mark.parametrize("mode", ["threading", "gevent", "eventlet"])
def test_who_sends_no_request_at_all_gets_the_answer_nevertheless(app, mode):
    need(mode)
    running = Running(app, mode)
    for start in (b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"PRI * HTTP/2.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", running.port), LIMIT) as sock:
            sock.sendall(start)
            answer = sock.recv(1000)
            assert b" 4" in answer or b" 505 " in answer, answer
            sock.sendall(b"a" * 100_000)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(10_000):
                pass  # a reset would raise
    running.extension.stop()
    running.end()


def test_under_the_flask_command_nothing_runs(app, monkeypatch, caplog):
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    SocketIO(app).run(app)
    assert "run() is ignored" in caplog.text


def test_without_an_application_nothing_runs(app):
    with pytest.raises(RuntimeError, match="init_app"):
        run(SocketIO(), app, None, None, OPTIONS)


@pytest.mark.parametrize(
    ("given", "name", "port"),
    [(None, None, 5000), (None, "localhost", 5000), (None, "localhost:7000", 7000), ("8000", None, 8000), (0, None, 0)],
)
def test_the_port(app, given, name, port):
    app.config["SERVER_NAME"] = name
    assert _port(app, given) == port


@pytest.mark.parametrize(("main", "number"), [("true", signal.SIGTERM), ("", signal.SIGINT)])
def test_another_server_is_told_by_a_signal(app, monkeypatch, main, number):
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", main)
    monkeypatch.delitem(__import__("sys").modules, "gunicorn", raising=False)
    told = []
    before = signal.signal(number, lambda *args: told.append(args[0]))
    try:
        SocketIO(app).stop()
        end = time.monotonic() + LIMIT
        while not told:
            assert time.monotonic() < end
    finally:
        signal.signal(number, before)
    assert told == [number]


HEADS = {
    "threading": "from _thread import start_new_thread as start",
    "gevent": (
        "from gevent import monkey; monkey.patch_all()\n"
        "start = monkey.get_original('_thread', 'start_new_thread')"
    ),
    "gevent, nothing patched": "import gevent; from _thread import start_new_thread as start",
    "eventlet": (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import eventlet; eventlet.monkey_patch()\n"
        "from eventlet.patcher import original; start = original('_thread').start_new_thread"
    ),
}

ASTRAY = """
import signal, sys

import flask
from flask_realtime import SocketIO

app = flask.Flask(__name__)
extension = SocketIO(app, async_mode=sys.argv[1])


def tell():
    sys.stdin.readline()
    while signal.getsignal(number) == before:
        pass
    signal.pthread_kill(thread, number)


number = getattr(signal, sys.argv[2])
before = signal.getsignal(number)
thread = start(tell, ())
extension.run(app, port=0, allow_unsafe_werkzeug=True)
print("ended", signal.set_wakeup_fd(-1))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("head", HEADS)
def test_a_signal_wakes_an_idle_server_also_when_another_thread_gets_it(tmp_path, head, name):
    mode = head.partition(",")[0]
    need(mode)
    program = tmp_path / "program.py"
    program.write_text(f"{HEADS[head]}\n{ASTRAY}")
    command = [sys.executable, str(program), mode, name]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            while "Running on" not in process.stderr.readline():
                assert process.poll() is None
            assert process.communicate("now\n", LIMIT) == ("ended -1\n", "")
        finally:
            process.kill()
    assert process.returncode == 0


def test_sigterm_ends_a_server_of_the_main_thread(app):
    extension = SocketIO(app)

    def end():
        deadline = time.monotonic() + LIMIT
        while extension.wsgi_server is None and time.monotonic() < deadline:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # should it come too early
    try:
        extension.start_background_task(end)
        extension.run(app, port=0, allow_unsafe_werkzeug=True)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert extension.wsgi_server is None
