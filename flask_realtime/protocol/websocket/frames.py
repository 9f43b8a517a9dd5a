"""Messages to unmasked frames (server to client), made once and shared by all recipients of a broadcast."""

from __future__ import annotations

import struct
import zlib

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

NORMAL, GOING_AWAY, PROTOCOL, INVALID, POLICY, TOO_BIG, INTERNAL, RESTART = (
    1000,
    1001,
    1002,
    1007,
    1008,
    1009,
    1011,
    1012,
)
"""Close codes that we send. Source: RFC 6455, 7.4.1, and the IANA registry for 1012."""

_FIN, _RSV1 = 0x80, 0x40


def encode(payload: bytes, opcode: int, rsv1: bool = False) -> bytes:
    """Return the one frame of ``payload``.

    Args:
        payload: UTF-8 for `TEXT`, at most 125 bytes for control frames.
        opcode: `TEXT`, `BINARY`, `CLOSE`, `PING` or `PONG`.
        rsv1: Whether the payload was compressed by `deflate`.

    Source: RFC 6455, 5.2.
    """
    first, size = _FIN | opcode | (_RSV1 if rsv1 else 0), len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def close(code: int, reason: str = "") -> bytes:
    """Return a close frame; ``reason`` is cut to the 123 bytes that fit.

    Source: RFC 6455, 5.5.1.
    """
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return encode(struct.pack("!H", code) + text, CLOSE)


def deflate(payload: bytes) -> bytes:
    """Compress one message without context, so that all recipients can share the result.

    Source: RFC 7692, 7.2.1.
    """
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
    return (squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]
