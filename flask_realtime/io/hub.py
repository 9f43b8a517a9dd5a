"""Hub: one selector loop that reads all sockets of a process, writes what was late, and keeps the time.

Theory of operation. One thread runs `Hub.run`. Other threads never touch the selector; they leave a call and, if the
loop sleeps, wake it through a socket pair. Timers are a heap. The thread is started by the first one who needs it,
hence after the fork of a preloading server, and again in a child that was forked from a process with a running hub.

The loop may run short user code itself, between `begin_call` and `end_call`: a hand-over to another thread costs as
much as all the rest of an echo. A deputy watches over it. When a call takes longer than `PATIENCE` after all, the
deputy goes on with the loop, and with what the connection of that call had received, in its own thread; the thread that
was the leader ends when its call does, and touches nothing of the loop any more.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

from ..typing import Event, Habit
from .calls import Receiver

logger = logging.getLogger("flask_realtime.io")


PATIENCE = 0.005  # seconds; the interpreter's switch interval: what runs shorter isn't worth another thread
SHORT = 0.0002  # seconds that a call may take to be run by the hub itself
_QUIET = 40  # times PATIENCE without any call after which the deputy waits to be woken


class Watched(Protocol):
    """What the hub watches."""

    def readable(self) -> object: ...

    def writable(self) -> object: ...

    def failed(self) -> object: ...


class Reading(Protocol):
    """What the loop is reading."""

    def resume(self) -> object:
        """Go on where the former leader left off; in the new one's thread."""


