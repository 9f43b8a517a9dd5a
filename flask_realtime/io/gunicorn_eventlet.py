"""A worker for eventlet, which gunicorn has had none of its own for since version 26.

``gunicorn -k flask_realtime.io.gunicorn.EventletWorker``, or ``-k egg:flask_realtime#eventlet``. It patches the process
after the fork and before the application is loaded.
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import Any

import eventlet
import eventlet.greenio
import eventlet.hubs
import eventlet.patcher
import eventlet.wsgi
from gunicorn import util
from gunicorn.sock import ssl_wrap_socket
from gunicorn.workers.base_async import AsyncWorker


class EventletWorker(AsyncWorker):  # type: ignore[misc]
    """One greenlet for each connection that it serves."""

    def init_process(self) -> None:
        eventlet.hubs.use_hub()  # the master's doesn't survive the fork
        if self.cfg.preload_app and not eventlet.patcher.is_monkey_patched("socket"):
            self.log.warning(
                "with --preload, the application is loaded before this worker patches the standard library: call "
                "eventlet.monkey_patch() at the top of its module"
            )
        eventlet.monkey_patch()
        self.cfg.set("sendfile", False)  # green sockets can't
        super().init_process()

    def timeout_ctx(self) -> Any:
        return eventlet.Timeout(self.cfg.keepalive or None, False)

    def is_already_handled(self, respiter: Any) -> Any:
        local: Any = getattr(eventlet.wsgi, "WSGI_LOCAL", None)
        if getattr(local, "already_handled", False):  # of eventlet's own WebSockets, which used up the connection
            local.already_handled = False
            raise StopIteration
        return super().is_already_handled(respiter)

    def handle_quit(self, sig: int, frame: Any) -> None:
        eventlet.spawn(super().handle_quit, sig, frame)  # it sleeps, which a signal's handler can't

    def handle_usr1(self, sig: int, frame: Any) -> None:
        eventlet.spawn(super().handle_usr1, sig, frame)

    def notify(self) -> None:
        super().notify()
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False

    def run(self) -> None:
        pool = eventlet.GreenPool(self.worker_connections)
        listeners = [eventlet.greenio.GreenSocket(listener.sock) for listener in self.sockets]
        acceptors = [eventlet.spawn(self._accept, listener, pool) for listener in listeners]
        while self.alive:
            self.notify()
            eventlet.sleep(1.0)
        for acceptor in acceptors:
            acceptor.kill()
        self.notify()
        deadline = eventlet.hubs.get_hub().clock() + self.cfg.graceful_timeout
        while pool.running() and eventlet.hubs.get_hub().clock() < deadline:
            self.notify()
            eventlet.sleep(0.1)

    def _accept(self, listener: Any, pool: Any) -> None:
        while self.alive:
            try:
                client, address = listener.accept()
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    return  # it was closed
                if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK, errno.EINTR):
                    self.log.warning("can't accept a connection: %s", error)
                    eventlet.sleep(0.1)  # no descriptor is left, for instance
                continue
            pool.spawn_n(self.serve, listener, client, address)

    def serve(self, listener: Any, client: Any, address: Any) -> None:
        """Serve a connection until its end."""
        try:
            client.setblocking(True)
            if self.cfg.is_ssl:
                client = ssl_wrap_socket(client, self.cfg)
        except (ssl.SSLError, OSError) as error:
            self.log.debug("TLS failed: %s", error)
            util.close(client)
            return
        self.handle(listener, client, address)
