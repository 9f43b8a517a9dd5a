"""Link: a connection to the Redis server that a URL means, alone, behind sentinels, or in a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import redis
import redis.connection
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError
from redis.retry import Retry

from ..errors import BackplaneError, ConfigurationError
from .urls import Parts, masked, split
from .wire import Wires

read_url: Any = redis.connection.parse_url
Connection: Any = redis.Connection

PATIENCE, CONNECTING = 10.0, 5.0
"""Seconds that the server may take to answer, and to be reached."""

QUIET = 1.0
"""Seconds without a message after which a listener says so."""

REDIRECTIONS = 5
"""How often a cluster may say that something is elsewhere."""

TLS = ("rediss", "valkeys")

# What a body relies on.
FIXED = {"protocol": 2, "decode_responses": False, "health_check_interval": 0, "retry_on_timeout": False}


def command(*words: str | bytes) -> bytes:
    """Return a command as it is sent."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


T = TypeVar("T")


class Refused(BackplaneError):
    """The server was reached and answered with an error.

    Attributes:
        reason: Its words.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the Redis server at {url} refuses: {reason}")
        self.reason = reason


class Link:
    """A connection. Its errors are `BackplaneError`.

    Args:
        connection: The driver's, not connected yet.
        wires: Knows all connections of the backplane.
    """

    def __init__(self, connection: Any, wires: Wires) -> None:
        self.connection, self._wires = connection, wires
        wires.check()
        try:
            connection.connect()
        except (RedisError, OSError) as error:
            raise self.failed(error, "can't reach") from error
        # redis-py hands out no public handle of the socket, in any of its versions.
        self._wire = wires.add(connection._sock.fileno())

    def failed(self, error: BaseException, what: str = "lost") -> BackplaneError:
        """Close, and return what to raise."""
        self.close()
        self._wires.check()
        if isinstance(error, redis.ResponseError):
            return Refused(self._wires.url, str(error))
        if isinstance(error, (redis.AuthenticationError, redis.BusyLoadingError)):
            return BackplaneError(f"the Redis server at {self._wires.url} refuses: {error}")
        return BackplaneError(f"{what} the Redis server at {self._wires.url}: {error}")

    def listen(self) -> None:
        """Let `receive` raise `redis.TimeoutError` when nothing has come for a while."""
        self.connection._sock.settimeout(QUIET)

    def send(self, *pieces: bytes) -> None:
        """Send what `command` has made."""
        try:
            self.connection.send_packed_command(pieces, check_health=False)
        except (RedisError, OSError) as error:
            raise self.failed(error) from error

    def ask(self, *words: str | bytes) -> Any:
        """Send a command and return the answer."""
        self.send(command(*words))
        return self.answers(1)[0]

    def answers(self, count: int) -> list[Any]:
        """Return that many answers.

        Raises:
            Refused: One of them is an error.
        """
        answers, refusal = [], None
        for _ in range(count):
            try:
                answers.append(self.connection.read_response(disconnect_on_error=False))
            except redis.ResponseError as error:
                refusal = refusal or error
            except (RedisError, OSError) as error:
                raise self.failed(error) from error
        if refusal is not None:
            # Some versions of redis-py take the first word off.
            moved = isinstance(refusal, MovedError) and not str(refusal).startswith("MOVED")
            raise Refused(self._wires.url, f"MOVED {refusal}" if moved else str(refusal))
        return answers

    def stale(self) -> bool:
        """Return whether it has ended, or isn't where its owner left it. Costs a system call."""
        return self._wire.readable()

    def close(self) -> None:
        """Close, without an error."""
        if hasattr(self, "_wire"):
            self._wires.remove(self._wire)
        try:
            self.connection.disconnect()
        except (RedisError, OSError):
            pass


