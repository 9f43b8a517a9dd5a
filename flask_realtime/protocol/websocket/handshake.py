"""The opening handshake, server's side: request headers to the answer that switches protocols."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from ...errors import RemoteProtocolError

logger = logging.getLogger("flask_realtime.websocket")

_HEADERS = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions")
_MAX_HEADER = 4096  # characters; the longest honest one has a few hundred

_DEFLATE = [
    # Without context one compressed frame serves every recipient, and an idle client keeps no window.
    ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
]

_KEY = re.compile("[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64
_USUAL = (None, "permessage-deflate", "permessage-deflate; client_max_window_bits")
_SWITCH = [("Upgrade", "websocket"), ("Connection", "Upgrade")]


class Accepted(NamedTuple):
    """An agreed handshake: the header lines of the 101, and the extensions for the `Reader`."""

    headers: list[tuple[str, str]]
    extensions: list[Extension]


def accept(header: Callable[[str], str | None], deflate: bool = False) -> Accepted:
    """Check an upgrade request and agree to it.

    Args:
        header: Returns the value of a request header, or None.
        deflate: Whether to agree to permessage-deflate when the client offers it.

    Returns:
        The headers of the answer and the agreed extensions.

    Raises:
        RemoteProtocolError: The request isn't a proper upgrade; say so with status 400.

    Source: RFC 6455, 4.2; RFC 7692, 7.1.
    """
    key = header("Sec-WebSocket-Key") or ""
    if (
        not deflate
        and (header("Upgrade") or "").lower() == "websocket"
        and (header("Connection") or "").lower() in ("upgrade", "keep-alive, upgrade")
        and header("Sec-WebSocket-Version") == "13"
        and header("Sec-WebSocket-Extensions") in _USUAL
        and _KEY.fullmatch(key)
    ):
        # What nearly every client sends needs no further look.
        return Accepted([*_SWITCH, ("Sec-WebSocket-Accept", accept_key(key))], [])
    headers = Headers()
    for name in _HEADERS:
        value = header(name)
        if value is not None:
            if len(value) > _MAX_HEADER:
                raise RemoteProtocolError(f"{name} is longer than {_MAX_HEADER} characters")
            if not value.replace("\t", " ").isprintable():
                raise RemoteProtocolError(f"{name} holds control characters")
            headers[name] = value
    protocol = ServerProtocol(extensions=_DEFLATE if deflate else None, logger=logger)
    response = protocol.accept(Request("/", headers))
    if response.status_code != 101:
        raise RemoteProtocolError(f"not a WebSocket upgrade: {protocol.handshake_exc}")
    answer = [(name, value) for name, value in response.headers.raw_items() if name != "Date"]
    return Accepted(answer, protocol.extensions)
