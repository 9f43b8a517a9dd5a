"""Managers: who is connected and in which rooms, in this process; and the ways to the other processes.

A server without a ``client_manager`` has a `Manager`. The others connect it with other processes through a message
queue; each of them, made with ``write_only=True``, also emits from a process that serves nobody.
"""

from __future__ import annotations

import json as standard_json
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from . import backplanes
from .backplanes import native
from .backplanes.bus import Bus
from .engineio import choose_logger
from .errors import ClusterTimeoutError
from .protocol.socketio.client import CONNECTED, CONNECTING
from .protocol.socketio.cluster import Cluster, know
from .protocol.socketio.core import Core, arguments, as_sids
from .protocol.socketio.envelope import Seal
from .protocol.socketio.packets import TextCodec
from .typing import Backplane, Event

if TYPE_CHECKING:
    from .socketio import Server

ASKING = 5.0
"""Seconds that other processes have to answer, by default."""


class Manager:
    """The clients of one process.

    .. versionadded:: 0.1.0
    """

    def __init__(self) -> None:
        self._server: Server | None = None
        self._on_gap: Callable[[int], object] | None = None

    def set_server(self, server: Server) -> None:
        """Belong to a server; it calls this itself."""
        self._server = server

    @property
    def core(self) -> Core:
        """The clients, rooms and handlers of this process.

        Raises:
            RuntimeError: It belongs to no server.
        """
        if self._server is None:
            raise RuntimeError("this manager belongs to no server: give it as Server(client_manager=...)")
        return self._server.core

    @property
    def reach(self) -> Core | Cluster:
        """Whom emits and rooms are about: the clients of this process, or those of all."""
        return self.core

    @property
    def rooms(self) -> dict[str, dict[Hashable, dict[str, str]]]:
        """Namespace to room to sid to Engine.IO sid, as a copy. Room None is everybody."""
        return {
            namespace: {
                name: {client.sid: client.session.sid for client in rooms.members(name)} for name in rooms.names()
            }
            for namespace, rooms in list(self.core.rooms.items())
        }

    def get_namespaces(self) -> list[str]:
        """Return the namespaces that somebody is in."""
        return [namespace for namespace, clients in list(self.core.clients.items()) if clients]

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        """Yield (sid, Engine.IO sid) of each client of this process in a room; room None is everybody."""
        for client in self.core.targets(namespace, room):
            yield client.sid, client.session.sid

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Whether a client is in; no longer true while its disconnect handler runs."""
        client = self.core.client(sid, namespace)
        return client is not None and client.state in (CONNECTING, CONNECTED)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the sid that a connection has in a namespace, or None."""
        for client in self.core.targets(namespace, None):
            if client.session.sid == eio_sid:
                return client.sid
        return None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the Engine.IO sid of a client, or None."""
        client = self.core.client(sid, namespace)
        return None if client is None else client.session.sid

    def get_rooms(self, sid: str, namespace: str) -> list[Any]:
        """Return the rooms of a client of this process."""
        return self.core.rooms_of(sid, namespace)

    def enter_room(self, sid: str, namespace: str, room: Hashable, eio_sid: str | None = None) -> None:
        """Put a client into a room; errors as in `flask_realtime.socketio.Server.enter_room`."""
        self.reach.enter_room(sid, room, namespace or "/")

    def leave_room(self, sid: str, namespace: str, room: Hashable) -> None:
        """Take a client out of a room."""
        self.reach.leave_room(sid, room, namespace or "/")

    def close_room(self, room: Hashable, namespace: str) -> None:
        """Take everybody out of a room."""
        self.reach.close_room(room, namespace or "/")

    def emit(
        self,
        event: str,
        data: Any,
        namespace: str | None = None,
        room: Any = None,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        to: Any = None,
        **options: Any,
    ) -> None:
        """As `flask_realtime.socketio.Server.emit`."""
        reach = self.core if options.get("ignore_queue") else self.reach
        target = room if to is None else to
        reach.emit(event, arguments(data), namespace or "/", target, as_sids(skip_sid), callback)

    def disconnect(self, sid: str, namespace: str | None = None, **options: Any) -> None:
        """End a client's part in a namespace."""
        reach = self.core if options.get("ignore_queue") else self.reach
        reach.disconnect(sid, namespace or "/")

    # For the server, which calls these whether there is a message queue or not.

    def begin(self) -> bool:
        """Begin in this process; return whether what others publish comes."""
        return True

    def ask(self, what: str, namespace: str, subject: Any, timeout: float | None) -> list[Any]:
        """Return what each process knows; see `flask_realtime.protocol.socketio.cluster.Cluster.ask`."""
        return [know(self.core, what, namespace, subject)]

    def on_queue_gap(self, handler: Callable[[int], object]) -> None:
        """Register who is told when messages were missed; see `flask_realtime.socketio.Server.on_queue_gap`."""
        self._on_gap = handler

    def end(self) -> None:
        """The server has stopped."""

    def stats(self) -> dict[str, Any]:
        """Return what went through the message queue; see `flask_realtime.socketio.Server.stats`."""
        return dict.fromkeys(_NUMBERS, 0) | {"connected": False}

    @property
    def down(self) -> bool:
        """Whether there is a message queue that can't be reached."""
        return False


