"""The Celery worker of the darkroom: ``celery -A example_app.worker worker``.

The worker is a process that serves nobody. Its ``SocketIO`` has no app, only the message queue's URL: what it emits
goes through the queue to the web servers, and from there to the pages.
"""

import logging
import os
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore

from flask_realtime import SocketIO

from .pictures import Order, Problem
from .settings import CELERY_BROKER_URL, CELERY_RESULT_BACKEND, MESSAGE_QUEUE, MESSAGE_QUEUE_SECRET
from .workshop import BROKEN, CANCELLED, FINAL, NAMESPACE, WAITING, Cancelled, News, make

celery = Celery("example_app", broker=CELERY_BROKER_URL, backend=CELERY_RESULT_BACKEND)
celery.conf.update(
    result_expires=3600,  # seconds; the pictures go with them
    worker_prefetch_multiplier=1,  # tasks are long: one that waits is for whoever is free first
    task_acks_late=True,  # a picture whose worker dies is made again, by another one
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
)
socketio = SocketIO(message_queue=MESSAGE_QUEUE, message_queue_secret=MESSAGE_QUEUE_SECRET)


class Develop(Task):
    """A task that tells the pages how it has ended, when Celery has noted it: whoever hears it may ask for it."""

    def on_success(self, returned: dict[str, Any], task_id: str, *_: Any) -> None:
        """Called by Celery in the worker."""
        tell(task_id, returned["news"])

    def on_failure(self, error: Exception, task_id: str, *_: Any) -> None:
        """Called by Celery in the worker."""
        tell(task_id, failure(error))


@celery.task(bind=True, base=Develop, name="example_app.develop", throws=(Problem,))
def develop(self: Task, order: dict[str, Any]) -> dict[str, Any]:
    """Make a picture. Its progress is kept by Celery, for pages that are reloaded, and told to those that listen."""
    task = self.request.id

    def progress(news: News) -> None:
        self.update_state(state="PROGRESS", meta=news)
        tell(task, news)

    def check() -> None:
        if is_cancelled(task):
            raise Cancelled

    try:
        png, seconds = make(Order.read(order), progress, check)
    except Cancelled:
        logging.getLogger(__name__).info("%s was cancelled", task)
        raise Ignore from None
    news = {"state": "done", "seconds": seconds, "maker": f"a Celery worker, process {os.getpid()}"}
    return {"news": news, "png": png}


def tell(task: str, news: News) -> None:
    """Send what becomes of a task to the pages that watch it."""
    socketio.emit("task", {"id": task, **news}, to=task, namespace=NAMESPACE)


def failure(error: Any) -> News:
    """Say what a task has failed with."""
    return {"state": "failed", "error": str(error) if isinstance(error, Problem) else BROKEN}


def is_cancelled(task: str) -> bool:
    """Look for the note that `Workers.cancel` has left."""
    return note(f"{task}-cancelled")[0] == "CANCELLED"


def note(task: str) -> tuple[str, Any]:
    """Read what Celery's results say of a task: state and result, both from one moment."""
    found = celery.backend.get_task_meta(task)
    return found["status"], found["result"]


class Workers:
    """The workshop as the web server sees it: orders go to the broker, news are read from Celery's results."""

    celery = True

    def start(self, task: str, order: Order) -> None:
        """Take an order. Celery knows no waiting tasks, so a note is left that there is one."""
        celery.backend.store_result(task, None, "WAITING")
        develop.apply_async((order.write(),), task_id=task)

    def look(self, task: str) -> News:
        """Say how far a task is."""
        state, found = note(task)
        if state == "SUCCESS":
            return dict(found["news"])
        if state == "FAILURE":
            return failure(found)
        if state == "PENDING":  # what Celery says of a task that it has never heard of, or that has expired
            return {"state": "gone"}
        if is_cancelled(task):
            return CANCELLED
        return dict(found) if state == "PROGRESS" else WAITING

    def picture(self, task: str) -> bytes | None:
        """Return the PNG of a task that is done, else None."""
        state, found = note(task)
        return bytes(found["png"]) if state == "SUCCESS" else None

    def cancel(self, task: str) -> None:
        """Leave a note that the worker finds before it begins, and again and again while it works.

        ``revoke`` would stop only what hasn't begun, ``revoke(terminate=True)`` would kill the process that works.
        """
        if self.look(task)["state"] not in FINAL:
            celery.backend.store_result(f"{task}-cancelled", None, "CANCELLED")
