"""Engine: all Engine.IO sessions of one server, and what it needs to make and end them."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

from ...typing import Runtime, Transport
from ..counters import Counters
from .complaints import Complaints
from .cors import Origins
from .frame import OPEN, Frame
from .heartbeat import Heartbeat
from .options import Options
from .polling import Polling
from .session import CLOSED, PING_TIMEOUT, REASONS, SERVER_DISCONNECT, WEBSOCKET, Session


def new_id() -> str:
    """Return 128 random bits as 22 characters of [A-Za-z0-9_-]."""
    return secrets.token_urlsafe(16)


class Engine:
    """The registry of sessions.

    Args:
        options: Checked options.
        runtime: Where this runs.
        on_connect: Called as ``(session)`` before the handshake is answered; returns None to accept, or the refusal,
            any JSON value, that is answered with status 401. May wait where the shell's handshake may.
        on_message: Called as ``(session, message)`` for each message, str or bytes. Must not wait.
        on_disconnect: Called once as ``(session, reason)``. Must not wait.
        logger: Where to tell.
        clock: For the time that handlers take, in seconds; the runtime's when None.

    Attributes:
        counters: What happened so far; see `flask_realtime.protocol.counters.Counters`.
    """

    def __init__(
        self,
        options: Options,
        runtime: Runtime,
        on_connect: Callable[[Session], Any],
        on_message: Callable[[Session, Any], object],
        on_disconnect: Callable[[Session, str], object],
        logger: logging.Logger,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.logger = logger
        self.counters = Counters(runtime.lock(), clock or runtime.now, REASONS)
        self.complain = Complaints(logger, runtime.now, runtime.lock())
        self.options = options
        self.runtime = runtime
        self.on_connect = on_connect
        self.on_message = on_message
        self.on_disconnect = on_disconnect
        self.origins = Origins(options)
        self.lock = runtime.lock()
        """Guards each session's state, with its transport."""
        self.sessions: dict[str, Session] = {}
        self.why_unknown = "it was here before a restart, or its requests go to several processes"
        """Why a client may come with a session id that isn't known; the shell may know better."""
        self._warned: set[str] = set()
        self.farewells: dict[str, Polling] = {}
        self.heartbeat = Heartbeat(runtime, options.interval, options.ping_timeout, self._expired)

    def warn_once(self, message: str, *args: object) -> None:
        """Log a warning, and never again this one.

        Args:
            message: The kind, with a %s for each of the ``args``.
            args: What is particular to this case.
        """
        if message not in self._warned:
            self._warned.add(message)
            self.logger.warning(message + "; this is said once", *args)

    def new_sid(self) -> str:
        """Return an id for a session."""
        return self.options.sid_prefix + new_id()

    # Opening, in two steps: the application decides between them. What it sends meanwhile waits.

    def prepare(self, environ: Any) -> Session:
        """Make a session; nobody else knows its id yet."""
        session = Session(self, self.new_sid(), environ)
        session.polling = Polling(self.runtime.lock(), self.options.max_backlog, session.slow)
        session.transport = session.polling
        self.sessions[session.sid] = session
        return session

    def accept(self, session: Session) -> None:
        """Count a session whose handshake is accepted, unless it has ended meanwhile."""
        with self.lock:
            accepted = session.accepted = not session.closed
        if accepted:
            self.counters.connects.one()

    def drop(self, session: Session) -> None:
        """Forget a session that was refused."""
        self.sessions.pop(session.sid, None)
        session.state = CLOSED

    def open_polling(self, session: Session) -> None:
        """Start a session over polling."""
        self.heartbeat.start(session)

    def open_websocket(self, session: Session, transport: Transport) -> None:
        """Start a session over a WebSocket; its first frame is the open packet."""
        with self.lock:  # against a close in another thread
            polling, session.polling = session.polling, None
            transport.write((self.open_packet(session, ()),))
            refused = polling is None or session.state is CLOSED
            if polling is not None and not refused:
                session.state = WEBSOCKET
                polling.upgrade(transport)  # first: what waits goes before what comes
                session.transport = transport
        if refused:
            transport.close()
        else:
            self.heartbeat.start(session)

    def open_packet(self, session: Session, upgrades: tuple[str, ...]) -> Frame:
        """Return the packet that tells the client its id and our times, in milliseconds.

        Source: Engine.IO 4, Handshake.
        """
        options = self.options
        hello = {
            "sid": session.sid,
            "upgrades": list(upgrades),
            "pingInterval": round((options.interval + options.grace) * 1000),
            "pingTimeout": round(options.ping_timeout * 1000),
            "maxPayload": options.max_http_buffer_size,
        }
        return Frame(OPEN + json.dumps(hello, separators=(",", ":")))

    def upgrades(self, websocket: bool) -> tuple[str, ...]:
        """Return what a polling client may upgrade to; ``websocket`` is whether the server can do it."""
        options = self.options
        return ("websocket",) if websocket and options.allow_upgrades and "websocket" in options.enabled else ()

    def watch_probe(self, session: Session, transport: Transport) -> None:
        """End an upgrade that isn't finished in time."""

        def expire() -> None:
            session.end_probe(transport)
            if session.transport is not transport:
                transport.close(1008, "upgrade timeout")

        session.probe_timer = self.runtime.call_later(self.options.upgrade_timeout, expire)

    # Ending.

    def keep_farewell(self, sid: str, polling: Polling) -> None:
        """Keep the last packets of a closed polling session for its next poll."""
        self.farewells[sid] = polling
        self.runtime.call_later(self.options.close_timeout, lambda: self.farewells.pop(sid, None))

    def close_all(
        self,
        code: int = 1001,
        text: str = "server shutting down",
        busy: Callable[[Session], bool] | None = None,
        most: int | None = None,
    ) -> None:
        """End all sessions, but those that ``busy`` is true of, and ``most`` of them at most."""
        idle = (session for session in list(self.sessions.values()) if busy is None or not busy(session))
        for session in itertools.islice(idle, most):
            try:
                session.close(SERVER_DISCONNECT, code, text)
            except Exception:  # the others have to be told all the same
                self.logger.exception("%s: could not be closed", session.sid)

    def _expired(self, session: Session) -> None:
        session.close(PING_TIMEOUT, 1001, "ping timeout")
