"""Real servers for the end-to-end contract: start as subprocesses, wait until they answer, stop, judge their logs.

A new server is one row of ``KINDS``; all tests of this directory then run against it as well. The environment variable
``E2E_KINDS`` may name those that are wanted.
"""

import ast
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
START_LIMIT = 60  # seconds
STOP_LIMIT = 40  # seconds

# What no log of a normal run may hold. Peers that break the rules on purpose may be reported, but never as our crash.
ALARM = re.compile(r"Traceback|Exception|Error|\bERROR\b|CRITICAL")
CRASH = re.compile(r"Traceback|CRITICAL")
# What contract_app is asked to raise has to be logged.
ORDERED = re.compile(
    r"[^\n]*the handler of [^\n]* failed\nTraceback[^\n]*(?:\n [^\n]*)*\n\w+: [^\n]* was told to fail'?\n"
)

HEARTBEAT = {"ping_interval": 0.3, "ping_timeout": 1.5}
GOOD_ORIGIN = "http://good.example"

# Constructor options of SocketIO under the names that tests ask for.
PROFILES = {
    "default": {},
    "strict": {"async_handlers": False},
    "large": {"max_http_buffer_size": 5_000_000},
    "msgpack": {"serializer": "msgpack"},
    "heartbeat": HEARTBEAT,
    "hostile": {"allow_jsonp": True},
    "resources": {},
    "origins": {"cors_allowed_origins": [GOOD_ORIGIN]},
}


class Kind(NamedTuple):
    """How to start one kind of server.

    ``command(port, directory)`` is the argument list; ``options`` are added to those of the profile; ``pooled`` says
    that the server has threads of its own, which it starts when it needs them and keeps; ``patch`` names the library
    that patches the process; ``keeps`` says that a polling client's connections are kept; ``shakes`` that the server
    accepts every WebSocket handshake before the application is asked; ``label`` is what readers of the documentation
    call it; ``variant`` that it is so much like another kind that the shorter lists are enough; ``covered`` that its
    lines are counted here, since the acceptance list hasn't this kind.
    """

    command: object
    options: dict
    tls: bool = False
    stop_signal: int = signal.SIGTERM
    pooled: bool = False
    patch: str = ""
    keeps: bool = True
    shakes: bool = False
    label: str = ""
    variant: bool = False
    covered: bool = False


def werkzeug(port, directory):
    return [sys.executable, str(HERE / "contract_app.py"), "--port", str(port)]


def werkzeug_tls(port, directory):
    cert, key = certificate(directory)
    return [*werkzeug(port, directory), "--cert", str(cert), "--key", str(key)]


def gevent_websocket(port, directory):
    return [*werkzeug(port, directory), "--handler", "geventwebsocket.handler:WebSocketHandler"]


def pool_size():
    """Return how many threads a server with a pool may have in it."""
    return int(os.environ.get("E2E_THREADS", "8"))


def gunicorn(*options):
    """Return a function that starts gunicorn with one worker."""

    def command(port, directory):
        quiet = ["--no-control-socket"] if "--no-control-socket" in gunicorn_help() else []
        own = [sys.executable, "-m", "gunicorn", "-w", "1", *(str(o() if callable(o) else o) for o in options), *quiet]
        return [*own, "-b", f"127.0.0.1:{port}", "--pythonpath", str(HERE), "contract_app:app"]

    return command


gunicorn_threads = gunicorn("--threads", pool_size)
GEVENT_WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
KINDS = {
    "werkzeug": Kind(werkzeug, {"async_mode": "threading"}, label="Werkzeug"),
    "gunicorn-threads": Kind(gunicorn_threads, {"async_mode": "threading"}, pooled=True, label="gunicorn `gthread`"),
    # Werkzeug closes each connection that it answers on itself, which it does under TLS.
    "werkzeug-tls": Kind(werkzeug_tls, {"async_mode": "threading"}, tls=True, keeps=False, label="Werkzeug with TLS"),
    "gevent": Kind(werkzeug, {}, patch="gevent", label="gevent"),
    "gevent-tls": Kind(werkzeug_tls, {}, tls=True, patch="gevent", variant=True, covered=True, label="gevent with TLS"),
    "gevent-websocket": Kind(
        gevent_websocket, {}, patch="gevent", shakes=True, covered=True, label="gevent with gevent-websocket"
    ),
    "eventlet": Kind(werkzeug, {}, patch="eventlet", label="eventlet"),
    "eventlet-tls": Kind(
        werkzeug_tls, {}, tls=True, patch="eventlet", variant=True, covered=True, label="eventlet with TLS"
    ),
    "gevent-unpatched": Kind(werkzeug, {"async_mode": "gevent"}, variant=True, label="gevent, nothing patched"),
    "gunicorn-gevent": Kind(gunicorn("-k", "gevent"), {}, covered=True, label="gunicorn `gevent`"),
    # Its server takes no connection back.
    "gunicorn-gevent-pywsgi": Kind(
        gunicorn("-k", "gevent_pywsgi"), {}, keeps=False, variant=True, label="gunicorn `gevent_pywsgi`"
    ),
    "gunicorn-gevent-websocket": Kind(
        gunicorn("-k", GEVENT_WEBSOCKET), {}, keeps=False, shakes=True, label="gunicorn `GeventWebSocketWorker`"
    ),
    "gunicorn-eventlet": Kind(
        gunicorn("-k", "flask_realtime.io.gunicorn.EventletWorker"),
        {},
        covered=True,
        label="gunicorn, our `EventletWorker`",
    ),
    # uWSGI closes each connection, and takes none back.
    "uwsgi-gevent": Kind(lambda *a: uwsgi_gevent(*a), {}, keeps=False, label="uWSGI with gevent"),
}

