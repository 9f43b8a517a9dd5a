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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exchange import TakeBack

LOOK = 0.1
"""Seconds between two looks at a worker."""

_CLASSES = {
    "SyncWorker": ("sync", "threading"),
    "ThreadWorker": ("gthread", "threading"),
    "GeventWorker": ("gevent", "gevent"),
    "EventletWorker": ("eventlet", "eventlet"),
}
"""What a worker is called, and which ``async_mode`` it needs, by the name of its class or of one above it."""


class Worker:
    """The gunicorn worker that is this process."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._listeners = _inodes(worker.sockets)

    @property
    def alive(self) -> bool:
        return bool(self._worker.alive)

    @property
    def name(self) -> str | None:
        """What gunicorn calls its kind of worker; None for one that isn't known here."""
        return self._kind()[0]

    @property
    def mode(self) -> str | None:
        """The ``async_mode`` that it needs; None where that isn't known."""
        return self._kind()[1]

    def _kind(self) -> tuple[str, str] | tuple[None, None]:
        found = [_CLASSES[kind.__name__] for kind in type(self._worker).__mro__ if kind.__name__ in _CLASSES]
        return found[0] if found else (None, None)

    @property
    def count(self) -> int:
        """How many workers its master was told to have."""
        return int(self._worker.cfg.workers)

    @property
    def single(self) -> bool:
        """Whether it handles one request at a time."""
        return self.name == "sync" or (self.name == "gthread" and self._worker.cfg.threads == 1)

    @property
    def tls(self) -> bool:
        """Whether it ends TLS itself."""
        return bool(self._worker.cfg.is_ssl)

    @property
    def take_back(self) -> TakeBack | None:
        """Takes a connection that has left the worker; None where the worker can't."""
        if getattr(self._worker.cfg, "proxy_protocol", False) not in (False, None, "off"):
            return None  # it would believe the line of a proxy again, whoever sends it
        module = sys.modules.get("gunicorn.workers.ggevent")
        if module is not None and isinstance(self._worker, module.GeventWorker):
            return self._take_back_green if self._worker.server_class is None else None
        if any(
            name in sys.modules and isinstance(self._worker, sys.modules[name].EventletWorker)
            for name in ("flask_realtime.io.gunicorn_eventlet", "gunicorn.workers.geventlet")
        ):
            return self._take_back_eventlet
        module = sys.modules.get("gunicorn.workers.gthread")
        if module is None or not isinstance(self._worker, module.ThreadWorker):
            return None
        return self._take_back if hasattr(module, "TConn") and hasattr(self._worker, "enqueue_req") else None

    def _take_back(self, sock: socket.socket) -> None:
        worker = self._worker
        module = sys.modules["gunicorn.workers.gthread"]
        connection = module.TConn(worker.cfg, sock, sock.getpeername(), self._listener_of(sock).getsockname())

        def enqueue() -> None:
            worker.nr_conns += 1
            worker.enqueue_req(connection)

        queue = getattr(worker, "method_queue", None)  # of its main thread, since gunicorn 24
        if queue is not None:
            queue.defer(enqueue)
        else:
            enqueue()

    def _take_back_green(self, sock: socket.socket) -> None:
        from gevent import socket as green
        from gevent import spawn

        address, listener = sock.getpeername(), self._listener_of(sock)
        spawn(self._worker.handle, listener, green.socket(fileno=sock.detach()), address)

    def _take_back_eventlet(self, sock: socket.socket) -> None:
        import eventlet.greenio

        address, listener = sock.getpeername(), self._listener_of(sock)
        eventlet.spawn(self._worker.handle, listener, eventlet.greenio.GreenSocket(sock), address)

    def _listener_of(self, sock: socket.socket) -> Any:
        """Return the listener that has accepted a connection."""
        own = sock.getsockname()
        for listener in self._worker.sockets:
            name = listener.getsockname()
            if name == own or (isinstance(name, tuple) and isinstance(own, tuple) and name[1] == own[1]):
                return listener
        return self._worker.sockets[0]

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


def __getattr__(name: str) -> Any:
    if name == "EventletWorker":  # where gunicorn and eventlet are there
        from .gunicorn_eventlet import EventletWorker

        return EventletWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
