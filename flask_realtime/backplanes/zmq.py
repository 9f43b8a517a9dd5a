"""ZeroMQ: a proxy between processes. It confirms nothing and keeps nothing.

Messages have the wrapping that python-socketio's have: JSON with ``type``, ``channel`` and ``data``. The data stands in
it as it was given, which is JSON as well. A subscription isn't confirmed either: a listener sends a message of another
type by the way that all messages take, and is subscribed when it comes back.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

from ..errors import BackplaneError, ConfigurationError
from .urls import masked
from .wire import Wires

CONNECTING, PATIENCE = 3.0, 5.0
"""Seconds that the proxy may take to be reached, and to take messages."""

QUIET, PROBE = 1.0, 5
"""Seconds without a message after which a listener says so; and after how many of them it sends a probe."""

MOMENT, LAST = 0.1, 2.0
"""Seconds that what a connection has taken has to leave: when that one failed, and when all was well."""

SLICE = 0.1
"""Seconds after which whoever waits looks whether the backplane was closed."""

HEARTBEAT = 5000
"""Milliseconds; a connection on which one is missing is dead."""

WAITING = 100_000
"""Messages that may wait on a socket."""


class Zmq:
    """The backplane of ``zmq+tcp://``.

    Args:
        url: ``zmq+tcp://host:port1+port2``; messages go to the first port and come from the second.
        channel: What messages are marked with.
    """

    keeps = False

    def __init__(self, url: str, channel: str) -> None:
        self.url = masked(url)
        match = re.fullmatch(r"zmq\+(tcp://.+):(\d+)\+(\d+)/?", url)
        if not match:
            raise ConfigurationError(f"expected zmq+tcp://host:port1+port2, got {self.url}")
        self._to, self._from = f"{match[1]}:{match[2]}", f"{match[1]}:{match[3]}"
        self._channel = channel
        self._head = b'{"type": "message", "channel": %s, "data": ' % json.dumps(channel).encode()
        self._wires = Wires(self.url)
        self._publishing: Push | None = None
        self._publisher: int | None = None  # the thread that has made it

    def publish(self, messages: Sequence[bytes]) -> None:
        """See `Backplane`. The proxy has taken what its connection has taken; more can't be known."""
        self._wires.check()
        if self._publishing is None:
            self._publishing, self._publisher = Push(self._to, self._wires), threading.get_ident()
        try:
            for data in messages:
                self._publishing.send(self._head + data + b"}")
        except BackplaneError:
            self._drop(MOMENT)
            raise

    def listen(self) -> Iterator[bytes | None]:
        """See `Backplane`."""
        self._wires.check()
        probe = Push(self._to, self._wires)
        context: Any = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, WAITING)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT)
        try:
            socket.connect(self._from)
            yield from self._messages(socket, probe)
        finally:
            socket.close(linger=0)
            context.term()
            probe.close()

    def listeners(self) -> int | None:
        """See `Backplane`. A proxy doesn't tell."""
        return None

    def close(self) -> None:
        """See `Backplane`. In the thread that has published, what it has published leaves first."""
        self._wires.close()
        if self._publisher == threading.get_ident():
            self._drop(LAST)

    def __del__(self) -> None:
        # Whoever closed the backplane couldn't close the sockets of the publishing thread.
        if getattr(self, "_publishing", None) is not None:
            self._drop(MOMENT)

    def _drop(self, linger: float) -> None:
        """Forget the connection to the first port; what is on its way has ``linger`` seconds."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.close(linger)

    def _messages(self, socket: Any, probe: Push) -> Iterator[bytes | None]:
        mark = json.dumps({"type": "probe", "channel": self._channel, "data": uuid.uuid4().hex}).encode()
        self._subscribe(socket, probe, mark)
        yield None
        heard = time.monotonic()
        quiet = 0
        while not self._wires.closed:
            if socket.poll(int(SLICE * 1000)):
                wrapped = socket.recv()
                data = self._unwrap(wrapped)
                if data is not None:
                    yield data
                if data is not None or wrapped == mark:
                    heard, quiet = time.monotonic(), 0
            elif time.monotonic() - heard >= QUIET:
                heard, quiet = time.monotonic(), quiet + 1
                if quiet == PROBE:
                    probe.send(mark)
                elif quiet > PROBE + PATIENCE:
                    raise BackplaneError(f"lost the ZeroMQ proxy at {self.url}: nothing comes back")
                if probe.lost():
                    raise BackplaneError(f"lost the ZeroMQ proxy at {self.url}: it has closed the connection")
                yield None

    def _subscribe(self, socket: Any, probe: Push, mark: bytes) -> None:
        end = time.monotonic() + CONNECTING
        while time.monotonic() < end:
            self._wires.check()
            probe.send(mark)
            again = time.monotonic() + SLICE
            while (left := again - time.monotonic()) > 0:
                if socket.poll(max(1, int(left * 1000))) and socket.recv() == mark:
                    return
        raise BackplaneError(f"can't reach the ZeroMQ proxy at {self.url}: nothing comes from its second port")

    def _unwrap(self, wrapped: bytes) -> bytes | None:
        if wrapped.startswith(self._head):
            return wrapped[len(self._head) : -1]
        if b"probe" in wrapped[:30]:
            return None
        try:
            message = json.loads(wrapped)
            if message["type"] != "message" or message["channel"] != self._channel:
                return None
            return json.dumps(message["data"]).encode()
        except (ValueError, TypeError, KeyError):
            return None  # somebody else's


class Push:
    """A connection to the first port, and whether it stands.

    Args:
        address: ``tcp://host:port``.
        wires: Knows whether the backplane was closed.
    """

    def __init__(self, address: str, wires: Wires) -> None:
        self._wires, self._pid = wires, os.getpid()
        self._context: Any = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, WAITING)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing may wait for a connection that isn't there
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self._monitor = self._socket.get_monitor_socket(events)
        self._socket.connect(address)
        if not self._monitor.poll(int(CONNECTING * 1000)) or self.lost():
            self.close()
            raise BackplaneError(f"can't reach the ZeroMQ proxy at {wires.url}: no answer for {CONNECTING:.0f} seconds")

    def lost(self) -> bool:
        """Return whether the connection has ended since this was asked."""
        lost = False
        while self._monitor.poll(0):
            number = int.from_bytes(self._monitor.recv_multipart()[0][:2], "little")
            lost = lost or number == zmq.EVENT_DISCONNECTED
        return lost

    def send(self, data: bytes) -> None:
        """Send a message.

        Raises:
            BackplaneError: The connection was lost, or nobody takes anything.
        """
        if self.lost():
            raise BackplaneError(f"lost the ZeroMQ proxy at {self._wires.url}: it has closed the connection")
        end = time.monotonic() + PATIENCE
        while not self._socket.poll(int(SLICE * 1000), zmq.POLLOUT):
            self._wires.check()
            if time.monotonic() > end:
                raise BackplaneError(f"the ZeroMQ proxy at {self._wires.url} takes nothing")
        self._socket.send(data)

    def close(self, linger: float = MOMENT) -> None:
        """Close; what is on its way has ``linger`` seconds."""
        if self._pid != os.getpid():
            return  # a copy that came with a fork: its threads didn't, and would be waited for
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=int(linger * 1000))
        self._context.term()
