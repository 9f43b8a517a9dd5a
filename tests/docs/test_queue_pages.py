"""The pages about message queues: their programs run as they say, with a real Redis and a real Celery worker."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import socketio as peer
from e2e.servers import free_port, gunicorn_help, wait_until
from services import Redis

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
LIMIT = 60  # seconds
QUIET = ["--no-control-socket"] if "--no-control-socket" in gunicorn_help() else []

pytestmark = pytest.mark.e2e


def files(name, folder):
    """Write the programs of a page into a folder, by the names that it gives them; a block without one goes on."""
    text = (GUIDE / f"{name}.md").read_text()
    blocks = re.findall(r"(?:^`(\w+\.py)`[^\n]*:\n\n)?^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    programs = {}
    for file, block in blocks:
        name = file or name
        programs[name] = programs.get(name, "") + block
    for file, program in programs.items():
        (folder / file).write_text(program)
    return set(programs)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis of its own."""
    redis = Redis(tmp_path_factory.mktemp("redis")).start()
    yield redis
    redis.stop()


@pytest.fixture
def environment(redis, tmp_path):
    """An environment with the message queue, in which a process finds the checkout and the page's programs."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "MESSAGE_QUEUE": redis.url,
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def running(command, folder, environment, ready):
    """Run a program until the end of the block; ``ready`` is asked until it says that the program is."""
    log = folder / f"log-{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip

    def check():
        assert process.poll() is None, log.read_text()
        return ready(log.read_text())

    try:
        wait_until(check, LIMIT, f"{command[0]} to be ready")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0 and "Traceback" not in log.read_text(), log.read_text()


@contextlib.contextmanager
def gunicorn(app, folder, environment):
    """Serve an application; gives the URL."""
    port = free_port()
    command = ["gunicorn", "-w", "1", "--threads", "100", *QUIET, "-b", f"127.0.0.1:{port}", app]
    with running(command, folder, environment, lambda log: "Booting worker" in log):
        yield f"http://127.0.0.1:{port}"


class Client:
    """A python-socketio client that keeps what it hears."""

    def __init__(self, url, *events):
        self.peer = peer.Client(reconnection=False, request_timeout=LIMIT)
        self.heard = []
        self.change = threading.Condition()
        for event in events:
            self.peer.on(event, lambda *args, event=event: self.note(event, args))
        self.peer.connect(url, wait_timeout=LIMIT, retry=True)

    def note(self, event, args):
        with self.change:
            self.heard.append((event, *args))
            self.change.notify_all()

    def wait(self, *expected):
        """Wait until exactly this has been heard since the last time."""
        with self.change:
            self.change.wait_for(lambda: len(self.heard) >= len(expected), LIMIT)
            heard, self.heard = self.heard, []
        assert heard == list(expected)


@contextlib.contextmanager
def clients(*urls, events):
    """Connect a client to each URL."""
    with contextlib.ExitStack() as stack:
        found = []
        for url in urls:
            found.append(Client(url, *events))
            stack.callback(found[-1].peer.disconnect)
        yield found


def post(url):
    """POST to a page that answers nothing."""
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=LIMIT) as response:
        assert response.status == 204


def test_workers_page(tmp_path, environment):
    assert files("workers", tmp_path) == {"app.py"}
    with (
        gunicorn("app:app", tmp_path, environment) as one,
        gunicorn("app:app", tmp_path, environment) as two,
        clients(one, two, two, events=("edited", "closed")) as (ann, bob, cleo),
    ):
        for client, name in ((ann, "novel"), (bob, "novel"), (cleo, "poem")):
            client.peer.call("open", name, timeout=LIMIT)
        with urllib.request.urlopen(f"{one}/documents/novel/readers", timeout=LIMIT) as response:
            assert json.load(response) == {"readers": 2}
        ann.peer.call("edit", ("novel", "one"), timeout=LIMIT)
        bob.wait(("edited", "one"))
        bob.peer.call("edit", ("novel", "two"), timeout=LIMIT)
        ann.wait(("edited", "two"))
        post(f"{two}/documents/novel/close")
        ann.wait(("closed", "novel"))
        bob.wait(("closed", "novel"))
        post(f"{one}/documents/novel/close")  # nobody is in there any more
        post(f"{one}/documents/poem/close")
        cleo.wait(("closed", "poem"))
        assert ann.heard == bob.heard == []


def test_external_page(tmp_path, environment):
    assert files("external", tmp_path) == {"announce.py", "app.py", "clock.py"}
    servers = tmp_path / "servers"
    servers.mkdir()
    files("workers", servers)
    with (
        gunicorn("app:app", servers, environment) as url,
        clients(url, events=("notice", "tick")) as (client,),
    ):

        def run(*command):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

        # The process is gone as soon as it has emitted: nothing is lost.
        run("announce.py", "by the script")
        client.wait(("notice", {"text": "by the script"}))
        run("-m", "flask", "--app", "app", "announce", "by the command")
        client.wait(("notice", {"text": "by the command"}))
        clock = subprocess.Popen([sys.executable, "clock.py"], cwd=tmp_path, env=environment)
        try:
            with client.change:
                assert client.change.wait_for(lambda: len(client.heard) == 2, LIMIT)
        finally:
            clock.terminate()
            clock.wait(LIMIT)
        assert [name for name, _ in client.heard] == ["tick", "tick"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet", "solo"])
def test_celery_page(tmp_path, environment, pool):
    need_celery()
    assert files("celery", tmp_path) == {"app.py", "extensions.py", "make_celery.py", "tasks.py", "test_counting.py"}
    worker = ["celery", "-A", "make_celery", "worker", "-P", pool, "--concurrency", "2", "--loglevel", "info"]
    with (
        running(worker, tmp_path, environment, lambda log: " ready." in log),
        gunicorn("app:create_app()", tmp_path, environment) as url,
        clients(url, url, events=("progress", "counted")) as (ann, bob),
    ):
        task = ann.peer.call("count", "one two\nthree\n\nfour", timeout=LIMIT)
        progress = [("progress", {"id": task, "done": done}) for done in (25, 50, 75, 100)]
        ann.wait(*progress, ("counted", {"id": task, "words": 4}))
        assert bob.heard == []


def test_a_process_of_the_pool_sends_what_its_last_task_emitted(tmp_path, environment):
    need_celery()
    files("celery", tmp_path)
    worker = ["celery", "-A", "make_celery", "worker", "--concurrency", "2", "--max-tasks-per-child", "1"]
    with (
        running([*worker, "--loglevel", "info"], tmp_path, environment, lambda log: " ready." in log),
        gunicorn("app:create_app()", tmp_path, environment) as url,
        clients(url, events=("counted",)) as (client,),
    ):
        # So much that a good part still waits when the task ends: it is done before there is a connection.
        tasks = [client.peer.call("count", "one\n" * 500, timeout=LIMIT) for _ in range(4)]
        with client.change:
            client.change.wait_for(lambda: len(client.heard) == len(tasks), LIMIT)
            assert sorted(news["id"] for _, news in client.heard) == sorted(tasks)


def test_the_test_of_the_celery_page_passes(tmp_path, environment):
    need_celery()
    files("celery", tmp_path)
    del environment["MESSAGE_QUEUE"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_counting.py"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 0, run.stdout + run.stderr


def need_celery():
    """Skip where Celery is missing."""
    if importlib.util.find_spec("celery") is None:
        pytest.skip("needs Celery: pip install 'flask_realtime[celery]'")
