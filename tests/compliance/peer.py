"""The one place that says which WebSocket implementation the compliance tests examine.

To examine another one, change `accept`, `Peer._read` and `Peer._echo`; no test knows what is behind them.
"""

import codecs

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

MAX_SIZE = 16 * 1024 * 1024  # bytes; the largest message that Autobahn sends
MAX_FRAGMENTS = 1024

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Peer:
    """The server's end of one WebSocket after its handshake; it echoes every message.

    Attributes:
        closed: Whether the network connection is to be closed once everything is sent.
    """

    def __init__(self, protocol):
        self.closed = False
        self._protocol = protocol
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._parts = []
        self._text = False

    def feed(self, data):
        """Take bytes from the network.

        Returns:
            ``(messages, out)``: the messages that are complete now (str or bytes), and the bytes to send.
        """
        self._protocol.receive_data(data)
        messages = []
        try:
            for frame in self._protocol.events_received():
                if (message := self._read(frame)) is not None:
                    messages.append(message)
                    self._echo(message)
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
        writes = self._protocol.data_to_send()
        self.closed = self.closed or b"" in writes
        return messages, b"".join(writes)

    def _read(self, frame):
        """Return the message that this frame completes, or None."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return None
        if frame.opcode != Opcode.CONT:
            self._text = frame.opcode == Opcode.TEXT
            self._decoder.reset()
        # Text is decoded frame by frame, so that wrong UTF-8 fails before the message is complete.
        self._parts.append(self._decoder.decode(frame.data, frame.fin) if self._text else bytes(frame.data))
        if len(self._parts) > MAX_FRAGMENTS:
            self._protocol.fail(CloseCode.POLICY_VIOLATION, f"more than {MAX_FRAGMENTS} fragments")
            return None
        if not frame.fin:
            return None
        parts, self._parts = self._parts, []
        return ("" if self._text else b"").join(parts)

    def _echo(self, message):
        if self._protocol.state is not OPEN:  # the client's close came in the same read
            return
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)


def accept(request=REQUEST, deflate=False):
    """Answer the request of an opening handshake.

    Args:
        request: The whole request, with the empty line that ends it.
        deflate: Whether to accept an offer of permessage-deflate.

    Returns:
        ``(peer, response)``; peer is None when the handshake was refused.
    """
    extensions = [ServerPerMessageDeflateFactory()] if deflate else None
    protocol = ServerProtocol(extensions=extensions, max_size=MAX_SIZE)
    protocol.receive_data(request)
    (event,) = protocol.events_received()
    protocol.send_response(protocol.accept(event))
    response = b"".join(protocol.data_to_send())
    return (Peer(protocol) if protocol.state is OPEN else None), response
