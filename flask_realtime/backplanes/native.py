"""The operating system's threads and locks, whether or not gevent or eventlet has put greenlets in their place."""

from __future__ import annotations

import _thread
import importlib
import sys
from _queue import Empty, SimpleQueue
from collections.abc import Callable
from typing import Any

__all__ = ["Empty", "SimpleQueue", "lock", "start"]


def _patched(library: str) -> Any:
    """Return the module that has patched ``_thread``; None when it hasn't."""
    if library == "gevent":
        monkey: Any = sys.modules.get("gevent.monkey")
        return monkey if monkey is not None and monkey.is_module_patched("_thread") else None
    patcher: Any = sys.modules.get("eventlet.patcher")
    return patcher if patcher is not None and patcher.is_monkey_patched("thread") else None


def _original(name: str) -> Any:
    """Return what the module ``_thread`` had under a name before it was patched."""
    monkey, patcher = _patched("gevent"), _patched("eventlet")
    if monkey is not None:
        return monkey.get_original("_thread", name)
    if patcher is not None:
        return getattr(patcher.original("_thread"), name)
    return getattr(_thread, name)


def lock() -> Any:
    """Make a lock."""
    return _original("allocate_lock")()


def start(function: Callable[[], object]) -> Any:
    """Run a function in a thread of its own, which doesn't keep the process from ending.

    Returns:
        A lock that is held as long as the function runs.
    """
    # What loops are made of is imported with the first one, and threads that do so together wait for each other.
    for library, hubs in (("gevent", "gevent"), ("eventlet", "eventlet.hubs")):
        if _patched(library) is not None:
            importlib.import_module(hubs).get_hub()
    running = lock()
    running.acquire()

    def run() -> None:
        try:
            function()
        finally:
            running.release()

    _original("start_new_thread")(run, ())
    return running
