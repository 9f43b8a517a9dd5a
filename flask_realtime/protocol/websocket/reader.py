"""Bytes of a client to whole messages, over the sans-I/O protocol of `websockets`."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Sequence

from websockets.extensions import Extension
from websockets.frames import Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from .frames import INVALID, POLICY

logger = logging.getLogger("flask_realtime.websocket")

_CONT, _TEXT, _BINARY = Opcode.CONT, Opcode.TEXT, Opcode.BINARY
_utf8 = codecs.getincrementaldecoder("utf-8")


class Reader:
    """The receiving half of one WebSocket: frames, fragments, masks, UTF-8, limits, control frames.

    Args:
        max_size: Bytes of a whole message at most, counted after decompression.
        max_fragments: Fragments of one message at most.
        extensions: What the handshake agreed on.
    """

    __slots__ = ("_count", "_decoder", "_fragments", "_max_fragments", "_protocol", "closing", "replying")

    def __init__(self, max_size: int, max_fragments: int = 1024, extensions: Sequence[Extension] = ()) -> None:
        self._protocol = Protocol(SERVER, state=OPEN, max_size=max_size, logger=logger)
        self._protocol.extensions = list(extensions)
        self._max_fragments = max_fragments
        self._fragments: list[bytes] | None = None  # of a message whose end hasn't come
        self._decoder: codecs.IncrementalDecoder | None = None  # of a text message's fragments
        self._count = 0
        self.replying = False
        """True when `reply` may have something."""
        self.closing = False
        """True when no more can be received: send what `reply` returns, then end the connection."""

    def feed(self, data: bytes) -> list[str | bytes]:
        """Take bytes from the network and return the whole messages that they complete.

        Afterwards you must send what `reply` returns, and end the connection if `closing` is true. A peer's fault makes
        no exception: `reply` then holds the close frame with the code that names it.

        Args:
            data: Not empty.

        Returns:
            Messages in their order: str for text, bytes for binary.

        Source: RFC 6455, 5.4 to 5.6 and 8.1.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        messages: list[str | bytes] = []
        for frame in protocol.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]
            if opcode is not _TEXT and opcode is not _BINARY and opcode is not _CONT:
                self.replying = True
                continue
            payload = bytes(frame.data)  # type: ignore[union-attr]
            whole = frame.fin  # type: ignore[union-attr]
            try:
                if whole and self._fragments is None:
                    messages.append(payload.decode() if opcode is _TEXT else payload)
                    continue
                if self._fragments is None:
                    self._fragments, self._count = [], 0
                    self._decoder = _utf8() if opcode is _TEXT else None
                self._count += 1
                if self._count > self._max_fragments:
                    self.fail(POLICY, f"more than {self._max_fragments} fragments")
                    break
                if self._decoder is not None:
                    self._decoder.decode(payload, whole)  # wrong text is refused where it is, not at the end
            except UnicodeDecodeError:
                self.fail(INVALID, "text is not UTF-8")
                break
            self._fragments.append(payload)
            if whole:
                joined = b"".join(self._fragments)
                messages.append(joined if self._decoder is None else joined.decode())
                self._fragments = self._decoder = None
        if protocol.close_expected():
            self.closing = self.replying = True
        return messages

    def reply(self) -> bytes:
        """Return what must be sent after `feed` or `fail`: pongs, a close frame; b"" when nothing."""
        self.replying = False
        writes = self._protocol.data_to_send()
        return b"".join(writes) if writes else b""

    def fail(self, code: int, reason: str) -> None:
        """End with a close frame of our own; `reply` returns it.

        Source: RFC 6455, 7.1.7.
        """
        if not self.closing:
            self._fragments = self._decoder = None
            if self._protocol.state is OPEN:
                self._protocol.fail(code, reason)
            self.closing = self.replying = True

    @property
    def fault(self) -> str:
        """What the peer did wrong, or "" when it closed properly or not at all."""
        error = self._protocol.parser_exc
        if error is not None:
            return str(error)
        sent = self._protocol.close_sent
        return sent.reason if sent is not None and sent is not self._protocol.close_rcvd else ""

    @property
    def clean(self) -> bool:
        """True when the peer sent a close frame."""
        return self._protocol.close_rcvd is not None
