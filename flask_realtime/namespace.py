"""Namespace: class-based handlers for Flask."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from . import socketio
from .protocol.socketio.dispatch import fit

if TYPE_CHECKING:
    from .extension import SocketIO


class Namespace(socketio.Namespace):
    """A class-based namespace: its methods ``on_<event>`` get the event's arguments, ``flask.request`` the rest.

    One instance serves all clients. `emit` and `send` go to everybody in the namespace unless told otherwise. A method
    ``error(exception)``, if there is one, gets what its handlers raise and no error handler takes; what it returns is
    acknowledged.

    Args:
        namespace: ``"/"`` by default; ``"*"`` for all.

    .. versionadded:: 0.1.0
    """

    def __init__(self, namespace: str | None = None) -> None:
        super().__init__(namespace)
        self.socketio: SocketIO | None = None

    def _set_socketio(self, extension: SocketIO) -> None:
        self.socketio = extension

    def trigger_event(self, event: str, *args: Any) -> Any:
        """Call the method of an event; override it to dispatch differently.

        Args:
            event: Its name.
            *args: The sid; then for connect the environ and the auth data or None, for disconnect the reason, for other
                events their arguments.
        """
        handler: Callable[..., Any] | None = getattr(self, f"on_{event or ''}", None)
        if handler is None:
            return None
        if event == "connect":
            return handler(*fit(handler, (args[2] if len(args) > 2 else None,), 0))
        if event == "disconnect":
            return handler(*fit(handler, args[1:], 0))
        return handler(*args[1:])

    def emit(  # type: ignore[override]  # the order of this face's arguments is older
        self,
        event: str,
        data: Any = None,
        room: Any = None,
        include_self: bool = True,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        skip_sid: Any = None,
        ignore_queue: bool = False,
    ) -> None:
        """Emit to everybody in the namespace, or to ``to``; see `SocketIO.emit`."""
        assert self.socketio is not None
        self.socketio.emit(
            event,
            *_data(data),
            namespace=namespace or self.namespace,
            to=to,
            room=room,
            include_self=include_self,
            skip_sid=skip_sid,
            callback=callback,
            ignore_queue=ignore_queue,
        )

    def send(  # type: ignore[override]
        self,
        data: Any,
        room: Any = None,
        include_self: bool = True,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        skip_sid: Any = None,
        ignore_queue: bool = False,
    ) -> None:
        """Emit the event ``"message"``; see `emit`."""
        self.emit("message", data, room, include_self, namespace, callback, to, skip_sid, ignore_queue)

    def close_room(self, room: Hashable, namespace: str | None = None) -> None:
        """Take everybody out of a room."""
        assert self.socketio is not None
        self.socketio.close_room(room, namespace=namespace or self.namespace)


def _data(data: Any) -> tuple[Any, ...]:
    return () if data is None else (data,)
