"""Manager: who is connected and in which rooms, for programs that ask the server's ``manager``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from .protocol.socketio.client import CONNECTED, CONNECTING
from .protocol.socketio.core import Core, arguments, as_sids


class Manager:
    """The clients of this process.

    Args:
        core: Holds them.

    .. versionadded:: 0.1.0
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def rooms(self) -> dict[str, dict[Hashable, dict[str, str]]]:
        """Namespace to room to sid to Engine.IO sid, as a copy. Room None is everybody."""
        return {
            namespace: {
                name: {client.sid: client.session.sid for client in rooms.members(name)} for name in rooms.names()
            }
            for namespace, rooms in list(self._core.rooms.items())
        }

    def get_namespaces(self) -> list[str]:
        """Return the namespaces that somebody is in."""
        return [namespace for namespace, clients in list(self._core.clients.items()) if clients]

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """Yield (sid, Engine.IO sid) of each client in a room; room None is everybody."""
        for client in self._core.targets(namespace, room):
            yield client.sid, client.session.sid

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Whether a client is in; no longer true while its disconnect handler runs."""
        client = self._core.client(sid, namespace)
        return client is not None and client.state in (CONNECTING, CONNECTED)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the sid that a connection has in a namespace, or None."""
        for client in self._core.targets(namespace, None):
            if client.session.sid == eio_sid:
                return client.sid
        return None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the Engine.IO sid of a client, or None."""
        client = self._core.client(sid, namespace)
        return None if client is None else client.session.sid

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        """Return the rooms of a client."""
        return self._core.rooms_of(sid, namespace)

    def enter_room(self, sid: str, namespace: str, room: Hashable, eio_sid: str | None = None) -> None:
        """Put a client into a room; errors as in `flask_realtime.socketio.Server.enter_room`."""
        self._core.enter_room(sid, room, namespace)

    def leave_room(self, sid: str, namespace: str, room: Hashable) -> None:
        """Take a client out of a room."""
        self._core.leave_room(sid, room, namespace)

    def close_room(self, room: Hashable, namespace: str) -> None:
        """Take everybody out of a room."""
        self._core.close_room(room, namespace)

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        **options: Any,
    ) -> None:
        """As `flask_realtime.socketio.Server.emit`."""
        self._core.emit(event, arguments(data), namespace, room if to is None else to, as_sids(skip_sid), callback)

    def disconnect(self, sid: str, namespace: str, **options: Any) -> None:
        """End a client's part in a namespace."""
        self._core.disconnect(sid, namespace)
