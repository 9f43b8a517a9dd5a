"""Frame: one Engine.IO packet and its wire forms, each made at most once."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from ..websocket import frames

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
"""Packet types: the first character of a text packet. Source: Engine.IO 4, Packet encoding."""

SEPARATOR = "\x1e"
"""Between the packets of an HTTP payload."""


class Frame:
    """What every transport is handed.

    Attributes:
        message: The packet as message-level sockets send it: str (type and data), or bytes (always a message).
        websocket: The whole WebSocket frame.
        deflated: The same, compressed.
        polling: The packet as it stands in an HTTP payload.
    """

    __slots__ = ("deflated", "message", "polling", "websocket")

    message: str | bytes
    websocket: bytes
    deflated: bytes
    polling: str

    def __init__(self, message: str | bytes) -> None:
        self.message = message

    def __getattr__(self, name: str) -> bytes | str:
        # Only reached while the slot is empty; a recipient after the first pays for a plain attribute.
        message = self.message
        form: bytes | str
        text = isinstance(message, str)
        if name == "polling":
            form = message if isinstance(message, str) else "b" + b64encode(message).decode()
        elif name in ("websocket", "deflated"):
            # A lone surrogate has no UTF-8.
            payload = message.encode(errors="replace") if isinstance(message, str) else message
            opcode = frames.TEXT if text else frames.BINARY
            if name == "websocket":
                form = frames.encode(payload, opcode)
            else:
                form = frames.encode(frames.deflate(payload), opcode, rsv1=True)
        else:
            raise AttributeError(name)
        setattr(self, name, form)
        return form


class Joined(Frame):
    """Several packets that are sent as one piece; for transports on the byte level that don't compress."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> bytes | str:
        form: bytes | str
        if name == "websocket":
            form = b"".join([part.websocket for part in self._parts])
        elif name == "polling":
            form = SEPARATOR.join([part.polling for part in self._parts])
        else:
            raise AttributeError(name)
        setattr(self, name, form)
        return form
