"""Mistakes in how a server is set up that cost days, told with the remedy: each once in a process, as soon as it shows.

Only what is certain, or as good as certain, is told: a warning in a sound set-up would teach its reader to skip them.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from . import runtimes
from .gunicorn import Worker

logger = logging.getLogger("flask_realtime")

PATCHING = {
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "gevent": "from gevent import monkey; monkey.patch_all()",
}
"""What begins a program whose standard library is to wait for greenlets."""

WORKERS = {"eventlet": "flask_realtime.io.gunicorn.EventletWorker", "gevent": "gevent"}
"""What gunicorn's option ``-k`` has to be."""

WAITING = ("httpx", "kombu", "pika", "psycopg", "pymongo", "pymysql", "redis", "requests", "sqlalchemy")
"""Modules that wait in sockets of the standard library."""

STICKY = "behind a proxy that sends a client always to the same one (nginx/ip-hash.conf, nginx/sticky.conf)"
ONE_PROCESS = f"use -w 1, or several servers with -w 1, each on a port of its own, {STICKY}"

STUCK = (
    "Werkzeug can't serve Socket.IO in a process that eventlet has patched: clients wait forever. Start the program "
    "itself, whose socketio.run() serves with eventlet, or remove that patching"
)

_told: set[str] = set()
_process = 0


def tell(mistakes: Iterable[str]) -> None:
    """Log what this process hasn't logged yet."""
    global _process
    if _process != os.getpid():  # what was told before a fork, another process has told
        _process = os.getpid()
        _told.clear()
    for mistake in mistakes:
        if mistake not in _told:
            _told.add(mistake)
            logger.warning("%s", mistake)


def at_start(mode: str, worker: Worker | None) -> Iterator[str]:
    """Yield what is wrong before there is a request, since some mistakes keep each request from being answered.

    Args:
        mode: The server's ``async_mode``.
        worker: The gunicorn worker that this process is.
    """
    if runtimes.by_flask_run() and runtimes.patched("eventlet"):
        yield STUCK  # now, since it may not get as far as a request
    patchers = [library for library in PATCHING if runtimes.patched(library)]
    if len(patchers) == 2:
        yield (
            "this process is patched by eventlet and by gevent, and what waits for the one stops the other: remove one "
            "of the two monkey patchings"
        )
    if worker is not None and worker.mode is not None:
        # The sync worker waits with what is patched.
        if worker.mode != mode and not (worker.name == "sync" and runtimes.patched(mode)):
            yield _misfit(f"gunicorn's {worker.name} worker", worker.mode, mode)
    elif mode in PATCHING and len(patchers) == 1 and patchers != [mode]:
        yield (
            f"async_mode is {mode!r}, but this process is patched by {patchers[0]}, and what waits for the one stops "
            f"the other: remove that patching, or give async_mode={patchers[0]!r}"
        )


def at_first_request(mode: str, worker: Worker | None, environ: dict[str, Any]) -> Iterator[str]:
    """Yield what the first request shows to be wrong.

    Args:
        mode: The server's ``async_mode``.
        worker: The gunicorn worker that this process is.
        environ: Of the request.
    """
    yield from at_start(mode, worker)  # again: if the program was loaded before the fork, there was no worker yet
    needed = runtimes.wanted(environ, mode)
    if needed is not None and (worker is None or worker.mode is None):
        yield _misfit("this server", needed, mode)
    if "werkzeug.socket" in environ and runtimes.patched("eventlet") and not runtimes.by_flask_run():
        yield STUCK
    if worker is not None and worker.count > 1:
        yield (
            f"{_workers(worker)}, each of which knows only its own clients, but a client's requests come to any of "
            f"them: most clients that poll will be refused, and events reach only those of one worker; {ONE_PROCESS}"
        )
    if worker is not None and worker.single:
        yield _one_at_a_time(worker)
    if mode in PATCHING and not runtimes.patched(mode):
        waiting = [name for name in WAITING if name in sys.modules]
        if waiting:
            yield (
                f"async_mode is {mode!r}, but {mode} hasn't patched this process, so all clients wait whenever "
                f"{_listed(waiting)} waits for its server: begin the program with `{PATCHING[mode]}`, before all "
                "other imports"
            )


def why_unknown(worker: Worker | None, environ: dict[str, Any]) -> str:
    """Return why a client may come with a session id that isn't known."""
    if worker is not None and worker.count > 1:
        return f"{_workers(worker)}, each of which knows only its own clients: {ONE_PROCESS}"
    if environ.get("wsgi.multiprocess"):
        return (
            "this server has several processes, each of which knows only its own clients: let it have one, or use "
            f"several servers of one process {STICKY}"
        )
    return (
        "it was here before a restart, or its requests go to several servers in turn, each of which knows only its own "
        f"clients: put them {STICKY}"
    )


def _workers(worker: Worker) -> str:
    variable = os.environ.get("WEB_CONCURRENCY") == str(worker.count)
    return f"gunicorn runs {worker.count} workers{' (WEB_CONCURRENCY)' if variable else ''}"


def _one_at_a_time(worker: Worker) -> str:
    text = f"gunicorn's {worker.name} worker handles one request at a time here"
    if worker.tls:
        text += ", and with TLS in gunicorn a client that waits is one: nobody else is served meanwhile"
    else:
        text += ": clients that wait don't count, but a slow page holds up all pages, polls and new clients"
    if worker.name == "sync":
        text += "; one that takes longer than --timeout ends the worker, with all its clients"
    return text + ". Use --threads 100 or -k gevent"


def _misfit(server: str, needed: str, mode: str) -> str:
    if needed == "threading":
        return (
            f"{server} uses threads, but async_mode is {mode!r}, so clients may wait forever: use {mode}'s own server, "
            f"with socketio.run() or gunicorn -k {WORKERS[mode]}, or remove {mode}'s monkey patching and async_mode"
        )
    return (
        f"{server} belongs to {needed}, but async_mode is {mode!r}, so whatever waits may stop all of it: leave "
        f"async_mode out, and begin the program with `{PATCHING[needed]}`, before all other imports"
    )


def _listed(names: list[str]) -> str:
    return " or ".join(names[:3])
