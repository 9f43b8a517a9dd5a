"""nginx/supervisor.conf in a real supervisord: three servers behind nginx and a Celery worker, and how they end."""

import contextlib
import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import uuid

import pytest
import requests
import socketio
from services import Redis

from .proxies import FILES, Nginx, replace
from .servers import gunicorn_help, wait_until
from .test_nginx import REALIP

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # by python-socketio's client
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMIT = 60  # seconds
SERVERS = ["example:example_1", "example:example_2", "example:example_3"]
WORKER = "example-celery"

# What Debian has around the files of conf.d.
MAIN = """\
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
childlogdir={folder}
[unix_http_server]
file={folder}/supervisor.sock
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/supervisor.sock
[include]
files = {folder}/conf.d/*.conf
"""

# A task tells its progress when its gate, a file, opens; so a test decides how long it takes.
APP = """\
import os
import threading

from flask import Flask
from flask_realtime import SocketIO, join_room

import tasks

app = Flask(__name__)
socketio = SocketIO(app, message_queue=os.environ["MESSAGE_QUEUE"], trusted_proxies=1)


@socketio.on("work")
def work(gate):
    join_room(gate)
    tasks.work.delay(gate)
    return os.getppid()


@app.get("/")
def index():
    return "ready"
"""

TASKS = """\
import os
import time

from celery import Celery
from flask_realtime import SocketIO

celery = Celery("tasks", broker=os.environ["MESSAGE_QUEUE"])
celery.conf.broker_connection_retry_on_startup = True
events = SocketIO(message_queue=os.environ["MESSAGE_QUEUE"])


@celery.task
def work(gate):
    events.emit("began", gate)
    end = time.monotonic() + 60
    while not os.path.exists(gate) and time.monotonic() < end:
        time.sleep(0.05)
    events.emit("done", gate, to=gate)
"""