_NUMBERS = (
    *("members", "waiting", "published", "received", "unwanted", "dropped", "lost", "repeated", "refused"),
    "reconnects",
)


class PubSubManager(Manager):
    """The base of those that use a message queue.

    A class of your own overrides `_publish`, which sends one message, a dict, to all processes, and `_listen`, a
    generator that yields what they sent: dicts, text or bytes. Both may block; each is called in a native thread of its
    own, and is called again a while after it has raised an error. Where nothing comes, `_listen` better yields None
    about once a second: only then does the process notice that others are silent, and end without a delay.

    Args:
        channel: The same in all processes that belong together.
        write_only: Whether this process only emits.
        logger: True to print what happens, or a logger of your own.
        json: A module or object with ``dumps`` and ``loads`` for what is emitted without a server.
        secret: Messages are signed with it, and only signed ones are taken; None: nothing is signed. The same in all
            processes.

    .. versionadded:: 0.1.0
    """

    name = "pubsub"

    def __init__(
        self,
        channel: str = "socketio",
        write_only: bool = False,
        logger: bool | logging.Logger | None = None,
        json: Any = None,
        *,
        secret: str | bytes | None = None,
    ) -> None:
        super().__init__()
        self.channel, self.write_only = channel, write_only
        self._seal = Seal(secret, time.time) if secret else None
        self.logger = choose_logger(logger, "flask_realtime.socketio")
        self._bus = Bus(self._open, self._url(), False)
        self._cluster = self._make(None, TextCodec(json))

    def _make(
        self, core: Core | None, codec: TextCodec, wake: Callable[[Event], object] = lambda event: None
    ) -> Cluster:
        cluster = Cluster(
            core, self._bus, codec, self.logger, self.channel, time.monotonic, native.lock, wake, self._seal
        )
        cluster.on_gap = self._on_gap
        self._bus.listener = cluster
        self._bus.others = lambda: len(cluster.members)
        return cluster

    def _url(self) -> str:
        return f"the channel {self.channel!r} of {type(self).__name__}"

    def _open(self) -> Backplane:
        return _Custom(self._publish, self._listen, self._url(), self._seal is not None)

    def _publish(self, data: dict[str, Any]) -> None:
        """Send a message to all processes."""
        raise NotImplementedError(f"{type(self).__name__} needs a method _publish(data)")

    def _listen(self) -> Iterator[Any]:
        """Yield what was sent."""
        raise NotImplementedError(f"{type(self).__name__} needs a method _listen()")

    def set_server(self, server: Server) -> None:
        """Belong to a server; it calls this itself."""
        super().set_server(server)
        runtime = server.eio.runtime

        def wake(event: Event) -> None:
            if runtime.name == "threading":
                event.set()
            else:
                runtime.call_later(0, event.set)  # greenlets wait for it, and this isn't their thread

        if not self.write_only:
            self._bus.listens = True
            self._cluster = self._make(server.core, server.bus_codec, wake)

    @property
    def host_id(self) -> str:
        """Names this process among the others."""
        return self._cluster.host_id

    @property
    def reach(self) -> Core | Cluster:
        return self._cluster

    def flush(self, timeout: float = 5) -> bool:
        """Wait until all that was emitted is handed to the message queue.

        Args:
            timeout: Seconds, at most.

        Returns:
            False when that took longer.
        """
        return self._bus.flush(timeout)

    def begin(self) -> bool:
        self._bus.start()
        return self._bus.subscribed or not self._bus.listens

    def ask(self, what: str, namespace: str, subject: Any, timeout: float | None) -> list[Any]:
        own = [know(self.core, what, namespace, subject)]
        assert self._server is not None
        query = self._cluster.ask(what, namespace, subject, self._server.eio.runtime.event())
        try:
            query.event.wait(timeout)
        finally:
            self._cluster.forget(query)
        if query.missing:
            raise ClusterTimeoutError(
                f"{len(query.missing)} of {len(query.missing) + len(query.results)} other processes didn't answer "
                f"within {timeout} s: {', '.join(sorted(query.missing))}",
                sorted(query.missing),
                own + query.results,
            )
        return own + query.results

    def on_queue_gap(self, handler: Callable[[int], object]) -> None:
        self._on_gap = self._cluster.on_gap = handler

    def end(self) -> None:
        if self._bus.running:
            self._cluster.end()
            self._bus.stop()

    def stats(self) -> dict[str, Any]:
        bus, cluster = self._bus, self._cluster
        return {
            "connected": bus.running and not bus.down and (bus.subscribed or not bus.listens),
            "members": len(cluster.members),
            "waiting": bus.waiting,
            "published": bus.published,
            "received": bus.received,
            "unwanted": cluster.unwanted.value,
            "dropped": bus.dropped,
            "lost": cluster.lost.value,
            "repeated": cluster.repeated.value,
            "refused": cluster.refused.value,
            "reconnects": bus.reconnects,
        }

    @property
    def down(self) -> bool:
        return self._bus.down


