"""Pings and deadlines of all sessions, in two queues that are in the order of time by themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...typing import Runtime
from .frame import PING, Frame

if TYPE_CHECKING:
    from .session import Session

_PING = (Frame(PING),)

Queue = OrderedDict["Session", float]
"""When something is due for a session; what is due next comes first."""


class Heartbeat:
    """Pings each session one interval after its last pong and ends it one timeout after an unanswered ping.

    All intervals of a server are equal, so what is put in last is due last: no heap, no timer for each client. Each
    session is in one queue at most, and in none when it has ended.

    Args:
        runtime: For its clock, its one timer and its lock.
        interval: Seconds from a pong to the next ping.
        timeout: Seconds from a ping to the end.
        expired: Called with a session whose time is over.
    """

    def __init__(self, runtime: Runtime, interval: float, timeout: float, expired: Callable[[Session], object]) -> None:
        self._runtime, self._interval, self._timeout, self._expired = runtime, interval, timeout, expired
        self._lock = runtime.lock()
        self._pings: Queue = OrderedDict()
        self._deadlines: Queue = OrderedDict()
        self._armed = float("inf")

    def start(self, session: Session) -> None:
        """Begin, or begin again: the next ping is one interval from now. Any thread may call this."""
        session.pinged = False
        due = self._runtime.now() + self._interval
        self._put(self._pings, session, due)
        if due < self._armed:
            self._arm(due)

    def stop(self, session: Session) -> None:
        """Let go of a session that has ended; it says already that it is closed."""
        with self._lock:
            self._remove(session)

    def tick(self) -> None:
        """Do what is due; called by the timer."""
        self._armed = float("inf")
        try:
            self._do(self._runtime.now())
        finally:  # whatever one session's end may raise, the others' time goes on
            with self._lock:
                dues = [next(iter(queue.values())) for queue in (self._pings, self._deadlines) if queue]
            due = min(dues, default=None)
            if due is not None and due < self._armed:
                self._arm(due)

    def _do(self, now: float) -> None:
        while session := self._take(self._deadlines, now):
            if session.heard or session.paused:  # anything that came is a sign of life; ask again
                self._ping(session, now)
            else:
                self._expired(session)
        while session := self._take(self._pings, now):
            self._ping(session, now)

    def _ping(self, session: Session, now: float) -> None:
        session.heard, session.pinged = False, True
        self._put(self._deadlines, session, now + self._timeout)
        session.send(_PING)

    def _put(self, queue: Queue, session: Session, due: float) -> None:
        with self._lock:
            self._remove(session)
            if not session.closed:
                queue[session] = due

    def _remove(self, session: Session) -> None:
        self._pings.pop(session, None)
        self._deadlines.pop(session, None)

    def _take(self, queue: Queue, now: float) -> Session | None:
        """Take out the next session for which something is due by now."""
        with self._lock:
            for session, due in queue.items():
                if due > now:
                    break
                del queue[session]
                return session
        return None

    def _arm(self, due: float) -> None:
        self._armed = due
        self._runtime.call_later(max(0.0, due - self._runtime.now()), self.tick)
