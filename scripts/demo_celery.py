"""Run the example app with a Celery worker and a Redis of its own until Ctrl-C: ``python scripts/demo_celery.py``.

Redis listens on a free port of 127.0.0.1, asks for a password, and writes nothing to disk.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_LIMIT = 20  # seconds that a process may take to answer
STOP_LIMIT = 10  # seconds that one may take to end in good order

REDIS = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
logfile {folder}/log
"""


# Set by Ctrl-C. A flag, not an exception: that might come when a process has begun and nobody knows of it yet.
interrupted = threading.Event()


class Ended(Exception):
    """One of the processes has ended by itself, or doesn't start."""


class Process:
    """A process that Ctrl-C at the terminal doesn't reach, so that it can be ended in its turn.

    Args:
        name: What it is called where people read it.
        command: The program and its arguments.
        variables: Are added to the environment.
        log: Where it writes what went wrong, when that isn't the terminal.
    """

    def __init__(
        self, name: str, command: list[str], variables: dict[str, str] | None = None, log: Path | None = None
    ) -> None:
        self.name, self.log = name, log
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            Ended: When it doesn't.
        """
        status = self.process.poll()
        if status is not None:
            words = self.log.read_text() if self.log and self.log.exists() else ""
            raise Ended(f"{words}{self.name} has ended with status {status}")

    def wait(self, port: int) -> None:
        """Return when it accepts connections, or when somebody interrupts.

        Raises:
            Ended: When it has ended, or does not accept any.
        """
        limit = time.monotonic() + START_LIMIT
        while not interrupted.wait(0.05):
            self.check()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            if time.monotonic() > limit:
                raise Ended(f"{self.name} does not listen on port {port}")

    def end(self, *signals: signal.Signals) -> None:
        """End it: by the first signal, by the next one when that doesn't help in time, and so on."""
        for number in (*signals, signal.SIGKILL):
            self.process.send_signal(number)  # nothing happens when it has ended already
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_LIMIT)
                return


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(port: int, folder: str) -> None:
    """Start everything, say where it is, and watch it until somebody interrupts.

    Raises:
        Ended: When one of the processes ends before that.
    """
    redis_port, password = free_port(), secrets.token_urlsafe()
    url = f"redis://:{password}@127.0.0.1:{redis_port}/0"
    variables = {
        "CELERY_BROKER_URL": url,
        "MESSAGE_QUEUE": url,
        "MESSAGE_QUEUE_SECRET": secrets.token_urlsafe(),
        "PYTHONUNBUFFERED": "1",
    }
    config, log = Path(folder, "redis.conf"), Path(folder, "log")
    config.write_text(REDIS.format(port=redis_port, password=password, folder=folder))
    # In a container everybody is root, and knows it.
    root = "ignore:You're running the worker with superuser privileges"
    worker = [sys.executable, "-W", root, "-m", "celery", "-A", "example_app.worker", "--quiet", "worker"]
    worker += ["--concurrency", "2", "--loglevel", "warning", "--without-mingle", "--without-gossip"]
    with contextlib.ExitStack() as stack:
        stack.callback(print, "==> Stopped", flush=True)
        redis = Process("redis-server", ["redis-server", str(config)], log=log)
        stack.callback(redis.end, signal.SIGTERM)
        redis.wait(redis_port)
        celery = Process("the Celery worker", worker, variables)
        # What it works on is of no use any more, so it need not be finished.
        stack.callback(celery.end, signal.SIGQUIT)
        app = Process("the app", [sys.executable, "-m", "example_app", "--port", str(port)], variables)
        stack.callback(app.end, signal.SIGTERM)
        app.wait(port)
        print(f"==> Open http://127.0.0.1:{port}/darkroom/ in a browser; Ctrl-C stops everything", flush=True)
        while not interrupted.wait(0.5):
            for process in (redis, celery, app):
                process.check()


def main() -> int:
    """Run it until Ctrl-C, SIGTERM or the end of the terminal.

    Returns:
        The exit status: 0 when it was interrupted, 1 when something did not start or has ended by itself.
    """
    parser = argparse.ArgumentParser(description="The example app with a Celery worker and a Redis of its own.")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    options = parser.parse_args()
    if not shutil.which("redis-server"):
        print("redis-server is missing (Debian: apt-get install redis-server)", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: interrupted.set())
    try:
        with tempfile.TemporaryDirectory(prefix="demo-celery-") as folder:
            run(options.port, folder)
    except Ended as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
