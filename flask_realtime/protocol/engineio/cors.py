"""Which hosts we are, which origins may talk to us, and the headers that tell their browsers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from .options import Options, hosts

_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def show(origin: str | None) -> str:
    """Return a normalised origin as browsers write it, without the port that its scheme has anyway."""
    if origin is None:
        return "unknown"
    for scheme in ("http", "https"):
        if origin.startswith(scheme + "://"):
            return origin.removesuffix(f":{_PORTS[scheme]}")
    return origin


def normalise(origin: str) -> str | None:
    """Return an origin in lower case and with its port, or None when it isn't one.

    >>> normalise("HTTPS://Example.com")
    'https://example.com:443'
    """
    try:
        parts = urlsplit(origin.strip())
        port = parts.port
    except ValueError:
        return None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    port = port or _PORTS.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}"


class Origins:
    """The rule of one server."""

    def __init__(self, options: Options) -> None:
        allowed = options.cors_allowed_origins
        self._credentials = options.cors_credentials
        self._proxies = options.trusted_proxies
        names = hosts(options.allowed_hosts)
        self._hosts = None if names is None else [_name_and_port(name) for name in names]
        self.off = False
        self._any = False
        self._list: frozenset[str] | None = None
        self._ask: Callable[[str, Any], bool] | None = None
        if allowed is None:
            pass
        elif callable(allowed):
            self._ask = _two_arguments(allowed)
        else:
            origins: Sequence[str] = [allowed] if isinstance(allowed, str) else list(allowed)
            self.off = not origins
            self._any = "*" in origins
            self._list = frozenset(normalise(origin) or origin for origin in origins)

    def allows(self, origin: str, scheme: str, header: Callable[[str], str | None], environ: Any) -> bool:
        """Decide about a request with an Origin header.

        Args:
            origin: Its value.
            scheme: Of the request's own URL.
            header: Returns a request header's value.
            environ: For a callable rule.
        """
        if self.off or self._any:
            return True
        if self._ask is not None:
            return bool(self._ask(origin, environ))
        asked = normalise(origin)
        if self._list is not None:
            return (asked or origin) in self._list
        return asked is not None and asked == self.own(scheme, header)

    def own(self, scheme: str, header: Callable[[str], str | None]) -> str | None:
        """Return the origin of the request's own URL, normalised."""
        if self._proxies:
            scheme = _nth_last(header("X-Forwarded-Proto"), self._proxies) or scheme
        return normalise(f"{scheme}://{self.host(header)}")

    def host(self, header: Callable[[str], str | None]) -> str:
        """Return the host, with its port if there is one, that the client asked for."""
        host = header("Host") or ""
        if self._proxies:
            host = _nth_last(header("X-Forwarded-Host"), self._proxies) or host
        return host

    def is_ours(self, scheme: str, header: Callable[[str], str | None]) -> bool:
        """Decide whether the host of a request is one of `Options.allowed_hosts`.

        A name of somebody else's that leads to our address makes his page one of our own origin.
        """
        if self._hosts is None:
            return True
        own = self.own(scheme, header)
        if own is None:
            return False
        asked, port = _name_and_port(own.partition("://")[2])
        asked = asked.removesuffix(".")
        return any(
            (asked == name or (name[:1] == "." and (asked == name[1:] or asked.endswith(name))))
            and ours in (None, port)
            for name, ours in self._hosts
        )

    def asks_for_another_site(self, header: Callable[[str], str | None]) -> bool:
        """Whether a browser says of a request without Origin that another site's page has made it.

        Source: Fetch Metadata Request Headers, 2.3.
        """
        return not (self.off or self._any) and (header("Sec-Fetch-Site") or "").strip().lower() == "cross-site"

    def headers(self, origin: str | None, preflight: bool, asked: str | None) -> list[tuple[str, str]]:
        """Return the headers of an answer; ``origin`` is None when there was none or it was refused.

        Args:
            origin: The allowed origin.
            preflight: Whether the request's method is OPTIONS.
            asked: The headers that the preflight asks for.
        """
        if self.off:
            return []
        if origin is None:
            return [("Vary", "Origin")]
        answer = [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]
        if self._credentials:
            answer.append(("Access-Control-Allow-Credentials", "true"))
        if preflight:
            answer.append(("Access-Control-Allow-Methods", "OPTIONS, GET, POST"))
        if asked:
            answer.append(("Access-Control-Allow-Headers", asked))
        return answer


def _name_and_port(host: str) -> tuple[str, str | None]:
    """Divide a host; IPv6 addresses keep their brackets."""
    name, colon, port = host.lower().rpartition(":")
    return (name, port) if colon and port.isdigit() else (host.lower(), None)


def _nth_last(value: str | None, count: int) -> str | None:
    """Return what the outermost of ``count`` trusted proxies put into a list-valued header."""
    if not value:
        return None
    values = [item.strip() for item in value.split(",")]
    return values[-count] if len(values) >= count else None


def _two_arguments(rule: Callable[..., bool]) -> Callable[[str, Any], bool]:
    try:
        inspect.signature(rule).bind("origin", {})
    except TypeError:
        return lambda origin, environ: rule(origin)
    except ValueError:  # a builtin without a signature
        return lambda origin, environ: rule(origin)
    return rule
