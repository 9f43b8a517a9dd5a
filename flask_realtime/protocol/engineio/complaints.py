"""Complaints: what the log is told of bad peers, each kind at most once a second. They could fill a disk otherwise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

EVERY = 1.0
"""Seconds from one complaint to the next one of its kind."""


class Complaints:
    """The complaints of one server.

    Args:
        logger: Where to tell.
        now: The clock, in seconds.
        lock: Guards the counts; any thread may complain.
    """

    def __init__(self, logger: logging.Logger, now: Callable[[], float], lock: AbstractContextManager[Any]) -> None:
        self._logger, self._now, self._lock = logger, now, lock
        self._kinds: dict[str, tuple[float, int]] = {}  # when it is to be said again, and how often it wasn't since

    def __call__(self, level: int, message: str, *args: object) -> None:
        """Log, unless the kind was logged just now; the next line of the kind then says how many are missing.

        Args:
            level: As in `logging`.
            message: The kind, with a %s for each of the ``args``; it isn't made of what a peer sent.
            args: What is particular to this case.
        """
        if not self._logger.isEnabledFor(level):
            return
        now = self._now()
        with self._lock:
            again, missing = self._kinds.get(message, (now, 0))
            if now < again:
                self._kinds[message] = again, missing + 1
                return
            self._kinds[message] = now + EVERY, 0
        if missing:
            message += f" (and {missing} more like it before)"
        self._logger.log(level, message, *args)
