"""Envelope: messages between processes, as JSON that python-socketio understands, to bytes and back.

What says who is meant stands before the payload, so that a process where nobody is meant reads no further: `open_` then
parses the head only. python-socketio writes the payload first; there it is the tail that is parsed.

Source: python-socketio's pub/sub managers; reference of this package: docs/architecture.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import RemoteProtocolError
from .packets import EVENT, Packet, TextCodec, reconstruct

EMIT, CALLBACK, DISCONNECT = "emit", "callback", "disconnect"
ENTER, LEAVE, CLOSE = "enter_room", "leave_room", "close_room"
HELLO, BEAT, BYE, QUERY, ANSWER = "hello", "beat", "bye", "query", "answer"
"""What a message may ask for. The last line is ours alone; python-socketio passes over it."""

_BODY = b',"binary":'  # begins the body of our messages; within JSON text its quotes would be escaped
_TAIL = b', "namespace": '  # begins the tail of python-socketio's
# Most messages: nobody is skipped, nothing is called back, and no name has anything to escape.
_PLAIN = re.compile(
    rb'\{"method":"emit","namespace":"([^"\\\x80-\xff]*)","room":(?:null|"([^"\\\x80-\xff]*)"),'
    rb'"skip_sid":null,"callback":null,"host_id":"([^"\\\x80-\xff]*)","n":([0-9]{1,18}),"binary":'
)
_SIGNED = b'{"signature":"'
_DIGITS = 64

WINDOW = 300
"""Seconds that a signed message is good for."""


def write(method: str, fields: dict[str, Any], body: str = "") -> bytes:
    """Write a message.

    Args:
        method: What it asks for.
        fields: Who is meant, and so on.
        body: See `event_body` and `args_body`.

    Raises:
        TypeError: A value isn't JSON: a room must be text, a number, or a list of these.
    """
    text = json.dumps({"method": method, **fields}, separators=(",", ":"))
    return f"{text[:-1]}{body}}}".encode()


def event_body(codec: TextCodec, event: Any, args: Sequence[Any]) -> str:
    """Return the body of an emit.

    Args:
        codec: How the arguments become JSON.
        event: Its name.
        args: Its arguments.

    Raises:
        TypeError: A value can't be sent.
        ValueError: The data contains itself.
    """
    data, binary = pack(codec, args)
    return f',"binary":{binary},"event":{json.dumps(event)},"data":{data}'


def args_body(codec: TextCodec, args: Sequence[Any]) -> str:
    """Return the body of a callback; see `event_body`."""
    data, binary = pack(codec, args)
    return f',"args":{data}' if binary == "false" else f',"binary":true,"args":{data}'


def pack(codec: TextCodec, args: Sequence[Any]) -> tuple[str, str]:
    """Return arguments as JSON, and whether there is binary data among them, as JSON too."""
    text, *attachments = codec.encode(Packet(EVENT, "/", None, list(args)))
    assert isinstance(text, str)
    text = text[text.index("[") :]
    if not attachments:
        return text, "false"
    parts = [json.dumps(base64.b64encode(part).decode()) for part in attachments if isinstance(part, bytes)]
    return f"[{','.join((text, *parts))}]", "true"


def unpack(codec: TextCodec, data: Any, binary: Any) -> list[Any]:
    """Return the arguments of a message that was read.

    Raises:
        RemoteProtocolError: They are none.
    """
    if binary:
        if not isinstance(data, list) or not data or not all(isinstance(part, str) for part in data[1:]):
            raise RemoteProtocolError("expected binary data as a list of a structure and texts")
        try:
            parts = [base64.b64decode(part, validate=True) for part in data[1:]]
        except binascii.Error as error:
            raise RemoteProtocolError(f"the binary data isn't base64: {error}") from None
        data = reconstruct(data[0], parts)
    if not isinstance(data, (list, tuple)):
        raise RemoteProtocolError(f"expected data as a list, got {type(data).__name__}")
    return list(data)


def head(data: bytes) -> dict[str, Any]:
    """Return what a message says before, or behind, its payload; all of it when that can't be told apart.

    Raises:
        RemoteProtocolError: It is no message.
    """
    match = _PLAIN.match(data)
    if match is not None:
        namespace, room, host, number = match.groups()
        return {
            "method": EMIT,
            "namespace": namespace.decode(),
            "room": None if room is None else room.decode(),
            "skip_sid": None,
            "callback": None,
            "host_id": host.decode(),
            "n": int(number),
        }
    part = b""
    if data.startswith(b'{"method":"emit",'):
        end = data.find(_BODY)
        part = data[:end] + b"}" if end > 0 else b""
    elif data.startswith(b'{"method": "emit",'):
        # Were it within the payload, more brackets would follow, and this were no JSON.
        start = data.rfind(_TAIL)
        part = b'{"method": "emit"' + data[start:] if start > 0 else b""
    if part:
        try:
            found = json.loads(part)
            if "host_id" in found and "room" in found:
                return found  # type: ignore[no-any-return]
        except (ValueError, RecursionError):
            pass
    return whole(data)


def whole(data: bytes) -> dict[str, Any]:
    """Return all of a message.

    Raises:
        RemoteProtocolError: It is no message.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"expected JSON: {ascii(str(error))[1:-1][:100]}") from None
    if not isinstance(message, dict) or not isinstance(message.get("method"), str):
        raise RemoteProtocolError("expected an object with a method")
    return message


class Seal:
    """Signs messages with a secret (HMAC-SHA256), and knows the signed ones.

    Args:
        secret: Shared by all processes.
        clock: Returns the time of day in seconds.
    """

    def __init__(self, secret: str | bytes, clock: Callable[[], float]) -> None:
        self._key = hmac.new(secret.encode() if isinstance(secret, str) else secret, None, hashlib.sha256)
        self._clock = clock

    def _digest(self, data: bytes) -> bytes:
        mac = self._key.copy()
        mac.update(data)
        return mac.hexdigest().encode()

    def sign(self, data: bytes) -> bytes:
        """Return a message with its signature; JSON as before."""
        rest = b'"time":%.3f,' % self._clock() + data[1:]
        return b'%b%b",%b' % (_SIGNED, self._digest(rest), rest)

    def now(self) -> float:
        """Return the time of day in seconds, as it is signed."""
        return round(self._clock(), 3)

    def open(self, data: bytes) -> tuple[bytes, float]:
        """Return a message without its signature, and when it was signed.

        Raises:
            RemoteProtocolError: It has none, or a wrong one, or is too old.
        """
        start = len(_SIGNED)
        end = start + _DIGITS
        if not data.startswith(_SIGNED) or data[end : end + 2] != b'",':
            raise RemoteProtocolError("expected a signed message")
        rest = data[end + 2 :]
        if not hmac.compare_digest(self._digest(rest), data[start:end]):
            raise RemoteProtocolError("expected a signature made with our secret")
        comma = rest.index(b",")
        signed = float(rest[len(b'"time":') : comma])
        if abs(self._clock() - signed) > WINDOW:
            raise RemoteProtocolError(f"expected a message of the last {WINDOW} seconds; do the clocks agree?")
        return b"{" + rest[comma + 1 :], signed
