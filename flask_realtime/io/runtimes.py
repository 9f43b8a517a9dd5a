"""Which runtime: threads, or the greenlets of the library that this process uses."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

from ..errors import ConfigurationError
from . import uwsgi
from .green import Greens
from .threads import Threads

logger = logging.getLogger("flask_realtime")

MODES = ("eventlet", "gevent_uwsgi", "gevent", "threading")
"""What ``async_mode`` may be, in the order in which they are tried."""

# Where the kernel of a mode is, and what brings it.
_KERNELS = {"eventlet": ("eventlet", "Eventlet"), "gevent_uwsgi": ("gevent", "Gevent"), "gevent": ("gevent", "Gevent")}


def choose(mode: str | None, ordered: bool, workers: int, per_owner: int) -> Threads:
    """Make the runtime for a mode.

    Args:
        mode: One of `MODES`, or None for what the process uses already: a library that is only installed isn't chosen.
        ordered: See `Threads`.
        workers: See `Threads`.
        per_owner: See `Threads`.

    Raises:
        ConfigurationError: There is no such mode, or what it needs isn't there.
    """
    if mode is None:
        mode, why = _in_use()
        if mode != "threading":
            logger.info("async_mode is %r: %s", mode, why)
    elif mode not in MODES:
        raise ConfigurationError(
            f"Invalid async_mode specified: expected one of {', '.join(map(repr, MODES))} or None, got {mode!r}"
        )
    uwsgi.judge(mode)
    if mode == "threading":
        return Threads(ordered, workers, per_owner)
    library, kernel = _KERNELS[mode]
    try:
        module: Any = importlib.import_module(f"flask_realtime.io.{library}")
    except ImportError as error:
        raise ConfigurationError(
            f"async_mode={mode!r} needs a package that isn't installed ({error}): "
            f"pip install 'flask_realtime[{library}]'"
        ) from error
    runtime = Greens(getattr(module, kernel)(), ordered, workers, per_owner)
    runtime.name = mode
    return runtime


def _in_use() -> tuple[str, str]:
    """Return the mode that fits this process, and why."""
    if by_flask_run():
        return "threading", "the flask command serves with threads"
    if patched("eventlet"):
        return "eventlet", "the process is patched by eventlet"
    if uwsgi.runs_gevent():
        return "gevent_uwsgi", "the process is uWSGI's, with gevent"
    if patched("gevent"):
        return "gevent", "the process is patched by gevent"
    return "threading", "nothing is patched"


def by_flask_run() -> bool:
    """Whether this is `flask run`, which serves with Werkzeug."""
    return os.environ.get("FLASK_RUN_FROM_CLI") == "true"


def patched(library: str) -> bool:
    """Whether eventlet or gevent has put its sockets in the place of the standard library's."""
    if library == "eventlet":
        patcher = sys.modules.get("eventlet.patcher")
        return patcher is not None and bool(patcher.is_monkey_patched("socket"))
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("socket"))


def wanted(environ: dict[str, Any], mode: str) -> str | None:
    """Return the mode that the server of a request needs where that isn't ``mode``; None when all is well."""
    if environ.get("SERVER_SOFTWARE", "").startswith("gevent/"):
        needed = "gevent"
    elif "eventlet.input" in environ:
        needed = "eventlet"
    elif "werkzeug.socket" in environ and mode != "threading" and not patched(mode):
        needed = "threading"  # patched, its threads would be greenlets
    elif uwsgi.serves(environ) and uwsgi.runs_gevent():
        needed = "gevent" if mode == "gevent" else "gevent_uwsgi"
    else:
        return None
    return None if needed == mode else needed
