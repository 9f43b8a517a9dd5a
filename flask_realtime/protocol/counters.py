"""Counters: what a server did and what was done to it, exact under threads and nearly free.

Adding one is a single call into C, which no other thread can interrupt: `itertools.count` counts, and what reading it
adds is subtracted. Whatever isn't one takes a lock, once for a whole broadcast.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

Lock = AbstractContextManager[Any]

HTTP, WEBSOCKET, ENGINEIO, SOCKETIO = "http", "websocket", "engineio", "socketio"
"""Kinds of bad input: the layer whose rules were broken."""

ORIGIN, HOST, SID, CONNECT, CONNECTIONS, REQUEST, STOPPING = (
    *("origin", "host", "sid", "connect", "connections", "request", "stopping"),
)
"""Reasons of refusals."""


class Counter:
    """A number that grows.

    Args:
        lock: Guards all but `one`.

    Attributes:
        one: Adds one; a function in C, so it costs no call of ours.
    """

    __slots__ = ("_lock", "_more", "_reads", "one")

    def __init__(self, lock: Lock) -> None:
        self._lock, self._more, self._reads = lock, 0, 0
        self.one: Callable[[], object] = itertools.count().__next__

    def add(self, number: int) -> None:
        """Add any number."""
        with self._lock:
            self._more += number

    @property
    def value(self) -> int:
        """What was added so far."""
        with self._lock:
            counted: Any = self.one()
            counted -= self._reads
            self._reads += 1
            return int(counted + self._more)


class Tally:
    """Counts by label.

    Args:
        lock: Guards the numbers.
        labels: Those that are there from the beginning, with zero.
    """

    __slots__ = ("_lock", "_numbers")

    def __init__(self, lock: Lock, labels: Iterable[str]) -> None:
        self._lock, self._numbers = lock, dict.fromkeys(labels, 0)

    def one(self, label: str) -> None:
        """Add one to a label."""
        with self._lock:
            self._numbers[label] = self._numbers.get(label, 0) + 1

    @property
    def value(self) -> dict[str, int]:
        """The numbers so far, by label; a copy."""
        with self._lock:
            return dict(self._numbers)


class Calls:
    """Counts and times the calls of user code.

    Args:
        lock: Guards what isn't a counter.
        clock: Returns seconds; a function in C where it matters.

    Attributes:
        begun: Calls that have begun.
        errors: Those that failed, as whoever handles their end says.
    """

    __slots__ = ("_clock", "_ended", "_lock", "_seconds", "begun", "errors")

    def __init__(self, lock: Lock, clock: Callable[[], float]) -> None:
        self._lock, self._clock = lock, clock
        self._ended, self._seconds = 0, 0.0
        self.begun, self.errors = Counter(lock), Counter(lock)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function; its time counts when it has ended."""
        clock = self._clock
        self.begun.one()
        start = clock()
        try:
            return function(*args)
        finally:
            seconds = clock() - start
            with self._lock:
                self._ended += 1
                self._seconds += seconds

    @property
    def value(self) -> dict[str, Any]:
        """``calls``, ``errors``, ``seconds`` of those that have ended, and how many are ``running``."""
        with self._lock:
            ended, seconds = self._ended, self._seconds  # before what has begun, or less than none could run
        begun = self.begun.value
        return {"calls": begun, "errors": self.errors.value, "seconds": seconds, "running": begun - ended}


class Counters:
    """All counters of one server.

    Args:
        lock: Guards them; nothing else happens while it is held.
        clock: Of the calls' time; returns seconds.
        endings: Reasons for which connections end.

    Attributes:
        connects: Connections that were accepted.
        disconnects: Those of them that ended, by reason.
        events_in: Events and acknowledgements that came; without Socket.IO, messages.
        events_out: The same that were sent, once for each recipient.
        slow_clients: Connections that were cut off because they took too little of what was sent to them.
        bad_input: Faults of peers, by the layer whose rules they broke.
        refusals: What was in order and still refused, by reason.
        handlers: Calls of user code.
    """

    def __init__(self, lock: Lock, clock: Callable[[], float], endings: Iterable[str] = ()) -> None:
        self.connects = Counter(lock)
        self.disconnects = Tally(lock, endings)
        self.events_in, self.events_out = Counter(lock), Counter(lock)
        self.slow_clients = Counter(lock)
        self.bad_input = Tally(lock, (HTTP, WEBSOCKET, ENGINEIO, SOCKETIO))
        self.refusals = Tally(lock, (ORIGIN, HOST, SID, CONNECT, CONNECTIONS, REQUEST, STOPPING))
        self.handlers = Calls(lock, clock)
