"""Wire: another handle of a driver's socket, for what the driver has no call for."""

from __future__ import annotations

import _socket  # the operating system's sockets, also where gevent or eventlet has replaced the module above it
import os

from ..errors import BackplaneError

POSIX = os.name == "posix"


class Wire:
    """A handle of a connected socket that belongs to a thread.

    Args:
        descriptor: The socket's. It is duplicated, so nothing here can hit another one that has come to its number.
    """

    def __init__(self, descriptor: int) -> None:
        # The handles share whether they block, and a default timeout makes Python change it.
        blocking = not POSIX or os.get_blocking(descriptor)
        handle = _socket.socket(fileno=_socket.dup(descriptor))
        if POSIX:
            handle.settimeout(0)
            os.set_blocking(descriptor, blocking)
        self._handles = [handle]

    def readable(self) -> bool:
        """Return whether bytes, an end, or an error wait to be read. Only the owner may ask. Never waits."""
        if not POSIX:
            return False
        try:
            self._handles[0].recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (OSError, IndexError):
            pass
        return True

    def cut(self) -> None:
        """End the connection, so that whoever waits for it wakes up. Any thread may call this, and twice."""
        try:
            handle = self._handles.pop()  # so that only one thread has it
        except IndexError:
            return
        try:
            handle.shutdown(_socket.SHUT_RDWR)
        except OSError:
            pass
        handle.close()

    def drop(self) -> None:
        """Give the handle back. Only the owner may call this, when it closes the connection."""
        try:
            self._handles.pop().close()
        except IndexError:
            pass


class Wires:
    """The connections of a backplane, and whether it was closed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.closed = False
        self._wires: list[Wire] = []

    def add(self, descriptor: int) -> Wire:
        """Take a connection in.

        Raises:
            BackplaneError: The backplane was closed meanwhile.
        """
        wire = Wire(descriptor)
        self._wires.append(wire)
        if self.closed:  # asked after the append: whoever closes sees the wire, or is seen here
            self.remove(wire)
            self.check()
        return wire

    def remove(self, wire: Wire) -> None:
        """Forget a connection that its owner closes."""
        if wire in self._wires:
            self._wires.remove(wire)
        wire.drop()

    def check(self) -> None:
        """Raise BackplaneError when the backplane was closed."""
        if self.closed:
            raise BackplaneError(f"{self.url} was closed")

    def close(self) -> None:
        """End all. Any thread may call this, and twice."""
        self.closed = True
        for wire in tuple(self._wires):
            wire.cut()