class Servers:
    """Where to connect to.

    Args:
        parts: The URL's: ``redis://``, ``unix://``… with ``+sentinel`` or ``+cluster`` behind the scheme, or neither.
        options: For redis-py's connections; ``sentinel_kwargs`` are for those to the sentinels.
        wires: Knows all connections of the backplane.

    Attributes:
        sharded: Whether to use the commands that a cluster has for one of its parts.
    """

    def __init__(self, parts: Parts, options: dict[str, Any] | None, wires: Wires) -> None:
        base, _, self._kind = parts.scheme.partition("+")
        self._wires = wires
        self._hosts = [(host or "localhost", port) for host, port in parts.hosts] or [("localhost", None)]
        self._owner: tuple[str, int] | None = None
        self.sharded = self._kind == "cluster"
        options = dict(options or {})
        self._sentinel = {**options.pop("sentinel_kwargs", {})}
        self._service, path = "", parts.path
        if self._kind == "sentinel":
            _, _, rest = parts.path.partition("/")
            database, _, self._service = rest.partition("/")
            path = "/" + database
            if not self._service:
                raise ConfigurationError(f"expected a service as in redis+sentinel://host:26379/0/name: {wires.url}")
        plain = "unix" if base == "unix" else "rediss" if base in TLS else "redis"
        name = "" if base == "unix" else "localhost"
        try:
            read = read_url(parts._replace(path=path).rebuilt(plain, name))
        except ValueError as error:
            raise ConfigurationError(f"{wires.url}: {error}") from error
        self._class: Any = read.pop("connection_class", Connection)
        options = {"socket_keepalive": True, **options} if base != "unix" else options
        times = {"socket_timeout": PATIENCE, "socket_connect_timeout": CONNECTING}
        once = {"retry": Retry(NoBackoff(), 0)}
        self._options = {**times, **options, **read, **FIXED, **once}
        self._sentinel = {"socket_timeout": CONNECTING, "socket_connect_timeout": CONNECTING} | self._sentinel
        self._sentinel |= FIXED | once
        for name in ("socket_timeout", "socket_connect_timeout"):
            self._options[name] = self._options[name] or times[name]
        self._make(*self._hosts[0])  # tells wrong options at once

    @property
    def url(self) -> str:
        """The URL, masked."""
        return self._wires.url

    @property
    def clustered(self) -> bool:
        """Whether there are several that share the data."""
        return self._kind == "cluster"

    @property
    def patience(self) -> float:
        """Seconds that the server may take to answer."""
        return float(self._options["socket_timeout"])

    def connect(self) -> Link:
        """Connect.

        Raises:
            BackplaneError: None of the servers can be reached, or the one that was refuses.
        """
        if self._kind == "sentinel":
            return self._connect_to_master()
        hosts: list[tuple[str, int | None]] = [*self._hosts]
        if self._owner:
            hosts.insert(0, self._owner)
            self._owner = None  # unless it is there
        for number, (host, port) in enumerate(hosts):
            try:
                link = Link(self._make(host, port), self._wires)
                if number == 0 and len(hosts) > len(self._hosts):
                    self._owner = (host, port or 0)
                return link
            except BackplaneError:
                if self._wires.closed or number == len(hosts) - 1:
                    raise
        raise AssertionError("there is at least one host")

    def redirected(self, refusal: Refused) -> bool:
        """Return whether the same is worth another try with a new connection, as a cluster has said."""
        if self._kind != "cluster":
            return False
        word, _, rest = refusal.reason.partition(" ")
        if word == "MOVED":
            host, _, port = rest.split()[1].rpartition(":")
            self._owner = (host.strip("[]") or self._hosts[0][0], int(port))
            return True
        if self.sharded and "unknown command" in refusal.reason.lower():
            self.sharded = False  # Redis 7 is the first that has them
            return True
        return False

    def _make(self, host: str, port: int | None) -> Any:
        address = {"host": host, "port": port or 6379} if "path" not in self._options else {}
        try:
            return self._class(**self._options | address)
        except (TypeError, ValueError, RedisError) as error:
            raise ConfigurationError(f"wrong options for {self._wires.url}: {error}") from error

    def _connect_to_master(self) -> Link:
        errors = []
        for host, port in self._hosts:
            try:
                asked = Link(Connection(**self._sentinel, host=host, port=port or 26379), self._wires)
                try:
                    address = asked.ask("SENTINEL", "get-master-addr-by-name", self._service)
                finally:
                    asked.close()
                if address is None:
                    errors.append(f"the sentinel at {host}:{port or 26379} knows no {self._service}")
                    continue
                return self._master(address[0].decode(), int(address[1]))
            except BackplaneError as error:
                self._wires.check()
                errors.append(f"{host}:{port or 26379}: {error}")
        raise BackplaneError(f"can't reach the Redis server at {self._wires.url}: {'; '.join(errors)}")

    def _master(self, host: str, port: int) -> Link:
        link = Link(self._make(host, port), self._wires)
        try:
            role = link.ask("ROLE")[0]
        except Refused:  # an account that may not ask
            return link
        if role != b"master":
            link.close()
            raise BackplaneError(f"{host}:{port} is no master (yet)")
        return link


class Publishing:
    """The connection of the publishing thread."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._link: Link | None = None

    def run(self, function: Callable[[Link], T]) -> T:
        """Return what ``function`` does with the connection; make one when there is none, or an old one.

        Raises:
            BackplaneError: There is none to be had, or it was lost.
        """
        for _ in range(REDIRECTIONS):
            if self._link is not None and self._link.stale():
                self._drop()
            if self._link is None:
                self._link = self._servers.connect()
            try:
                return function(self._link)
            except BackplaneError as error:
                self._drop()
                if not isinstance(error, Refused) or not self._servers.redirected(error):
                    raise
        raise BackplaneError(f"the cluster at {self._servers.url} leads in a circle")

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def servers(url: str, options: dict[str, Any] | None) -> tuple[Servers, Wires]:
    """Read a URL of pub/sub."""
    wires = Wires(masked(url))
    return Servers(split(url), options, wires), wires
