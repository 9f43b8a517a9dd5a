"""Send and receive without giving the interpreter lock away.

`socket.send` gives the lock away for two microseconds' work. When another thread computes meanwhile, it keeps the lock
for a switch interval, 5 ms, so one computing handler would slow every delivery of all others down to that. These calls
never wait, so they may well keep the lock. Where there is no ``ctypes`` or no C library, the socket's own are used.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

SIZE = 65536
"""Bytes received at a time at most; more than so many are sent without the lock."""

FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

_PEEK = getattr(socket, "MSG_PEEK", 0)

send: Any = None
"""``send(descriptor, data, len(data), FLAGS)``: bytes taken, or -1: ask the socket itself why; None where it isn't."""
_recv: Any = None
_shutdown: Any = None

try:
    import ctypes

    if FLAGS:
        _libc = ctypes.PyDLL(None)
        send, _recv = _libc.send, _libc.recv
        send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        _recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        send.restype = _recv.restype = ctypes.c_ssize_t
        _shutdown = _libc.shutdown
        _shutdown.argtypes = (ctypes.c_int, ctypes.c_int)
except (ImportError, AttributeError, OSError, TypeError):
    send = _recv = _shutdown = None


def is_tls(sock: Any) -> bool:
    """Whether a socket, of whichever library, encrypts."""
    return isinstance(sock, ssl.SSLSocket) or hasattr(sock, "pending")


def end_reading(sock: Any) -> None:
    """Let whoever reads from a socket read its end; below TLS, which would take it for the end of all."""
    _end(sock, socket.SHUT_RD)


def end_writing(sock: Any) -> None:
    """Let the peer read the end; below TLS, too."""
    _end(sock, socket.SHUT_WR)


def _end(sock: Any, how: int) -> None:
    if _shutdown is not None:
        _shutdown(sock.fileno(), how)
        return
    try:
        socket.socket.shutdown(sock, how)
    except (OSError, TypeError):
        pass  # it has ended meanwhile


def offer(sock: Any, descriptor: int, data: bytes | bytearray) -> int:
    """Send what the socket takes now; return how many bytes that was.

    Args:
        sock: A non-blocking socket.
        descriptor: Its number.
        data: To be sent.

    Raises:
        OSError: As ``sock.send`` raises it; BlockingIOError when it takes nothing.
    """
    if send is not None and type(data) is bytes and len(data) <= SIZE:
        taken = int(send(descriptor, data, len(data), FLAGS))
        if taken >= 0:
            return taken
    return int(sock.send(data))


def peek(make: Any, sock: Any) -> bytes:
    """Look at what has come to a socket, below TLS; b"" at the end.

    Args:
        make: Makes a socket of a descriptor.
        sock: The socket.

    Raises:
        OSError: As ``recv`` raises it; BlockingIOError when nothing is there.
    """
    if not FLAGS:  # no POSIX
        return socket.socket.recv(sock, 1, _PEEK)
    plain = make(fileno=os.dup(sock.fileno()))
    try:
        data: bytes = plain.recv(1, FLAGS | _PEEK)
        return data
    finally:
        plain.close()


class Receiver:
    """Receives for one thread."""

    __slots__ = ("_address", "_view")

    def __init__(self) -> None:
        buffer = bytearray(SIZE)
        self._view = memoryview(buffer)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if _recv is not None else 0

    def recv(self, sock: Any, descriptor: int, most: int = SIZE, peek: bool = False) -> bytes:
        """Return what came; b"" at the end.

        Args:
            sock: A non-blocking socket.
            descriptor: Its number.
            most: Bytes, `SIZE` at most.
            peek: Whether it is left where it is, too.

        Raises:
            OSError: As ``sock.recv`` raises it; BlockingIOError when nothing is there.
        """
        if _recv is not None:
            size = _recv(descriptor, self._address, most, FLAGS | _PEEK if peek else FLAGS)
            if size >= 0:
                return bytes(self._view[:size])
        data: bytes = sock.recv(most, _PEEK if peek else 0)
        return data
