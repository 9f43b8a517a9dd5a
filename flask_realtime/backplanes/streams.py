"""Redis streams: a log of bounded length, so that a listener that was away goes on where it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import ConfigurationError
from .redis_link import QUIET, Link, Publishing, Servers, command
from .urls import masked, split
from .wire import Wires

logger = logging.getLogger("flask_realtime.backplanes")

LENGTH = 20_000
"""Messages that the stream keeps, about. Twice of what the largest burst is expected to have."""

BATCH = 100
"""Messages that a listener fetches at a time; of 900 KB each they are 90 MB."""

BEGINNING = b"0-0"


class Streams:
    """The backplane of ``redis+streams://``, and the same with ``rediss``, ``unix``, ``valkey`` and ``valkeys``.

    Args:
        url: What redis-py's URLs have; ``?maxlen=`` is how many messages the stream keeps, about.
        channel: The key of the stream.
        redis_options: For redis-py's connections.
    """

    keeps = True

    def __init__(self, url: str, channel: str, *, redis_options: dict[str, Any] | None = None) -> None:
        self._wires = Wires(masked(url))
        self.url = self._wires.url
        parts = split(url)
        length = parts.query.pop("maxlen", str(LENGTH))
        if not length.isdecimal() or not int(length):
            raise ConfigurationError(f"expected a number of messages as maxlen, got {length!r} in {self.url}")
        self._servers = Servers(parts._replace(scheme=parts.scheme.partition("+")[0]), redis_options, self._wires)
        self._publishing = Publishing(self._servers)
        self._head = command("XADD", channel, "MAXLEN", "~", length, "*", "m", b"")[: -len("0\r\n\r\n")]
        self._channel = channel.encode()
        self._last: bytes | None = None  # the id of the last message that was yielded

    def publish(self, messages: Sequence[bytes]) -> None:
        """See `Backplane`."""

        def publish(link: Link) -> None:
            head = self._head
            link.send(b"".join([piece for data in messages for piece in (head, b"%d\r\n" % len(data), data, b"\r\n")]))
            link.answers(len(messages))

        self._publishing.run(publish)

    def listen(self) -> Iterator[bytes | None]:
        """See `Backplane`."""
        link = self._servers.connect()
        try:
            self._last = self._begin(link)
            yield None
            yield from self._messages(link)
        finally:
            link.close()

    def listeners(self) -> int | None:
        """See `Backplane`. A stream doesn't know who reads it."""
        return None

    def close(self) -> None:
        """See `Backplane`."""
        self._wires.close()

    def _begin(self, link: Link) -> bytes:
        newest = link.ask("XREVRANGE", self._channel, "+", "-", "COUNT", "1")
        end: bytes = newest[0][0] if newest else BEGINNING
        if self._last is None:
            return end
        if self._last == BEGINNING or link.ask("XRANGE", self._channel, self._last, self._last):
            return self._last
        # What follows it can't be told apart from what doesn't.
        logger.warning(
            "the stream %s at %s no longer has the last message that was received: it was flushed, or has grown by "
            "more than its length meanwhile; messages may be lost",
            *(self._channel.decode(), self.url),
        )
        return self._last if _number(end) > _number(self._last) else BEGINNING

    def _messages(self, link: Link) -> Iterator[bytes | None]:
        while not self._wires.closed:
            answer = link.ask(*("XREAD", "COUNT", str(BATCH), "BLOCK", str(int(QUIET * 1000))),
                              *("STREAMS", self._channel, self._last or BEGINNING))  # fmt: skip
            if answer is None:
                yield None
                continue
            for number, fields in answer[0][1]:
                if fields is None:  # deleted meanwhile
                    continue
                self._last = number
                yield fields[1]


def _number(entry: bytes) -> tuple[int, int]:
    milliseconds, _, count = entry.partition(b"-")
    return int(milliseconds), int(count)
