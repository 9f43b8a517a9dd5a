"""Client: one connection's part in one namespace; Link: one connection's parts in all of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...typing import Frame, Timer
from ..engineio.session import Session
from .packets import Decoder, Packet

CONNECTING, CONNECTED, LEAVING, GONE = "CONNECTING", "CONNECTED", "LEAVING", "GONE"
"""States of a client: its connect handler runs; it is in; its disconnect handler runs; it is forgotten."""


LEFT_LIMIT = 32  # namespaces that a connection was put out of
HELD_LIMIT = 1 << 20  # bytes that may wait for the end of a connect handler


class Client:
    """One client of one namespace.

    Attributes:
        sid: Its public id, which is also the name of a room.
        session: The connection that carries it.
        namespace: Begins with a slash.
        state: One of the four above.
        rooms: Names of its rooms; None when it has left for good.
        acks: What waits for its acknowledgements, by number.
        deciding: Whether the connect handler still runs, or what came too early is still being taken up.
        accepted: Whether the connect handler let it in.
        early: What it sent meanwhile; an accepted client's handlers get it then.
        early_size: Bytes that this takes.
        told: Whether CONNECT was answered, so that its packets are welcome.
        leave_reason: Why it leaves; set before its state when the connect handler still runs.
    """

    __slots__ = (
        "_held",
        "_held_size",
        "accepted",
        "ack_id",
        "acks",
        "deciding",
        "early",
        "early_size",
        "leave_reason",
        "namespace",
        "rooms",
        "session",
        "sid",
        "state",
        "told",
    )

    def __init__(self, sid: str, session: Session, namespace: str) -> None:
        self.sid, self.session, self.namespace = sid, session, namespace
        self.state = CONNECTING
        self.rooms: dict[Hashable, None] | None = {}
        self.acks: dict[int, Any] | None = None
        self.ack_id = 0
        self.deciding = True
        self.accepted = False
        self.early: list[Packet] = []
        self.early_size = 0
        self.told = False
        self.leave_reason: str | None = None
        self._held: list[Sequence[Frame]] = []
        self._held_size = 0

    def send(self, frames: Sequence[Frame], lock: AbstractContextManager[Any]) -> None:
        """Send, or keep until the client has been told that it is connected."""
        if self.state is CONNECTING:
            with lock:
                holding = self.state is CONNECTING
                if holding:
                    self._held.append(frames)
                    self._held_size += sum(len(frame.message) for frame in frames)
                    full = self._held_size > HELD_LIMIT
                    if full:
                        self._held.clear()
            if holding:
                if full:  # outside of the lock, which the end of the session takes too
                    self.session.slow("slow consumer: its connect handler takes too long")
                return
        if self.state is CONNECTED:
            self.session.send(frames)

    def admit(self, hello: Sequence[Frame], lock: AbstractContextManager[Any]) -> None:
        """Send the answer to CONNECT, then what was kept; from now on everything goes out at once."""
        self.told = True  # before it can react
        self.session.send(hello)
        while True:
            with lock:
                held, self._held = self._held, []
                if not held:
                    if self.state is CONNECTING:
                        self.state = CONNECTED
                    return
            for frames in held:
                self.session.send(frames)


class Link:
    """What the Socket.IO floor keeps with a session.

    Attributes:
        decoder: Of its messages.
        clients: By namespace.
        user_data: What applications save, by namespace.
        joined: Whether it ever joined a namespace.
        size: Bytes that came of a packet whose attachments are missing.
        left: Namespaces that we put it out of; what it had sent before it knew is dropped.
        timer: Ends a connection that never does.
    """

    __slots__ = ("clients", "decoder", "joined", "left", "size", "timer", "user_data")

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.clients: dict[str, Client] = {}
        self.user_data: dict[str, dict[str, Any]] = {}
        self.joined = False
        self.size = 0
        self.left: set[str] = set()
        self.timer: Timer | None = None

    def put_out(self, namespace: str) -> None:
        """Remember that what comes for a namespace crossed our disconnect packet; of the last namespaces only."""
        if len(self.left) >= LEFT_LIMIT:
            self.left.pop()
        self.left.add(namespace)
