"""Who is here, in which room, and what was said lately: the app's only state, kept in memory."""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

HISTORY = 50  # messages kept for each room


@dataclass
class Person:
    """Somebody with an open page.

    Attributes:
        name: The name shown to the others; nobody else has it.
        key: A secret of the browser tab. Whoever has it may take the name over, so a reload need not wait.
        sid: The connection.
        room: The room the person is in, or None before the first one.
    """

    name: str
    key: str
    sid: str
    room: str | None = None


class Lobby:
    """All people and rooms. Handlers run in many threads, so every method holds the lock; none of them waits."""

    def __init__(self, rooms: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._people: dict[str, Person] = {}  # by sid
        self._names: dict[str, Person] = {}  # by casefolded name
        self._rooms: dict[str, deque[dict[str, Any]]] = {room: deque(maxlen=HISTORY) for room in rooms}
        self._revision = 0

    def claim(self, name: str, key: str, sid: str) -> Person | None:
        """Give a name to a connection. Who has an older connection with the same key goes on in its place.

        Returns:
            The older connection, which has lost the name; None when there was none.

        Raises:
            ValueError: When somebody else has the name.
        """
        with self._lock:
            old = self._names.get(name.casefold())
            if old and (not key or old.key != key):
                raise ValueError(name)
            if old:
                del self._people[old.sid]
            person = Person(name, key, sid, old.room if old else None)
            self._people[sid] = self._names[name.casefold()] = person
            return old

    def enter(self, sid: str, room: str) -> str | None:
        """Move a person to a room.

        Returns:
            The room the person was in before, or None.

        Raises:
            KeyError: When the person has left meanwhile.
        """
        with self._lock:
            person = self._people[sid]
            before, person.room = person.room, room
            return before

    def leave(self, sid: str) -> Person | None:
        """Forget a connection and free its name.

        Returns:
            Who it was; None when the name had gone over to a newer connection.
        """
        with self._lock:
            person = self._people.pop(sid, None)
            if person:
                del self._names[person.name.casefold()]
            return person

    def person(self, sid: str) -> Person | None:
        """Find out whose connection this is."""
        with self._lock:
            return self._people.get(sid)

    def present(self, room: str) -> dict[str, Any]:
        """List the names in a room, with a number that grows: of two lists, the one with the higher number is newer."""
        with self._lock:
            self._revision += 1
            names = sorted((person.name for person in self._people.values() if person.room == room), key=str.casefold)
            return {"room": room, "names": names, "revision": self._revision}

    def count(self) -> dict[str, int]:
        """Count the people in each room."""
        with self._lock:
            inside = [person.room for person in self._people.values()]
            return {room: inside.count(room) for room in self._rooms}

    def sids(self) -> list[str]:
        """List the connections of everybody."""
        with self._lock:
            return list(self._people)

    def remember(self, room: str, message: dict[str, Any]) -> bool:
        """Keep a message for those who come later.

        Returns:
            False when it is known already: the sender had not seen our answer and tried again.
        """
        with self._lock:
            messages = self._rooms[room]
            if any(known["id"] == message["id"] for known in messages):
                return False
            messages.append(message)
            return True

    def history(self, room: str) -> list[dict[str, Any]]:
        """List a room's last messages, oldest first."""
        with self._lock:
            return list(self._rooms[room])
