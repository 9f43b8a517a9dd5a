"""Werkzeug's threaded server on 127.0.0.1 with our gateway behind it, and a client on bare sockets."""

import socket
import threading
from contextlib import contextmanager

from doubles import UPGRADE, client_frame
from websockets.protocol import CLIENT, OPEN, Protocol
from werkzeug.serving import WSGIRequestHandler, make_server

LIMIT = 30  # seconds


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


@contextmanager
def serving(application):
    """Serve a WSGI application; yield its port. If it has a method ``served_by``, that gets the server."""
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    if hasattr(application, "served_by"):
        application.served_by(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


class Http:
    """One connection to the server."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.rest = b""

    def send(self, method, query, body=None, path="/engine.io/", **headers):
        """Send a request; a header's name is written with underscores."""
        lines = [f"{method} {path}?{query} HTTP/1.1", "Host: 127.0.0.1"]
        if body is not None and "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        return self

    def _more(self):
        data = self.sock.recv(65536)
        assert data, "the server closed the connection"
        self.rest += data

    def answer(self):
        """Return ``(status, headers, body)``; names in lower case."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        length = 0 if status == 101 else int(headers.get("content-length", 0))
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return status, headers, body

    def ended(self):
        """Whether the server ends the connection, without more bytes."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


class WebSocket(Http):
    """A WebSocket."""

    def __init__(self, port, query="EIO=4&transport=websocket", early=b"", **headers):
        super().__init__(port)
        named = {name.replace("-", "_"): value for name, value in UPGRADE.items()}
        self.sock.sendall(self._request(query, {**named, **headers}) + early)
        self.status, self.headers, self.body = self.answer()
        self._protocol = Protocol(CLIENT, state=OPEN)
        self._frames = []
        if self.rest:
            self._protocol.receive_data(self.rest)

    @staticmethod
    def _request(query, headers):
        lines = [f"GET /engine.io/?{query} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def write(self, message, opcode=None):
        text = isinstance(message, str)
        self.sock.sendall(client_frame(opcode or (1 if text else 2), message.encode() if text else message))

    def read(self):
        """Return the next message, or the close code as a number."""
        while True:
            self._frames += self._protocol.events_received()
            if self._frames:
                break
            data = self.sock.recv(65536)
            if not data:
                return None
            self._protocol.receive_data(data)
        frame = self._frames.pop(0)
        if frame.opcode == 8:
            return int.from_bytes(frame.data[:2], "big")
        return bytes(frame.data).decode() if frame.opcode == 1 else bytes(frame.data)
