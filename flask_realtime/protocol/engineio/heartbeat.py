"""Pings and deadlines of all sessions, in two queues that are in the order of time by themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...typing import Runtime
from .frame import PING, Frame

if TYPE_CHECKING:
    from .session import Session

_PING = (Frame(PING),)

Beat = list[Any]
"""``[due, session]``; the session is None when the entry no longer counts."""


class Heartbeat:
    """Pings each session one interval after its last pong and ends it one timeout after an unanswered ping.

    All intervals of a server are equal, so what is appended last is due last: no heap, no timer for each client.
    An entry that a later one has overtaken is emptied, so the queues keep no ended session alive.

    Args:
        runtime: For its clock and its one timer.
        interval: Seconds from a pong to the next ping.
        timeout: Seconds from a ping to the end.
        expired: Called with a session whose time is over.
    """

    def __init__(self, runtime: Runtime, interval: float, timeout: float, expired: Callable[[Session], object]) -> None:
        self._runtime, self._interval, self._timeout, self._expired = runtime, interval, timeout, expired
        self._pings: deque[Beat] = deque()
        self._deadlines: deque[Beat] = deque()
        self._armed = float("inf")

    def start(self, session: Session) -> None:
        """Begin, or begin again: the next ping is one interval from now. Any thread may call this."""
        session.pinged = False
        due = self._runtime.now() + self._interval
        self._append(self._pings, due, session)
        if due < self._armed:
            self._arm(due)

    def stop(self, session: Session) -> None:
        """Let go of a session that has ended."""
        if session.beat is not None:
            session.beat[1] = None

    def tick(self) -> None:
        """Do what is due; called by the timer."""
        self._armed = float("inf")
        try:
            self._do(self._runtime.now())
        finally:  # whatever one session's end may raise, the others' time goes on
            due = min((queue[0][0] for queue in (self._pings, self._deadlines) if queue), default=None)
            if due is not None and due < self._armed:
                self._arm(due)

    def _do(self, now: float) -> None:
        pings, deadlines = self._pings, self._deadlines
        while deadlines and deadlines[0][0] <= now:
            beat = deadlines.popleft()
            session = beat[1]
            if session is not None and session.beat is beat:
                if session.heard or session.paused:  # anything that came is a sign of life; ask again
                    self._ping(session, now)
                else:
                    self._expired(session)
        while pings and pings[0][0] <= now:
            beat = pings.popleft()
            session = beat[1]
            if session is not None and session.beat is beat:
                self._ping(session, now)

    def _ping(self, session: Session, now: float) -> None:
        session.heard, session.pinged = False, True
        self._append(self._deadlines, now + self._timeout, session)
        session.send(_PING)

    def _append(self, queue: deque[Beat], due: float, session: Session) -> None:
        if session.beat is not None:
            session.beat[1] = None
        session.beat = beat = [due, session]
        queue.append(beat)
        if session.closed:
            beat[1] = None

    def _arm(self, due: float) -> None:
        self._armed = due
        self._runtime.call_later(max(0.0, due - self._runtime.now()), self.tick)
