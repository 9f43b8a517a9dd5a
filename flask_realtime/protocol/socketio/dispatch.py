"""The table of handlers: event and namespace to what to call, and with which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ...typing import Habit

CONNECT, DISCONNECT, ANY = "connect", "disconnect", "*"


class Handler(NamedTuple):
    """What was found for an event.

    Attributes:
        call: The function; or, when ``target`` is set, its method ``trigger_event``.
        target: The instance of a class-based namespace.
        any_event: Registered for ``'*'``: the event's name comes first.
        any_namespace: Registered for namespace ``'*'``.
        habit: For the runtime; handlers that aren't found again by name have none.
    """

    call: Callable[..., Any]
    target: Any = None
    any_event: bool = False
    any_namespace: bool = False
    habit: Habit | None = None


class Handlers:
    """Functions by namespace and event, class-based namespaces by name."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Callable[..., Any]]] = {}
        self.targets: dict[str, Any] = {}
        self.found: dict[tuple[str, Any], Handler] = {}
        """What `find` has found, by namespace and event: only what was registered under just these names."""

    def add(self, event: str, function: Callable[..., Any], namespace: str) -> None:
        """Register a function; an earlier one for the same event is replaced.

        Raises:
            ValueError: It can't be called, or only be awaited.
            TypeError: The event has no name.
        """
        check(event, function)
        self.functions.setdefault(namespace, {})[event] = function
        self.found.clear()

    def add_target(self, target: Any, namespace: str) -> None:
        """Register an instance of a class-based namespace."""
        self.targets[namespace] = target
        self.found.clear()

    def knows(self, namespace: str) -> bool:
        """Whether a namespace has handlers of its own."""
        return namespace in self.functions or namespace in self.targets

    def find(self, event: Any, namespace: str) -> Handler | None:
        """Return the handler of an event.

        The order: function of this namespace and event, catch-all function of this namespace, function of this event
        for all namespaces, catch-all function for all; then the class of this namespace, then the class for all. The
        catch-alls never get ``connect`` and ``disconnect``.
        """
        found = self.found.get((namespace, event))
        if found is not None:
            return found
        found = self._search(event, namespace)
        if found is not None and not found.any_event and not found.any_namespace and found.target is None:
            found = found._replace(habit=Habit())
            self.found[namespace, event] = found  # bounded: only names that were registered
        return found

    def _search(self, event: Any, namespace: str) -> Handler | None:
        reserved = event in (CONNECT, DISCONNECT)
        for any_namespace, place in ((False, namespace), (True, ANY)):
            functions = self.functions.get(place)
            if functions is None:
                continue
            if event in functions:
                return Handler(functions[event], None, False, any_namespace)
            if ANY in functions and not reserved:
                return Handler(functions[ANY], None, True, any_namespace)
        for any_namespace, place in ((False, namespace), (True, ANY)):
            target = self.targets.get(place)
            if target is not None:
                return Handler(target.trigger_event, target, False, any_namespace)
        return None


def check(event: Any, function: Any) -> None:
    """Raise an error that names the mistake when this can't be an event and its handler."""
    if callable(event):
        raise TypeError(
            f"expected an event's name, got the function {getattr(event, '__name__', event)!r}: "
            "write @socketio.event, or @socketio.on('name')"
        )
    if not callable(function):
        raise ValueError(f"handler of {event!r}: expected something to call, got {function!r}")
    if inspect.iscoroutinefunction(function):
        raise ValueError(
            f"handler of {event!r}: expected a plain function, got a coroutine function; asyncio isn't served"
        )


def accepts(function: Callable[..., Any], count: int) -> bool:
    """Whether ``function`` can be called with ``count`` positional arguments; True when that can't be told."""
    try:
        return _accepts(function, count)
    except TypeError:  # not hashable, so it can't be remembered
        return _accepts.__wrapped__(function, count)


@lru_cache(maxsize=1024)
def _accepts(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def fit(function: Callable[..., Any], args: Sequence[Any], least: int) -> tuple[Any, ...]:
    """Drop arguments from the end that an older handler doesn't take.

    Args:
        function: The handler.
        args: All that there are.
        least: Arguments that are never dropped.

    Returns:
        As many of ``args`` as the function takes; all of them when none of the lengths fits, so that the call's own
        error says what is wrong.
    """
    for count in range(len(args), least - 1, -1):
        if accepts(function, count):
            return tuple(args[:count])
    return tuple(args)