class _Custom:
    """The backplane of a class that has `_publish` and `_listen` of its own.

    Args:
        publish: The one.
        listen: The other.
        url: For the log.
        signed: Whether messages have signatures. Those are of bytes, so a dict then holds them as text.
    """

    keeps = False

    def __init__(
        self, publish: Callable[[dict[str, Any]], object], listen: Callable[[], Any], url: str, signed: bool
    ) -> None:
        self._publish, self._listen, self.url, self._signed = publish, listen, url, signed

    def publish(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._publish({"signed": message.decode()} if self._signed else standard_json.loads(message))

    def listen(self) -> Iterator[bytes | None]:
        yield None
        for message in self._listen():
            if message is None:
                yield None
            elif self._signed:
                yield _signed_text(message)
            elif isinstance(message, str):
                yield message.encode()
            elif isinstance(message, (bytes, bytearray)):
                yield bytes(message)
            else:
                yield standard_json.dumps(message, separators=(",", ":")).encode()

    def listeners(self) -> int | None:
        return None

    def close(self) -> None:
        pass


def _signed_text(message: Any) -> bytes:
    try:
        whole = message if isinstance(message, dict) else standard_json.loads(message)
        return str(whole["signed"]).encode()
    except (ValueError, TypeError, KeyError):
        return b""  # which has no signature


class _UrlManager(PubSubManager):
    """One that opens a backplane by its URL."""

    _default = ""

    def __init__(
        self,
        url: str | Sequence[str] = "",
        channel: str = "socketio",
        write_only: bool = False,
        logger: bool | logging.Logger | None = None,
        json: Any = None,
        *,
        secret: str | bytes | None = None,
        **options: Any,
    ) -> None:
        self.url = url or self._default
        self._options = {name: value for name, value in options.items() if value is not None}
        super().__init__(channel, write_only, logger, json, secret=secret)
        self._open()  # connects to nothing, but says what is wrong

    def _url(self) -> str:
        return backplanes.masked(self.url)

    def _open(self) -> Backplane:
        return backplanes.open(self.url, self.channel, **self._options)


class RedisManager(_UrlManager):
    """Redis, Valkey, and what speaks like them.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``valkey://``, ``valkeys://``, ``redis+sentinel://``,
            ``valkey+sentinel://``, ``redis+cluster://``; ``redis+streams://`` loses nothing while a process is away.
        channel: See `PubSubManager`, as the following.
        write_only: Whether this process only emits.
        logger: Where to tell.
        json: For what is emitted without a server.
        redis_options: For the connection, as `redis.Redis` takes them.
        secret: Signs messages.

    Raises:
        ConfigurationError: The URL is none of these, or redis-py isn't installed.

    .. versionadded:: 0.1.0
    """

    name = "redis"
    _default = "redis://localhost:6379/0"

    def __init__(
        self,
        url: str | Sequence[str] = "",
        channel: str = "socketio",
        write_only: bool = False,
        logger: bool | logging.Logger | None = None,
        json: Any = None,
        redis_options: dict[str, Any] | None = None,
        *,
        secret: str | bytes | None = None,
    ) -> None:
        super().__init__(url, channel, write_only, logger, json, secret=secret, redis_options=redis_options)


class KombuManager(_UrlManager):
    """RabbitMQ, and every other broker that Kombu knows.

    Args:
        url: As Kombu takes it, ``amqp://guest:guest@localhost:5672//`` by default.
        channel: See `PubSubManager`, as the following; it names the exchange.
        write_only: Whether this process only emits.
        logger: Where to tell.
        json: For what is emitted without a server.
        connection_options: For `kombu.Connection`.
        exchange_options: For `kombu.Exchange`.
        queue_options: For `kombu.Queue`.
        producer_options: For `kombu.Producer`.
        secret: Signs messages.

    Raises:
        ConfigurationError: Kombu isn't installed.

    .. versionadded:: 0.1.0
    """

    name = "kombu"
    _default = "amqp://guest:guest@localhost:5672//"

    def __init__(
        self,
        url: str | Sequence[str] = "",
        channel: str = "socketio",
        write_only: bool = False,
        logger: bool | logging.Logger | None = None,
        json: Any = None,
        connection_options: dict[str, Any] | None = None,
        exchange_options: dict[str, Any] | None = None,
        queue_options: dict[str, Any] | None = None,
        producer_options: dict[str, Any] | None = None,
        *,
        secret: str | bytes | None = None,
    ) -> None:
        options = {
            **{"connection_options": connection_options, "exchange_options": exchange_options},
            **{"queue_options": queue_options, "producer_options": producer_options},
        }
        super().__init__(url, channel, write_only, logger, json, secret=secret, **options)


class KafkaManager(_UrlManager):
    """Kafka.

    Args:
        url: ``kafka://host:port``, or a list of these; the topic is the channel.
        channel: See `PubSubManager`, as the following.
        write_only: Whether this process only emits.
        logger: Where to tell.
        json: For what is emitted without a server.
        secret: Signs messages.

    Raises:
        ConfigurationError: kafka-python isn't installed.

    .. versionadded:: 0.1.0
    """

    name = "kafka"
    _default = "kafka://localhost:9092"


class ZmqManager(_UrlManager):
    """ZeroMQ, with a small broker of your own between the processes: see the guide on brokers.

    Args:
        url: ``zmq+tcp://host:port1+port2``: messages are pushed to the first port, and come from the second.
        channel: See `PubSubManager`, as the following.
        write_only: Whether this process only emits.
        logger: Where to tell.
        json: For what is emitted without a server.
        secret: Signs messages.

    Raises:
        ConfigurationError: pyzmq isn't installed.

    .. versionadded:: 0.1.0
    """

    name = "zmq"
    _default = "zmq+tcp://localhost:5555+5556"


def for_url(
    url: str | Sequence[str], channel: str, write_only: bool, secret: str | bytes | None, json: Any = None
) -> PubSubManager:
    """Return the manager for a ``message_queue``.

    Raises:
        ConfigurationError: There is none for this URL, or what it needs isn't installed.
    """
    kinds: dict[str, type[_UrlManager]] = {
        **{"redis": RedisManager, "streams": RedisManager, "kafka": KafkaManager, "zmq": ZmqManager}
    }
    scheme = (url if isinstance(url, str) else next(iter(url), "")).partition("://")[0].lower()
    module, *_ = backplanes.KINDS.get(scheme, backplanes.OTHERS)
    return kinds.get(module, KombuManager)(url, channel, write_only, json=json, secret=secret)
