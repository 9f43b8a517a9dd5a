"""Burst: emits that follow each other closely, kept for a moment to leave in one piece.

A send to a socket costs the same for one frame as for ten. The first emit always goes out at once; one that follows it
closely opens a burst, which all that is sent then joins, in its order, whoever sends it. It leaves when a handler has
ended, or after `WAIT` seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...typing import Frame, Runtime
from ..engineio.frame import Joined
from ..engineio.session import Session
from .client import Client

CLOSE = 0.0005
"""Seconds after an emit within which the next one opens a burst."""

WAIT = 0.001
"""Seconds that a burst waits at most."""

_MOST = 64  # emits of a burst

Item = tuple["tuple[Client, ...] | Session", Sequence[Frame]]


class Burst:
    """What waits to leave together.

    Args:
        runtime: For its timer and its lock.
        join: Whether frames may be joined before they are sent; else each transport does it for itself.

    Attributes:
        active: Whether anything waits, or is being sent: what is sent now has to get in line.
    """

    __slots__ = ("_armed", "_items", "_join", "_lock", "_runtime", "_sending", "active")

    def __init__(self, runtime: Runtime, join: bool) -> None:
        self._runtime, self._join = runtime, join
        self._lock: AbstractContextManager[Any] = runtime.lock()
        self._items: list[Item] = []
        self._sending = self._armed = False
        self.active = False

    def add(self, to: tuple[Client, ...] | Session, frames: Sequence[Frame], begin: bool = False) -> bool:
        """Keep frames for clients, all of them connected, or for a session; False when there is no burst.

        Args:
            to: Who gets them.
            frames: Of one message.
            begin: Whether to begin a burst.
        """
        with self._lock:
            if not self.active:
                if not begin:
                    return False
                self.active = True
            self._items.append((to, frames))
            full = len(self._items) >= _MOST
            arm = not self._armed and not full
            self._armed = self._armed or arm
        if full:
            self.flush()
        elif arm:
            self._runtime.call_later(WAIT, self._due)
        return True

    def _due(self) -> None:
        self._armed = False
        self.flush()

    def flush(self) -> None:
        """Send what waits. Any thread may call this; if another one sends already, it sends this too."""
        with self._lock:
            if self._sending or not self.active:
                return
            self._sending = True
        try:
            while True:
                with self._lock:
                    items, self._items = self._items, []
                    if not items:
                        self.active = self._sending = False
                        return
                self._send(items)
        except BaseException:  # an error of ours; at the usual end another thread may be sending already
            self._sending = False
            raise

    def _send(self, items: list[Item]) -> None:
        position = 0
        while position < len(items):
            to, frames = items[position]
            position += 1
            if isinstance(to, Session):
                to.send(frames)
                continue
            together = list(frames)
            while position < len(items) and items[position][0] == to:
                together.extend(items[position][1])
                position += 1
            whole = (Joined(together),) if self._join and len(together) > 1 else together
            for client in to:
                client.session.send(whole)
