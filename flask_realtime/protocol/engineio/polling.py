"""Polling: packets to HTTP payloads and back, and the transport of a client that polls."""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qs

from ...errors import RemoteProtocolError
from ...typing import Frame, Transport
from .frame import CLOSE, SEPARATOR
from .frame import Frame as Packet

Ready = Callable[[Sequence[Frame]], object]
"""Gets the frames that end a poll; called once, from any thread."""


def decode(payload: str) -> list[str | bytes]:
    """Split a payload into packets: str for text, bytes for binary.

    Raises:
        RemoteProtocolError: An element is empty or holds bad base64.

    Source: Engine.IO 4, HTTP long-polling, Packet encoding.
    """
    packets: list[str | bytes] = []
    for element in payload.split(SEPARATOR):
        if element[:1] == "b":
            try:
                packets.append(b64decode(element[1:].encode(), validate=True))
            except (binascii.Error, ValueError) as error:
                raise RemoteProtocolError(f"bad base64 in a binary packet: {error}") from None
        elif element:
            packets.append(element)
        else:
            raise RemoteProtocolError("an empty packet: expected a type of 0 to 6")
    return packets


def encode(frames: Sequence[Frame]) -> str:
    """Join packets to a payload."""
    return SEPARATOR.join([frame.polling for frame in frames])


def wrap(index: str, payload: str) -> str:
    """Make the script that hands ``payload`` to a JSONP client.

    Args:
        index: Number of the client's callback; all but its digits is dropped.
        payload: The whole of it is escaped as JSON in ASCII, hence also quotes, backslashes, U+2028 and markup.
    """
    text = json.dumps(payload).replace("<", "\\u003c").replace(">", "\\u003e").replace("/", "\\/")
    return f"___eio[{re.sub('[^0-9]', '', index)}]({text});"


def unwrap(body: str) -> str:
    """Take the payload out of a JSONP form, ``d=...``.

    Raises:
        RemoteProtocolError: It has no field ``d``.
    """
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=4)
    except ValueError as error:
        raise RemoteProtocolError(f"a bad JSONP form: {error}") from None
    if "d" not in fields:
        raise RemoteProtocolError("a JSONP body without the field d")
    # The form turns \n into a newline and has \\n for the two characters.
    return re.sub(r"(\\)?\\n", lambda match: "\\n" if match[1] else "\n", fields["d"][0])


class Polling:
    """The transport of a polling client: frames in waiting, and the poll that waits for them.

    Args:
        lock: Guards the frames against writers and polls in other threads.
        limit: Bytes that may wait.
        slow: Called when they pass the limit.
    """

    __slots__ = ("_frames", "_limit", "_lock", "_poll", "_size", "_slow", "_successor", "closed", "draining")

    def __init__(self, lock: AbstractContextManager[Any], limit: int, slow: Callable[[], object]) -> None:
        self._lock, self._limit, self._slow = lock, limit, slow
        self._frames: list[Frame] = []
        self._size = 0
        self._poll: Ready | None = None
        self._successor: Transport | None = None
        self.closed = False
        self.draining = False
        """True while an upgrade is under way: polls then don't wait."""

    @property
    def waiting(self) -> int:
        """Bytes that wait for a poll."""
        return self._size

    @property
    def holds(self) -> bool:
        """Whether anything waits for a poll."""
        return bool(self._frames)

    def write(self, frames: Sequence[Frame]) -> None:
        poll: Ready | None = None
        overflow = False
        with self._lock:
            successor = self._successor
            if successor is None:
                if self.closed:
                    return
                poll, self._poll = self._poll, None
                if poll is None:
                    # One message may be larger than the limit; the limit is for a client that is behind already.
                    behind = bool(self._frames)
                    self._frames.extend(frames)
                    for frame in frames:
                        self._size += len(frame.polling)
                    overflow = behind and self._size > self._limit
        if successor is not None:
            successor.write(frames)
        elif poll is not None:
            poll(frames)
        elif overflow:
            self._slow()

    def poll(self, ready: Ready) -> Sequence[Frame] | None:
        """Take what waits, or leave ``ready`` to be called when something comes.

        What came before the end, and the close packet, are two polls: the JavaScript client drops acknowledgements
        that come in one payload with a close packet.

        Returns:
            The frames; empty during an upgrade; None when ``ready`` will be called.

        Raises:
            RemoteProtocolError: Another poll waits already.
        """
        with self._lock:
            if self._poll is not None:
                raise RemoteProtocolError("a second poll while one is pending")
            if self._frames or self.draining or self.closed:
                frames = self._take()
                if len(frames) > 1 and frames[-1] is _CLOSE:
                    self._frames.append(frames.pop())
                return frames
            self._poll = ready
            return None

    def forget(self, ready: Ready) -> bool:
        """Withdraw a poll; False when it was answered meanwhile."""
        with self._lock:
            if self._poll is None or self._poll != ready:
                return False
            self._poll = None
            return True

    def release(self, frames: Sequence[Frame]) -> None:
        """End the waiting poll, if any, with ``frames``."""
        with self._lock:
            poll, self._poll = self._poll, None
        if poll is not None:
            poll(frames)

    def upgrade(self, successor: Transport) -> None:
        """Hand everything over, what waits first; writers that come late are sent on."""
        with self._lock:
            frames, self._successor = self._take(), successor
            if frames:
                successor.write(frames)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End with a close packet: to the waiting poll, or to the next one."""
        with self._lock:
            if self.closed or self._successor is not None:
                return
            self.closed = True
            self._frames.append(_CLOSE)
            poll, self._poll = self._poll, None
            frames = self._take() if poll is not None else []
        if poll is not None:
            poll(frames)

    def pause(self, paused: bool) -> None:
        """Nothing to do: a client that polls is paused by the late answer to its POST."""

    def _take(self) -> list[Frame]:
        frames, self._frames, self._size = self._frames, [], 0
        return frames


_CLOSE = Packet(CLOSE)
