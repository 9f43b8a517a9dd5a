"""Frame: one Engine.IO packet and its wire forms, each made at most once."""

from __future__ import annotations

from base64 import b64encode

from ..websocket import frames

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
"""Packet types: the first character of a text packet. Source: Engine.IO 4, Packet encoding."""


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
        if name == "polling":
            form = message if isinstance(message, str) else "b" + b64encode(message).decode()
        elif isinstance(message, str):
            payload = message.encode(errors="replace")  # a lone surrogate has no UTF-8
            form = self._frame(name, payload, frames.TEXT)
        else:
            form = self._frame(name, message, frames.BINARY)
        setattr(self, name, form)
        return form

    @staticmethod
    def _frame(name: str, payload: bytes, opcode: int) -> bytes:
        if name == "websocket":
            return frames.encode(payload, opcode)
        if name == "deflated":
            return frames.encode(frames.deflate(payload), opcode, rsv1=True)
        raise AttributeError(name)
