"""Functions for handlers: what they leave out is taken from the current event."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, cast

import flask

from .engineio import warn

if TYPE_CHECKING:
    from .extension import SocketIO


def _extension() -> SocketIO:
    return cast("SocketIO", flask.current_app.extensions["socketio"])


def _namespace(namespace: str | None) -> str:
    return namespace or str(flask.request.namespace)  # type: ignore[attr-defined]


def _sid(sid: str | None) -> str:
    return str(flask.request.sid) if sid is None else sid  # type: ignore[attr-defined]


def complain(function: str, unknown: dict[str, Any]) -> None:
    """Warn of keyword arguments that a function doesn't know."""
    for name in unknown:
        warn(f"{function}() doesn't know the argument {name!r}; it is ignored")


def emit(
    event: str,
    *args: Any,
    namespace: str | None = None,
    to: Any = None,
    room: Any = None,
    broadcast: bool = False,
    include_self: bool = True,
    skip_sid: Any = None,
    callback: Callable[..., Any] | None = None,
    ignore_queue: bool = False,
    **unknown: Any,
) -> None:
    """Emit an event: to the client whose event is being handled, unless told otherwise.

    In a route, where there is no such client, give ``namespace`` and either ``to`` or ``broadcast``.

    Args:
        event: Its name.
        *args: Its arguments; one that is a tuple stands for several.
        namespace: The current event's by default.
        to: A sid or room, or a list, tuple or set of them. An empty one means nobody.
        room: The same, when ``to`` is None.
        broadcast: Whether everybody in the namespace gets it, when neither is given.
        include_self: Whether the current client gets it.
        skip_sid: A sid, or several, that don't get it.
        callback: Called with the values that each recipient acknowledges with.
        ignore_queue: Whether only clients of this process are meant.

    Raises:
        RuntimeError: There is no context.
        TypeError: A value can't be sent.

    .. versionadded:: 0.1.0
    """
    complain("emit", unknown)
    target = room if to is None else to
    if target is None and not broadcast:
        target = _sid(None)
    _extension().emit(
        event,
        *args,
        namespace=_namespace(namespace),
        to=target,
        include_self=include_self,
        skip_sid=skip_sid,
        callback=callback,
        ignore_queue=ignore_queue,
    )


def send(
    message: Any,
    json: bool = False,
    namespace: str | None = None,
    to: Any = None,
    room: Any = None,
    broadcast: bool = False,
    include_self: bool = True,
    skip_sid: Any = None,
    callback: Callable[..., Any] | None = None,
    ignore_queue: bool = False,
    **unknown: Any,
) -> None:
    """Emit the event ``"message"``, or ``"json"`` when ``json`` is true; see `emit`.

    .. versionadded:: 0.1.0
    """
    complain("send", unknown)
    emit(
        "json" if json else "message",
        *(() if message is None else (message,)),
        namespace=namespace,
        to=to,
        room=room,
        broadcast=broadcast,
        include_self=include_self,
        skip_sid=skip_sid,
        callback=callback,
        ignore_queue=ignore_queue,
    )


def call(
    event: str,
    *args: Any,
    namespace: str | None = None,
    to: Any = None,
    room: Any = None,
    timeout: float | None = 60,
    ignore_queue: bool = False,
    **unknown: Any,
) -> Any:
    """Emit to one client, the current one by default, and wait for its acknowledgement; see `SocketIO.call`.

    .. versionadded:: 0.1.0
    """
    complain("call", unknown)
    target = room if to is None else to
    return _extension().call(
        event,
        *args,
        namespace=_namespace(namespace),
        to=_sid(None) if target is None else target,
        timeout=timeout,
        ignore_queue=ignore_queue,
    )


def join_room(room: Hashable, sid: str | None = None, namespace: str | None = None) -> None:
    """Put a client, the current one by default, into a room.

    Raises:
        KeyError: There is no such client.

    .. versionadded:: 0.1.0
    """
    _extension().reach.enter_room(_sid(sid), room, _namespace(namespace))


def leave_room(room: Hashable, sid: str | None = None, namespace: str | None = None) -> None:
    """Take a client, the current one by default, out of a room.

    .. versionadded:: 0.1.0
    """
    _extension().reach.leave_room(_sid(sid), room, _namespace(namespace))


def close_room(room: Hashable, namespace: str | None = None) -> None:
    """Take everybody out of a room.

    .. versionadded:: 0.1.0
    """
    _extension().reach.close_room(room, _namespace(namespace))


def rooms(sid: str | None = None, namespace: str | None = None) -> list[Any]:
    """Return the rooms of a client, the current one by default; its own sid is among them.

    .. versionadded:: 0.1.0
    """
    return _extension().rooms(_sid(sid), _namespace(namespace))


def disconnect(sid: str | None = None, namespace: str | None = None, silent: bool = False) -> None:
    """End the part of a client, the current one by default, in a namespace. ``silent`` is without effect.

    .. versionadded:: 0.1.0
    """
    _extension().reach.disconnect(_sid(sid), _namespace(namespace))