class Timer:
    """A call at a time."""

    __slots__ = ("due", "function", "number")

    def __init__(self, due: float, number: int, function: Callable[[], object]) -> None:
        self.due, self.number = due, number
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        self.function = None

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class Hub:
    """The loop. All methods but `run` may be called from any thread.

    Attributes:
        leader: Who runs the loop, as ``current()`` has said; 0 for none.
        reading: What the leader is reading, so that it may run short user code; None otherwise.
        astray: The former leaders whose calls still run.
    """

    current: Callable[[], Any] = staticmethod(get_ident)
    """Identifies the caller's thread."""
    lock: Callable[[], Any] = staticmethod(threading.Lock)
    """Makes a lock that is held for moments only."""
    event: Callable[[], Event] = staticmethod(threading.Event)
    """Makes an event."""
    socket: type[Any] = socket.socket
    """Makes a socket of a descriptor."""
    short = SHORT
    """Seconds that a call may take on average to be run by the loop."""

    def __init__(self) -> None:
        self._pid = 0
        self._starting = self.lock()
        self._reset()

    def _reset(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[Timer] = []
        self._new_timers: deque[Timer] = deque()
        self._many = 32  # timers from which on those are looked for that were cancelled
        self._wakes_at = float("inf")  # when the loop wakes by itself; a timer that is due later needn't wake it
        self._numbers = itertools.count()
        self._asleep = False
        self._stop_at = float("inf")
        self.receiver = Receiver()
        self.thread: threading.Thread | None = None
        self._ender: threading.Thread | None = None  # the thread that led it last
        self.leader: Any = 0
        self.reading: Reading | None = None
        self.astray: set[Any] = set()
        self._ended = self.event()
        self._lease = self.lock()
        self._numbered = 0
        self._habit = Habit()
        self._running = 0  # number of the call that the leader runs; 0 for none
        self._deputy: threading.Thread | None = None
        self._called = threading.Event()

    def start(self) -> None:
        """Start the loop unless it runs in this very process."""
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid != os.getpid():
                self._reset()
                self._begin()
                self._pid = os.getpid()  # last: who sees it may stop the loop

    def _begin(self) -> None:
        """Make the loop's selector, and let somebody run the loop."""
        self._open(selectors.DefaultSelector())
        self.thread = threading.Thread(target=self.run, name="flask_realtime-hub", daemon=True)
        self.thread.start()

    def _open(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)
        selector.register(self._inside, selectors.EVENT_READ)

    @property
    def busy(self) -> bool:
        """Whether user code runs in the loop, or in a thread that was its leader, besides that of the caller."""
        me = self.current()
        return (self._running != 0 and self.leader != me) or bool(self.astray - {me})

    @property
    def running(self) -> bool:
        """Whether the thread runs in this very process."""
        return self._pid == os.getpid()

    def stop(self, linger: float = 1.0) -> None:
        """End the loop, and wait for it.

        Args:
            linger: Seconds that the sockets have to be closed in good order: what waits goes out, peers answer our
                close frames. Those that are left are closed anyway.
        """
        if self._pid != os.getpid():
            return
        ended = self._ended
        self.call_soon(self._stop_in, linger)
        if self.leader != self.current():
            ended.wait()
            if self._ender is not None:
                self._ender.join()  # not `thread`, which may be that of the next loop

    def _stop_in(self, linger: float) -> None:
        self._stop_at = time.monotonic() + linger

    # User code in the loop. The leader.

    def begin_call(self, habit: Habit) -> bool:
        """The leader is about to run user code; False when it may not, since nobody would watch over it."""
        self._habit = habit
        self._numbered = self._running = self._numbered + 1
        return self._called.is_set() or self._wake_deputy()

    def end_call(self) -> None:
        """The user code has ended; this thread may not be the leader any more."""
        with self._lease:
            me = self.current()
            if self.leader == me:
                self._running = 0
            else:
                self.astray.discard(me)

    def _wake_deputy(self) -> bool:
        self._called.set()
        if self._deputy is None:
            self._deputy = threading.Thread(target=self._watch_over, name="flask_realtime-deputy", daemon=True)
            try:
                self._deputy.start()
            except RuntimeError:  # no more threads for this process, or it ends
                self._deputy, self._running = None, 0
                self._called.clear()
                return False
        return True

    def _watch_over(self) -> None:
        called, quiet = self._called, 0
        while not self._ended.is_set():
            running, numbered = self._running, self._numbered
            time.sleep(PATIENCE)
            if running and self._running == running and self._take_over(running):
                self.run()
                return
            quiet = 0 if self._numbered != numbered else quiet + 1
            if quiet > _QUIET:
                quiet = 0
                called.clear()
                if self._numbered == numbered:  # else the leader may have seen the event still set
                    called.wait()

    def _take_over(self, running: int) -> bool:
        """Make the deputy the leader, if that call still runs."""
        with self._lease:
            if self._running != running:
                return False
            self._running = 0
            self.astray.add(self.leader)
            habit = self._habit
            habit.rest, habit.fine = habit.fine, min(2 * habit.fine, 1 << 20)
            reading, self.reading = self.reading, None
            self.thread = threading.current_thread()
            self.leader = get_ident()
            self._deputy = None
            self._called = threading.Event()
        if reading is not None:
            self._calls.appendleft((reading.resume, ()))
        return True

    # Calls and timers.

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function`` in the hub's thread; it must not wait."""
        if self._pid != os.getpid():
            self.start()
        self._calls.append((function, args))
        if self._asleep:
            self._wake()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Run ``function`` in the hub's thread after a time; it must not wait."""
        if self._pid != os.getpid():
            self.start()
        timer = Timer(time.monotonic() + seconds, next(self._numbers), function)
        self._new_timers.append(timer)
        if self._asleep and timer.due < self._wakes_at:
            self._wake()
        return timer

    def _add_timers(self) -> None:
        while self._new_timers:
            timer = self._new_timers.popleft()
            if timer.function is not None:  # most are cancelled before the loop sees them
                heapq.heappush(self._timers, timer)
        if len(self._timers) > self._many:
            # Most timers are cancelled, and far from due; don't keep them until then.
            self._timers = [kept for kept in self._timers if kept.function is not None]
            heapq.heapify(self._timers)
            self._many = 2 * len(self._timers) + 32

    def _wake(self) -> None:
        self._asleep = False
        try:
            self._outside.send(b"!")
        except (BlockingIOError, OSError):
            pass  # the pair is full, so the loop is awake; or closed, so there is no loop

    def watch(self, sock: Any, watched: Watched, write: bool = False) -> None:
        """Begin to watch a socket, or change what it is watched for. In the hub's thread only."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        try:
            self._selector.modify(sock, events, watched)
        except KeyError:
            self._selector.register(sock, events, watched)

    def watch_write_only(self, sock: Any, watched: Watched, write: bool) -> None:
        """Pause reading. In the hub's thread only."""
        if write:
            try:
                self._selector.modify(sock, selectors.EVENT_WRITE, watched)
            except KeyError:
                self._selector.register(sock, selectors.EVENT_WRITE, watched)
        else:
            self.unwatch(sock)

    def unwatch(self, sock: Any) -> None:
        """Forget a socket, before it is closed. In the hub's thread only."""
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            pass

    def forget(self, descriptor: int) -> None:
        """A descriptor that the server knows is about to be another file's. In the thread that serves it."""

    def run(self) -> None:
        """The loop itself."""
        selector, calls = self._selector, self._calls
        me = self.leader = self.current()
        inside, outside, ended = self._inside, self._outside, self._ended  # another loop may begin while this one ends
        read, write = selectors.EVENT_READ, selectors.EVENT_WRITE
        while time.monotonic() < self._stop_at and (self._stop_at == float("inf") or len(selector.get_map()) > 1):
            # Both before the last look at the calls and timers, or one could be left unseen.
            self._wakes_at, self._asleep = float("inf"), True
            timeout = 0.0 if calls else self._until_next()
            ready = self._select(timeout)
            self._asleep = False
            for key, events in ready:
                watched = key.data
                if watched is None:
                    try:
                        inside.recv(4096)
                    except BlockingIOError:
                        pass
                    continue
                try:
                    if events & read:
                        watched.readable()
                        if self.leader != me:
                            return  # what else is ready the new leader is told too
                    if events & write:
                        watched.writable()
                except Exception:  # one connection's trouble must not end the loop that serves all
                    logger.exception("a connection failed")
                    if self.leader != me:
                        self.call_soon(watched.failed)
                        return
                    self.reading = None
                    self._guard(watched.failed, ())
            for _ in range(len(calls)):
                function, args = calls.popleft()
                self._guard(function, args)
                if self.leader != me:
                    return
            now = time.monotonic()
            while self._timers and self._timers[0].due <= now:
                timer = heapq.heappop(self._timers)
                if timer.function is not None:
                    self._guard(timer.function, ())
                    if self.leader != me:
                        return
        self._close()
        ender, called = self.thread, self._called  # what is closed now may have something to do, and begin a new loop
        self.leader = 0
        self._pid = 0  # first: who waits for a call of his to be done has to see that there is no loop any more
        for key in list(selector.get_map().values()):
            if key.data is not None:
                self._guard(key.data.failed, ())
        while calls:
            function, args = calls.popleft()
            self._guard(function, args)
        selector.close()
        inside.close()
        outside.close()
        self._ender = ender
        ended.set()
        called.set()  # the deputy ends too

    def _close(self) -> None:
        """Let go of what belongs to the loop besides its selector."""

    def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until a socket is ready, a timer is due or a call has come."""
        return self._selector.select(timeout)

    def _until_next(self) -> float | None:
        timers = self._timers
        self._add_timers()
        while timers and timers[0].function is None:
            heapq.heappop(timers)
        due = min(timers[0].due, self._stop_at) if timers else self._stop_at
        self._wakes_at = due
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    @staticmethod
    def _guard(function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Exception:  # as above
            logger.exception("a call in the hub failed")
