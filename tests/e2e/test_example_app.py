"""The example app, as people use it: ``python -m example_app`` and Chromium windows on a phone and on a desk."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from .proxies import NGINX_ALARM, NGINX_CRASH, Nginx
from .servers import gunicorn_help

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 200  # seconds for one scenario, browser start included

Browse = Callable[..., None]

# Name -> size of the windows, and the server.
VARIANTS = {
    "desk": ("desk", "werkzeug"),
    "phone": ("phone", "werkzeug"),
    "desk-gunicorn": ("desk", "gunicorn"),
    "desk-gevent-nginx-tls": ("desk", "gevent-nginx-tls"),
}


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(*first: Path) -> dict[str, str]:
    """Make an environment in which a subprocess finds the checkout, after the folders given."""
    paths = [*map(str, first), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class Server:
    """The example app in a process of its own: ``python -m example_app``, or gunicorn with these arguments."""

    def __init__(self, gunicorn: tuple[str, ...] = (), **variables: str) -> None:
        self.gunicorn = gunicorn
        self.variables = variables
        self.port = free_port()
        self.url = self.public_url = f"http://127.0.0.1:{self.port}"
        self.log = ""
        self.start()

    def start(self) -> None:
        """Start the process and return when it accepts connections."""
        if self.gunicorn:
            command = [sys.executable, "-m", "gunicorn", *self.gunicorn, "--bind", f"127.0.0.1:{self.port}"]
            command.append("example_app:create_app()")
        else:
            command = [sys.executable, "-u", "-m", "example_app", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environment(), **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout
        if not self.gunicorn:
            line = self.process.stdout.readline()
            assert line == f"Open {self.url} in two browser windows.\n", line + self.process.stdout.read()
        # From here on the output is only collected, so that the pipe never fills.
        self.reader = threading.Thread(target=self.read, args=(self.process.stdout,))
        self.reader.start()
        end = time.monotonic() + LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    pytest.fail(self.log)

    def read(self, stream: IO[str]) -> None:
        """Collect the output until the process ends."""
        for line in stream:
            self.log += line
        stream.close()

    def kill(self) -> None:
        """End the process, and its workers, without any goodbye, as a crash does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(LIMIT)
        self.reader.join(LIMIT)

    def stop(self) -> None:
        """End the process as a service manager does. (Ctrl-C is ignored by what a script runs in the background.)"""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.reader.join(LIMIT)


@pytest.fixture(scope="module")
def tools() -> None:
    """Skip where the browser or a npm package is missing, and say how to get it."""
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no /usr/bin/chromium: apt-get install chromium")
    if not shutil.which("node"):
        pytest.skip("no node: apt-get install nodejs npm")
    if not (HERE / "node_modules" / "playwright-core").is_dir():
        pytest.skip("no playwright-core: npm ci --prefix tests/e2e")
    if not (ROOT / "example_app" / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("no socket.io-client: npm ci --prefix example_app")


@pytest.fixture(params=["desk", "phone", "desk-gevent-nginx-tls"])
def variant(request: pytest.FixtureRequest) -> str:
    """A key of ``VARIANTS``."""
    return str(request.param)


@pytest.fixture
def viewport(variant: str) -> str:
    """The size of the windows."""
    return VARIANTS[variant][0]


@pytest.fixture
def server(tools: None, variant: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of its own for each test: names and messages of another one don't disturb."""
    kind = VARIANTS[variant][1]
    quiet = ("--no-control-socket",) if "--no-control-socket" in gunicorn_help() else ()
    with contextlib.ExitStack() as stack:
        if kind == "gevent-nginx-tls":
            server = Server(("-k", "gevent", "-w", "1", *quiet), TRUSTED_PROXIES="1")
            stack.callback(server.stop)
            # nginx says it when the server was killed, and then only.
            killed = "killed" in request.node.name
            proxy = Nginx(tmp_path, [server.port], "tls.conf", alarm=NGINX_CRASH if killed else NGINX_ALARM)
            stack.callback(proxy.stop)
            server.public_url = proxy.url
        else:
            server = Server(("--threads", "8", *quiet) if kind == "gunicorn" else ())
            stack.callback(server.stop)
        yield server
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def browse(server: Server, viewport: str) -> Browse:
    """Run a scenario of example_app.mjs in windows of that size."""

    def run(scenario: str, *arguments: str) -> None:
        command = ["node", str(HERE / "example_app.mjs"), scenario, server.public_url, viewport, *arguments]
        pipe = subprocess.PIPE
        node = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
        assert node.stdin
        assert node.stdout
        watchdog = threading.Timer(LIMIT, node.kill)
        watchdog.start()
        output = ""
        try:
            for line in node.stdout:
                output += line
                if line == "kill server\n":
                    server.kill()
                elif line == "start server\n":
                    server.start()
                    node.stdin.write("done\n")
                    node.stdin.flush()
            status = node.wait(LIMIT)
        finally:
            watchdog.cancel()
            node.stdin.close()
            node.stdout.close()
        assert status == 0, f"status {status}\n{output}\nserver:\n{server.log}"
        assert output.endswith("passed\n"), output

    return run


def test_two_people_chat_with_ticks_typing_presence_and_round_trip(browse: Browse) -> None:
    browse("chat")


def test_pictures_and_files_arrive_unchanged_and_large_ones_are_declined(browse: Browse) -> None:
    browse("files")


def test_a_refused_name_shows_the_servers_words_and_leaving_frees_the_name(browse: Browse) -> None:
    browse("refused")


def test_what_the_server_does_not_accept_is_shown(browse: Browse) -> None:
    browse("errors")


def test_a_message_whose_tick_got_lost_is_not_shown_twice(browse: Browse) -> None:
    browse("again")


def test_a_reloaded_page_comes_in_again_by_itself(browse: Browse) -> None:
    browse("reload")


def test_pages_reconnect_when_the_server_was_killed_and_started_again(browse: Browse) -> None:
    browse("restart")


@pytest.mark.parametrize("variant", ["desk-gunicorn"])
def test_the_chat_works_under_gunicorn(browse: Browse) -> None:
    browse("chat")


if os.environ.get("SCREENSHOTS") == "1":

    @pytest.mark.parametrize("variant", ["desk", "phone"])
    def test_screenshots(browse: Browse, viewport: str) -> None:
        browse("screenshot", str(ROOT / "docs" / "images" / f"example-{viewport}.png"))


def run_app(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``python -m example_app`` where it is expected to give up at once."""
    return subprocess.run(
        [sys.executable, "-m", "example_app", *arguments],
        cwd=cwd,
        env=environment(cwd),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_a_port_in_use_is_one_plain_line(tools: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_app("--port", str(port))
    expected = f"Cannot listen on 127.0.0.1 port {port}: Address already in use. Choose another one with --port.\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)


def test_a_missing_bundle_is_one_plain_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "example_app", tmp_path / "example_app", ignore=shutil.ignore_patterns("node_modules"))
    result = run_app(cwd=tmp_path)
    expected = "socket.io-client is missing, install it with: npm ci --prefix example_app\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", expected)
