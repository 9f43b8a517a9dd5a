"""A peer without a library: Engine.IO over plain requests and a bare WebSocket, to see what is on the wire."""

import base64
import http.client
import json
import os
import socket
import struct
import time
import uuid
from typing import NamedTuple
from urllib.parse import urlencode

PATH = "/socket.io/"
SEPARATOR = "\x1e"


class Answer(NamedTuple):
    """An HTTP answer that was read to its end."""

    status: int
    headers: object
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


def target(**query):
    """Return the request target for an Engine.IO request."""
    return f"{PATH}?{urlencode(query)}"


class Request:
    """A request on a connection of its own, whose answer may be waited for later, or never."""

    def __init__(self, server, method, path, body=None, headers=None, timeout=20):
        self.connection = server.connection(timeout)
        try:
            headers = {"Connection": "close", **(headers or {})}
            self.connection.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
        except (BrokenPipeError, ConnectionResetError):
            # The server may answer before it has read the whole body.
            if body is None:
                raise

    def answer(self):
        """Wait for the answer."""
        try:
            response = self.connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            self.connection.close()

    def abort(self):
        """Cut the connection."""
        self.connection.close()


def fetch(server, method, path, body=None, headers=None, timeout=20):
    """Send a request and return its answer."""
    return Request(server, method, path, body, headers, timeout).answer()


class Polling:
    """An Engine.IO session over polling, beginning with its handshake.

    ``who`` names the client in the journal of the contract program.
    """

    def __init__(self, server, headers=None, **query):
        self.server = server
        self.query = {"EIO": "4", "transport": "polling", "who": uuid.uuid4().hex, **query}
        self.who = self.query["who"]
        self.handshake = fetch(server, "GET", target(**self.query), headers=headers)
        assert self.handshake.status == 200, self.handshake
        text = self.handshake.text
        if "j" not in query:
            assert text[0] == "0", text
            self.open = json.loads(text[1:])
            self.sid = self.query["sid"] = self.open["sid"]

    @property
    def target(self):
        return target(**self.query)

    def get(self):
        """Begin a poll and return its Request."""
        return Request(self.server, "GET", self.target)

    def poll(self):
        """Poll and return the answer."""
        return self.get().answer()

    def packets(self):
        """Poll and return the packets that came."""
        answer = self.poll()
        assert answer.status == 200, answer
        return answer.text.split(SEPARATOR)

    def post(self, *packets, headers=None):
        """Post packets and return the answer."""
        body = SEPARATOR.join(packets).encode()
        return fetch(
            self.server, "POST", self.target, body, {"Content-Type": "text/plain;charset=UTF-8", **(headers or {})}
        )

    def send(self, *packets):
        """Post packets that the server must accept."""
        answer = self.post(*packets)
        assert (answer.status, answer.body) == (200, b"ok"), answer

    def join(self, namespace=None):
        """Connect to a namespace and return the client's id in it."""
        prefix = f"40{namespace}," if namespace else "40"
        self.send(prefix)
        (answer,) = self.packets()
        assert answer.startswith(prefix + "{"), answer
        return json.loads(answer.removeprefix(prefix))["sid"]

    def alive(self):
        """Tell whether an event of this session is still answered; it must have no pending poll.

        As long as the server believes an upgrade to be under way, polls get the packet that says nothing.
        """
        if self.post('42999["sync"]').status != 200:
            return False
        end = time.monotonic() + 20
        answer = self.poll()
        while answer.body == b"6" and time.monotonic() < end:
            answer = self.poll()
        return answer.status == 200 and '43999["synced"]' in answer.text.split(SEPARATOR)


class WebSocket:
    """A WebSocket in a few lines: quick to open and easy to abuse. It understands unfragmented frames only."""

    def __init__(self, server, receive_buffer=None, headers=(), **query):
        query = {"EIO": "4", "transport": "websocket", **query}
        self.socket = server.socket(20, receive_buffer)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target(**query)} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *headers,
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = http.client.parse_headers(self.file)
        assert self.status == 101, f"no upgrade: {self.status} {self.file.read(300)!r}"

    def send(self, text, opcode=1):
        """Send one frame."""
        data = text.encode() if isinstance(text, str) else text
        mask = os.urandom(4)
        size = len(data)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        repeated = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        masked = (int.from_bytes(data, "big") ^ repeated).to_bytes(size, "big")
        self.socket.sendall(head + mask + masked)

    def frame(self):
        """Read one frame and return ``(opcode, payload)``; ``(None, b"")`` at the end of the stream."""
        head = self.file.read(2)
        if len(head) < 2:
            return None, b""
        size = head[1] & 127
        if size == 126:
            (size,) = struct.unpack("!H", self.file.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.file.read(8))
        return head[0] & 15, self.file.read(size)

    def receive(self):
        """Return the next text message; None when the server closed."""
        while True:
            opcode, payload = self.frame()
            if opcode in (None, 8):
                return None
            if opcode == 1:
                return payload.decode()

    def close(self):
        """Close as the protocol says: a close frame each way, then the end."""
        self.send(struct.pack("!H", 1000), opcode=8)
        while (opcode := self.frame()[0]) != 8:
            assert opcode is not None, "the server ended the connection without a close frame"
        self.abandon(reset=False)

    def abandon(self, reset=True):
        """Cut the connection, with a TCP reset unless told otherwise."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()