# E2E_KINDS=gevent,eventlet runs the tests of these only.
SELECTED = [name for name in KINDS if name in os.environ.get("E2E_KINDS", ",".join(KINDS)).split(",")]


GEVENT = ("--gevent", "1000", "--gevent-early-monkey-patch")
DIRECT = ("--add-header", "Connection: close", "--http-socket")  # or clients would take connections for kept
ROUTER = ("--http-websockets", "--http-chunked-input", "--http")
NO_UWSGI = "needs uWSGI: pip install uwsgi, which takes a C compiler and Python's headers (Debian: gcc, python3-dev)"


def uwsgi(port, *options):
    """Return the command; the last option is that of the address."""
    program = Path(sys.executable).with_name("uwsgi")
    command = [str(program), *options, f"127.0.0.1:{port}", "--master", "--die-on-term", "--need-app"]
    command += ["--buffer-size", "65535", "--disable-logging", "--no-orphans", "-H", sys.prefix]
    return [*command, "--pythonpath", str(HERE), "--module", "contract_app:app"]


def uwsgi_gevent(port, directory):
    return uwsgi(port, *GEVENT, *DIRECT)


def uwsgi_router(port, directory):
    return uwsgi(port, *GEVENT, *ROUTER)


def uwsgi_threads(port, directory):
    return uwsgi(port, "--threads", str(pool_size()), "--stats", f"{directory}/{port}.stats", *DIRECT)


def gunicorn_tls(port, directory):
    cert, key = certificate(directory)
    return [*gunicorn_threads(port, directory), "--certfile", str(cert), "--keyfile", str(key)]


def gunicorn_unix(port, directory):
    return [*gunicorn_threads(port, directory), "-b", f"unix:{directory}/{port}.sock"]


def python_socketio(port, directory):
    return [sys.executable, str(HERE / "foreign_app.py"), "--port", str(port)]


def flask_run(port, directory):
    return [sys.executable, "-m", "flask", "--app", str(HERE / "contract_app.py"), "run", "--port", str(port)]


# For tests of what differs there; the others run on KINDS only.
MORE_KINDS = {
    "gunicorn-tls": Kind(gunicorn_tls, {"async_mode": "threading"}, tls=True, pooled=True),
    "uwsgi-router": Kind(uwsgi_router, {}, keeps=False),
    "uwsgi-threads": Kind(uwsgi_threads, {}, pooled=True, keeps=False),
    "gunicorn-unix": Kind(gunicorn_unix, {"async_mode": "threading"}, pooled=True),
    "python-socketio": Kind(python_socketio, {}),
    "flask-run": Kind(flask_run, {"async_mode": "threading"}, stop_signal=signal.SIGINT),
}


