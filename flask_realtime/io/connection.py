"""Connection: a WebSocket over a socket of our own. Bytes in through the reader, frames out without waiting."""

from __future__ import annotations

import logging
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..protocol.websocket import frames as websocket
from ..protocol.websocket.reader import Reader
from ..typing import Frame
from . import calls
from .hub import Hub, Timer

logger = logging.getLogger("flask_realtime.io")

_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_send = calls.send  # one look-up less for each delivery

_PIECE, _RECORD = 262144, 16384  # bytes offered at a time: of a backlog, and to TLS, whose records hold no more

LINGER = 2.0
"""Seconds that a peer has to close its side after our close frame."""

STALL = 10.0
"""Seconds that a client may take nothing of what waits for it before it is cut off."""

_TURN = 64  # messages that came in one piece after which handlers are the pool's, for the sake of the other clients
_CORK = 32768  # bytes that are kept to be joined at most


class Connection:
    """A transport on the byte level.

    Any thread may write: what the socket takes goes out at once, the rest waits in the backlog for the hub. A client
    whose backlog passes the limit, or isn't taken for `STALL` seconds, is closed as slow. The hub's leader alone reads;
    while it handles what came in one piece, the answers are kept, to go out in one piece.

    Args:
        hub: Watches the socket.
        sock: Non-blocking and ours alone; a TLS socket works too.
        reader: Of incoming bytes.
        max_backlog: Bytes that may wait.
        deflate_from: Size of the smallest message that is sent compressed; None for never.
        ended: Called in the hub's thread when the socket is closed.
        slow: Called with the reason when the client is cut off because it reads too slowly.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_corked",
        "_deadline",
        "_deflate_from",
        "_descriptor",
        "_draining",
        "_ended",
        "_head",
        "_hub",
        "_left",
        "_lock",
        "_max_backlog",
        "_on_close",
        "_on_message",
        "_opened",
        "_paused",
        "_pulled",
        "_reader",
        "_slow",
        "_sock",
        "_taken",
        "_timer",
        "_tls",
        "_watching_write",
    )

    def __init__(
        self,
        hub: Hub,
        sock: Any,
        reader: Reader,
        max_backlog: int,
        deflate_from: int | None = None,
        ended: Callable[[], object] | None = None,
        slow: Callable[[str], object] | None = None,
    ) -> None:
        self._hub, self._sock, self._reader = hub, sock, reader
        self._max_backlog, self._deflate_from, self._ended, self._slow = max_backlog, deflate_from, ended, slow
        self._lock = hub.lock()
        self._backlog = bytearray()
        self._head = 0  # bytes of the backlog that are the rest of one message, which may be larger than the limit
        self._watching_write = False
        self._corked = False  # what is written waits for the answers to the rest of what came with it
        self._left: deque[str | bytes] = deque()  # came, and isn't handed on yet
        self._taken = False  # whether anything of the backlog went out since the deadline was set
        self._deadline: Timer | None = None
        self._closing = False  # a close frame is sent or waits; nothing else is sent after it
        self._pulled = False  # the end was reported to the floor above
        self._opened = False
        self._paused = False
        self._draining = False  # the peer was told that it is over; its answer or its end is awaited
        self._timer: Timer | None = None
        self._tls = calls.is_tls(sock)
        self._descriptor: int = sock.fileno()
        self._on_message: Callable[[str | bytes], object] = _nothing
        self._on_close: Callable[[str], object] = _nothing

    def begin(self, head: bytes) -> None:
        """Send the answer that switches protocols, before any frame."""
        with self._lock:
            self._raw(head)

    def open(
        self, on_message: Callable[[str | bytes], object], on_close: Callable[[str], object], early: bytes
    ) -> None:
        """Begin to read.

        Args:
            on_message: Takes each message, in the hub's thread.
            on_close: Called once with a reason when the peer has gone.
            early: Bytes that the server had read already.
        """
        self._on_message, self._on_close = on_message, on_close
        self._hub.call_soon(self._open, early)

    def _open(self, early: bytes) -> None:
        self._opened = True
        if early and not self._receive(early):
            return
        if self._sock is not None:
            self._hub.watch(self._sock, self, self._watching_write)
            if self._tls:
                self.readable()  # OpenSSL may hold bytes that the selector doesn't know of

    # Out. Any thread.

    def write(self, frames: Sequence[Frame]) -> None:
        """Send frames; see the class for what happens to those that can't go now."""
        least = self._deflate_from
        if least is not None:
            data = b"".join([frame.deflated if len(frame.message) >= least else frame.websocket for frame in frames])
        elif len(frames) == 1:
            data = frames[0].websocket
        else:
            data = b"".join([frame.websocket for frame in frames])
        with self._lock:
            if self._closing:
                return
            if self._corked:
                if len(self._backlog) + len(data) <= _CORK:
                    self._backlog += data
                    return
                self._flush()
            if not self._backlog:
                sent = -1
                if _send is not None and not self._tls and len(data) <= calls.SIZE:
                    sent = _send(self._descriptor, data, len(data), calls.FLAGS)
                if sent < 0:
                    try:
                        sent = self._offer(data) if self._tls else self._sock.send(data)
                    except _AGAIN:
                        sent = 0
                    except OSError:
                        return  # the hub will see the end too, and report it
                if sent < len(data):
                    self._backlog += data[sent:]
                    self._head = len(self._backlog)
                    self._late()
                return
            if len(self._backlog) - self._head + len(data) <= self._max_backlog:
                self._backlog += data
                return
            waiting = len(self._backlog) + len(data)
            self._closing = True
        self._hub.call_soon(self._cut_off, f"{waiting} bytes wait, the limit is {self._max_backlog}")

    @property
    def waiting(self) -> int:
        """Bytes that wait for the client."""
        return len(self._backlog)

    def _flush(self) -> None:
        """Send what is kept, unless the hub does already. With the lock held."""
        if not self._backlog or self._watching_write:
            return
        try:
            taken = self._offer(bytes(self._backlog))
        except OSError:
            return  # the hub will see the end too, and report it
        self._took(taken)
        if self._backlog:
            self._late()

    def _took(self, taken: int) -> None:
        del self._backlog[:taken]
        self._head = max(0, self._head - taken)
        self._taken = self._taken or taken > 0

    def _uncork(self) -> None:
        with self._lock:
            self._corked = False
            if self._sock is not None:
                self._flush()

    def _offer(self, data: bytes | bytearray) -> int:
        """Send what the socket takes now and return how much that was. With the lock held.

        OpenSSL wants a piece that it couldn't send again with the same beginning and no shorter, so TLS gets pieces of
        one record, each from the beginning of what is left.
        """
        if not self._tls:
            try:
                return calls.offer(self._sock, self._descriptor, data)
            except _AGAIN:
                return 0
        sent = 0
        while sent < len(data):
            try:
                taken = self._sock.send(data[sent : sent + _RECORD])
            except _AGAIN:
                break
            if not taken:  # so gevent says it
                break
            sent += taken
        return sent

    def _late(self) -> None:
        if not self._watching_write:
            self._watching_write = True
            self._hub.call_soon(self._rewatch)

    def _raw(self, data: bytes) -> None:
        """Send bytes that are frames already. With the lock held."""
        if self._backlog:
            self._backlog += data
            return
        try:
            sent = self._offer(data)
        except OSError:
            return
        if sent < len(data):
            self._backlog += data[sent:]
            self._late()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what waits and a close frame, then end when the peer has answered, or soon after."""
        with self._lock:
            if self._closing or self._sock is None:
                return
            self._closing = True
            self._raw(websocket.close(code, reason))
        self._pulled = True
        self._linger()

    def _linger(self) -> None:
        """End soon, whatever the peer does."""
        if self._timer is None:
            self._timer = self._hub.call_later(LINGER, self._end)

    # In. The hub's thread.

    def readable(self) -> None:
        """Take what came."""
        if self._left:
            self.resume()
            if self._left:
                return
        while True:
            sock = self._sock
            if sock is None:
                return
            try:
                if self._tls:
                    with self._lock:  # OpenSSL can't read and write at the same time
                        data = sock.recv(calls.SIZE)
                else:
                    data = self._hub.receiver.recv(sock, self._descriptor)
            except _AGAIN:
                return
            except OSError:
                data = b""
            if not data:
                self._gone()
                return
            if self._draining:
                return  # it is told already; what it still sends is dropped
            if not self._receive(data) or not self._tls or self._paused:
                return

    def _receive(self, data: bytes) -> bool:
        """Hand messages on; False when the connection has ended, or its rest is another thread's."""
        messages = self._reader.feed(data)
        if messages:
            hub, left = self._hub, self._left
            leader = hub.leader
            hub.reading = self
            # Whoever handles a message is the only one that has it: it may be large.
            if len(messages) == 1:
                if not self._closing:
                    self._on_message(messages.pop())
                if hub.leader != leader:
                    return False
            else:
                self._corked = True
                left.extend(messages)
                messages.clear()
                turn = len(left) - _TURN
                while left:
                    if len(left) == turn:
                        hub.reading = None
                    if self._closing:
                        left.popleft()
                    else:
                        self._on_message(left.popleft())
                    if hub.leader != leader:
                        return False
                self._uncork()
            hub.reading = None
        if self._reader.replying or self._reader.closing:
            return self._settle()
        return True

    def resume(self) -> None:
        """Go on with what the former leader of the hub had received."""
        self._uncork()
        hub, left = self._hub, self._left
        leader = hub.leader
        hub.reading = self
        while left and self._sock is not None:
            if self._closing:
                left.popleft()
            else:
                self._on_message(left.popleft())
            if hub.leader != leader:
                return
        hub.reading = None
        if self._sock is not None and self._settle():
            self._rewatch()
            if self._tls:
                self.readable()

    def _settle(self) -> bool:
        """Answer what the protocol itself has to; False when the connection has ended."""
        reader = self._reader
        if reader.replying:
            reply = reader.reply()
            with self._lock:
                if reply and self._sock is not None and not self._closing:
                    self._raw(reply)
                slow = len(self._backlog) > 2 * self._max_backlog  # it asks for pongs and doesn't read them
                self._closing = self._closing or reader.closing or slow
            if slow:
                self._cut_off("it doesn't read what it asks for")
                return False
        if reader.closing:
            self._report("transport close" if reader.clean else "transport error")
            self._finish()
            return False
        return True

    def writable(self) -> None:
        """Send what waited."""
        with self._lock:
            if self._sock is None:
                return
            lost = False
            try:
                self._took(self._offer(self._backlog[:_PIECE]))
            except OSError:
                self._backlog.clear()
                lost = True
            done = not self._backlog
            if done:
                self._watching_write = False
        if lost:
            self._gone()
        elif done:
            self._rewatch()
            if self._reader.closing:
                self._finish()

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on. Any thread."""
        self._paused = paused
        self._hub.call_soon(self._pause)

    def _pause(self) -> None:
        self._rewatch()
        if self._tls and self._opened and not self._paused:
            self.readable()  # as in `_open`

    def _rewatch(self) -> None:
        if self._sock is None or not self._opened:  # not before the early bytes, and there is somebody to take them
            return
        if self._watching_write and self._deadline is None:
            self._taken = False
            self._deadline = self._hub.call_later(STALL, self._expire)
        if self._paused:
            self._hub.watch_write_only(self._sock, self, self._watching_write)
        else:
            self._hub.watch(self._sock, self, self._watching_write)

    def _expire(self) -> None:
        """See whether the client has taken anything of late."""
        self._deadline = None
        with self._lock:
            waiting, stalled = len(self._backlog), not self._taken
            if self._sock is None or not waiting:
                return
            cut_off = stalled and not self._closing
            self._closing = self._closing or stalled
        if cut_off:
            self._cut_off(f"it took none of {waiting} bytes in {STALL:g} s")
        elif not stalled:
            self._rewatch()

    # The end. The hub's thread.

    def _cut_off(self, why: str) -> None:
        """End a client that doesn't read: it may still do so for a while, and then find a close frame that says why."""
        with self._lock:
            if self._sock is not None:
                self._raw(websocket.close(websocket.POLICY, "slow consumer"))
        if self._slow is not None:
            self._slow(why)
        self._report("transport error")
        self._linger()

    def failed(self) -> None:
        """End at once: an error of ours."""
        self._report("transport error")
        self._end()

    def _gone(self) -> None:
        self._report("transport close")
        self._end()

    def _finish(self) -> None:
        """The close frames have crossed: end, once our last bytes are out."""
        with self._lock:
            waiting = bool(self._backlog)
        if not self._draining:
            self._draining = True
            self._linger()
        if waiting:
            return
        # "The server should close the connection first", but what the peer is still sending must be taken, or it would
        # be reset, lose the close frame that says why, and be an error in a proxy's log. A peer's close frame is no
        # promise: some send more behind it. Source: RFC 6455, 7.1.1.
        sock = self._sock
        if sock is not None:
            calls.end_writing(sock)
            self._rewatch()

    def _report(self, reason: str) -> None:
        if not self._pulled:
            self._pulled = True
            self._on_close(reason)

    def _end(self) -> None:
        with self._lock:
            sock, self._sock = self._sock, None
            self._closing = True
        if sock is None:
            return
        self._on_message = self._on_close = _nothing
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._hub.unwatch(sock)
        if self._ended is not None:
            self._ended()
        else:
            sock.close()


def _nothing(value: object) -> None:
    pass
