"""Kombu: RabbitMQ, and all else that kombu has transports for.

Theory of operation, for RabbitMQ. Each process has a durable queue of its own at a durable fanout exchange. Messages
are persistent; `publish` returns when the broker has confirmed each of them, which it does when they are on disk in
every queue. A listener acknowledges what it has yielded, some time later and many at a time; what wasn't acknowledged
when a connection is lost comes again, and receivers drop what they know. The queue outlives its process by five
minutes only.
"""

from __future__ import annotations

import importlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from amqp.exceptions import PreconditionFailed
from kombu.transport import TRANSPORT_ALIASES

from ..errors import BackplaneError, ConfigurationError
from .urls import masked
from .wire import Wire, Wires

kombu: Any = importlib.import_module("kombu")  # whose names appear on first use, so no type checker knows them

logger = logging.getLogger("flask_realtime.backplanes")

CONNECTING, PATIENCE = 5.0, 10.0
"""Seconds that a broker may take to be reached, and to confirm."""

QUIET = 1.0
"""Seconds without a message after which a listener says so."""

HEARTBEAT = 10.0
"""Seconds; a connection on which two of them are missing is dead. Listeners only: nothing would beat for publishers."""

EXPIRES = 300_000
"""Milliseconds that a queue is kept without its listener."""

PREFETCH, ACKNOWLEDGE = 1000, 100
"""Messages that may be on their way to a listener, and of those how many it acknowledges at a time."""


class Session:
    """A connection with a channel on it. Its errors are `BackplaneError`.

    Args:
        connection: kombu's, not connected yet.
        wires: Knows all connections of the backplane.
        native: Whether the driver is py-amqp.
    """

    def __init__(self, connection: Any, wires: Wires, native: bool) -> None:
        self.connection, self._wires, self._native = connection, wires, native
        self._wire: Wire | None = None
        wires.check()
        with self.errors("can't reach"):
            connection.ensure_connection(
                max_retries=max(1, len(connection.alt) - 1), interval_start=0, interval_step=0, interval_max=0
            )
            if native:
                self._wire = wires.add(connection.connection.sock.fileno())
            self.channel = connection.channel()

    def errors(self, what: str = "lost") -> Errors:
        """Return a context that closes on an error, and raises it as one of ours."""
        return Errors(self, what)

    def failed(self, error: BaseException, what: str = "lost") -> BackplaneError:
        """Close, and return what to raise."""
        self.close()
        self._wires.check()
        reason = str(error) or type(error).__name__
        return BackplaneError(f"{what} the broker at {self._wires.url}: {reason}")

    def drain(self, seconds: float) -> bool:
        """Let one message or confirmation in; return False when none has come for so long."""
        try:
            self.connection.drain_events(timeout=seconds)
        except TimeoutError:
            return False
        return True

    def stale(self) -> bool:
        """Return whether it has ended, or something is on it that nobody asked for, as a farewell."""
        return self._wire is not None and self._wire.readable()

    def close(self) -> None:
        """Close without a farewell, which might have to be waited for."""
        if self._wire is not None:
            self._wires.remove(self._wire)
            self._wire = None
        if self._native:
            self.connection.collect()
        else:
            self.connection.release()


class Errors:
    """See `Session.errors`."""

    def __init__(self, session: Session, what: str) -> None:
        self._session, self._what = session, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, BackplaneError):
            self._session.close()
        elif isinstance(error, Exception):
            # Any one: each of kombu's transports has errors of its own, and at a lost connection they include
            # AttributeError and the like.
            raise self._session.failed(error, self._what) from error


