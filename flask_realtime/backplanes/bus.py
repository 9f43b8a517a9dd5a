"""Bus: what is published goes to the broker by one native thread, what comes is received by another.

Nobody who publishes waits for the broker: messages wait in a bounded queue, and leave in batches. While the broker is
away they stay there, and the bus tries again and again, first after a fraction of a second, at most `SLOWEST` apart.
"""

from __future__ import annotations

import atexit
import encodings.idna  # noqa: F401  # or a thread does so when it connects, and a process forked meanwhile never can
import logging
import os
import random
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..errors import BackplaneError
from ..typing import Backplane
from . import native

logger = logging.getLogger("flask_realtime.backplanes")

MOST_MESSAGES, MOST_BYTES = 100_000, 64 << 20
"""What may wait for the broker."""

BATCH_MESSAGES, BATCH_BYTES = 512, 1 << 20
"""What goes out in one piece."""

STALE = 60.0
"""Seconds after which what waits for a broker that is away isn't worth being sent."""

FASTEST, SLOWEST = 0.1, 2.0
"""Seconds from one try to the next, at first and at most; a bit less or more, so that not all come at once."""

EAGER, EAGERLY = 30.0, 0.4
"""Most brokers that go are back at once: seconds of an outage in which tries are closer, and how far apart at most."""

GATHERING = 3.0
"""Seconds that messages wait, when the broker is back, for other listeners to be back too."""

COUNTING = 5.0
"""Seconds after which the sending thread asks again who listens."""

FLUSH = 5.0
"""Seconds that the end of a process waits for what was published."""


_dice = random.Random()  # not that of the program, which may have been seeded

ENDING = 2.5
"""Seconds that the threads may take to end; a pause between two tries is shorter."""


class Listener(Protocol):
    """Who gets what comes. Called in the listening thread."""

    def begin(self) -> None:
        """The bus begins, in a process that it wasn't in."""

    def subscribed(self, deaf: bool) -> None:
        """What is published from now on comes.

        Args:
            deaf: Whether what was published for a while before hasn't come, and won't.
        """

    def receive(self, data: bytes) -> None:
        """A message."""

    def tick(self) -> None:
        """About a second has passed."""