@functools.cache
def gunicorn_help():
    """Return the help text of the installed gunicorn: which options it knows."""
    return subprocess.run([sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True).stdout


@functools.cache
def certificate(directory):
    """Make a self-signed certificate for 127.0.0.1 and return the paths ``(certificate, key)``."""
    cert, key = Path(directory) / "cert.pem", Path(directory) / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Raised(Exception):
    """What a method raised in a server.

    Attributes:
        name: Of its class.
        results: Of a `ClusterTimeoutError`.
    """

    def __init__(self, name, message, results):
        super().__init__(f"{name}: {message}")
        self.name, self.message, self.results = name, message, results


class Server:
    """One running server.

    Args:
        kind: A key of ``KINDS`` or ``MORE_KINDS``.
        directory: Where the log and the certificate go.
        port: A free one is taken when 0.
        alarm: Pattern that must not be found in the log at the end.
        options: Constructor options of SocketIO.
    """

    exit_codes = (0,)
    told = False  # to stop

    def __init__(self, kind, directory, *, port=0, alarm=ALARM, **options):
        self.kind = kind
        self.row = {**KINDS, **MORE_KINDS}[kind]
        self.port = port or free_port()
        self.alarm = alarm
        self.pool = pool_size() if self.row.pooled else 0
        self.ca = certificate(directory)[0] if self.row.tls else None
        self.log = Path(directory) / f"{kind}-{self.port}-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "E2E_OPTIONS": json.dumps({**self.row.options, **options}),
            "PYTHONUNBUFFERED": "1",
            "E2E_PATCH": self.row.patch,
        }
        environment.pop("WERKZEUG_RUN_MAIN", None)
        if kind in KINDS and not self.row.covered and "PYTEST_XDIST_WORKER" in environment:
            environment = uncounted(environment)  # it would cost a third of the time
        command = self.row.command(self.port, directory)
        if kind.startswith("uwsgi") and not Path(command[0]).exists():
            pytest.skip(NO_UWSGI)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        try:
            self.wait()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def url(self):
        return f"{'https' if self.row.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def websocket_url(self):
        return self.url.replace("http", "ws", 1)

    @functools.cached_property
    def tls(self):
        """The client's TLS context, None without TLS."""
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else None

    def connection(self, timeout=30):
        """Return a fresh HTTP connection to the server."""
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def socket(self, timeout=30, receive_buffer=None):
        """Return a fresh TCP (or TLS) socket to the server."""
        raw = socket.socket()
        raw.settimeout(timeout)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.connect(("127.0.0.1", self.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(raw, server_hostname="127.0.0.1") if self.tls else raw

    def get(self, path):
        """GET a page of the application and return the body; anything but 200 is a failure."""
        connection = self.connection()
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, f"GET {path} was answered {response.status}: {body[:300]!r}"
            return body
        finally:
            connection.close()

    def get_json(self, path):
        return json.loads(self.get(path))

    def do(self, method, /, *args, **kwargs):
        """Let the application call a method of its `SocketIO`, and return the result.

        Args:
            method: Its name, or one of those of the application itself.
            *args: Literals, as in what follows.
            **kwargs: ``callback`` is a name, by which ``do("answers")`` tells what the callback got.

        Raises:
            Raised: What it raised there.
        """
        connection = self.connection()
        try:
            connection.request("POST", f"/do/{method}", repr((args, kwargs)).encode(), {"Connection": "close"})
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, f"{method} was answered {response.status}: {body[:300]}"
        finally:
            connection.close()
        name, result, results = ast.literal_eval(body)
        if name is not None:
            raise Raised(name, result, results)
        return result

    def journal(self, who):
        """Return what happened to a client as ``[[namespace, event, detail], ...]``."""
        return self.get_json(f"/journal/{who}")

    def wait(self):
        """Wait until the server answers.

        Raises:
            AssertionError: When it ended or did not answer in time; holds its log.
        """
        limit = time.monotonic() + START_LIMIT
        while True:
            assert self.process.poll() is None, f"{self.kind} ended with {self.process.returncode}:\n{self.tail()}"
            try:
                assert self.get("/") == b"ready"
                return
            except OSError:
                assert time.monotonic() < limit, f"{self.kind} did not answer in {START_LIMIT} s:\n{self.tail()}"
                time.sleep(0.05)

    def fill_pool(self):
        """Let the server start all the threads it may have, for those who count threads before and after."""
        askers = [threading.Thread(target=self.get, args=(f"/together/{self.pool}",)) for _ in range(self.pool)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()

    def begin_to_stop(self):
        """Tell the server to stop, once."""
        if not self.told and self.process.poll() is None:
            self.process.send_signal(self.row.stop_signal)
        self.told = True

    def stop(self):
        """Stop the server, and judge its exit and its log.

        Raises:
            AssertionError: When it did not stop in time, or its log holds what ``alarm`` matches.
        """
        self.begin_to_stop()
        try:
            code = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.say_where()
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.kind} did not stop in {STOP_LIMIT} s:\n{self.tail(20_000)}") from None
        assert code in self.exit_codes, f"{self.kind} ended with {code}:\n{self.tail()}"
        lines = ORDERED.sub("", self.log.read_text(errors="replace")).splitlines()
        found = [number for number, line in enumerate(lines) if self.alarm.search(line)]
        if found:
            excerpt = "\n".join(lines[max(0, found[0] - 5) : found[0] + 40])
            raise AssertionError(f"{len(found)} alarming lines in the log of {self.kind}, the first:\n{excerpt}")

    def say_where(self):
        """Let each process write into the log what its threads are doing."""
        for process in (self.process.pid, *children(self.process.pid)):
            status = Path(f"/proc/{process}/status").read_text()
            if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) >> (signal.SIGRTMIN - 1) & 1:
                size = self.log.stat().st_size
                os.kill(process, signal.SIGRTMIN)
                with contextlib.suppress(AssertionError):
                    wait_until(lambda before=size: self.log.stat().st_size > before, limit=2)

    def tail(self, size=4000):
        """Return the end of the log."""
        return self.log.read_text(errors="replace")[-size:]


def uncounted(environment):
    """Return an environment in which coverage doesn't look on."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_PROCESS")}


def children(pid):
    """List the processes that a process has started."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found.extend(map(int, path.read_text().split()))
    return found


def wait_until(condition, limit=60, what="the condition"):
    """Ask again and again until ``condition()`` is true; return its value.

    Raises:
        AssertionError: When that takes more than ``limit`` seconds; holds the last value.
    """
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {limit} s in vain for {what}; last value: {value!r}"
        time.sleep(0.02)
