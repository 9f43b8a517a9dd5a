"""The example's page for long tasks in Chromium: with a real Celery worker and Redis, and with neither."""

import contextlib
import importlib.util
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import socketio

from example_app.pictures import AT_ONCE, DEEPEST, PLACES, SIZES, Order, Problem, render

from .servers import children, gunicorn_help, wait_until
from .test_example_app import HERE, ROOT, Server, environment, free_port, tools  # noqa: F401

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

LIMIT = 400  # seconds for one scenario, browser start included
MAKERS = {"celery": "a Celery worker, process ", "thread": "the web server itself", "gevent": "the web server itself"}
QUIET = ("--no-control-socket",) if "--no-control-socket" in gunicorn_help() else ()

Browse = Callable[..., str]


class Demo:
    """``scripts/demo_celery.py``: Redis, a worker and the app.

    Args:
        folder: Where the log goes.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = self.public_url = f"http://127.0.0.1:{self.port}"
        self.path = folder / f"demo-{self.port}.log"
        with self.path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", str(ROOT / "scripts" / "demo_celery.py"), "--port", str(self.port)],
                cwd=ROOT,
                env=environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            wait_until(self.is_up, LIMIT, "the demo to start")
        except BaseException:
            self.stop()
            raise

    def is_up(self) -> bool:
        """Say whether the script has said that everything runs."""
        assert self.process.poll() is None, self.log
        return f"==> Open {self.url}/darkroom/ in a browser; Ctrl-C stops everything\n" in self.log

    @property
    def log(self) -> str:
        """What all of them have written."""
        return self.path.read_text()

    def processes(self) -> tuple[list[int], list[int]]:
        """List the processes that it has started, and those of Celery's pool, which one of them has started."""
        own = children(self.process.pid)
        return own, [child for process in own for child in children(process)]

    def stop(self, number: signal.Signals = signal.SIGINT, alarm: str = "Traceback|Error|CRITICAL|Killed") -> None:
        """End it, and judge how it ends: soon, with status 0, without a word of complaint, and all of it."""
        own, pool = self.processes()
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.wait(LIMIT) == 0, self.log
        assert self.log.endswith("==> Stopped\n"), self.log
        assert not re.search(alarm, self.log), self.log
        wait_until(lambda: not any(map(runs, own + pool)), 10, "the end of all processes")


