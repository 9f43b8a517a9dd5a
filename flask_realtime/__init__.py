"""Socket.IO for Flask: `SocketIO` and the functions that its handlers use."""

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
