"""Green: the runtime of greenlets. The same hub as for threads, led by a greenlet.

Theory of operation. The hub keeps a selector of the operating system's own, and the green library's loop waits for one
descriptor only: the selector's. So a thousand clients cost that loop nothing, and what is ready comes in one piece. A
greenlet of the crew leads: it asks the selector, reads, and runs the handlers itself. While it runs, nobody else does,
so a handler that never waits costs no hand-over at all. One that does wait gives way to the green library's loop, and
that is where it shows: the loop then runs `GreenHub._check`, which lets another greenlet of the crew lead. When the
handler ends, its greenlet does too.

Locks are the native ones. Nobody gives way while holding one, so within a thread they are always free; they are for the
program's other threads, which may emit too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from ..typing import Event, Habit, Task
from .hub import PATIENCE, Hub
from .threads import Inbox, Look, Threads, look_after

logger = logging.getLogger("flask_realtime.io")

# Of the servers that the green libraries bring.

BACKLOG = 1024
"""Connections that may wait to be accepted."""

GRACE = 1.0
"""Seconds that requests have to end when the server does."""

LINGER, REST = 1.0, 1 << 20
"""Seconds and bytes for what is left of a request when its connection is to be closed."""

Job = tuple[Callable[..., object], tuple[Any, ...]]


class Watch(Protocol):
    """A descriptor that the loop may wait for."""

    def start(self) -> object: ...

    def stop(self) -> object: ...


class Cancel(Protocol):
    """A call that the loop makes later."""

    def cancel(self) -> object: ...


class Kernel(Protocol):
    """What differs between gevent and eventlet. One that was attached belongs to its thread.

    Attributes:
        current: Returns the greenlet that runs.
        ident: Returns the native identity of the thread.
        lock: Makes a native lock.
        event: Makes an event that lets others run while it waits.
        socket: The operating system's own sockets.
    """

    name: str
    current: Callable[[], Any]
    ident: Callable[[], int]
    lock: Callable[[], Any]
    event: Callable[[], Event]
    socket: type[Any]

    def attach(self) -> None:
        """Belong to the loop of this thread."""

    def selector(self) -> Any:
        """Make a native selector, which has a descriptor itself."""

    def watch(self, descriptor: int, function: Callable[[], object]) -> Watch:
        """Call ``function`` in the loop whenever a descriptor is readable; not before it is started."""

    def later(self, seconds: float, function: Callable[[], object]) -> Cancel:
        """Call ``function`` in the loop, in ``seconds`` from now."""

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` in the loop, which must not wait. In the loop's thread only."""

    def wait(self) -> Any:
        """Let others run until this greenlet is switched to."""

    def forget(self, descriptor: int) -> None:
        """Let the loop stop watching a descriptor that is about to be another file's."""

    def in_loop(self) -> bool:
        """Whether a call that is to be made soon could be overlooked, since the loop sleeps in a signal's handler."""

    def greenlet(self, function: Callable[..., object]) -> Any:
        """Make a greenlet below the loop; its ``switch``, called in the loop, starts it."""

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        """Start a greenlet of the library's own kind."""

    def sleep(self, seconds: float) -> None:
        """Let others run for some seconds."""