class Bus:
    """The way to a broker and back.

    Args:
        connect: Makes the backplane; in each process anew.
        url: For the log, without its password.
        listens: See below.

    Attributes:
        listens: Whether anything is received; may change until it is started.
        listener: Who gets it.
        others: Returns how many other processes listen, as far as is known.
    """

    def __init__(self, connect: Callable[[], Backplane], url: str, listens: bool) -> None:
        self._connect, self.url, self.listens = connect, url, listens
        self.listener: Listener | None = None
        self.others: Callable[[], int] = lambda: 0
        self._pid = 0
        self._starting = native.lock()
        self._reset()
        atexit.register(_stop, weakref.ref(self))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_free, weakref.ref(self)))

    def _reset(self) -> None:
        self._queue: deque[tuple[bytes, float]] = deque()
        self._size = 0
        self._flying = 0  # messages of the batch that is being sent
        self._lock = native.lock()
        self._call: Any = native.SimpleQueue()  # tells the sending thread that there is something
        self._asleep = True
        self._idle = True
        self._ending = False
        self._plane: Backplane | None = None
        self._threads: list[Any] = []
        self._audience, self._count_at = 0, 0.0  # how many listened when it was asked last; when to ask again
        self._outage = [0.0, 0.0]  # since when sending and listening fail
        self.subscribed = False
        self.published = self.received = self.dropped = self.reconnects = 0

    def start(self) -> None:
        """Begin in this process, unless it has."""
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid == os.getpid():
                return
            if self._pid:
                self._reset()  # what the former process had is its own
            if self.listener is not None:
                self.listener.begin()
            self._plane = self._connect()
            self._pid = os.getpid()
            self._threads = [native.start(self._run_sender)]
            if self.listens:
                self._threads.append(native.start(self._run_listener))
            _at_end_of_child(self)

    @property
    def running(self) -> bool:
        """Whether it began in this process."""
        return self._pid == os.getpid()

    def _over(self) -> bool:
        return self._ending

    @property
    def down(self) -> bool:
        """Whether the broker can't be reached now."""
        return any(self._outage)

    @property
    def waiting(self) -> int:
        """Messages that wait to be sent."""
        return len(self._queue) + self._flying

    # Sending.

    def publish(self, data: bytes) -> bool:
        """Send a message, soon; False when too much waits already, so that it is dropped. Any thread; never waits."""
        with self._lock:
            if self._size + len(data) > MOST_BYTES or len(self._queue) >= MOST_MESSAGES or self._ending:
                self.dropped += 1
                first = self.dropped == 1 or self.dropped % 10_000 == 0
                wake = False
            else:
                self._queue.append((data, time.monotonic()))
                self._size += len(data)
                self._idle = False
                first, wake, self._asleep = False, self._asleep, False
                data = b""
        if wake:
            self._call.put(None)
        if first:
            logger.error("too much waits for %s: %d messages were dropped so far", self.url, self.dropped)
        return not data

    def _take(self) -> list[bytes]:
        """Return the next batch; b"" when the bus ends and nothing is left."""
        while True:
            with self._lock:
                batch: list[bytes] = []
                size = 0
                oldest = time.monotonic() - STALE
                while self._queue and len(batch) < BATCH_MESSAGES and size < BATCH_BYTES:
                    data, when = self._queue.popleft()
                    self._size -= len(data)
                    if when < oldest:
                        self.dropped += 1
                    else:
                        batch.append(data)
                        size += len(data)
                self._flying = len(batch)
                if batch:
                    return batch
                self._asleep = self._idle = True
                if self._ending:
                    return []
            self._call.get()

    def _run_sender(self) -> None:
        plane, pid = self._plane, self._pid
        assert plane is not None
        tries = 0
        batch = self._take()
        while batch and self._pid == pid:
            try:
                if tries:
                    self._gather(plane)
                plane.publish(batch)
            except Exception as error:  # also a driver's own; it must not end the thread
                self._fails(0, error)
                tries += 1
                if self._over() and tries > 1:
                    break
                self._pause(0, tries)
                continue
            self.published += len(batch)
            if tries:
                self._works(0)
                tries = 0
            else:
                self._count(plane)
            batch = self._take()
        with self._lock:
            self._idle = True
        plane.close()  # what is this thread's is better closed by it

    def _count(self, plane: Backplane) -> None:
        """Ask now and then who listens: a process that only emits knows of nobody."""
        now = time.monotonic()
        if now >= self._count_at and not plane.keeps:
            self._count_at = now + COUNTING
            try:
                self._audience = plane.listeners() or 0
            except Exception as error:  # what is published next fails too, and is told
                logger.debug("it isn't known who listens at %s: %s", self.url, error)

    def _gather(self, plane: Backplane) -> None:
        """Wait a moment until those who listened before the broker went away do so again."""
        if plane.keeps:
            return
        limit = time.monotonic() + GATHERING
        while time.monotonic() < limit and not self._over():
            listening = plane.listeners()
            here = self.subscribed or not self.listens
            if here and (listening is None or listening >= max(self.others() + self.listens, self._audience)):
                self._count_at = time.monotonic() + COUNTING
                return
            time.sleep(0.02)

    # Listening.

    def _run_listener(self) -> None:
        plane, listener, pid = self._plane, self.listener, self._pid
        assert plane is not None and listener is not None
        tries = 0
        before = False
        while not self._over() and self._pid == pid:
            try:
                tick_at = time.monotonic() + 1
                for data in plane.listen():
                    if data is not None:
                        self.received += 1
                        listener.receive(data)
                    elif not self.subscribed:
                        self._works(1)
                        tries = 0
                        self.subscribed = True
                        listener.subscribed(before and not plane.keeps)
                        before = True
                    now = time.monotonic()
                    if now >= tick_at:
                        tick_at = now + 1
                        listener.tick()
                    if self._over():
                        return
                error: Exception = BackplaneError("the subscription has ended")
            except Exception as raised:  # also a driver's own; it must not end the thread
                error = raised
            self.subscribed = False
            if self._over():
                return
            self._fails(1, error)
            tries += 1
            self._pause(1, tries)

    # Outages.

    def _fails(self, which: int, error: Exception) -> None:
        first = not self.down
        self._outage[which] = self._outage[which] or time.monotonic()
        if first:
            known = isinstance(error, BackplaneError)
            logger.error("%s; will try again", error, exc_info=None if known else error)
        else:
            logger.debug("still no way to %s: %s", self.url, error)

    def _works(self, which: int) -> None:
        since, self._outage[which] = self._outage[which], 0.0
        if since and not self.down:
            self.reconnects += 1
            logger.warning(
                "%s is back after %.1f s; %d messages waited", self.url, time.monotonic() - since, self.waiting
            )

    def _pause(self, which: int, tries: int) -> None:
        if not self._over():
            time.sleep(pause(tries, time.monotonic() - self._outage[which]))

    # The end.

    def flush(self, limit: float = FLUSH) -> bool:
        """Wait until all that was published is sent; False when that took more than ``limit`` seconds."""
        end = time.monotonic() + limit
        while self.running and not self._idle:
            if time.monotonic() >= end:
                return False
            time.sleep(0.002)
        return True

    def stop(self, limit: float = FLUSH) -> bool:
        """Send what was published, then end; False when something could not be sent in ``limit`` seconds."""
        if not self.running:
            return True
        sent = self.flush(limit if not self.down else min(limit, 1.0))
        self._ending = True
        self._call.put(None)
        if self._plane is not None:
            self._plane.close()
        # Greenlets of a thread that ends while the interpreter does would take the process down with them.
        end = time.monotonic() + ENDING
        while any(thread.locked() for thread in self._threads) and time.monotonic() < end:
            time.sleep(0.002)
        if not sent:
            logger.error("%d messages for %s were not sent", self.waiting, self.url)
        self._pid = -1
        return sent


def pause(tries: int, seconds: float) -> float:
    """Return how long to wait for the next try, after so many of them in an outage of so many seconds."""
    slowest = EAGERLY if seconds < EAGER else SLOWEST
    return min(slowest, FASTEST * 2.0 ** min(tries - 1, 10)) * _dice.uniform(0.75, 1.0)


def _free(reference: weakref.ref[Bus]) -> None:
    """Let a forked process begin, also when a thread that didn't come along was just about to."""
    bus = reference()
    if bus is not None:
        bus._starting = native.lock()


def _stop(reference: weakref.ref[Bus]) -> None:
    bus = reference()
    if bus is not None:
        bus.stop()


def _at_end_of_child(bus: Bus) -> None:
    """Flush at the end of processes that don't run what atexit has: of multiprocessing, and of Celery's pool."""
    reference = weakref.ref(bus)
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _stop, (reference,), exitpriority=10)
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:

        def end(**arguments: Any) -> None:
            _stop(reference)

        signals.worker_process_shutdown.connect(end, weak=False)
