"""Socket.IO for Flask: `SocketIO` and the functions that its handlers use.

What is here is loaded when it is first used. So a server's master process, which finds a worker class in this package,
doesn't load Flask before that worker has patched the standard library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import socketio
    from .errors import ConnectionRefusedError
    from .extension import SocketIO
    from .functions import call, close_room, disconnect, emit, join_room, leave_room, rooms, send
    from .namespace import Namespace
    from .testing import SocketIOTestClient

__version__ = "0.1.0"

__all__ = [
    "ConnectionRefusedError",
    "Namespace",
    "SocketIO",
    "SocketIOTestClient",
    "call",
    "close_room",
    "disconnect",
    "emit",
    "join_room",
    "leave_room",
    "rooms",
    "send",
    "socketio",
]

_FUNCTIONS = ("call", "close_room", "disconnect", "emit", "join_room", "leave_room", "rooms", "send")
_HOMES = {
    **dict.fromkeys(_FUNCTIONS, "functions"),
    "ConnectionRefusedError": "errors",
    "Namespace": "namespace",
    "SocketIO": "extension",
    "SocketIOTestClient": "testing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        try:
            value = importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
