"""Options of an Engine.IO server: checked once, read everywhere."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...errors import ConfigurationError

TRANSPORTS = ("polling", "websocket")

_SID_PREFIX = re.compile("[A-Za-z0-9._-]{0,16}")


@dataclass(frozen=True, slots=True)
class Options:
    """What can be set. Times are in seconds, sizes in bytes; every limit is one connection's unless it says otherwise.

    Attributes:
        ping_interval: From the last pong to the next ping; or ``(interval, grace)``: the client is told their sum.
        ping_timeout: From a ping to the end of a client of which nothing was heard.
        max_http_buffer_size: Size of one message or of one request's body; told to the client as ``maxPayload``.
        max_backlog: Bytes that may wait for a slow client before it is closed.
        allow_upgrades: Whether polling clients may go on to WebSocket.
        upgrade_timeout: From the opening of the second transport to the end of the attempt.
        close_timeout: How long the last packets of a closed polling session are kept for its next poll.
        http_compression: Whether polling answers may be compressed.
        compression_threshold: Size of the smallest answer that is.
        websocket_compression: Whether to agree to permessage-deflate; the same threshold holds.
        max_fragments: Fragments of one WebSocket message.
        max_connections: Sessions of the process; None for no limit. More get status 503.
        cookie: Name of a cookie that carries the session's id, or a dict of its name and attributes; None for no
            cookie.
        sid_prefix: What each session id begins with, at most 16 characters of A-Z a-z 0-9 - _ .; by it a load
            balancer can tell which process a session belongs to.
        cors_allowed_origins: None for the request's own origin; an origin; a list; ``"*"``; ``[]`` switches the check
            and the headers off; a callable ``(origin)`` or ``(origin, environ)``.
        cors_credentials: Whether browsers may send cookies from other origins that are allowed.
        allowed_hosts: Names of this server that a request's Host may have, each with a port or for all ports; one that
            begins with a dot stands for its subdomains too. None for any.
        trusted_proxies: How many proxies in front may set X-Forwarded-Proto and X-Forwarded-Host.
        transports: ``"polling"``, ``"websocket"`` or a list of both.
        allow_jsonp: Whether a GET with ``j`` is answered with a script. Scripts are read across origins.
        monitor_clients: Kept for compatibility; deadlines are always kept.
    """

    ping_interval: float | tuple[float, float] | list[float] = 25
    ping_timeout: float = 20
    max_http_buffer_size: int = 1_000_000
    max_backlog: int = 1 << 20
    allow_upgrades: bool = True
    upgrade_timeout: float = 10
    close_timeout: float = 30
    http_compression: bool = True
    compression_threshold: int = 1024
    websocket_compression: bool = False
    max_fragments: int = 1024
    max_connections: int | None = None
    cookie: str | Mapping[str, Any] | None = None
    sid_prefix: str = ""
    cors_allowed_origins: str | Sequence[str] | Callable[..., bool] | None = None
    cors_credentials: bool = True
    allowed_hosts: str | Sequence[str] | None = None
    trusted_proxies: int = 0
    transports: str | Sequence[str] | None = None
    allow_jsonp: bool = False
    monitor_clients: bool | None = None
    interval: float = 25
    grace: float = 0
    enabled: tuple[str, ...] = TRANSPORTS

    def __post_init__(self) -> None:
        interval, grace = self.ping_interval, 0.0
        if isinstance(interval, (tuple, list)):
            if len(interval) != 2:
                raise ConfigurationError(f"ping_interval: expected seconds or (interval, grace), got {interval!r}")
            interval, grace = interval
        for name, value, least in (
            ("ping_interval", interval, 0.001),
            ("ping_timeout", self.ping_timeout, 0.001),
            ("upgrade_timeout", self.upgrade_timeout, 0.001),
            ("max_http_buffer_size", self.max_http_buffer_size, 1),
            ("max_backlog", self.max_backlog, 1),
            ("max_fragments", self.max_fragments, 1),
            ("grace period of ping_interval", grace, 0),
            ("close_timeout", self.close_timeout, 0),
            ("compression_threshold", self.compression_threshold, 0),
            ("trusted_proxies", self.trusted_proxies, 0),
            ("max_connections", 1 if self.max_connections is None else self.max_connections, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
                raise ConfigurationError(f"{name}: expected a number of at least {least}, got {value!r}")
        wanted = TRANSPORTS if self.transports is None else self.transports
        if isinstance(wanted, str):
            wanted = (wanted,)
        enabled = tuple(name for name in TRANSPORTS if name in wanted)
        if not enabled:
            raise ConfigurationError(f"transports: expected some of {', '.join(TRANSPORTS)}, got {self.transports!r}")
        _cookie_name(self.cookie)
        if not isinstance(self.sid_prefix, str) or not _SID_PREFIX.fullmatch(self.sid_prefix):
            raise ConfigurationError(
                f"sid_prefix: expected at most 16 characters of A-Z a-z 0-9 - _ ., got {self.sid_prefix!r}"
            )
        for host in hosts(self.allowed_hosts) or ():
            if not isinstance(host, str) or not _HOST.fullmatch(host):
                raise ConfigurationError(f"allowed_hosts: expected host names, with a port or without, got {host!r}")
        for derived, result in (("interval", interval), ("grace", grace), ("enabled", enabled)):
            object.__setattr__(self, derived, result)


NAMES = frozenset(field.name for field in fields(Options)) - {"interval", "grace", "enabled"}


def split(arguments: dict[str, Any], known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Divide constructor arguments into ours and unknown ones.

    Args:
        arguments: All keyword arguments.
        known: Names that the caller takes itself; only suggested.

    Returns:
        The options, and for each misspelt name a sentence that suggests the nearest one.
    """
    ours, complaints = {}, []
    for name, value in arguments.items():
        if name in NAMES:
            ours[name] = value
            continue
        near = difflib.get_close_matches(name, [*NAMES, *known], 1)
        complaints.append(f"unknown option {name!r} is ignored" + (f"; did you mean {near[0]!r}?" if near else ""))
    return ours, complaints


