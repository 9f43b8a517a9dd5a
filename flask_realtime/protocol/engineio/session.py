"""Session: the server's side of one Engine.IO connection, from its handshake to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import RemoteProtocolError
from ...typing import Frame, Timer, Transport
from ..counters import ENGINEIO
from .frame import CLOSE, MESSAGE, NOOP, OPEN, PING, PONG, UPGRADE
from .frame import Frame as Packet
from .polling import Polling, Ready

if TYPE_CHECKING:
    from .engine import Engine

SERVER_DISCONNECT = "server disconnect"
CLIENT_DISCONNECT = "client disconnect"
PING_TIMEOUT = "ping timeout"
TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"
REASONS = (SERVER_DISCONNECT, CLIENT_DISCONNECT, PING_TIMEOUT, TRANSPORT_CLOSE, TRANSPORT_ERROR)

# States, and what leads from one to the next; anything else is out of state and ends the session.
POLLING, PROBING, WEBSOCKET, CLOSED = "POLLING", "PROBING", "WEBSOCKET", "CLOSED"
PROBE, SWITCH, LOST, END = "probe", "switch", "lost", "end"
TRANSITIONS = {
    POLLING: {PROBE: PROBING, LOST: CLOSED, END: CLOSED},
    PROBING: {SWITCH: WEBSOCKET, LOST: POLLING, END: CLOSED},
    WEBSOCKET: {LOST: CLOSED, END: CLOSED},
    CLOSED: {},
}

_PROBE_PING, _PROBE_PONG = PING + "probe", (Packet(PONG + "probe"),)
_NOOP = (Packet(NOOP),)
_CLOSE = (Packet(CLOSE),)


class Session:
    """One connection. Never waits: what can't go now stays with the transport.

    Attributes:
        sid: Its secret id.
        environ: What the shell gave of the opening request.
        runtime: Where its handlers run.
        state: One of the keys of `TRANSITIONS`.
        transport: Where packets go.
        data: The floor above keeps its own here.
        inbox: The runtime keeps its own here.
        accepted: Whether its handshake was accepted.
        heard: Whether anything came since the last ping.
        paused: Whether we don't read what comes, and so can't hear of it.
        pinged: Whether a pong is due.
    """

    __slots__ = (
        "_ending",
        "_engine",
        "_held",
        "accepted",
        "data",
        "environ",
        "heard",
        "inbox",
        "jsonp",
        "paused",
        "pinged",
        "polling",
        "post_turns",
        "probe",
        "probe_timer",
        "reason",
        "runtime",
        "sid",
        "state",
        "transport",
        "user_data",
    )

    def __init__(self, engine: Engine, sid: str, environ: Any) -> None:
        self._engine, self.sid, self.environ = engine, sid, environ
        self.runtime = engine.runtime
        self.state = POLLING
        self.polling: Polling | None = None
        self.probe: Transport | None = None
        self.probe_timer: Timer | None = None
        self.transport: Transport = _NOWHERE
        self.data: Any = None
        self.user_data: dict[str, Any] | None = None
        self.inbox: Any = None
        self.accepted = False
        self.heard = True
        self.post_turns = [1]
        self.jsonp: str | None = None
        self.paused = False
        self._held: Ready | None = None
        self._ending = (1000, "")
        self.pinged = False
        self.reason = ""

    @property
    def closed(self) -> bool:
        return self.state is CLOSED

    @property
    def transport_name(self) -> str:
        """``"polling"`` or ``"websocket"``."""
        return "polling" if self.state in (POLLING, PROBING) else "websocket"

    # From the wire.

    def receive(self, message: str | bytes) -> None:
        """Take one Engine.IO packet. A fault of the peer ends the session.

        Source: Engine.IO 4, Packet types.
        """
        self.heard = True
        if self.state is CLOSED:
            return
        if isinstance(message, bytes):
            self._engine.on_message(self, message)
            return
        kind = message[:1]
        if kind == MESSAGE:
            message = message[1:]  # where it is large, one copy less that is kept while it is handled
            self._engine.on_message(self, message)
        elif kind == PONG:
            if self.pinged:  # others are a sign of life and no more
                self._engine.heartbeat.start(self)
        elif kind == CLOSE:
            if self.polling is not None:
                self.polling.release(_NOOP)
            self.close(CLIENT_DISCONNECT)
        elif kind == NOOP:
            pass
        elif kind and kind in OPEN + PING + UPGRADE:
            self.fault(RemoteProtocolError(f"packet type {kind} is out of place from a client in state {self.state}"))
        else:
            self.fault(RemoteProtocolError(f"expected a packet type of 0 to 6, got {kind!r}"))

    def begin_post(self) -> bool:
        """Take the one turn to post; False while another request has it."""
        try:
            self.post_turns.pop()  # atomic, unlike a flag that is tested and then set
        except IndexError:
            return False
        return True

    def end_post(self) -> None:
        """Give the turn back."""
        self.post_turns.append(1)

    def fault(self, error: RemoteProtocolError, kind: str = ENGINEIO) -> None:
        """End the session because of what the peer sent; ``kind`` names the layer whose rules it broke."""
        if self.state is not CLOSED:
            self._engine.complain(logging.WARNING, "%s: %s", self.sid, ascii(str(error))[1:-1][:300])
            count = partial(self._engine.counters.bad_input.one, kind)
            self.close(TRANSPORT_ERROR, error.code, str(error), count)

    def slow(self, why: str = "slow consumer") -> None:
        """End the session because more waits for the peer than may."""
        if self.state is not CLOSED:
            self._engine.complain(logging.WARNING, "%s: %s", self.sid, why)
            self.close(TRANSPORT_ERROR, 1008, why, self._engine.counters.slow_clients.one)

    def lost(self, reason: str = TRANSPORT_CLOSE) -> None:
        """The transport has ended under us."""
        self.close(reason)

    # The upgrade. Source: Engine.IO 4, Upgrading.

    def begin_probe(self, transport: Transport) -> bool:
        """Let a WebSocket try to take over; False when another one does already."""
        with self._engine.lock:
            following = TRANSITIONS[self.state].get(PROBE)
            if following is None:
                return False
            self.state, self.probe = following, transport
        return True

    def receive_probe(self, transport: Transport, message: str | bytes) -> bool:
        """Take a packet from the WebSocket that tries to take over.

        Returns:
            True when it has taken over: further packets go to `receive`.
        """
        if self.probe is transport and self.polling is not None:
            if message == _PROBE_PING and not self.polling.draining:
                # Source: "the client ... must wait for the pong before it sends the upgrade packet"
                transport.write(_PROBE_PONG)
                self.polling.draining = True
                self.polling.release(_NOOP)
                return False
            if message == UPGRADE and self.polling.draining and self._switch(transport, self.polling):
                self.heard = True
                self.polling.release(_NOOP)
                return True
            if message == UPGRADE and self.state is CLOSED:
                self._say_farewell(transport, self.polling)
                return False
        self._engine.complain(
            logging.WARNING, "%s: upgrade failed: unexpected packet %s", self.sid, ascii(message[:20])
        )
        self._engine.counters.bad_input.one(ENGINEIO)
        self.end_probe(transport)
        transport.close(1008, "unexpected packet during the upgrade")
        return False

    def _switch(self, transport: Transport, polling: Polling) -> bool:
        with self._engine.lock:  # against a close in another thread, which must find one transport or the other
            following = TRANSITIONS[self.state].get(SWITCH)
            if following is None:
                return False
            self.state = following
            self._probe_is_over()
            polling.upgrade(transport)  # first: what waits goes before what comes
            self.transport = transport
        if self.paused:
            transport.pause(True)
        return True

    def _say_farewell(self, transport: Transport, polling: Polling) -> None:
        """Tell a client that comes from its polls of the end that was meanwhile."""
        with self._engine.lock:
            self._probe_is_over()
            self._engine.farewells.pop(self.sid, None)
            polling.upgrade(transport)
        transport.close(*self._ending)

    def end_probe(self, transport: Transport) -> None:
        """The attempt is over without success; polling goes on, and another attempt may come."""
        with self._engine.lock:
            if self.probe is not transport:
                return
            self._probe_is_over()
            if self.state is PROBING:
                self.state = TRANSITIONS[PROBING][LOST]
                if self.polling is not None:
                    self.polling.draining = False

    def _probe_is_over(self) -> None:
        self.probe, timer, self.probe_timer = None, self.probe_timer, None
        if timer is not None:
            timer.cancel()

    # To the wire.

    def pause(self, paused: bool) -> None:
        """Let the transport read no further, or go on. Any thread may call this."""
        with self._engine.lock:
            self.paused = paused
            held = None
            if not paused:
                held, self._held = self._held, None
        self.heard = True
        self.transport.pause(paused)
        if held is not None:
            held(())

    def hold(self, ready: Ready) -> Sequence[Frame] | None:
        """Leave ``ready`` to be called when reading goes on; returns no frames when it does already."""
        with self._engine.lock:
            if not self.paused or self.state is CLOSED:
                return ()
            self._held = ready
            return None

    def unhold(self, ready: Ready) -> bool:
        """Withdraw it; False when it was called meanwhile."""
        with self._engine.lock:
            if self._held is None or self._held != ready:
                return False
            self._held = None
            return True

    def send(self, frames: Sequence[Frame]) -> None:
        """Send the packets of one message. Any thread may call this, also after the end."""
        self.transport.write(frames)

    def close(self, reason: str, code: int = 1000, text: str = "", count: Callable[[], object] | None = None) -> None:
        """End the session; what was sent before goes out first. The second call does nothing.

        Args:
            reason: For the application: one of the constants above.
            code: For a WebSocket's close frame.
            text: Likewise.
            count: Called, if this is the first call, before the peer can know.
        """
        with self._engine.lock:
            if self._engine.sessions.pop(self.sid, None) is None:
                return
            self.reason = reason
            transport, polling, was = self.transport, self.polling, self.state
            probe = self.probe
            if probe is not None and polling is not None and polling.draining and reason == SERVER_DISCONNECT:
                # It polls no more, and hears of nothing before it has changed to the WebSocket: told there.
                probe, self._ending = None, (code, text)
            else:
                self._probe_is_over()
            self.state = CLOSED
            held, self._held = self._held, None
        if count is not None:
            count()
        if self.accepted:
            self._engine.counters.disconnects.one(reason)
        self._engine.heartbeat.stop(self)
        transport.close(code, text)
        if was in (POLLING, PROBING) and polling is not None and reason == SERVER_DISCONNECT and polling.holds:
            self._engine.keep_farewell(self.sid, polling)
        self.transport = _NOWHERE
        if probe is not None:
            probe.close(1000)
        if held is not None:
            held(())
        self._engine.on_disconnect(self, reason)


class _Nowhere:
    """The transport of a session that has none."""

    def write(self, frames: Sequence[Frame]) -> None:
        pass

    def close(self, code: int = 1000, reason: str = "") -> None:
        pass

    def pause(self, paused: bool) -> None:
        pass


_NOWHERE: Transport = _Nowhere()
