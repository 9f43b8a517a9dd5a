"""The chat's event handlers: what the server does when a page says something."""

import threading
import time
from functools import partial
from typing import Any

from flask import request

from flask_realtime import ConnectionRefusedError, SocketIO, disconnect, emit, join_room, leave_room

from .lobby import Lobby, Person

ROOMS = ("Lobby", "Garden", "Workshop")
MAX_NAME = 20  # characters
MAX_KEY = 64  # characters
MAX_TEXT = 500  # characters
# A message may have max_http_buffer_size (1,000,000) bytes. Over long-polling binary data travels as base64, a third
# longer, so this is what fits into a message on both transports.
MAX_FILE_BYTES = 700_000

STARTED = time.monotonic()

socketio = SocketIO()
lobby = Lobby(ROOMS)


class Problem(ValueError):
    """What the person did can't be done; the text is shown to them."""


# Coming and going


@socketio.on("connect")
def connect(auth: Any = None) -> None:
    """Let somebody in, or refuse with a text that the page shows."""
    name = " ".join(text(auth, "name").split())
    key = text(auth, "key")
    if not name:
        raise ConnectionRefusedError("Please tell us your name.")
    if len(name) > MAX_NAME:
        raise ConnectionRefusedError(f"A name has {MAX_NAME} characters at most.")
    if not name.isprintable() or len(key) > MAX_KEY:
        raise ConnectionRefusedError("This name can’t be used. Please choose another one.")
    try:
        old = lobby.claim(name, key, request.sid)
    except ValueError:
        raise ConnectionRefusedError(f"{name} is here already. Please choose another name.") from None
    if old:  # the same browser tab is back before the server noticed that its old connection is gone
        disconnect(sid=old.sid)
    start_clock()


@socketio.on("enter")
def enter(data: Any) -> dict[str, Any]:
    """Move to a room. The acknowledgement brings what was said there lately."""
    person, room = me(), text(data, "room")
    if room not in ROOMS:
        raise Problem("There is no such room.")
    before = lobby.enter(request.sid, room)
    join_room(room)
    if before != room:
        if before:
            leave_room(before)
            say_left(person, before)
        emit("notice", {"text": f"{person.name} came in"}, to=room, include_self=False)
    emit("people", lobby.present(room), to=room, include_self=False)
    return {"ok": True, "messages": lobby.history(room), "people": lobby.present(room)}


@socketio.on("disconnect")
def on_disconnect(reason: str) -> None:
    """Free the name and tell the room."""
    person = lobby.leave(request.sid)
    if person and person.room:
        say_left(person, person.room)


def say_left(person: Person, room: str) -> None:
    """Tell a room that somebody isn't there any more."""
    emit("notice", {"text": f"{person.name} left"}, to=room)
    emit("people", lobby.present(room), to=room)


# Talking


@socketio.on("message")
def on_message(data: Any) -> dict[str, Any]:
    """Pass a message on to the room. What is returned acknowledges it: the sender's page shows a tick."""
    person, room = me_in_room()
    words = text(data, "text").strip()
    if not words:
        raise Problem("Write something first, then send it.")
    if len(words) > MAX_TEXT:
        raise Problem(f"That is {len(words)} characters. A message has {MAX_TEXT} at most.")
    message = {"id": message_id(data), "name": person.name, "time": time.time(), "text": words}
    if lobby.remember(room, message):
        emit("message", message, to=room, include_self=False)
    return {"ok": True}


@socketio.on("file")
def on_file(data: Any) -> dict[str, Any]:
    """Pass a file on to the room. Its bytes arrive as ``bytes`` and are sent on as binary data."""
    person, room = me_in_room()
    content = data.get("data") if isinstance(data, dict) else None
    if not isinstance(content, bytes) or not content:
        raise Problem("This file is empty.")
    if len(content) > MAX_FILE_BYTES:
        raise Problem(f"This file is too large. {MAX_FILE_BYTES // 1000} kB can be sent at most.")
    file = {"name": text(data, "name")[:100] or "file", "type": text(data, "type")[:100], "size": len(content)}
    message = {"id": message_id(data), "name": person.name, "time": time.time(), "file": file}
    if lobby.remember(room, message):  # those who come later see that there was a file, but not its content
        emit("message", {**message, "data": content}, to=room, include_self=False)
    return {"ok": True}


@socketio.on("typing")
def on_typing(data: Any) -> None:
    """Tell the others in the room who is writing."""
    person, room = me_in_room()
    emit("typing", {"name": person.name, "typing": bool(data)}, to=room, include_self=False)


@socketio.on_error()
def on_error(error: Exception) -> dict[str, Any]:
    """Answer with what went wrong, where the person can do something about it; the rest belongs into the log."""
    if isinstance(error, Problem):
        return {"ok": False, "error": str(error)}
    raise error


# The server's clock, and how long the way to a page and back takes

clock: Any = None
clock_lock = threading.Lock()


def start_clock() -> None:
    """Start the background task when the first person comes."""
    global clock
    with clock_lock:
        if clock is None:
            clock = socketio.start_background_task(tick)


def tick() -> None:
    """Tell everybody the time every second, and measure everybody's round trip."""
    while True:
        rooms = lobby.count()
        uptime = int(time.monotonic() - STARTED)
        socketio.emit("tick", {"time": time.time(), "uptime": uptime, "online": sum(rooms.values()), "rooms": rooms})
        for sid in lobby.sids():
            socketio.emit("probe", to=sid, callback=partial(measured, sid, time.perf_counter()))
        socketio.sleep(1)


def measured(sid: str, sent: float) -> None:
    """Tell a page how long its acknowledgement took."""
    socketio.emit("round_trip", {"ms": (time.perf_counter() - sent) * 1000}, to=sid)


# Reading what pages send: it can be anything


def text(data: Any, field: str) -> str:
    """Get a text out of what a page sent; an empty one when there is none."""
    value = data.get(field) if isinstance(data, dict) else None
    return value if isinstance(value, str) else ""


def message_id(data: Any) -> str:
    """Get the id that the page gave to a message."""
    value = text(data, "id")
    if not 8 <= len(value) <= 64:
        raise Problem("This message has no proper id.")
    return value


def me() -> Person:
    """Find out who sent the event."""
    person = lobby.person(request.sid)
    if person is None:
        raise Problem("You have left already.")
    return person


def me_in_room() -> tuple[Person, str]:
    """Find out who sent the event, and from which room."""
    person = me()
    if person.room is None:
        raise Problem("Choose a room first.")
    return person, person.room
