"""Kafka: a log, of which each process reads all; a listener that was away goes on where it was.

A body sends to one partition, so that what it sent stays in order, and listens to all of them, in no consumer group.
kafka-python has a thread that sends. In a process that gevent or eventlet has patched it is a greenlet of the
publishing thread, which runs while `publish` waits; nothing is left to do when it returns.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import kafka
import kafka.admin
import kafka.errors

from ..errors import BackplaneError, ConfigurationError
from .urls import masked, split
from .wire import Wires

CONNECTING, PATIENCE = 5.0, 10.0
"""Seconds that a broker may take to be reached, and to take messages."""

QUIET, CHECK = 1.0, 3
"""Seconds without a message after which a listener says so; and after how many of them it asks for the broker."""

SLICE = 0.25
"""Seconds after which whoever waits looks whether the backplane was closed."""

LARGEST = 64 << 20
"""Bytes of a request. Brokers have a limit of their own for a message, about a million bytes unless told otherwise."""

logger = logging.getLogger("flask_realtime.backplanes")

Producer: Any = kafka.KafkaProducer
Consumer: Any = kafka.KafkaConsumer
Admin: Any = kafka.KafkaAdminClient

# What differs from kafka-python's defaults, where the version at hand has it.
TIMES = {
    "api_version_auto_timeout_ms": int(CONNECTING * 1000),
    "bootstrap_timeout_ms": int(CONNECTING * 1000),
    "max_block_ms": int(CONNECTING * 1000),
    "reconnect_backoff_max_ms": 1000,
    "request_timeout_ms": int(CONNECTING * 1000),
}
PUBLISHING = {
    "acks": "all",
    "delivery_timeout_ms": int(PATIENCE * 1000),
    "linger_ms": 0,
    "max_request_size": LARGEST,
    "max_in_flight_requests_per_connection": 1,  # or one that is sent again comes behind its successor
}
LISTENING = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 250, "group_id": None}


class Kafka:
    """The backplane of ``kafka://``.

    Args:
        url: ``kafka://host:port``, several hosts separated by commas, or a list of such URLs.
        channel: The topic. It is made, with one partition, when there is none.
        kafka_options: For kafka-python's producer and consumer: ``security_protocol`` and the like.
    """

    keeps = True

    def __init__(self, url: str | Sequence[str], channel: str, *, kafka_options: dict[str, Any] | None = None) -> None:
        self.url = masked(url)
        parts = [split(each) for each in ([url] if isinstance(url, str) else url)]
        if any(part.user or part.path.strip("/") or part.query for part in parts):
            raise ConfigurationError(f"expected kafka://host:port, got {self.url}; kafka_options has all else")
        hosts = [host for part in parts for host in part.hosts] or [("localhost", None)]
        self._options = dict(kafka_options or {})
        unknown = set(self._options) - set(Producer.DEFAULT_CONFIG) - set(Consumer.DEFAULT_CONFIG)
        if unknown:
            raise ConfigurationError(f"kafka-python has no such options: {', '.join(sorted(unknown))}")
        self._servers = [f"{host or 'localhost'}:{port or 9092}" for host, port in hosts]
        self._channel = channel
        self._wires = Wires(self.url)
        self._producer: Any = None
        self._publisher: int | None = None  # the thread that has made it
        self._partition: int | None = None
        self._next: dict[Any, int] = {}  # partition -> offset of what follows the last message that was yielded

    def publish(self, messages: Sequence[bytes]) -> None:
        """See `Backplane`."""
        self._wires.check()
        try:
            if self._producer is None:
                self._make_topic()
                self._publisher = threading.get_ident()
                self._producer = Producer(**self._configured(Producer, PUBLISHING))
                # At the end of a forked process it would wait for a thread that didn't come along.
                atexit.unregister(getattr(self._producer, "_cleanup", None))  # type: ignore[arg-type]
            partitions = self._producer.partitions_for(self._channel)
            if self._partition not in partitions:
                self._partition = random.choice(sorted(partitions))
            self._wait([self._producer.send(self._channel, data, partition=self._partition) for data in messages])
        except BackplaneError:
            self._drop()
            raise
        except (kafka.errors.KafkaError, OSError, ValueError, AssertionError) as error:
            self._drop()
            raise self._failed(error) from error

    def listen(self) -> Iterator[bytes | None]:
        """See `Backplane`."""
        self._wires.check()
        consumer = None
        try:
            self._make_topic()
            consumer = Consumer(**self._configured(Consumer, LISTENING))
            self._begin(consumer)
            yield None
            yield from self._messages(consumer)
        except (kafka.errors.KafkaError, OSError, ValueError, AssertionError) as error:
            raise self._failed(error) from error
        finally:
            if consumer is not None:
                consumer.close()

    def listeners(self) -> int | None:
        """See `Backplane`. A log doesn't know who reads it."""
        return None

    def close(self) -> None:
        """See `Backplane`."""
        self._wires.close()
        if self._publisher == threading.get_ident():
            self._drop()

    def __del__(self) -> None:
        # Whoever closed the backplane couldn't close the connections of the publishing thread.
        if getattr(self, "_producer", None) is not None:
            try:
                self._drop()
            except Exception:  # at the end of the process anything may be gone
                pass

    def _configured(self, kind: Any, more: dict[str, Any]) -> dict[str, Any]:
        # A consumer that isn't in a group has no session, but some versions compare its time with the request's.
        options = {**TIMES, **more, "session_timeout_ms": 4000, "heartbeat_interval_ms": 1000, **self._options}
        known = {name: value for name, value in options.items() if name in kind.DEFAULT_CONFIG}
        return {**known, "bootstrap_servers": self._servers}

    def _failed(self, error: BaseException) -> BackplaneError:
        return BackplaneError(f"can't reach the Kafka broker at {self.url}: {error or type(error).__name__}")

    def _drop(self) -> None:
        """Forget the producer, and all that it hasn't sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                producer.close(timeout=0)
            except kafka.errors.KafkaError:  # some versions tell that not all was sent
                pass

    def _make_topic(self) -> None:
        admin = Admin(**self._configured(Admin, {}))
        try:
            topic = kafka.admin.NewTopic(self._channel, num_partitions=1, replication_factor=-1)
            admin.create_topics([topic])
        except kafka.errors.TopicAlreadyExistsError:
            pass
        finally:
            admin.close()

    def _wait(self, sent: list[Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not all(future.is_done for future in sent):
            self._wires.check()
            if time.monotonic() > end:
                raise kafka.errors.KafkaTimeoutError(f"it has not taken all within {PATIENCE:.0f} seconds")
            try:
                self._producer.flush(timeout=SLICE)
            except kafka.errors.KafkaTimeoutError:
                pass
        for future in sent:
            if future.failed() and not isinstance(future.exception, kafka.errors.MessageSizeTooLargeError):
                raise future.exception
            if future.failed():  # and would be for ever, with all that follows it
                logger.error("a message is not sent: the Kafka broker at %s says it is too large", self.url)

    def _begin(self, consumer: Any) -> None:
        end = time.monotonic() + CONNECTING
        while not (numbers := consumer.partitions_for_topic(self._channel)):
            self._wires.check()
            if time.monotonic() > end:
                raise kafka.errors.UnknownTopicOrPartitionError(self._channel)
            time.sleep(0.05)
        partitions = [kafka.TopicPartition(self._channel, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            if partition in self._next and self._next[partition] <= ends[partition]:
                consumer.seek(partition, self._next[partition])
            else:
                if partition in self._next:
                    logger.warning(
                        "the topic %s at %s ends before the last message that was received: it was made anew; messages "
                        "may be lost",
                        *(self._channel, self.url),
                    )
                # A partition that came later is new to everybody.
                (consumer.seek_to_beginning if self._next else consumer.seek_to_end)(partition)
                self._next[partition] = consumer.position(partition)

    def _messages(self, consumer: Any) -> Iterator[bytes | None]:
        heard = time.monotonic()
        quiet = 0
        while not self._wires.closed:
            arrived = consumer.poll(timeout_ms=int(SLICE * 1000))
            for partition, records in arrived.items():
                for record in records:
                    self._next[partition] = record.offset + 1
                    yield record.value or b""
            now = time.monotonic()
            if arrived:
                heard, quiet = now, 0
            elif now - heard >= QUIET:
                heard, quiet = now, quiet + 1
                if quiet % CHECK == 0:
                    consumer.end_offsets(consumer.assignment())
                yield None