def runs(pid: int) -> bool:
    """Say whether a process is there and hasn't ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def redis() -> None:
    """Skip where Redis or Celery is missing, and say how to get it."""
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server: apt-get install redis-server")
    if importlib.util.find_spec("celery") is None:
        pytest.skip("no celery: pip install 'flask_realtime[celery]'")


@pytest.fixture(scope="module", params=list(MAKERS))
def maker(request: pytest.FixtureRequest) -> str:
    """A key of ``MAKERS``: who makes the pictures."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(
    tools: None,  # noqa: F811
    maker: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Demo | Server]:
    """One server for the scenarios of this file: they disturb each other no more than people do."""
    if maker == "celery":
        request.getfixturevalue("redis")
    server = {
        "celery": lambda: Demo(tmp_path_factory.mktemp("demo")),
        "thread": lambda: Server(),
        "gevent": lambda: Server(("-k", "gevent", "-w", "1", *QUIET)),
    }[maker]()
    yield server
    server.stop()
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def browse(server: Demo | Server, maker: str) -> Browse:
    """Run a scenario of darkroom.mjs, and compare the pictures that it has seen with what they should be."""

    def run(scenario: str, *arguments: str, viewport: str = "desk") -> str:
        command = ["node", str(HERE / "darkroom.mjs"), scenario, server.url, viewport, MAKERS[maker], *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nserver:\n{server.log}"
        assert done.stdout.endswith("passed\n"), done.stdout
        for task, place, depth, size in set(re.findall(r"^picture (\S+) (.+)\|(\d+)\|(\w+)$", done.stdout, re.M)):
            with urllib.request.urlopen(f"{server.url}/darkroom/{task}.png", timeout=LIMIT) as response:
                assert response.headers["Content-Type"] == "image/png"
                assert response.read() == picture(place, int(depth), size)
        return done.stdout

    return run


MADE: dict[tuple[str, int, str], bytes] = {}


def picture(place: str, depth: int, size: str) -> bytes:
    """Make a picture here, unless it was made before."""
    key = (place, depth, size)
    if key not in MADE:
        MADE[key] = render(Order(*key), lambda done: None)
    return MADE[key]


# In a browser


def test_the_bar_moves_and_the_picture_comes_to_the_page_that_ordered_it_alone(browse: Browse) -> None:
    browse("develop")


@pytest.mark.parametrize("maker", ["celery", "thread"], indirect=True)
def test_several_pictures_at_once(browse: Browse) -> None:
    browse("several", viewport="phone")


@pytest.mark.parametrize("maker", ["celery", "thread"], indirect=True)
def test_a_reloaded_page_sees_its_task_again(browse: Browse) -> None:
    browse("reload")


def test_a_cancelled_task_ends(browse: Browse) -> None:
    browse("cancel")


@pytest.mark.parametrize("maker", ["celery", "thread"], indirect=True)
def test_what_goes_wrong_is_shown(browse: Browse) -> None:
    browse("failure", viewport="phone")


if os.environ.get("SCREENSHOTS") == "1":

    @pytest.mark.parametrize("maker", ["celery"], indirect=True)
    def test_screenshot(browse: Browse) -> None:
        browse("screenshot", str(ROOT / "docs" / "images" / "example-celery.png"))


# make demo-celery


@contextlib.contextmanager
def ordered(url: str, place: str, depth: int, size: str) -> Iterator[threading.Event]:
    """Order a picture, as a page does, and go on when it is being made; gives what tells that it is done."""
    client = socketio.Client(reconnection=False)
    working, done = threading.Event(), threading.Event()
    events = {"working": working, "done": done}
    client.on("task", lambda news: events[news["state"]].set(), namespace="/darkroom")
    client.connect(url, namespaces="/darkroom", transports=["websocket"])
    try:
        wanted = {"place": place, "depth": depth, "size": size}
        assert client.call("start", wanted, namespace="/darkroom")["ok"]
        assert working.wait(LIMIT)
        yield done
    finally:
        client.disconnect()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_the_middle_of_a_task(
    number: signal.Signals,
    tools: None,  # noqa: F811
    redis: None,
    tmp_path: Path,
) -> None:
    demo = Demo(tmp_path)
    try:
        with ordered(demo.url, "Seahorse valley", 1, "large") as done:
            pass
    finally:
        began = time.monotonic()
        demo.stop(number)
    assert time.monotonic() - began < 20 and not done.is_set()


def test_a_picture_whose_process_is_killed_is_made_again(
    tools: None,  # noqa: F811
    redis: None,
    tmp_path: Path,
) -> None:
    demo = Demo(tmp_path)
    try:
        with ordered(demo.url, "Pinwheel", 3, "large") as done:
            for process in demo.processes()[1]:
                os.kill(process, signal.SIGKILL)
            assert done.wait(LIMIT), demo.log
    finally:
        demo.stop(alarm="CRITICAL")  # Celery tells that it has lost processes


def test_a_demo_that_cannot_listen_says_so_and_ends_all_it_started(
    tools: None,  # noqa: F811
    redis: None,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, str(ROOT / "scripts" / "demo_celery.py"), "--port", str(port)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert done.stderr.endswith("\nthe app has ended with status 1\n")


# The pictures themselves


def test_a_picture_is_a_png_of_the_right_size_whose_points_are_right() -> None:
    place, depth, size = "The whole set", 0, "small"
    told: list[int] = []
    data = render(Order(place, depth, size), told.append)
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and told == sorted(told) and told[-1] == 100
    assert len(told) == math.prod(SIZES[size]) // AT_ONCE
    chunks, rest = {}, data[8:]
    while rest:
        (length,) = struct.unpack(">I", rest[:4])
        name, content, crc = rest[4:8], rest[8 : 8 + length], rest[8 + length : 12 + length]
        assert struct.pack(">I", zlib.crc32(name + content)) == crc
        chunks[name], rest = content, rest[12 + length :]
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert (width, height) == SIZES[size] and len(chunks[b"PLTE"]) == 3 * 256
    pixels = zlib.decompress(chunks[b"IDAT"])
    rows = [pixels[number * (width + 1) + 1 : (number + 1) * (width + 1)] for number in range(height)]
    assert len(pixels) == (width + 1) * height
    assert rows[height // 2][width // 2] == 0  # the middle belongs to the set, the corners don't
    assert all(rows[y][x] for x in (0, -1) for y in (0, -1))


@pytest.mark.parametrize("place", PLACES)
def test_each_place_can_be_seen_until_the_numbers_end(place: str) -> None:
    with pytest.raises(Problem, match="too deep"):
        render(Order(place, DEEPEST, "large"), lambda done: None)

    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        render(Order(place, 6, "large"), stop)