class Crew:
    """Greenlets that run the hub and handlers.

    Each is used once, or what a handler leaves behind in it (a timeout, somebody who means to end it) would strike the
    next one.

    Args:
        most: Greenlets at most, besides the one that leads.
        kernel: Of the green library.
    """

    def __init__(self, most: int, kernel: Kernel) -> None:
        self.most, self._kernel = most, kernel
        self.hub: GreenHub | None = None
        self.begin()

    def begin(self) -> None:
        """Forget all, which were another process's."""
        self._members: set[Any] = set()
        self._coming = 0  # greenlets that were asked for and haven't begun
        self._work: deque[Job] = deque()
        self._inboxes: deque[Look] = deque()
        self._ticking = False

    @property
    def size(self) -> int:
        """Greenlets that there are now."""
        return len(self._members) + self._coming

    @property
    def waiting(self) -> int:
        """Calls that wait for a greenlet."""
        return len(self._work)

    def has(self, greenlet: Any) -> bool:
        """Whether a greenlet is one of these."""
        return greenlet in self._members

    @property
    def full(self) -> bool:
        """Whether no more handlers may run than do now."""
        return self.size > self.most

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` in a greenlet. Any thread."""
        hub = self.hub
        assert hub is not None
        hub.start()
        if self._kernel.ident() != hub.home:
            hub.call_soon(self._submit, (function, args))
        else:
            self._submit((function, args))

    def _submit(self, job: Job) -> None:
        if self.full:
            self._work.append(job)
        else:
            self.lead(*job)

    def lead(self, function: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
        """Call ``function`` in a greenlet, however many there are."""
        self._coming += 1
        self._kernel.soon(self._kernel.greenlet(self._run).switch, function, args)

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        me = self._kernel.current()
        self._coming -= 1
        self._members.add(me)
        try:
            function(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:  # an error of ours; user code's are caught where it is called
            logger.exception("a call of the crew failed")
        finally:
            self._members.discard(me)
            if self._work and not self.full:
                self.lead(*self._work.popleft())

    def watch(self, inbox: Inbox, held_up: Callable[[], object]) -> None:
        """Call ``held_up`` whenever nothing of an inbox was started for a while, until it is empty. Any thread."""
        hub = self.hub
        assert hub is not None
        if self._kernel.ident() != hub.home:
            hub.call_soon(self._watch, (inbox, held_up))
        else:
            self._watch((inbox, held_up))

    def _watch(self, look: Look) -> None:
        assert self.hub is not None
        self._inboxes.append(look)
        if not self._ticking:
            self._ticking = True
            self.hub.call_later(PATIENCE, self._tick)

    def _tick(self) -> None:
        assert self.hub is not None
        look_after(self._inboxes)
        self._ticking = bool(self._inboxes)
        if self._ticking:
            self.hub.call_later(PATIENCE, self._tick)

    def stop(self, seconds: float) -> bool:
        """Wait until all is done; False when something still runs after ``seconds``."""
        hub = self.hub
        assert hub is not None
        if not hub.running:
            return True
        deadline = time.monotonic() + seconds
        me = self._kernel.current()

        def busy() -> bool:
            spared = len({me, hub.leader} & self._members)
            return self.size > spared or bool(self._work) or bool(self._inboxes) or hub.busy

        while busy() and time.monotonic() < deadline:
            self._kernel.sleep(0.002)  # only while the process ends
        return not busy()


class GreenHub(Hub):
    """The loop, led by a greenlet of the crew.

    Attributes:
        home: The native identity of the thread that it belongs to.
    """

    short = float("inf")

    def __init__(self, kernel: Kernel, crew: Crew) -> None:
        self._kernel, self._crew = kernel, crew
        self.current, self.lock, self.event, self.socket = kernel.current, kernel.lock, kernel.event, kernel.socket
        self.home = 0
        super().__init__()

    def _reset(self) -> None:
        super()._reset()
        self._parked: Any = None  # the leader, while it waits
        self._checking = False
        self._alarm: Cancel | None = None
        self._alarm_at = float("inf")

    def _begin(self) -> None:
        kernel = self._kernel
        self._crew.begin()
        self.home = kernel.ident()
        kernel.attach()
        selector = kernel.selector()
        self._open(selector)
        self._descriptor = kernel.watch(selector.fileno(), self._ready)
        self._watching = False
        self._crew.lead(self._lead)

    # The loop gives way.

    def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        kernel = self._kernel
        if timeout is not None:
            if timeout <= 0:
                kernel.soon(self._ready)
            else:
                due = time.monotonic() + timeout
                if due < self._alarm_at:
                    if self._alarm is not None:
                        self._alarm.cancel()
                    self._alarm, self._alarm_at = kernel.later(timeout, self._ring), due
        if not self._watching:
            self._watching = True
            self._descriptor.start()
        self._parked = kernel.current()
        try:
            kernel.wait()
        finally:
            self._parked = None
        return self._selector.select(0)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        self._ready()

    def _ready(self) -> None:
        """Let the leader go on. In the green library's loop, as `_check`."""
        parked = self._parked
        if parked is not None:
            self._parked = None
            parked.switch()
        elif self.leader != 0:
            self._replace()  # it waits elsewhere, in a handler of the log for instance

    def _wake(self) -> None:
        if self._kernel.ident() == self.home and not self._kernel.in_loop():
            self._asleep = False
            self._kernel.soon(self._ready)
        else:
            super()._wake()

    def forget(self, descriptor: int) -> None:
        self._kernel.forget(descriptor)

    # Who leads.

    def begin_call(self, habit: Habit) -> bool:
        if self._crew.full:
            return False
        self._numbered = self._running = self._numbered + 1
        if not self._checking:
            self._checking = True
            self._kernel.soon(self._check)
        return True

    def _check(self) -> None:
        """Has the leader given way within a call? Then another one leads."""
        self._checking = False
        if self._running:
            self._replace()

    def _replace(self) -> None:
        self._running = 0
        self.astray.add(self.leader)
        reading, self.reading, self.leader = self.reading, None, 0
        if reading is not None:
            self._calls.appendleft((reading.resume, ()))
        self._crew.lead(self._lead)

    def _lead(self) -> None:
        """Run the loop. What is raised in it and isn't its own, a timeout that a handler has left, ends nothing."""
        me = self._kernel.current()
        while True:
            try:
                self.run()
                break
            except (SystemExit, KeyboardInterrupt):  # a signal's handler has met us; it means the program
                self._crew.lead(self._lead)
                self._running, self.leader = 0, 0
                raise
            except BaseException as error:
                logger.warning("what a handler has left behind is ignored: %s: %s", type(error).__name__, error)
            if self.leader is not me:
                break
            self._running = 0
            reading, self.reading = self.reading, None
            if reading is not None:
                self._calls.appendleft((reading.resume, ()))
        self.astray.discard(me)

    def stop(self, linger: float = 1.0) -> None:
        if not self.running or self.leader is self._kernel.current():
            super().stop(linger)
            return
        ended = self._ended
        self.call_soon(self._stop_in, linger)
        while not ended.wait(0.05):  # a wait without end would be an error to gevent when nothing else goes on
            pass

    def _close(self) -> None:
        self._descriptor.stop()
        if self._alarm is not None:
            self._alarm.cancel()


class Greens(Threads):
    """The runtime.

    Args:
        kernel: Of the green library.
        ordered: Whether a call of an owner begins only when the one before has ended.
        workers: Handlers that may run at once.
        per_owner: Calls of one owner that may run at once, when not ordered.
    """

    def __init__(self, kernel: Kernel, ordered: bool = False, workers: int = 64, per_owner: int = 16) -> None:
        self.name, self._kernel = kernel.name, kernel
        crew = Crew(workers, kernel)
        crew.hub = GreenHub(kernel, crew)
        self._share(crew.hub, crew, ordered, per_owner)

    def at_home(self, function: Callable[[], object], limit: float) -> None:
        hub = self.hub
        assert isinstance(hub, GreenHub)
        if not hub.running or self._kernel.ident() == hub.home:
            function()
            return
        ended = self._kernel.lock()
        ended.acquire()

        def run() -> None:
            try:
                function()
            finally:
                ended.release()

        hub.call_soon(self._kernel.spawn, run)
        ended.acquire(timeout=limit)

    @contextlib.contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Meanwhile each signal wakes the green library's loop, by a byte that the interpreter itself writes.

        Else it may sleep on, and the signal's handler wait with it: the signal came when the loop was just about to
        sleep, or another thread got it. eventlet's sleeps on even when the handler has run.
        """
        self.hub.start()  # it attaches the kernel, and whoever tells the server to stop finds it
        inside, outside = socket.socketpair()
        with inside, outside:
            inside.setblocking(False)
            outside.setblocking(False)
            try:
                before = signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
            except ValueError:  # this isn't the main thread, which alone gets signals
                yield
                return
            process = os.getpid()

            def heed() -> None:
                if os.getpid() != process:
                    watch.stop()  # the bytes are for the process that this one was forked from
                    return
                with contextlib.suppress(BlockingIOError):
                    inside.recv(4096)

            watch = self._kernel.watch(inside.fileno(), heed)
            watch.start()
            try:
                yield
            finally:
                try:
                    signal.set_wakeup_fd(before)
                except (ValueError, OSError):  # it was closed meanwhile
                    signal.set_wakeup_fd(-1)
                watch.stop()

    def interrupt(self, error: BaseException) -> None:
        main = self._kernel.current()
        while main.parent is not None:
            main = main.parent
        self._kernel.soon(main.throw, error)  # here it would strike whichever greenlet runs, in the midst of its work

    @property
    def within(self) -> bool:
        return bool(self.pool.has(self._kernel.current()))

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        hub = self.hub
        assert isinstance(hub, GreenHub)
        if hub.running and self._kernel.ident() != hub.home:
            return _Spawned(hub, partial(self._kernel.spawn, function, *args, **kwargs))
        return self._kernel.spawn(function, *args, **kwargs)

    def event(self) -> Event:
        return self._kernel.event()

    def sleep(self, seconds: float) -> None:
        self._kernel.sleep(seconds)


class _Spawned:
    """A greenlet that another thread has asked for."""

    def __init__(self, hub: GreenHub, spawn: Callable[[], Task]) -> None:
        self._task: Task | None = None
        self._spawn = spawn
        hub.call_soon(self._start)

    def _start(self) -> None:
        self._task = self._spawn()

    def join(self, timeout: float | None = None) -> None:
        raise RuntimeError("a greenlet can only be joined in its own thread")