class Supervisor:
    """A supervisord with `nginx/supervisor.conf`.

    Args:
        folder: Where all of its files go, the application's too.
        redis: The broker and message queue.
    """

    def __init__(self, folder, redis):
        self.folder = folder
        self.sockets = [f"unix:{folder}/{number}.sock" for number in (1, 2, 3)]
        text = (FILES / "supervisor.conf").read_text()
        text = re.sub(r"^;.*\n", "", text, flags=re.MULTILINE)
        quiet = " --no-control-socket" if "--no-control-socket" in gunicorn_help() else ""
        text = replace(text, "-b 127.0.0.1:800%(process_num)d", f"-b unix:{folder}/%(process_num)d.sock{quiet}")
        text = replace(text, "/srv/example/venv/bin/", f"{sys.executable} -m ")
        text = replace(text, "directory=/srv/example\n", f"directory={folder}\n")
        text = replace(text, "/var/log/supervisor/", f"{folder}/")
        text = replace(text, "redis://127.0.0.1:6379/0", redis.url)
        text = replace(text, "user=example\n", "")  # there is none here
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "example.conf").write_text(text)
        (folder / "supervisord.conf").write_text(MAIN.format(folder=folder))
        (folder / "app.py").write_text(APP)
        (folder / "tasks.py").write_text(TASKS)
        self.log = folder / "supervisord.log"
        paths = [str(FILES.parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        with (folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(folder / "supervisord.conf")],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def control(self, *words):
        """Return what supervisorctl says."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self.folder / "supervisord.conf")]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=LIMIT, check=False).stdout

    def status(self):
        """Return the state and the pid of each program by its name."""
        lines = self.control("status").splitlines()
        rows = [re.match(r"(\S+)\s+([A-Z]+)\s*(?:pid (\d+))?", line) for line in lines]
        return {row[1]: (row[2], int(row[3] or 0)) for row in rows if row}

    def run(self):
        """Say whether everything runs."""
        assert self.process.poll() is None, (self.folder / "out").read_text()
        status = self.status()
        return set(status) == {*SERVERS, WORKER} and all(state == "RUNNING" for state, _ in status.values())

    def serves(self, number=None):
        """Say whether the servers, or one of them, listen."""
        numbers = (1, 2, 3) if number is None else (number,)
        return all((self.folder / f"{one}.sock").exists() for one in numbers)

    def stop(self):
        """End it as systemd does, and return what it logged meanwhile."""
        before = len(self.log.read_text())
        self.process.terminate()
        self.process.wait(LIMIT)
        return self.log.read_text()[before:]

    def kill(self):
        """End whatever is left of it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def logs(self):
        """Return what the programs have logged."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("example*.log")))


@pytest.fixture
def redis(tmp_path):
    """A Redis of its own."""
    if importlib.util.find_spec("supervisor") is None:
        pytest.skip("needs supervisord: pip install supervisor")
    redis = Redis(tmp_path).start()
    yield redis
    redis.stop()


@pytest.fixture
def supervisor(tmp_path, redis):
    """A supervisord whose programs run."""
    folder = tmp_path / "site"
    folder.mkdir()
    supervisor = Supervisor(folder, redis)
    try:
        wait_until(supervisor.run, LIMIT, "all programs to run")
        wait_until(supervisor.serves, LIMIT, "all servers to listen")
        yield supervisor
    finally:
        supervisor.kill()


class Client:
    """A python-socketio client with an address of its own, on long-polling and then WebSocket."""

    def __init__(self, url, number):
        session = requests.Session()
        address = {"X-Forwarded-For": f"10.{number}.0.7"}
        session.headers.update(address)  # the argument below is for the first request only
        self.peer = socketio.Client(
            reconnection_delay=0.1, reconnection_delay_max=0.5, request_timeout=LIMIT, http_session=session
        )
        self.news = {"began": threading.Event(), "done": threading.Event(), "back": threading.Event()}
        for name in ("began", "done"):
            self.peer.on(name, lambda gate, name=name: self.news[name].set())
        self.peer.on("connect", self.news["back"].set)
        self.session = session
        self.peer.connect(url, headers=address, wait_timeout=LIMIT)
        self.news["back"].clear()

    def close(self):
        """Disconnect, also while it tries to connect again."""
        self.peer.shutdown()
        self.session.close()


@pytest.fixture
def site(tmp_path, supervisor):
    """An nginx in front of the servers."""
    # It says when there is no server, and that the server's socket is missing, as [crit].
    proxy = Nginx(tmp_path, supervisor.sockets, "ip-hash.conf", extra=REALIP, alarm=re.compile(r"\[(?:alert|emerg)\]"))
    yield proxy
    proxy.stop()


@pytest.fixture
def clients(site):
    """Twelve clients, which ip_hash shares out."""
    clients = []
    with contextlib.ExitStack() as stack:
        for number in range(12):
            clients.append(Client(site.url, number))
            stack.callback(clients[-1].close)
        yield clients
    clients.clear()
    gc.collect()  # of connections that broke off, the sockets stay open until then


def test_they_work_together_come_back_and_end_in_order(tmp_path, supervisor, clients):
    # A task that is ordered at one server is heard at all of them.
    gate = tmp_path / str(uuid.uuid4())
    masters = {client: client.peer.call("work", str(gate), timeout=LIMIT) for client in clients[:1]}
    for client in clients:
        assert client.news["began"].wait(LIMIT), supervisor.logs()
    gate.touch()
    assert clients[0].news["done"].wait(LIMIT)
    assert not any(client.news["done"].is_set() for client in clients[1:])

    # One that is killed is started again, and its clients come back.
    (master,) = masters.values()
    status = supervisor.status()
    (name,) = [name for name, (_, pid) in status.items() if pid == master]
    os.kill(master, signal.SIGKILL)
    assert clients[0].news["back"].wait(LIMIT)
    wait_until(lambda: supervisor.run() and supervisor.status()[name][1] != master, LIMIT, "the server to be back")
    others = {one: state for one, state in supervisor.status().items() if one != name}
    assert others == {one: state for one, state in status.items() if one != name}

    # The end: the worker first, which finishes its task, and the servers still pass on what it says.
    for client in clients:
        client.news["began"].clear()
        client.news["done"].clear()
    gate = tmp_path / str(uuid.uuid4())
    clients[0].peer.call("work", str(gate), timeout=LIMIT)
    assert clients[0].news["began"].wait(LIMIT)
    ending = []
    stopper = threading.Thread(target=lambda: ending.append(supervisor.stop()))
    stopper.start()
    wait_until(lambda: "received SIGTERM indicating exit request" in supervisor.log.read_text(), LIMIT)
    assert clients[0].peer.connected
    gate.touch()
    assert clients[0].news["done"].wait(LIMIT)
    stopper.join(LIMIT)
    (log,) = ending
    stopped = re.findall(r"stopped: (\S+) \((.*)\)", log)
    assert stopped[0][0] == WORKER, log
    assert sorted(name for name, _ in stopped[1:]) == [name.partition(":")[2] for name in SERVERS]
    assert {how for _, how in stopped} == {"exit status 0"}, log
    assert "killing" not in log, log
    assert "Traceback" not in supervisor.logs(), supervisor.logs()
