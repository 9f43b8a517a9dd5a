"""The one place that says which WebSocket implementation the compliance tests examine: ours, with an echo on top.

To examine another one, change `accept` and `Peer.feed`; no test knows what is behind them.
"""

from http import HTTPStatus

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.websocket import frames, handshake
from flask_realtime.protocol.websocket.reader import Reader

MAX_SIZE = 16 * 1024 * 1024  # bytes; the largest message that Autobahn sends
MAX_FRAGMENTS = 1024
DEFLATE_FROM = 32  # bytes; shorter messages are echoed as they are, so both kinds of frames are seen

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Peer:
    """The server's end of one WebSocket after its handshake; it echoes every message.

    Attributes:
        closed: Whether the network connection is to be closed once everything is sent.
    """

    def __init__(self, extensions):
        self.closed = False
        self._reader = Reader(MAX_SIZE, MAX_FRAGMENTS, extensions)
        self._deflate = bool(extensions)

    def feed(self, data):
        """Take bytes from the network.

        Returns:
            ``(messages, out)``: the messages that are complete now (str or bytes), and the bytes to send.
        """
        if self.closed:  # as the connection is closed then, nothing is read any more
            return [], b""
        messages = self._reader.feed(data)
        echoes, reply = b"".join(map(self._echo, messages)), self._reader.reply()
        self.closed = self._reader.closing
        # Pongs go out before what a handler sends later; nothing may follow a close frame.
        return messages, echoes + reply if self.closed else reply + echoes

    def _echo(self, message):
        text = isinstance(message, str)
        payload, opcode = (message.encode(), frames.TEXT) if text else (message, frames.BINARY)
        if self._deflate and len(payload) >= DEFLATE_FROM:
            return frames.encode(frames.deflate(payload), opcode, rsv1=True)
        return frames.encode(payload, opcode)


def accept(request=REQUEST, deflate=False):
    """Answer the request of an opening handshake.

    Args:
        request: The whole request, with the empty line that ends it.
        deflate: Whether to accept an offer of permessage-deflate.

    Returns:
        ``(peer, response)``; peer is None when the handshake was refused.
    """
    lines = request.decode("latin-1").split("\r\n")[1:]
    fields = {name.strip().lower(): value.strip() for name, colon, value in (line.partition(":") for line in lines)}
    try:
        accepted = handshake.accept(lambda name: fields.get(name.lower()), deflate)
    except RemoteProtocolError as error:
        return None, _head(400, [("Connection", "close")]) + str(error).encode()
    return Peer(accepted.extensions), _head(101, accepted.headers)


def _head(status, headers):
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode()
