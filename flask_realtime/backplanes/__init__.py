"""What waits for brokers.

`open` turns a URL into a backplane. Each kind of broker has a module with one body; its driver is imported when a URL
asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, cast

from ..errors import BackplaneError, ConfigurationError
from ..typing import Backplane
from .urls import masked

__all__ = ["KINDS", "BackplaneError", "ConfigurationError", "masked", "open"]

REDIS = ("redis", "rediss", "unix", "valkey", "valkeys")
SENTINEL = ("redis+sentinel", "valkey+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster")
STREAMS = ("redis+streams", "rediss+streams", "unix+streams", "valkey+streams", "valkeys+streams")
AMQP = ("amqp", "amqps", "pyamqp")

KINDS = {
    **dict.fromkeys((*REDIS, *SENTINEL, *CLUSTER), ("redis", "Redis", "redis")),
    **dict.fromkeys(STREAMS, ("streams", "Streams", "redis")),
    **dict.fromkeys(AMQP, ("kombu", "Kombu", "kombu")),
    "kafka": ("kafka", "Kafka", "kafka"),
    "zmq+tcp": ("zmq", "Zmq", "zmq"),
}
"""URL scheme -> module, class, and the extra of setup.cfg that brings its driver. All else is asked of kombu."""

OTHERS = ("kombu", "Kombu", "kombu")


def open(url: str | Sequence[str], channel: str, **options: Any) -> Backplane:
    """Make the backplane that a URL means. It connects when it is first used.

    Args:
        url: Its scheme says which. For Kafka it may be a list.
        channel: Its name at the broker; processes with the same one hear each other.
        **options: What the backplane's class takes, as ``redis_options``.

    Raises:
        ConfigurationError: There is no such backplane, its package isn't installed, or an option isn't known.
    """
    first = url if isinstance(url, str) else next(iter(url), "")
    scheme, colon, _ = first.partition("://")
    if not colon:
        raise ConfigurationError(f"expected a URL like redis://localhost:6379, got {masked(first)!r}; {_known()}")
    module, name, extra = KINDS.get(scheme.lower(), OTHERS)
    try:
        kind = getattr(importlib.import_module(f".{module}", __name__), name)
    except ImportError as error:
        unknown = f"no backplane is built in for {scheme}://, and " if scheme.lower() not in KINDS else ""
        raise ConfigurationError(
            f"{unknown}{masked(url)} needs a package that can't be imported ({error}): "
            f"pip install 'flask_realtime[{extra}]'; {_known()}"
        ) from error
    if (module, name, extra) == OTHERS and not kind.knows(scheme.lower()):
        raise ConfigurationError(f"no backplane for {scheme}://; {_known()}, and what kombu has transports for")
    try:
        return cast(Backplane, kind(url, channel, **options))
    except TypeError as error:
        raise ConfigurationError(f"wrong options for {masked(url)}: {error}") from error


def _known() -> str:
    return "known schemes: " + ", ".join(sorted(KINDS))
