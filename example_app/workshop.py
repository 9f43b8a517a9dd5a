"""Who makes the pictures: a thread of the web server, or the workers of Celery. The events don't see the difference."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from flask_realtime import SocketIO

from .pictures import Order, Problem, render

NAMESPACE = "/darkroom"
KEPT = 50  # pictures that are kept in memory
REPORT_EVERY = 0.1  # seconds between two reports of the same picture

News = dict[str, Any]  # "state" and, as far as they are known, "done" (percent), "seconds", "maker", "error"

WAITING: News = {"state": "waiting", "done": 0}
CANCELLED: News = {"state": "cancelled"}
FINAL = ("done", "failed", "cancelled", "gone")
BROKEN = "Something went wrong here. The log of the server says what."


class Cancelled(Exception):
    """Nobody wants the picture any more."""


class Workshop(Protocol):
    """Makes pictures, one task each, and sends what becomes of a task to the room that has the task's name."""

    celery: bool

    def start(self, task: str, order: Order) -> None:
        """Take an order; it is worked on later."""

    def look(self, task: str) -> News:
        """Say how far a task is."""

    def picture(self, task: str) -> bytes | None:
        """Return the PNG of a task that is done, else None."""

    def cancel(self, task: str) -> None:
        """Let a task end as soon as possible, if it hasn't ended already."""


def make(
    order: Order,
    tell: Callable[[News], None],
    check: Callable[[], None],
    pause: Callable[[], None] = lambda: None,
) -> tuple[bytes, float]:
    """Make a picture and tell how it goes, but not so often that the telling becomes the work.

    Args:
        order: What to make.
        tell: Takes the news.
        check: Called before each news; raises Cancelled to end the work.
        pause: Called every few milliseconds.

    Returns:
        The PNG, and how many seconds it took.
    """
    began = told = time.monotonic()

    def report(done: int) -> None:
        nonlocal told
        pause()
        now = time.monotonic()
        if now - told >= REPORT_EVERY:
            told = now
            check()
            tell({"state": "working", "done": done})

    check()
    tell({"state": "working", "done": 0})
    png = render(order, report)
    return png, round(time.monotonic() - began, 1)


class Thread:
    """The workshop of a web server that has no Celery: one background task, which takes one order after the other.

    It is as good for a try as it is bad for a site with many guests: it takes its time from the web server, and what
    it knows is lost with the process.
    """

    celery = False

    def __init__(self, socketio: SocketIO) -> None:
        self._socketio = socketio
        self._lock = threading.Lock()
        self._tasks: OrderedDict[str, News] = OrderedDict()  # oldest first
        self._orders: OrderedDict[str, Order] = OrderedDict()  # those that wait
        self._pictures: dict[str, bytes] = {}
        self._working = False

    def start(self, task: str, order: Order) -> None:
        """Take an order.

        Raises:
            Problem: When too many wait already.
        """
        with self._lock:
            if len(self._orders) >= KEPT // 2:
                raise Problem("The darkroom is full. Come back later.")
            self._tasks[task] = WAITING
            self._orders[task] = order
            if len(self._tasks) > KEPT:
                ended = next(name for name, news in self._tasks.items() if news["state"] in FINAL)
                del self._tasks[ended]
                self._pictures.pop(ended, None)
            if self._working:
                return
            self._working = True
        self._socketio.start_background_task(self._work)

    def look(self, task: str) -> News:
        """Say how far a task is."""
        with self._lock:
            return self._tasks.get(task, {"state": "gone"})

    def picture(self, task: str) -> bytes | None:
        """Return the PNG of a task that is done, else None."""
        with self._lock:
            return self._pictures.get(task)

    def cancel(self, task: str) -> None:
        """Let a task end."""
        with self._lock:
            if self._tasks.get(task, {"state": "gone"})["state"] not in FINAL:
                self._tasks[task] = CANCELLED
                self._orders.pop(task, None)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._orders:
                    self._working = False
                    return
                task, order = self._orders.popitem(last=False)
            self._tell(task, self._finish(task, order))

    def _finish(self, task: str, order: Order) -> News:
        def check() -> None:
            if self.look(task)["state"] in FINAL:
                raise Cancelled

        def pause() -> None:
            self._socketio.sleep(0)  # with gevent and eventlet nobody else would get a turn

        try:
            png, seconds = make(order, lambda news: self._tell(task, news), check, pause)
        except Cancelled:
            return CANCELLED
        except Problem as problem:
            return {"state": "failed", "error": str(problem)}
        except Exception:  # whatever it is, those who wait behind it have their turn
            logging.getLogger(__name__).exception("%s could not be made", order)
            return {"state": "failed", "error": BROKEN}
        with self._lock:
            self._pictures[task] = png
        return {"state": "done", "seconds": seconds, "maker": "the web server itself"}

    def _tell(self, task: str, news: News) -> None:
        with self._lock:
            if self._tasks.get(task, CANCELLED)["state"] in FINAL:
                return
            self._tasks[task] = news
        self._socketio.emit("task", {"id": task, **news}, to=task, namespace=NAMESPACE)
