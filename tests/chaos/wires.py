"""Raw bytes to a server and what comes back, for peers that keep no rule."""

import contextlib
import errno
import http.client
import json
import os
import socket
import ssl
import struct
import uuid
from pathlib import Path
from typing import NamedTuple

from e2e.raw import PATH
from e2e.servers import children

LIMIT = 20  # seconds for any answer
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
POLLING = "EIO=4&transport=polling"
WEBSOCKET = "EIO=4&transport=websocket"


class Reply(NamedTuple):
    """What a request came to; ``status`` is None when the connection was ended without an answer."""

    status: int | None
    headers: object = None
    body: bytes = b""

    @property
    def code(self):
        """The protocol's number of the error, None where the answer has none."""
        try:
            return json.loads(self.body)["code"]
        except (ValueError, KeyError, TypeError):
            return None


def request(method="GET", query=POLLING, headers=None, body=b"", path=PATH):
    """Return a request as bytes; a header that is None is left out."""
    lines = {"Host": "127.0.0.1", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    head = f"{method} {path}{'?' if query else ''}{query} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return (head + "\r\n").encode("latin-1") + body


def read_answer(sock, method="GET"):
    """Read one answer from a socket."""
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        return Reply(response.status, response.headers, response.read())
    except (http.client.BadStatusLine, http.client.IncompleteRead, ConnectionError, ssl.SSLError):
        return Reply(None)  # TimeoutError is let through: a request that is never answered


def exchange(server, data, method="GET", shut=False):
    """Send bytes on a connection of their own and return the Reply.

    Args:
        shut: Whether to say that no more will come; TLS has no such thing that both sides take, so it is cut.
    """
    sock = server.socket(LIMIT)
    with contextlib.closing(sock):
        try:
            sock.sendall(data)
            if shut and server.tls:
                return Reply(None)
            if shut:
                sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the answer may come before all was sent
            if not isinstance(error, ConnectionError) and error.errno != errno.ENOTCONN:
                raise
        return read_answer(sock, method)


def open_session(server, join="40"):
    """Open a session over polling, join the namespace, and return the query of its requests."""
    answer = exchange(server, request(query=POLLING + f"&who={uuid.uuid4().hex}"))
    assert answer.status == 200, answer
    query = POLLING + "&sid=" + json.loads(answer.body[1:])["sid"]
    if join:
        assert post(server, query, join).status == 200
        answer = exchange(server, request(query=query))
        assert answer.body.startswith(join.rstrip(",").encode()), answer
    return query


def post(server, query, body):
    """Post a payload."""
    return exchange(server, request("POST", query, body=body.encode() if isinstance(body, str) else body))


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=True, size=None, key=None):
    """Return a frame, also one that nobody may send.

    Args:
        rsv: The three reserved bits as a number.
        size: The bytes of the length, instead of those that fit.
        key: What it is masked with, instead of four bytes by chance.
    """
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if size is None:
        length = len(payload)
        if length < 126:
            size = bytes([length])
        elif length < 65536:
            size = b"\x7e" + struct.pack("!H", length)
        else:
            size = b"\x7f" + struct.pack("!Q", length)
    head = bytes([first, size[0] | (0x80 if mask else 0)]) + size[1:]
    if not mask:
        return head + payload
    key = key or os.urandom(4)
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")
    return head + key + masked


def text(message):
    """Return a text frame."""
    return frame(1, message.encode())


class Wire:
    """A WebSocket on which anything can be sent.

    Attributes:
        status: Of the handshake's answer.
    """

    def __init__(self, server, query=WEBSOCKET, headers=None):
        self.socket = server.socket(LIMIT)
        self.socket.sendall(request(query=query, headers={**UPGRADE, **(headers or {})}))
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = http.client.parse_headers(self._file)

    def send(self, data):
        """Send bytes; false when the server has gone already."""
        try:
            self.socket.sendall(data)
            return True
        except (ConnectionError, OSError):
            return False

    def join(self, packet="40"):
        """Take the open packet and join a namespace."""
        opcode, payload = self.receive()
        assert payload[:1] == b"0", (opcode, payload)
        self.send(text(packet))
        opcode, payload = self.receive()
        assert payload.startswith(packet.rstrip(",").encode()), (opcode, payload)

    def receive(self):
        """Return the next frame as ``(opcode, payload)``; ``(None, b"")`` at the end. Pings are answered."""
        try:
            while True:
                head = self._file.read(2)
                if len(head) < 2:
                    return None, b""
                length = head[1] & 127
                if length == 126:
                    (length,) = struct.unpack("!H", self._file.read(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", self._file.read(8))
                opcode, payload = head[0] & 15, self._file.read(length)
                if opcode == 1 and payload == b"2":
                    self.send(text("3"))
                    continue
                return opcode, payload
        except (ConnectionError, ssl.SSLError):
            return None, b""

    def outcome(self, wanted=None):
        """Read until the server closes, or ``wanted`` comes.

        Returns:
            The close code; 1005 for a close frame without one, None for an end without a close frame, "answered" when
            ``wanted`` came, and "open" when nothing came for a long time.
        """
        try:
            while True:
                opcode, payload = self.receive()
                if opcode is None:
                    return None
                if opcode == 8:
                    return struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                if wanted is not None and payload == wanted:
                    return "answered"
        except TimeoutError:
            return "open"

    def close(self):
        self._file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def worker(server):
    """Return the number of the process that serves: the worker where there is a master."""
    pid = server.process.pid
    if server.kind.startswith(("gunicorn", "uwsgi")):
        found = children(pid)
        assert len(found) == 1, found
        return found[0]
    return pid


def memory(server, name="VmRSS"):
    """Return a size of the serving process in bytes: ``VmRSS``, or ``VmHWM``, which is its peak."""
    for line in Path(f"/proc/{worker(server)}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc knows no {name}")


def reset_peak(server):
    """Let the peak begin anew."""
    Path(f"/proc/{worker(server)}/clear_refs").write_text("5")


def descriptors(server):
    """Return how many files and sockets the serving process holds."""
    return len(os.listdir(f"/proc/{worker(server)}/fd"))


def threads(server):
    """Return how many threads it has."""
    return len(os.listdir(f"/proc/{worker(server)}/task"))
