"""URLs of brokers: what is in them, and what may be shown of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from ..errors import ConfigurationError

_SECRETS = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key|credential)[^=&#]*=)[^&#]*", re.IGNORECASE)


class Parts(NamedTuple):
    """A URL with any number of hosts: ``scheme://user:password@host:port,host:port/path?query``.

    Attributes:
        user: Everything before the ``@``, as it stands in the URL.
        hosts: Pairs of name and port; the port is None where there was none.
        query: Pairs of name and value, decoded.
    """

    scheme: str
    user: str
    hosts: list[tuple[str, int | None]]
    path: str
    query: dict[str, str]

    def rebuilt(self, scheme: str, host: str = "") -> str:
        """Return a URL of another scheme with one host, as ``name:port``; with none where there is a path only."""
        query = "?" + urlencode(self.query) if self.query else ""
        return f"{scheme}://{self.user + '@' if self.user else ''}{host}{self.path}{query}"


def split(url: str) -> Parts:
    """Take a URL apart.

    Raises:
        ConfigurationError: It is none, or a port in it is no number.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise ConfigurationError(f"expected a URL as redis://localhost:6379, got {masked(url)!r}")
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, names = authority.rpartition("@")
    hosts = [_address(name, url) for name in names.split(",") if name]
    return Parts(scheme.lower(), user, hosts, slash + path, dict(parse_qsl(query)))


def _address(name: str, url: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d*))?", name)
    if not match:
        raise ConfigurationError(f"expected host:port, got {name!r} in {masked(url)}")
    return unquote(match[1]).strip("[]"), int(match[2]) if match[2] else None


def masked(url: str | Sequence[str]) -> str:
    """Return a URL, or a list of them, as it may be logged: ``***`` stands for each password."""
    if not isinstance(url, str):
        return ",".join(map(masked, url))
    # Several URLs may stand in one string, as kombu has them.
    return "".join(map(_masked, re.split(r"(?<=[,;])(?=[\w+.-]+://)", url)))


def _masked(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if not colon:
        scheme, rest = "", url
    rest, mark, query = rest.partition("?")
    # Up to the last @, for a password may hold characters that it shouldn't.
    user, at, hosts = rest.rpartition("@")
    name, between, _ = user.partition(":")
    return scheme + colon + name + (between and ":***") + at + hosts + _SECRETS.sub(r"\1***", mark + query)
