"""Socket.IO packets to text and attachments, and back."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from ...errors import RemoteProtocolError

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)

RESERVED = frozenset(("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"))
"""Event names that no client may send. Source: the reference parser, RESERVED_EVENTS."""

Message = str | bytes


class Packet(NamedTuple):
    """One packet.

    Attributes:
        type: `CONNECT` to `BINARY_ACK`; a decoded packet is never one of the binary two.
        namespace: Begins with a slash.
        id: For events that want an acknowledgement, and for acknowledgements.
        data: The payload: a list for events (name first) and acknowledgements.
    """

    type: int
    namespace: str = "/"
    id: int | None = None
    data: Any = None


class Limits(NamedTuple):
    """Bounds of what a client may send.

    Attributes:
        attachments: Binary parts of one packet.
        attachment_bytes: Their size together.
        depth: Levels of lists and objects in a payload.
        namespace: Characters of a namespace's name.
        id_digits: Digits of an acknowledgement's number.
        memory: Bytes that a payload may take once it is parsed, about. A megabyte of ``{},{}`` takes 24.
    """

    attachments: int = 10
    attachment_bytes: int = 1_000_000
    depth: int = 64
    namespace: int = 256
    id_digits: int = 20
    memory: int = 6_000_000


class Decoder(Protocol):
    """Messages of one connection to packets."""

    def feed(self, message: Message) -> Packet | None: ...


class Codec(Protocol):
    """How packets become messages; one for each server."""

    def encode(self, packet: Packet) -> list[Message]: ...

    def decoder(self, limits: Limits, from_server: bool = False) -> Decoder: ...


class Json(Protocol):
    """What is needed of a custom ``json``: the two functions of the module of that name."""

    def dumps(self, obj: Any, **kwargs: Any) -> str: ...

    def loads(self, s: Any, **kwargs: Any) -> Any: ...


class _Binary(Exception):
    """There is something in the data that JSON doesn't know: encode again and collect it."""


def _stop(value: Any) -> Any:
    raise _Binary


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} isn't JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_scan: Any = getattr(_DECODER, "scan_once", None)


def _make_encode() -> Callable[[Any, int], Sequence[str]]:
    """Return what turns plain data, on a level of 0, into pieces of JSON, the fastest way there is.

    An encoder of the standard module makes its core, in C, anew for each call, which costs as much as a small payload.
    So the core is made once here, if it is as it was in all versions yet. It doesn't look for data that contains
    itself: that ends as a RecursionError. NaN isn't JSON: see `_finite`.
    """
    whole = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_stop)
    sample = ["a", {"b": 1.5}]
    try:
        core: Any = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
            None, _stop, json.encoder.encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(core(sample, 0)) == whole.encode(sample):
            return core  # type: ignore[no-any-return]
    except (AttributeError, TypeError):  # another Python
        pass
    return lambda data, level: (whole.encode(data),)


_encode = _make_encode()


class TextCodec:
    """The default coding.

    Args:
        json: A module or object with ``dumps`` and ``loads`` instead of the standard ones.
        default: Turns a value that JSON doesn't know into one that it does, or raises TypeError.
    """

    def __init__(self, json: Json | None = None, default: Callable[[Any], Any] | None = None) -> None:
        self._json, self._default = json, default
        self.loads: Callable[[str], Any] = _DECODER.decode if json is None else json.loads
        """Parses JSON; raises ValueError for anything else."""
        self.scan: Callable[[str, int], tuple[Any, int]] | None = _scan if json is None else None
        """Parses the value at an index, and tells where it ends; raises StopIteration where there is none."""

    def encode(self, packet: Packet) -> list[Message]:
        """Return the text, and behind it the attachments in the order of their numbers.

        Raises:
            TypeError: A value can't be sent; the message names its type.
            ValueError: The data contains itself.
        """
        kind, namespace, number, data = packet
        attachments: list[Message] = []
        text = ""
        if data is not None:
            plain = self._json is None
            if plain:
                try:
                    text = "".join(_encode(data, 0))
                    if not text.isascii():
                        text = _escape_surrogates(text)
                except (_Binary, ValueError, RecursionError):
                    plain = False  # and on outside of the handler, so that errors of the data don't show ours
            if not plain:
                text = self._payload(data, attachments)
        head = str(kind)
        if attachments:
            if kind not in (EVENT, ACK):
                raise TypeError("bytes can only be sent in events and acknowledgements")
            head = f"{BINARY_EVENT if kind == EVENT else BINARY_ACK}{len(attachments)}-"
        if namespace != "/":
            head += namespace + ","
        if number is not None:
            head += str(number)
        return [head + text, *attachments]

    def _payload(self, data: Any, attachments: list[Message]) -> str:
        """Return as JSON what the kept encoder doesn't take; binary values go to ``attachments`` in the same walk."""
        if self._json is not None:
            return _escape_surrogates(self._custom(data, attachments))
        try:
            return _escape_surrogates(self._collect(data, attachments))
        except RecursionError:
            raise ValueError("the data contains itself or is nested too deep") from None

    def _collect(self, data: Any, attachments: list[Message]) -> str:
        del attachments[:]

        def default(value: Any) -> Any:
            if isinstance(value, (bytes, bytearray, memoryview)):
                attachments.append(bytes(value))
                return {"_placeholder": True, "num": len(attachments) - 1}
            if self._default is not None:
                return _finite(self._default(value))
            raise TypeError(f"can't send a value of type {type(value).__name__}")

        encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=default)
        try:
            return encoder.encode(data)
        except ValueError as error:
            if "Out of range" not in str(error):
                raise
            del attachments[:]
            return encoder.encode(_finite(data))

    def _custom(self, data: Any, attachments: list[Message]) -> str:
        assert self._json is not None
        text = self._json.dumps(_deconstruct(data, attachments), separators=(",", ":"))
        return text if "\x1e" not in text else text.replace("\x1e", "\\u001e")

    def decoder(self, limits: Limits, from_server: bool = False) -> TextDecoder:
        """Make the decoder of one connection."""
        return TextDecoder(self, limits, from_server)


