"""Threads: the runtime of plain threads. A hub reads, a small elastic pool runs the handlers, any thread writes.

Theory of operation. Calls of one owner (a session) wait in its inbox and are run by one worker, one after the other, so
they start in their order and short ones also end in it. Calls that have shown to be short are run by the hub itself,
which reads them; see there. With ``ordered=False`` a call that takes longer than `PATIENCE`
doesn't hold up the next: a second worker goes on with the inbox while the first is still busy. The pool starts with one
thread, because with one interpreter lock more of them only help when some wait; it grows when calls have waited for a
while and either nothing was started in the meantime or the processor isn't busy.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from time import perf_counter
from typing import Any

from ..typing import Done, Event, Habit, Owner, Task
from .hub import PATIENCE, Hub, Timer

logger = logging.getLogger("flask_realtime.io")

_TRUSTED = 4096  # short calls in a row after which an earlier long one counts half
IDLE = 10.0  # seconds without work after which a thread of the pool ends

FULL, LOW = 64, 16  # calls of one owner that may wait before it is paused; when it goes on
FULL_BYTES = 1 << 20  # that its calls may keep while one waits; four times that, and no more of them are started

_OURS = ("flask_realtime-hub", "flask_realtime-deputy", "flask_realtime-handler")

Job = tuple[Callable[..., Any], Sequence[Any], Done, Any, bool, "Habit | None", int]


class Inbox:
    """Calls of one owner that wait for a worker.

    Attributes:
        lock: Guards the fields below.
        jobs: What waits.
        running: How many calls run now.
        turn: The worker whose ``turn`` is this one takes the next call; any other just ends.
        begun: The last turn that was begun; another isn't given while one waits for a thread.
        active: Whether a worker has the turn.
        started: Counts the calls that were begun.
        watched: Whether the pool's clock looks at it.
        seen: What ``started`` was when it last did.
        urgent: Calls that wait and may not be held up by the limit.
        paused: Whether the owner was told to read no further.
        size: Bytes that the calls keep which wait or run.
    """

    __slots__ = (
        *("active", "begun", "jobs", "lock", "paused", "running", "seen"),
        *("size", "started", "turn", "urgent", "watched"),
    )

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.lock = lock
        self.jobs: deque[Job] = deque()
        self.running = 0
        self.turn = self.begun = 0
        self.active = False
        self.started = 0
        self.seen = -1
        self.watched = False
        self.urgent = 0
        self.paused = False
        self.size = 0

    @property
    def full(self) -> bool:
        """Whether its owner has to be paused."""
        return len(self.jobs) > FULL or (self.size > FULL_BYTES and len(self.jobs) > 0)

    def is_done(self) -> bool:
        """Whether nothing waits, so that the clock needs to look no more."""
        with self.lock:
            if self.jobs:
                return False
            self.watched = False
            self.seen = -1
            return True

    def is_stuck(self) -> bool:
        """Whether nothing was started since it was asked last."""
        with self.lock:
            stuck = self.seen == self.started
            self.seen = self.started
            return stuck

    def relieve(self, owner: Owner) -> None:
        """Let its paused owner go on if there is room again. With the lock held."""
        if not self.jobs or (len(self.jobs) <= LOW and self.size <= FULL_BYTES // 4):
            self.paused = False
            owner.pause(False)


Look = tuple[Inbox, Callable[[], object]]
"""An inbox, and what is called when nothing of it was started for a while."""


def look_after(inboxes: deque[Look]) -> None:
    """Look once at each of the inboxes, and forget those that are empty."""
    for _ in range(len(inboxes)):
        inbox, held_up = look = inboxes.popleft()
        if inbox.is_done():
            continue
        if inbox.is_stuck():
            held_up()
        inboxes.append(look)


class Pool:
    """Worker threads, from one to ``most``.

    Args:
        most: Threads at most.
        hub: Keeps the time.
    """

    def __init__(self, most: int, hub: Hub) -> None:
        self.most, self._hub = most, hub
        self._pid = 0
        self._starting = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._open = 0  # calls that were submitted and haven't ended
        self._started = 0
        self._seen = -1
        self._cpu = 0.0
        self._ticking = False
        self._stopping = False
        self._inboxes: deque[Look] = deque()

    @property
    def size(self) -> int:
        """Threads that there are now."""
        return len(self._threads)

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self._work.qsize()

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` in one of the threads."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._open += 1
        self._work.put((function, args))
        if not self._threads:
            self._grow()
        self._tick_later()

    def watch(self, inbox: Inbox, held_up: Callable[[], object]) -> None:
        """Call ``held_up`` whenever nothing of an inbox was started for a while, until it is empty."""
        self._inboxes.append((inbox, held_up))
        self._tick_later()

    def _begin(self) -> None:
        with self._starting:
            if self._pid != os.getpid():  # first use, or first use after a fork
                self._reset()
                self._pid = os.getpid()

    def _grow(self) -> None:
        with self._lock:
            if len(self._threads) >= self.most or self._stopping:
                return
            thread = threading.Thread(target=self._run, name="flask_realtime-handler", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads for this process, or it ends; the clock tries again
            with self._lock:
                self._threads.discard(thread)
            logger.warning("can't start a thread for handlers: %s", error)

    def _run(self) -> None:
        work, me, threads = self._work, threading.current_thread(), self._threads
        try:
            while True:
                try:
                    job = work.get(timeout=IDLE)
                except queue.Empty:
                    with self._lock:
                        if len(threads) > 1 and work.empty():
                            threads.discard(me)  # in the same hold, or two could leave none
                            return
                    continue
                if job is None:
                    return
                self._started += 1
                function, args = job
                try:
                    function(*args)
                finally:
                    with self._lock:
                        self._open -= 1
        finally:
            with self._lock:
                threads.discard(me)

    def _tick_later(self) -> None:
        with self._lock:
            begun, self._ticking = self._ticking, True
        if not begun:
            self._hub.call_later(PATIENCE, self._tick)

    def _tick(self) -> None:
        """Look whether anything is held up. In the hub's thread."""
        look_after(self._inboxes)
        waiting = self._work.qsize()
        if waiting:
            cpu = time.process_time()
            stuck = self._started == self._seen
            # Not a whole core used while calls wait: some handlers wait for something. All stuck: more so.
            if stuck or (self._seen != -1 and cpu - self._cpu < 0.5 * PATIENCE):
                for _ in range(min(waiting, max(1, len(self._threads))) if stuck else 1):
                    self._grow()
            self._seen, self._cpu = self._started, cpu
        else:
            self._seen = -1
        self._ticking = False
        if self._work.qsize() or self._inboxes:
            self._tick_later()

    def _help(self) -> None:
        """Run what waits in the caller's thread: a process that ends may start no more threads."""
        try:
            function, args = self._work.get(timeout=0.002)
        except queue.Empty:
            return
        try:
            function(*args)
        finally:
            with self._lock:
                self._open -= 1

    def stop(self, seconds: float) -> bool:
        """End the threads when all is done; False when something still runs after ``seconds``."""
        if self._pid != os.getpid():
            self._begin()
        deadline = time.monotonic() + seconds
        mine = threading.current_thread() in self._threads
        while (self._open > mine or self._inboxes or self._hub.busy) and time.monotonic() < deadline:
            if self._threads:
                time.sleep(0.002)  # only while the process ends
            else:
                self._help()
        done = self._open <= mine and not self._hub.busy
        self._stopping = True
        for _ in list(self._threads):
            self._work.put(None)
        self._pid = 0  # the next use begins anew
        return done


