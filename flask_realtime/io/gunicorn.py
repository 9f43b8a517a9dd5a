"""gunicorn: a worker's end, learned from what the worker shows, since it announces it to nobody.

Each way that ends a worker (TERM, QUIT, HUP to the master, ``max_requests``, a changed file) first clears its flag
``alive``. The worker itself is found through its handler of SIGTERM. Whether the master goes on, so that clients may
come back at once, is seen by its sockets: a master that stops closes them before it tells its workers.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from .exchange import TakeBack

LOOK = 0.1
"""Seconds between two looks at a worker."""


class Worker:
    """The gunicorn worker that is this process."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._listeners = _inodes(worker.sockets)

    @property
    def alive(self) -> bool:
        return bool(self._worker.alive)

    @property
    def take_back(self) -> TakeBack | None:
        """Takes a connection that has left the worker; None where the worker can't."""
        module = sys.modules.get("gunicorn.workers.gthread")
        if module is None or not isinstance(self._worker, module.ThreadWorker):
            return None
        if getattr(self._worker.cfg, "proxy_protocol", False) not in (False, None, "off"):
            return None  # it would believe the line of a proxy again, whoever sends it
        return self._take_back if hasattr(module, "TConn") and hasattr(self._worker, "enqueue_req") else None

    def _take_back(self, sock: socket.socket) -> None:
        worker = self._worker
        module = sys.modules["gunicorn.workers.gthread"]
        connection = module.TConn(worker.cfg, sock, sock.getpeername(), self._listener_of(sock))

        def enqueue() -> None:
            worker.nr_conns += 1
            worker.enqueue_req(connection)

        queue = getattr(worker, "method_queue", None)  # of its main thread, since gunicorn 24
        if queue is not None:
            queue.defer(enqueue)
        else:
            enqueue()

    def _listener_of(self, sock: socket.socket) -> Any:
        """Return the name of the listener that has accepted a connection."""
        own = sock.getsockname()
        for listener in self._worker.sockets:
            name = listener.getsockname()
            if name == own or (isinstance(name, tuple) and isinstance(own, tuple) and name[1] == own[1]):
                return name
        return own

    @property
    def master(self) -> int:
        """The master's process."""
        return int(self._worker.ppid)

    @property
    def restarts(self) -> bool:
        """Whether another worker takes this one's place. False also where that can't be seen."""
        if self._worker.nr >= self._worker.max_requests:
            return True
        folder = f"/proc/{self.master}/fd"
        try:
            names = os.listdir(folder)
        except OSError:  # no such system, or the master is another user's
            return False
        return any(_inode(f"{folder}/{name}") in self._listeners for name in names)


def worker() -> Worker | None:
    """Return the worker that is this process; None when it is none."""
    base = sys.modules.get("gunicorn.workers.base")
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if base is None or not isinstance(owner, base.Worker):
        return None
    return Worker(owner)


def _inodes(listeners: Any) -> frozenset[int]:
    return frozenset(os.fstat(listener.fileno()).st_ino for listener in listeners)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1  # closed meanwhile