# One match finds the head of a packet. Source: Socket.IO 5, Packet encoding.
_HEAD = re.compile(r"(?:([0-4])|([56])([0-9]{1,10})-)(?:(/[^,]*)(?:,|$))?([0-9]*)")


class TextDecoder:
    """Messages of one connection to packets: text, and the attachments that follow it."""

    __slots__ = ("_from_server", "_limits", "_loads", "_parts", "_pending", "_scan", "_size", "_wanted")

    def __init__(self, codec: TextCodec, limits: Limits, from_server: bool) -> None:
        self._loads, self._scan, self._limits, self._from_server = codec.loads, codec.scan, limits, from_server
        self._pending: Packet | None = None
        self._parts: list[bytes] = []
        self._size = self._wanted = 0

    def feed(self, message: Message) -> Packet | None:
        """Take one message; return the packet that it completes, or None when attachments are missing.

        Raises:
            RemoteProtocolError: It isn't what the protocol allows. The decoder is of no further use.

        Source: Socket.IO 5, Packet encoding; PROTOCOL: Payload rules.
        """
        if isinstance(message, bytes):
            return self._attach(message)
        if self._pending is not None:
            raise RemoteProtocolError(f"expected attachment {len(self._parts) + 1} of {self._wanted}, got text")
        match = _HEAD.match(message)
        if match is None:
            raise RemoteProtocolError(f"not a Socket.IO packet: {message[:20]!a}")
        plain, binary, count, namespace, number = match.groups()
        limits = self._limits
        if len(number) > limits.id_digits:
            raise RemoteProtocolError(f"expected an id of at most {limits.id_digits} digits, got {len(number)}")
        if namespace is not None and len(namespace) > limits.namespace:
            raise RemoteProtocolError(f"expected a namespace of at most {limits.namespace} characters")
        kind = int(plain or binary)
        start, size = match.end(), len(message)
        data = None
        if size > start:  # parsed where it stands: a copy of a large message would count
            # Most have no more brackets than the first one, and a look is cheaper than a count.
            nested = message.find("[", start + 1) > 0 or message.find("{", start) > 0
            if nested and message.count("[", start) + message.count("{", start) > limits.depth:
                check_depth(message[start:], limits.depth)
            if size > _SMALL:
                check_memory(message, limits.memory)
            try:
                try:
                    data, end = (None, -1) if self._scan is None else self._scan(message, start)
                except StopIteration:
                    end = -1
                if end != size:  # white space around it, or no JSON
                    data = self._loads(message[start:])
            except (ValueError, RecursionError) as error:
                raise RemoteProtocolError(f"the payload isn't JSON: {ascii(str(error))[1:-1][:100]}") from None
        elif kind not in (CONNECT, DISCONNECT):
            raise RemoteProtocolError(f"a packet of type {kind} without a payload")
        packet = Packet(kind, namespace or "/", int(number) if number else None, data)
        if not binary:
            # The plain event, which most packets are, is seen to be right without a call.
            name = data[0] if kind == EVENT and type(data) is list and data else None
            if type(name) is not str or name in RESERVED:
                validate(packet, self._from_server)
            return packet
        packet = packet._replace(type=EVENT if kind == BINARY_EVENT else ACK)
        validate(packet, self._from_server)
        wanted = int(count)
        if wanted > limits.attachments:
            raise RemoteProtocolError(f"expected at most {limits.attachments} attachments, got {wanted}", 1009)
        if wanted == 0:
            return packet._replace(data=reconstruct(packet.data, []))
        self._pending, self._wanted, self._parts, self._size = packet, wanted, [], 0
        return None

    def _attach(self, part: bytes) -> Packet | None:
        packet = self._pending
        if packet is None:
            raise RemoteProtocolError("an attachment that belongs to no packet")
        self._size += len(part)
        if self._size > self._limits.attachment_bytes:
            raise RemoteProtocolError(f"attachments of more than {self._limits.attachment_bytes} bytes together", 1009)
        self._parts.append(part)
        if len(self._parts) < self._wanted:
            return None
        parts, self._pending, self._parts = self._parts, None, []
        return packet._replace(data=reconstruct(packet.data, parts))


