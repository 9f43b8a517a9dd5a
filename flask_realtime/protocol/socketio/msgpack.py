"""Socket.IO packets as MessagePack, the other coding: the same two functions."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from typing import Any

import msgpack  # type: ignore[import-untyped]

from ...errors import RemoteProtocolError
from .packets import Limits, Message, Packet, validate

_UNDEFINED = object()


class MsgpackCodec:
    """Each packet is one binary message with a map of ``type``, ``nsp``, ``data`` and ``id``.

    Args:
        default: Turns a value that MessagePack doesn't know into one that it does, or raises TypeError.

    Source: socket.io-msgpack-parser 3.
    """

    def __init__(self, default: Any = None) -> None:
        self._default = default

    def encode(self, packet: Packet) -> list[Message]:
        """Return the one message.

        Raises:
            TypeError: A value can't be sent.
        """
        kind, namespace, number, data = packet
        fields: dict[str, Any] = {"type": kind, "nsp": namespace}
        if data is not None:
            fields["data"] = data
        if number is not None:
            fields["id"] = number
        try:
            return [msgpack.packb(fields, use_bin_type=True, datetime=False, default=self._default)]
        except (OverflowError, ValueError, RecursionError) as error:  # large integers, lone surrogates, depth
            raise TypeError(f"can't be sent as MessagePack: {error}") from error

    def decoder(self, limits: Limits, from_server: bool = False) -> MsgpackDecoder:
        """Make the decoder of one connection."""
        return MsgpackDecoder(limits, from_server)


class MsgpackDecoder:
    """Messages to packets."""

    __slots__ = ("_from_server", "_limits")

    def __init__(self, limits: Limits, from_server: bool) -> None:
        self._limits, self._from_server = limits, from_server

    def feed(self, message: Message) -> Packet | None:
        """Take one message and return its packet.

        Raises:
            RemoteProtocolError: It isn't what the protocol allows.
        """
        if isinstance(message, str):
            raise RemoteProtocolError("expected MessagePack, got text; the client needs the msgpack parser")
        try:
            fields = msgpack.unpackb(message, raw=False, ext_hook=_extension, strict_map_key=True)
        except Exception as error:  # the library has errors of many kinds, all of them mean bad input
            raise RemoteProtocolError(f"the message isn't MessagePack: {type(error).__name__}") from None
        if not isinstance(fields, dict):
            raise RemoteProtocolError(f"expected a packet as a map, got {type(fields).__name__}")
        kind, namespace, number = fields.get("type"), fields.get("nsp"), _defined(fields.get("id"))
        if type(kind) is not int or not 0 <= kind <= 4:
            raise RemoteProtocolError(f"expected a packet type of 0 to 4, got {ascii(kind)[:20]}")
        if not isinstance(namespace, str) or namespace[:1] != "/" or len(namespace) > self._limits.namespace:
            raise RemoteProtocolError("expected a namespace that begins with a slash")
        if number is not None and (type(number) is not int or number < 0):
            raise RemoteProtocolError("expected an id as a number")
        try:
            data = self._clean(_defined(fields.get("data")), self._limits.depth)
        except RecursionError:
            raise RemoteProtocolError("nested too deep", 1009) from None
        packet = Packet(kind, namespace, number, data)
        validate(packet, self._from_server)
        return packet

    def _clean(self, data: Any, depth: int) -> Any:
        """Replace what JavaScript calls undefined, and bound the depth."""
        if data is _UNDEFINED:
            return None
        if isinstance(data, (list, dict)):
            if not depth:
                raise RemoteProtocolError(f"expected at most {self._limits.depth} levels", 1009)
            if isinstance(data, list):
                return [self._clean(item, depth - 1) for item in data]
            return {key: self._clean(value, depth - 1) for key, value in data.items()}
        return data


def _extension(code: int, data: bytes) -> Any:
    # The JavaScript library sends undefined as type 0 with one byte, and Date with eight: milliseconds.
    if code == 0 and len(data) == 1:
        return _UNDEFINED
    if code == 0 and len(data) == 8:
        return datetime.fromtimestamp(struct.unpack("!q", data)[0] / 1000, timezone.utc)
    return msgpack.ExtType(code, data)


def _defined(value: Any) -> Any:
    return None if value is _UNDEFINED else value
