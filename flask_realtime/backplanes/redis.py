"""Redis and Valkey: publish and subscribe. Keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from ..errors import BackplaneError
from .redis_link import QUIET, REDIRECTIONS, Link, Publishing, Refused, command, servers

PING = 5.0
"""Seconds without a message after which a listener asks whether the server is still there."""


class Redis:
    """The backplane of ``redis://``, ``rediss://``, ``unix://``, the same of Valkey, sentinels and clusters.

    Args:
        url: Has what redis-py's URLs have, several hosts for sentinels (``redis+sentinel://host:26379/0/service``) and
            for clusters (``redis+cluster://host:6379``).
        channel: The name of the channel.
        redis_options: For redis-py's connections.
    """

    keeps = False

    def __init__(self, url: str, channel: str, *, redis_options: dict[str, Any] | None = None) -> None:
        self._servers, self._wires = servers(url, redis_options)
        self.url = self._wires.url
        self._channel = channel.encode()
        self._publishing = Publishing(self._servers)

    def publish(self, messages: Sequence[bytes]) -> None:
        """See `Backplane`."""

        def publish(link: Link) -> None:
            head = command("SPUBLISH" if self._servers.sharded else "PUBLISH", self._channel, b"")[: -len("0\r\n\r\n")]
            link.send(b"".join([piece for data in messages for piece in (head, b"%d\r\n" % len(data), data, b"\r\n")]))
            link.answers(len(messages))

        self._publishing.run(publish)

    def listen(self) -> Iterator[bytes | None]:
        """See `Backplane`."""
        link = self._subscribe()
        try:
            yield None
            yield from self._messages(link)
        finally:
            link.close()

    def listeners(self) -> int | None:
        """See `Backplane`. In a cluster before Redis 7 nobody knows."""

        def count(link: Link) -> int | None:
            if self._servers.clustered and not self._servers.sharded:
                return None
            if self._servers.sharded:
                link.ask("EXISTS", self._channel)  # leads to the part that has the channel
            asked = link.ask("PUBSUB", "SHARDNUMSUB" if self._servers.sharded else "NUMSUB", self._channel)
            return int(asked[1])

        return self._publishing.run(count)

    def close(self) -> None:
        """See `Backplane`."""
        self._wires.close()

    def _subscribe(self) -> Link:
        for _ in range(REDIRECTIONS):
            link = self._servers.connect()
            try:
                link.ask("SSUBSCRIBE" if self._servers.sharded else "SUBSCRIBE", self._channel)
                return link
            except Refused as refusal:
                link.close()
                if not self._servers.redirected(refusal):
                    raise
        raise BackplaneError(f"the cluster at {self.url} leads in a circle")

    def _messages(self, link: Link) -> Iterator[bytes | None]:
        link.listen()
        read = link.connection.read_response
        alone, lost = PING / QUIET, (PING + self._servers.patience) / QUIET
        quiet = 0
        while not self._wires.closed:
            try:
                answer = read(disconnect_on_error=False)
            except redis.TimeoutError:
                quiet += 1
                if quiet > lost:
                    raise link.failed(redis.TimeoutError(f"it was silent for {quiet * QUIET:.0f} seconds")) from None
                if quiet == alone:
                    link.send(command("PING"))
                yield None
            except (redis.RedisError, OSError) as error:
                raise link.failed(error) from error
            else:
                quiet = 0
                if answer[0] in (b"message", b"smessage"):
                    yield answer[2]
                elif answer[0] == b"sunsubscribe":
                    raise link.failed(redis.ConnectionError("the channel has moved to another part of the cluster"))