def validate(packet: Packet, from_server: bool = False) -> None:
    """Check what the protocol says of each type's payload.

    Args:
        packet: Decoded, its type not one of the binary two.
        from_server: Whether a server sent it.

    Raises:
        RemoteProtocolError: It is broken.

    Source: Socket.IO 5, Packet types.
    """
    kind, _, number, data = packet
    if kind == EVENT:
        if not isinstance(data, list) or not data:
            raise RemoteProtocolError("expected an event as a non-empty list")
        name = data[0]
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise RemoteProtocolError(f"expected an event name as a string, got {type(name).__name__}")
        if name in RESERVED:
            raise RemoteProtocolError(f"the event name {name!r} is reserved")
    elif kind == ACK:
        if number is None:
            raise RemoteProtocolError("an acknowledgement without an id")
        if not isinstance(data, list):
            raise RemoteProtocolError(f"expected an acknowledgement as a list, got {type(data).__name__}")
    elif kind == CONNECT:
        if data is not None and not isinstance(data, dict):
            raise RemoteProtocolError(f"expected auth as an object, got {type(data).__name__}")
    elif kind == DISCONNECT:
        if data is not None and not from_server:  # a late refusal comes with its reason
            raise RemoteProtocolError("a disconnect packet with a payload")
    elif not from_server:
        raise RemoteProtocolError("connect_error comes from servers only")
    elif not isinstance(data, (str, dict)):
        raise RemoteProtocolError(f"expected an error as text or object, got {type(data).__name__}")


_SMALL = 16384  # characters of JSON that can't take much memory


def check_memory(text: str, limit: int) -> None:
    """Refuse JSON of very many small values, which take many times as much memory as their text.

    Raises:
        RemoteProtocolError: It would take more than ``limit`` bytes, about.
    """
    # What CPython takes for a list or dict, half of a string with its two quotes, and a place with perhaps a number.
    cost = 72 * (text.count("{") + text.count("[")) + 24 * (text.count('"') + text.count(",")) + len(text)
    if cost > limit:
        raise RemoteProtocolError(f"expected JSON of values that take at most {limit} bytes, got about {cost}", 1009)


# Brackets become steps up (1) and down (-1 as a signed byte), quotes stay, all else goes.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_ELSE = bytes(set(range(256)) - set(b'[]{}"'))
_SLICE = 65_536


def check_depth(text: str, limit: int) -> None:
    """Refuse JSON that is nested deeper than ``limit``, before anything is built of it.

    Takes linear time, and little more memory than the text has; what is too deep is noticed where it is.

    Raises:
        RemoteProtocolError: It is.
    """
    # Without escaped backslashes and quotes, each quote that is left begins or ends a string.
    plain = text.replace("\\\\", "").replace('\\"', "") if "\\" in text else text
    depth = inside = 0
    for start in range(0, len(plain), _SLICE):
        data = plain[start : start + _SLICE].encode(errors="replace").translate(_STEPS, _ELSE)
        parts = data.split(b'"')
        steps = array("b", b"".join(parts[inside::2]))
        inside = (inside + len(parts) - 1) % 2
        if max(accumulate(steps, initial=depth)) > limit:
            raise RemoteProtocolError(f"expected JSON of at most {limit} levels", 1009)
        depth += sum(steps)


def reconstruct(data: Any, parts: Sequence[bytes]) -> Any:
    """Put the attachments where their placeholders are. ``data`` is fresh from the parser and not deep."""
    if isinstance(data, list):
        return [reconstruct(item, parts) for item in data]
    if isinstance(data, dict):
        if data.get("_placeholder") is True:
            number = data.get("num")
            # Source: PROTOCOL: "num must be an integer, 0 <= num < count"
            if type(number) is not int or not 0 <= number < len(parts):
                raise RemoteProtocolError(f"placeholder {ascii(number)[:20]} of {len(parts)} attachments")
            return parts[number]
        return {key: reconstruct(value, parts) for key, value in data.items()}
    return data


def _deconstruct(data: Any, attachments: list[Message]) -> Any:
    """Replace binary values by placeholders; for custom JSON modules, which have no common hook for it."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        attachments.append(bytes(data))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(data, (list, tuple)):
        return [_deconstruct(item, attachments) for item in data]
    if isinstance(data, dict):
        return {key: _deconstruct(value, attachments) for key, value in data.items()}
    return data


def _escape_surrogates(text: str) -> str:
    """Escape lone surrogates, which have no UTF-8; JavaScript sends them so."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
    return text


def _finite(data: Any) -> Any:
    """Replace NaN and the infinities by None, as JavaScript does; a copy where needed."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, (list, tuple)):
        return [_finite(item) for item in data]
    if isinstance(data, dict):
        return {_finite(key): _finite(value) for key, value in data.items()}
    return data