class Kombu:
    """The backplane of ``amqp://``, ``amqps://`` and the other schemes of kombu.

    Args:
        url: As kombu has it; several behind each other with a semicolon.
        channel: The name of the exchange.
        connection_options: For `kombu.Connection`.
        exchange_options: For `kombu.Exchange`, besides ``type="fanout", durable=True``.
        queue_options: For `kombu.Queue`, besides ``durable=True`` and an expiry.
        producer_options: For `kombu.Producer`.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        *,
        connection_options: dict[str, Any] | None = None,
        exchange_options: dict[str, Any] | None = None,
        queue_options: dict[str, Any] | None = None,
        producer_options: dict[str, Any] | None = None,
    ) -> None:
        self.url = masked(url)
        self._real_url, self._channel = url, channel
        self._connection_options = dict(connection_options or {})
        self._exchange_options = {"type": "fanout", "durable": True, **(exchange_options or {})}
        arguments = {"x-expires": EXPIRES}
        self._producer_options = dict(producer_options or {})
        try:
            self._native = self._connection(0).transport.driver_name == "py-amqp"
        except (TypeError, ValueError, KeyError, ImportError) as error:
            raise ConfigurationError(f"{self.url}: {error}") from error
        if self._native:
            # Or what one connection wasn't done with could come behind what its successor got.
            arguments["x-single-active-consumer"] = True
        self._queue_options = {"durable": True, "queue_arguments": arguments, **(queue_options or {})}
        self._queue_name = f"flask_realtime.{uuid.uuid4()}"
        self._foreign = False  # the exchange is somebody else's
        self._wires = Wires(self.url)
        self._publishing: Publishing | None = None

    @staticmethod
    def knows(scheme: str) -> bool:
        """Return whether kombu has a transport for a URL's scheme."""
        return scheme.partition("+")[0] in TRANSPORT_ALIASES

    @property
    def keeps(self) -> bool:
        """See `Backplane`. Queues do, those of an exchange that dies with the broker don't."""
        return self._native and not self._foreign

    def publish(self, messages: Sequence[bytes]) -> None:
        """See `Backplane`."""
        if self._publishing is not None and self._publishing.session.stale():
            self._publishing.session.close()
            self._publishing = None
        if self._publishing is None:
            self._publishing = self._begin_to_publish()
        try:
            self._publishing.publish(messages)
        except BackplaneError:
            self._publishing = None
            raise

    def listen(self) -> Iterator[bytes | None]:
        """See `Backplane`."""
        session = self._session(HEARTBEAT)
        try:
            with session.errors():
                exchange = self._exchange(session)
                queue = kombu.Queue(self._queue_name, exchange, **self._queue_options)(session.channel)
                queue.declare()
                session.channel.basic_qos(0, PREFETCH, False)
                arrived: deque[Any] = deque()
                kombu.Consumer(session.channel, [queue], on_message=arrived.append, auto_declare=False).consume()
            yield None
            yield from self._messages(session, arrived)
        finally:
            session.close()
            if self._wires.closed:
                self._delete_queue()

    def listeners(self) -> int | None:
        """See `Backplane`. Who may not use the management API isn't told."""
        return None

    def close(self) -> None:
        """See `Backplane`."""
        self._wires.close()

    def __del__(self) -> None:
        # Whoever closed the backplane couldn't close the connection of the publishing thread.
        publishing = getattr(self, "_publishing", None)
        if publishing is not None:
            try:
                publishing.session.close()
            except Exception:  # at the end of the process anything may be gone
                pass

    def _connection(self, heartbeat: float) -> Any:
        options = {"connect_timeout": CONNECTING, **self._connection_options, "heartbeat": heartbeat}
        return kombu.Connection(self._real_url, **options)

    def _session(self, heartbeat: float) -> Session:
        beats = self._connection_options.get("heartbeat") or heartbeat
        return Session(self._connection(beats if heartbeat and self._native else 0), self._wires, self._native)

    def _exchange(self, session: Session) -> Any:
        """Declare the exchange, or take the one that is there."""
        exchange = kombu.Exchange(self._channel, **self._exchange_options)
        try:
            exchange(session.channel).declare()
        except PreconditionFailed:
            if not self._foreign:
                logger.warning(
                    "the exchange %s at %s was made with other properties, probably by python-socketio; it is used as "
                    "it is, so messages don't outlive the broker",
                    *(self._channel, self.url),
                )
            self._foreign = True
            session.channel = session.connection.channel()  # the broker has closed the other one
            exchange = kombu.Exchange(self._channel, **self._exchange_options | {"passive": True})
            exchange(session.channel).declare()
        else:
            self._foreign = False
        return exchange

    def _begin_to_publish(self) -> Publishing:
        session = self._session(0)
        with session.errors():
            exchange = self._exchange(session)
            return Publishing(session, exchange, self._producer_options, self._native)

    def _messages(self, session: Session, arrived: deque[Any]) -> Iterator[bytes | None]:
        unacknowledged = 0
        looked = time.monotonic()
        message: Any = None
        while not self._wires.closed:
            with session.errors():
                quiet = not session.drain(QUIET)
            while arrived:
                message = arrived.popleft()
                unacknowledged += 1
                yield message.body.encode() if isinstance(message.body, str) else message.body
            now = time.monotonic()
            if unacknowledged >= ACKNOWLEDGE or (unacknowledged and now - looked >= QUIET / 2):
                with session.errors():
                    message.ack(multiple=True)
                unacknowledged = 0
            if now - looked >= QUIET / 2:
                looked = now
                if self._native:
                    with session.errors():
                        session.connection.heartbeat_check()
            if quiet:
                yield None

    def _delete_queue(self) -> None:
        if not self._native:
            return
        try:
            with self._connection(0) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, interval_max=0)
                connection.default_channel.queue_delete(self._queue_name)
        except Exception:  # it expires by itself; and the broker may well be gone
            logger.debug("the queue %s was not deleted", self._queue_name, exc_info=True)


class Publishing:
    """The publishing thread's connection."""

    def __init__(self, session: Session, exchange: Any, options: dict[str, Any], confirmed: bool) -> None:
        self.session = session
        self._producer = kombu.Producer(session.channel, exchange=exchange, auto_declare=False, **options)
        self._tag = 0  # of the last message
        self._waiting: set[int] = set()  # tags that aren't confirmed yet
        self._refused = 0
        self._confirmed = confirmed
        self._limit = PATIENCE if confirmed else None  # for writing; a broker may have stopped to read
        if confirmed:
            session.channel.confirm_select()
            session.channel.events["basic_ack"].add(self._on_ack)
            session.channel.events["basic_nack"].add(self._on_nack)

    def publish(self, messages: Sequence[bytes]) -> None:
        """Send messages and wait until all are confirmed."""
        with self.session.errors():
            for data in messages:
                if self._confirmed:
                    self._tag += 1
                    self._waiting.add(self._tag)
                self._producer.publish(
                    data, content_type="application/data", content_encoding="binary", timeout=self._limit
                )
            end = time.monotonic() + PATIENCE
            while self._waiting:
                count = len(self._waiting)
                if not self.session.drain(max(0.001, end - time.monotonic())) or time.monotonic() > end:
                    raise TimeoutError(f"{count} messages were not confirmed within {PATIENCE:.0f} seconds")
                if len(self._waiting) < count:
                    end = time.monotonic() + PATIENCE
            if self._refused:
                raise ValueError(f"{self._refused} messages were refused")

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._waiting = {waiting for waiting in self._waiting if waiting > tag}
        else:
            self._waiting.discard(tag)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        count = len(self._waiting)
        self._on_ack(tag, multiple)
        self._refused += count - len(self._waiting)