class Threads:
    """The runtime.

    Args:
        ordered: Whether a call of an owner begins only when the one before has ended.
        workers: Threads of the pool at most.
        per_owner: Calls of one owner that may run at once, when not ordered.
        hub: Shared with other servers of the process when given.
    """

    name = "threading"

    def __init__(self, ordered: bool = False, workers: int = 64, per_owner: int = 16, hub: Hub | None = None) -> None:
        hub = hub or Hub()
        self._share(hub, Pool(workers, hub), ordered, per_owner)

    def _share(self, hub: Hub, pool: Any, ordered: bool, per_owner: int) -> None:
        self.hub, self.pool = hub, pool
        self._ordered, self._per_owner = ordered, per_owner
        self._making = self.hub.lock()

    # The port `flask_realtime.typing.Runtime`.

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def run(
        self,
        owner: Owner,
        handler: Callable[..., Any],
        args: Sequence[Any],
        done: Done,
        token: Any,
        urgent: bool = False,
        habit: Habit | None = None,
        size: int = 0,
    ) -> None:
        inbox: Inbox | None = owner.inbox
        if inbox is None:
            with self._making:
                inbox = owner.inbox = owner.inbox or Inbox(self.hub.lock())
        turn, watch = 0, False
        with inbox.lock:
            inbox.jobs.append((handler, args, done, token, urgent, habit, size))
            inbox.size += size
            inbox.urgent += urgent
            if not inbox.active:
                inbox.active = True
                inbox.turn = turn = inbox.turn + 1
            else:
                if not self._ordered and not inbox.watched:
                    inbox.watched = watch = True
                if inbox.full and not inbox.paused:
                    inbox.paused = True
                    owner.pause(True)  # under the lock, or it could come after the worker's pause(False)
        if turn:
            hub = self.hub
            if (
                habit is not None
                and habit.mean < hub.short
                and habit.rest <= 0
                and hub.reading is not None
                and hub.leader == hub.current()
                and hub.begin_call(habit)
            ):
                self._drain(owner, inbox, turn, True)
            else:
                self.pool.submit(self._drain, owner, inbox, turn)
        if watch:
            self.pool.watch(inbox, partial(self._next_worker, owner, inbox))

    def _next_worker(self, owner: Owner, inbox: Inbox) -> None:
        """The worker that has the turn is held up by a slow call: let another one go on."""
        with inbox.lock:
            many = inbox.running >= self._per_owner or inbox.size > 4 * FULL_BYTES
            if not inbox.jobs or inbox.turn != inbox.begun or not inbox.active or (many and not inbox.urgent):
                return
            inbox.turn = turn = inbox.turn + 1
        self.pool.submit(self._drain, owner, inbox, turn)

    def _drain(self, owner: Owner, inbox: Inbox, turn: int, leading: bool = False) -> None:
        """Run what waits.

        Args:
            owner: Of the inbox.
            inbox: Where.
            turn: Of this worker.
            leading: Whether the hub runs this, by a call that was begun there: one job, the rest is the pool's.
        """
        while True:
            with inbox.lock:
                if inbox.turn != turn:
                    return
                inbox.begun = turn
                if not inbox.jobs:
                    inbox.active = False
                    return
                handler, args, done, token, urgent, habit, size = inbox.jobs.popleft()
                inbox.urgent -= urgent
                inbox.running += 1
                inbox.started += 1
                if inbox.paused:
                    inbox.relieve(owner)
            begun = perf_counter()
            try:
                result, error = handler(*args), None
            except BaseException as raised:  # also SystemExit: one handler must not end the thread that serves others
                result, error = None, raised
            if habit is not None:
                habit.mean += (perf_counter() - begun - habit.mean) * 0.0625
                habit.rest -= 1
                if habit.rest < -_TRUSTED:
                    habit.rest, habit.fine = 0, max(habit.fine >> 1, 64)
            try:
                done(token, result, error)
            except BaseException:  # an error of ours; the worker goes on with the next call
                logger.exception("the end of a handler could not be handled")
            result, error, args = None, None, ()  # nothing of it is kept while this thread waits
            if leading:
                self.hub.end_call()
            with inbox.lock:
                inbox.running -= 1
                inbox.size -= size
                if inbox.paused:
                    inbox.relieve(owner)
                if not leading:
                    continue
                if inbox.turn != turn:
                    return
                if not inbox.jobs:
                    inbox.active = False
                    return
            self.pool.submit(self._drain, owner, inbox, turn)
            return

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        return self.hub.call_later(seconds, function)

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        thread = threading.Thread(target=function, args=args, kwargs=kwargs, daemon=True)
        thread.start()
        return thread

    def event(self) -> Event:
        return threading.Event()

    def lock(self) -> AbstractContextManager[Any]:
        lock: AbstractContextManager[Any] = self.hub.lock()
        return lock

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def now(self) -> float:
        return time.monotonic()

    # Beside the port.

    def at_home(self, function: Callable[[], object], limit: float) -> None:
        """Call a function that waits for what lives in the runtime, and wait for its end, ``limit`` seconds at most."""
        function()

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Meanwhile signals wake what serves in this thread; threads look for them anyway."""
        yield

    def interrupt(self, error: BaseException) -> None:
        """Raise an error where the program's main thread waits. Called by signal handlers."""
        raise error

    @property
    def within(self) -> bool:
        """Whether the caller is one of our own: a handler, or the loop."""
        return threading.current_thread().name in _OURS

    @staticmethod
    def busy(owner: Owner) -> bool:
        """Whether calls of an owner run or wait."""
        inbox = owner.inbox
        return inbox is not None and bool(inbox.jobs or inbox.running)

    def stop(self, grace: float) -> bool:
        """Let running handlers end for ``grace`` seconds, then end the threads; False when some still ran."""
        ended: bool = self.pool.stop(grace)
        self.hub.stop()
        return ended
