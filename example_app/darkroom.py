"""The darkroom: a page that orders long work and watches how it goes.

A task has a room of its own, with the task's id as its name. Who has ordered it enters that room before it begins, and
enters it again after a reload, so no news is missed; whoever doesn't know the id hears nothing of it.
"""

import re
import uuid
from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template, session

from flask_realtime import SocketIO, emit, join_room

from .pictures import DEEPEST, PLACES, SIZES, Order, Problem
from .settings import CELERY_BROKER_URL
from .workshop import BROKEN, CANCELLED, FINAL, NAMESPACE, Thread, Workshop

MAX_OPEN = 6  # tasks that one page may have under way
MAX_WATCHED = 20  # tasks that a page may ask for after a reload
TASK = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

blueprint = Blueprint("darkroom", __name__, url_prefix="/darkroom")


def init_darkroom(app: Any, socketio: SocketIO) -> None:
    """Add the page and its events to the app. Celery makes the pictures where there is a broker."""
    if CELERY_BROKER_URL:
        from .worker import Workers  # only here: the plain example needs no Celery

        workshop: Workshop = Workers()
    else:
        workshop = Thread(socketio)
    app.extensions["workshop"] = workshop
    app.register_blueprint(blueprint)
    for event, handler in {"start": start, "watch": watch, "cancel": cancel}.items():
        socketio.on_event(event, handler, namespace=NAMESPACE)
    socketio.on_error(NAMESPACE)(on_error)


# Pages


@blueprint.get("/")
def page() -> str:
    """The page itself."""
    return render_template(
        "darkroom.html",
        places=list(PLACES),
        sizes=SIZES,
        deepest=DEEPEST,
        max_watched=MAX_WATCHED,
        celery=workshop().celery,
    )


@blueprint.get("/<uuid:task>.png")
def picture(task: uuid.UUID) -> Response:
    """A picture that is done."""
    png = workshop().picture(str(task))
    if png is None:
        abort(404)
    return Response(png, mimetype="image/png", headers={"Cache-Control": "private, max-age=3600, immutable"})


# Events


def start(data: Any) -> dict[str, Any]:
    """Take an order. The acknowledgement brings the task's id."""
    order = Order.read(data)
    mine = [task for task in session.get("tasks", []) if workshop().look(task)["state"] not in FINAL]
    if len(mine) >= MAX_OPEN:
        raise Problem(f"{MAX_OPEN} pictures at a time, please. Wait for one, or cancel one.")
    task = str(uuid.uuid4())
    join_room(task)  # first, or the beginning might be missed
    session["tasks"] = [*mine, task]
    workshop().start(task, order)
    return {"ok": True, "id": task}


def watch(data: Any) -> dict[str, Any]:
    """Tell a page that was reloaded, or has connected again, how far its tasks are, and go on telling it."""
    tasks = data if isinstance(data, list) else []
    found = []
    for task in tasks[:MAX_WATCHED]:
        # A room may also be another client's sid: nobody gets in by an id that isn't one of a task.
        if isinstance(task, str) and TASK.fullmatch(task):
            join_room(task)
            found.append({"id": task, **workshop().look(task)})
    return {"ok": True, "tasks": found}


def cancel(data: Any) -> dict[str, Any]:
    """Let a task end, and tell its room at once, whether it has begun or not."""
    if not isinstance(data, str) or not TASK.fullmatch(data):
        raise Problem("There is no such picture.")
    workshop().cancel(data)
    news = workshop().look(data)
    if news["state"] == CANCELLED["state"]:
        emit("task", {"id": data, **news}, to=data)
    return {"ok": True}


def on_error(error: Exception) -> dict[str, Any]:
    """Answer with what went wrong, where the person can do something about it; the rest belongs into the log."""
    if isinstance(error, Problem):
        return {"ok": False, "error": str(error)}
    current_app.logger.error("the darkroom failed", exc_info=error)
    return {"ok": False, "error": BROKEN}


def workshop() -> Workshop:
    """Find this app's workshop."""
    found: Workshop = current_app.extensions["workshop"]
    return found
