"""uWSGI: the client's socket, which is shown by its number only, and what is seen of the process it serves in.

Theory of operation. A request is left by a copy of its descriptor. uWSGI merely closes its own one when the call has
ended, and writes nothing unless ``start_response`` was called. So nothing has to be put in its place.
"""

from __future__ import annotations

import _socket
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConfigurationError
from .exchange import CLOSE, TakeBack
from .hub import Hub

Environ = dict[str, Any]

logger = logging.getLogger("flask_realtime.io")

# With these uWSGI itself speaks TLS or another protocol on what it accepts, or reads on when a call has ended.
_CLOSED = frozenset(("https-socket", "suwsgi-socket", "fastcgi-socket", "fastcgi-nph-socket", "http11-socket"))
_OPEN = ("", "http", "uwsgi")  # what --protocol may say


def module() -> Any:
    """Return uWSGI's own module; None in a process that isn't uWSGI's."""
    found = sys.modules.get("uwsgi")
    return found if hasattr(found, "connection_fd") else None


def runs_gevent() -> bool:
    """Whether this process is uWSGI's, and serves by gevent's loop."""
    uwsgi = module()
    return uwsgi is not None and _text(getattr(uwsgi, "loop", None)) == "gevent"


def judge(mode: str) -> None:
    """Look whether a mode can work in this process.

    Raises:
        ConfigurationError: It can't.
    """
    uwsgi = module()
    if mode == "gevent_uwsgi" and not runs_gevent():
        raise ConfigurationError(
            "async_mode='gevent_uwsgi' works only inside of uWSGI with gevent: start the program by "
            "`uwsgi --gevent 1000 --http-socket 127.0.0.1:5000 --master --module app:app`; to serve it otherwise, "
            "leave async_mode out"
        )
    if uwsgi is None:
        return
    if mode == "threading" and not runs_gevent() and not getattr(uwsgi, "has_threads", 1):
        raise ConfigurationError(
            "uWSGI lets no threads of Python run: give it --enable-threads (or --threads 100), or --gevent 1000"
        )
    if getattr(uwsgi, "numproc", 1) > 1 and uwsgi.worker_id() < 2:
        logger.warning(
            "uWSGI runs %d processes, but the clients of each are known to it alone, so the requests of a client reach "
            "the wrong one: give it --processes 1. To use more processors, start several uWSGIs of one process behind "
            "a proxy that sends a client always to the same one",
            uwsgi.numproc,
        )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")


# Requests.


def serves(environ: Environ) -> bool:
    """Whether a request came through uWSGI."""
    return "uwsgi.version" in environ


def adapt(environ: Environ, start_response: Callable[..., Any]) -> tuple[Environ, Callable[..., Any]]:
    """Make of what uWSGI calls an application with what other servers do."""
    environ = dict(environ)  # uWSGI empties its own when the call ends
    if environ.get("HTTP_TRANSFER_ENCODING") and not environ.get("CONTENT_LENGTH"):
        environ["wsgi.input"], environ["wsgi.input_terminated"] = _Chunks(), True

    def start(status: str, headers: list[tuple[str, str]], *args: Any) -> Any:
        # It closes each connection, and doesn't say so: a client that keeps them would send its next request in vain.
        return start_response(status, headers if CLOSE in headers else [*headers, CLOSE], *args)

    return environ, start


class _Chunks:
    """A body that comes in chunks, which ``wsgi.input`` of uWSGI doesn't read."""

    @staticmethod
    def read(size: int) -> bytes:
        """Return the next chunk, whatever its size is; b"" at the end."""
        chunk: bytes = module().chunked_read()
        return chunk


# Sockets.


class Borrowed(_socket.socket):
    """The socket of a request. Its descriptor is uWSGI's, which closes it."""

    def __del__(self) -> None:
        self.detach()


def borrow() -> Borrowed | None:
    """Return the socket of the request that is being served; None where it can't be had for ourselves."""
    uwsgi = module()
    if uwsgi is None or not _CLOSED.isdisjoint(uwsgi.opt) or _text(uwsgi.opt.get("protocol")) not in _OPEN:
        return None
    return Borrowed(fileno=uwsgi.connection_fd())


class Taken:
    """A socket that has left uWSGI.

    Args:
        sock: As it was borrowed.
        hub: Serves it from now on.

    Attributes:
        sock: Non-blocking and ours alone.
        early: What uWSGI had read beyond the request; it tells that to nobody.
    """

    early = b""

    def __init__(self, sock: Borrowed, hub: Hub) -> None:
        number = sock.fileno()
        self.sock = hub.socket(fileno=os.dup(number))
        hub.forget(number)
        self.sock.setblocking(False)

    @staticmethod
    def finish(status: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Give uWSGI nothing to write."""
        return []


# The process.


class Worker:
    """The worker that is this process.

    With gevent's loop, uWSGI calls nothing of ``atexit``, but `uwsgi.atexit`, and that still within the loop.

    Args:
        uwsgi: Its module.
        end: Ends what is ours, and waits for it.
    """

    take_back: TakeBack | None = None
    """uWSGI takes no connection back."""

    def __init__(self, uwsgi: Any, end: Callable[[], object]) -> None:
        self.alive = True
        self.restarts = False
        self._end, self._then = end, getattr(uwsgi, "atexit", None)
        self._watches: list[Any] = []
        if not runs_gevent():
            return
        uwsgi.atexit = self._last
        gevent: Any = importlib.import_module("gevent")
        loop = gevent.get_hub().loop
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            watch = loop.signal(number, ref=False)
            watch.start(self._told, number == signal.SIGHUP)  # beside uWSGI's own
            self._watches.append(watch)

    def _told(self, restarts: bool) -> None:
        """uWSGI's master has sent a signal. In gevent's loop."""
        self.alive, self.restarts = False, restarts

    def _last(self) -> None:
        self._end()
        if self._then is not None:
            self._then()

    @staticmethod
    def shutdown() -> None:
        """End all of uWSGI."""
        # Not by `uwsgi.stop`, whose signal means a reload where --die-on-term is given.
        os.kill(int(module().masterpid()) or os.getpid(), signal.SIGINT)


def worker(end: Callable[[], object]) -> Worker | None:
    """Return the worker that is this process; None when it is none."""
    uwsgi = module()
    return None if uwsgi is None else Worker(uwsgi, end)
