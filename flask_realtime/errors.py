"""All errors of the package, in one tree.

* `RealtimeError`
    * `ProtocolError`
        * `LocalProtocolError`: your call was wrong
        * `RemoteProtocolError`: the peer was wrong; carries the close code to send
    * `ConfigurationError` (also a `ValueError`)
    * `BackplaneError`
    * `EngineIOError`
        * `ContentTooLongError`, `UnknownPacketError`, `QueueEmpty`, `SocketIsClosedError`
    * `SocketIOError`
        * `ConnectionError` (also the builtin)
            * `ConnectionRefusedError` (also the builtin)
        * `TimeoutError` (also the builtin)
            * `ClientGoneError`
            * `ClusterTimeoutError`
        * `BadNamespaceError`, `DisconnectedError`

The names `ConnectionError`, `ConnectionRefusedError` and `TimeoutError` are those that users of the field know. Each
one inherits from the builtin of its name, so ``except TimeoutError`` catches it with or without the import.
"""

from __future__ import annotations

import builtins
from typing import Any


class RealtimeError(Exception):
    """Base of all errors of the package."""


class ProtocolError(RealtimeError):
    """A rule of WebSocket, Engine.IO or Socket.IO was broken."""


class LocalProtocolError(ProtocolError):
    """The caller broke the rule, nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rule.

    Attributes:
        code: WebSocket close code that tells the peer so (1002 protocol, 1007 data, 1008 policy, 1009 size).
    """

    def __init__(self, message: str, code: int = 1008) -> None:
        super().__init__(message)
        self.code = code


class ConfigurationError(RealtimeError, ValueError):
    """An option has a value that can't work. The message names expected and got."""


class BackplaneError(RealtimeError):
    """A broker can't be reached, or refused what it was given."""


class EngineIOError(RealtimeError):
    """Base of the errors of `flask_realtime.engineio`."""


class ContentTooLongError(EngineIOError):
    """A message is larger than ``max_http_buffer_size``."""


class UnknownPacketError(EngineIOError):
    """A packet's type isn't one of Engine.IO 4."""


class QueueEmpty(EngineIOError):
    """Nothing came in within the time given."""


class SocketIsClosedError(EngineIOError):
    """The connection is closed."""


class SocketIOError(RealtimeError):
    """Base of the errors of `flask_realtime.socketio`."""


class ConnectionError(SocketIOError, builtins.ConnectionError):
    """A connection could not be made."""


class ConnectionRefusedError(ConnectionError, builtins.ConnectionRefusedError):
    """Raise it in a ``connect`` handler to refuse the client.

    Args:
        *args: Nothing; or a message; or a message and data for the client; further arguments make ``data`` a list.

    Attributes:
        error_args: What the client gets: ``{"message": str}``, with ``"data"`` when there was more than a message.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.args = args  # the builtin would take a third one for a filename
        self.refusal = args

    def __str__(self) -> str:
        return str(self.error_args["message"])

    @property
    def error_args(self) -> dict[str, Any]:
        if not self.refusal:
            return {"message": "Connection rejected by server"}
        answer: dict[str, Any] = {"message": str(self.refusal[0])}
        if len(self.refusal) == 2:
            answer["data"] = self.refusal[1]
        elif len(self.refusal) > 2:
            answer["data"] = list(self.refusal[1:])
        return answer


class TimeoutError(SocketIOError, builtins.TimeoutError):
    """No acknowledgement came within the time given."""


class BadNamespaceError(SocketIOError):
    """The namespace isn't connected."""


class DisconnectedError(SocketIOError):
    """The client isn't connected."""


class ClientGoneError(TimeoutError, DisconnectedError):
    """The client went away before it acknowledged."""


class ClusterTimeoutError(TimeoutError):
    """Not all processes have answered within the time given.

    Attributes:
        missing: The ids of those that haven't.
        results: What the others have answered, this process first.
    """

    def __init__(self, message: str, missing: list[str], results: list[Any]) -> None:
        super().__init__(message)
        self.missing, self.results = missing, results