_HOST = re.compile(r"(?:\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def hosts(allowed: str | Sequence[str] | None) -> Sequence[str] | None:
    """Return `Options.allowed_hosts` as a list; None when any host will do."""
    return [allowed] if isinstance(allowed, str) else allowed


def _cookie_name(cookie: str | Mapping[str, Any] | None) -> str | None:
    if not cookie:
        return None
    if not isinstance(cookie, (str, Mapping)):
        raise ConfigurationError(f"cookie: expected a name or a dict, got {cookie!r}")
    name = cookie if isinstance(cookie, str) else cookie.get("name", "io")
    if not isinstance(name, str) or not name or any(char in name for char in "=;, \t\r\n"):
        raise ConfigurationError(f"cookie: expected a name without blanks, commas, semicolons or =, got {name!r}")
    return name


def cookie_header(cookie: str | Mapping[str, Any] | None, sid: str, secure: bool) -> str | None:
    """Return the Set-Cookie value that carries ``sid``, or None when cookies are off.

    Args:
        cookie: As `Options.cookie`. In a dict True makes a flag, a callable is called, None and False leave out.
        sid: The session's id.
        secure: Whether the request came by https.
    """
    name = _cookie_name(cookie)
    if name is None:
        return None
    attributes: dict[str, Any] = {"Path": "/", "HttpOnly": True, "SameSite": "Lax", "Secure": secure}
    if not isinstance(cookie, str):
        spelling = {key.lower(): key for key in attributes}
        for key, value in (cookie or {}).items():
            if key != "name":
                attributes[spelling.get(key.lower(), key)] = value() if callable(value) else value
    parts = [f"{name}={sid}"]
    for key, value in attributes.items():
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f"{key}={value}")
    header = "; ".join(parts)
    if any(char in header for char in "\r\n\0"):
        raise ConfigurationError("cookie: an attribute holds a line break")
    return header
