"""Who is where."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client


class Rooms:
    """The rooms of one namespace. Room None is everybody.

    `members` hands out a tuple that is kept until the room changes: iterate over it freely, from any thread.

    Args:
        lock: Guards entering, leaving and the making of the tuples.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._rooms: dict[Hashable, dict[Client, None]] = {}
        self._kept: dict[Hashable, tuple[Client, ...]] = {}

    def enter(self, client: Client, *rooms: Hashable) -> bool:
        """Put a client into rooms; False when it has left for good."""
        with self._lock:
            if client.rooms is None:
                return False
            for room in rooms:
                self._rooms.setdefault(room, {})[client] = None
                self._kept.pop(room, None)
                client.rooms[room] = None
        return True

    def leave(self, client: Client, room: Hashable) -> None:
        """Take a client out of one room; nothing happens when it isn't there."""
        with self._lock:
            if client.rooms is not None and room in client.rooms:
                del client.rooms[room]
                self._remove(client, room)

    def leave_all(self, client: Client) -> None:
        """Take a client out of all rooms, for good."""
        with self._lock:
            rooms, client.rooms = client.rooms, None
            for room in rooms or ():
                self._remove(client, room)

    def close(self, room: Hashable) -> None:
        """Take everybody out of one room."""
        with self._lock:
            self._kept.pop(room, None)
            for client in self._rooms.pop(room, ()):
                if client.rooms is not None:
                    client.rooms.pop(room, None)

    def members(self, room: Hashable) -> tuple[Client, ...]:
        """Return who is in a room."""
        kept = self._kept.get(room)
        if kept is None:
            if room not in self._rooms:  # don't keep a tuple for every name that was ever asked for
                return ()
            with self._lock:  # or one who enters meanwhile would be missed until the room's next change
                kept = tuple(self._rooms.get(room, ()))
                if kept:
                    self._kept[room] = kept
        return kept

    def union(self, rooms: Iterable[Hashable]) -> tuple[Client, ...]:
        """Return who is in any of the rooms, each once."""
        everyone: dict[Client, None] = {}
        for room in rooms:
            everyone.update(dict.fromkeys(self.members(room)))
        return tuple(everyone)

    def names(self) -> list[Hashable]:
        """Return the names of all rooms that have members."""
        with self._lock:
            return list(self._rooms)

    def _remove(self, client: Client, room: Hashable) -> None:
        members = self._rooms.get(room)
        if members is not None:
            members.pop(client, None)
            if not members:
                del self._rooms[room]
        self._kept.pop(room, None)
