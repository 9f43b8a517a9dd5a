"""The ports: what the floors ask of each other, as protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Done = Callable[[Any, Any, "BaseException | None"], object]
"""Called as ``done(token, result, error)`` when user code has ended; ``error`` is None when it returned. May
return an error that came after it."""


class Frame(Protocol):
    """One Engine.IO packet in the wire forms that transports take; each is made at most once."""

    message: str | bytes
    websocket: bytes
    deflated: bytes
    polling: str


class Transport(Protocol):
    """Carries frames to one client. Never waits: what can't go now is kept, up to a limit in bytes."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Send the frames of one packet; they stay together. May be called from any thread, also after the end."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send what is kept, then end. May be called from any thread, and twice."""

    def pause(self, paused: bool) -> None:
        """Read nothing until told to go on: the floor above has more than it can do. May be called from any thread."""


class Timer(Protocol):
    """What `Runtime.call_later` returns."""

    def cancel(self) -> None:
        """Forget the call if it hasn't begun."""


class Event(Protocol):
    """What `Runtime.event` returns: `threading.Event` in its shape."""

    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Task(Protocol):
    """What `Runtime.spawn` returns."""

    def join(self, timeout: float | None = None) -> None: ...


class Owner(Protocol):
    """Whose calls a runtime keeps in order.

    Attributes:
        inbox: For the runtime's own use; None at first.
    """

    inbox: Any

    def pause(self, paused: bool) -> None:
        """Called when too many calls wait, and when they are done."""


class Habit:
    """What a runtime has seen of one handler; a runtime may ignore it.

    Attributes:
        mean: Seconds that a call takes, of late.
        rest: Calls that it has to be well-behaved before it is taken for short again.
        fine: The next ``rest``, should it not be.
    """

    __slots__ = ("fine", "mean", "rest")

    def __init__(self) -> None:
        self.mean, self.rest, self.fine = 0.001, 0, 64


class Runtime(Protocol):
    """What differs between threads, gevent, eventlet and asyncio."""

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` where the transports live: directly, or by one hop. It must not wait."""

    def run(
        self,
        owner: Owner,
        handler: Callable[..., Any],
        args: Sequence[Any],
        done: Done,
        token: Any,
        urgent: bool = False,
        habit: Habit | None = None,
        size: int = 0,
    ) -> None:
        """Run user code, then call ``done(token, result, error)``.

        Args:
            owner: Whatever the calls belong to, usually a session. Calls of one owner start in the order in which they
                were given.
            handler: May wait as long as it likes.
            args: Its arguments.
            done: Called in the same place as the handler.
            token: Handed to ``done``.
            urgent: Start even when the owner has as many calls running as it may have.
            habit: Kept by the caller for each piece of user code.
            size: Bytes that the call keeps from being given back, about.
        """

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call ``function``, which must not wait, in ``seconds`` from now."""

    def spawn(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> Task:
        """Run ``function``, which may wait, in a thread, greenlet or task of its own."""

    def event(self) -> Event:
        """Make an event."""

    def lock(self) -> AbstractContextManager[Any]:
        """Make a lock; a null context where nothing preempts."""

    def sleep(self, seconds: float) -> None:
        """Let others run for ``seconds``."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""


class Backplane(Protocol):
    """Carries messages to every process, in each sender's order. Its methods block.

    `publish` and `listeners` are always called from one native thread, `listen` from another one; neither shares
    anything with other threads but `close`. In processes that gevent or eventlet has patched, these two threads have
    loops of their own, which run only while a call waits in them: nothing of a body may go on between the calls.

    Attributes:
        url: For logs; without its password.
        keeps: Whether a listener that was away gets what was published meanwhile.
    """

    url: str
    keeps: bool

    def publish(self, messages: Sequence[bytes]) -> None:
        """Give messages to the broker; return when it has taken all. Connect when there is no connection.

        Raises:
            BackplaneError: It can't be reached, or refuses. How many it has taken is unknown: the caller gives it all
                of them again, and receivers drop what they know.
        """

    def listen(self) -> Iterator[bytes | None]:
        """Subscribe and yield each message.

        None comes first, when the subscription stands. It comes again when no message has come for about a second.

        Raises:
            BackplaneError: The broker can't be reached, or was lost. The caller listens again after a while; what
                `keeps` then goes on behind the last message that was yielded.
        """

    def listeners(self) -> int | None:
        """Return how many processes are subscribed, or None where the broker doesn't tell.

        Raises:
            BackplaneError: The broker can't be reached.
        """

    def close(self) -> None:
        """End: `publish` and `listen` return or raise soon.

        Any thread may call this, and several times; the one that publishes does so when it ends.
        """
