"""A real server in a thread, and peers that say and hear raw Socket.IO packets over polling or WebSocket.

Every wait ends by what it waits for, or fails after `LIMIT`.
"""

import base64
import collections
import contextlib
import http.client
import json
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.version import version as websockets_version
from werkzeug.serving import WSGIRequestHandler, make_server

# A proxy of the environment is for other hosts; releases before 15 know none.
NO_PROXY = {"proxy": None} if int(websockets_version.split(".")[0]) >= 15 else {}
LIMIT = 20  # seconds; far more than anything here takes
PATH = "/socket.io/?EIO=4"


class Gone(Exception):
    """The server has ended the connection."""


class QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_request(self, code="-", size="-"):
        pass


class Site:
    """A WSGI application on a free port of 127.0.0.1.

    Args:
        app: What to serve.
        server: Its `flask_realtime.socketio.Server`; it is shut down first at the end.
    """

    def __init__(self, app, server):
        self.server = server
        self._listener = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
        self.port = self._listener.server_port
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self):
        self.server.shutdown()
        self._listener.shutdown()
        self._thread.join(LIMIT)
        self._listener.server_close()

    def get(self, path):
        """Return status and body of a GET request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


class Polling:
    """Engine.IO over polling."""

    def __init__(self, site):
        self._site = site
        self._path = f"{PATH}&transport=polling"
        self._packets = collections.deque()
        self.open = json.loads(self.receive()[1:])
        self._path += f"&sid={self.open['sid']}"

    def send(self, *packets):
        """Send packets, in one request."""
        encoded = ["b" + base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in packets]
        self._request("POST", "\x1e".join(encoded).encode())

    def receive(self):
        """Return the next packet; binary data as bytes."""
        while not self._packets:
            self._packets.extend(self._request("GET").split("\x1e"))
        packet = self._packets.popleft()
        return base64.b64decode(packet[1:]) if packet[:1] == "b" else packet

    def _request(self, method, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=LIMIT)
        try:
            connection.request(method, self._path, body, {"Content-Type": "text/plain;charset=UTF-8"})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status != 200:
            raise Gone(text)
        return text

    def close(self):
        try:
            self._request("POST", b"1")
        except Gone:
            pass


class WebSocket:
    """Engine.IO over WebSocket alone."""

    def __init__(self, site):
        url = f"ws://127.0.0.1:{site.port}{PATH}&transport=websocket"
        self._stack = contextlib.ExitStack()
        self._socket = self._stack.enter_context(
            connect(url, compression=None, open_timeout=LIMIT, close_timeout=LIMIT, **NO_PROXY)
        )
        self.open = json.loads(self.receive()[1:])

    def send(self, *packets):
        """Send packets, one after the other."""
        try:
            for packet in packets:
                self._socket.send(packet)
        except ConnectionClosed as error:
            raise Gone(str(error)) from None

    def receive(self):
        """Return the next packet; binary data as bytes."""
        try:
            return self._socket.recv(timeout=LIMIT)
        except ConnectionClosed as error:
            raise Gone(str(error)) from None

    def close(self):
        self._stack.close()


TRANSPORTS = {"polling": Polling, "websocket": WebSocket}


class Peer:
    """A Socket.IO client that does what a test tells it, right or wrong.

    Args:
        site: The server.
        transport: A key of `TRANSPORTS`.

    Attributes:
        transport: The name of the transport.
        eio_sid: Id of the connection.
        sids: The peer's sid, by namespace.
    """

    def __init__(self, site, transport="websocket"):
        self._site, self.transport = site, transport
        self._transport = TRANSPORTS[transport](site)
        self.eio_sid = self._transport.open["sid"]
        self.sids = {}
        self._heard = collections.deque()

    @property
    def sid(self):
        """The peer's sid in the default namespace."""
        return self.sids["/"]

    def send(self, *packets):
        """Send Socket.IO packets: text, each followed by its attachments as bytes."""
        self._transport.send(*("4" + packet if isinstance(packet, str) else packet for packet in packets))

    def receive(self):
        """Return the next Socket.IO packet or attachment.

        Raises:
            Gone: The server has ended the connection.
        """
        if self._heard:
            return self._heard.popleft()
        while True:
            packet = self._transport.receive()
            if isinstance(packet, bytes):
                return packet
            if packet[0] == "4":
                return packet[1:]
            if packet[0] == "2":
                self._transport.send("3")
            elif packet[0] == "1":
                raise Gone("closed")

    def give_back(self, packets):
        """Let packets be received again, before those that come."""
        self._heard.extendleft(reversed(packets))

    def connect(self, namespace="/", auth=None):
        """Send CONNECT and return the next packet."""
        self.send(f"0{prefix(namespace)}{'' if auth is None else json.dumps(auth)}")
        return self.receive()

    def join(self, namespace="/", auth=None):
        """Connect to a namespace that accepts the peer, and return its sid."""
        head = f"0{prefix(namespace)}"
        answer = self.connect(namespace, auth)
        assert answer.startswith(head + "{"), answer
        self.sids[namespace] = json.loads(answer.removeprefix(head))["sid"]
        return self.sids[namespace]

    def emit(self, *event, number="", namespace="/"):
        """Send an event without attachments; ``number`` asks for an acknowledgement."""
        self.send(f"2{prefix(namespace)}{number}{json.dumps(event)}")

    def ask(self, *event, number=0, namespace="/"):
        """Send an event and return the values of its acknowledgement, which must be the next packet."""
        self.emit(*event, number=number, namespace=namespace)
        head = f"3{prefix(namespace)}{number}"
        answer = self.receive()
        assert answer.startswith(head + "["), answer
        return json.loads(answer.removeprefix(head))

    def heard(self, namespace="/"):
        """Return the packets that came so far: the server sends a last one to be waited for, which isn't among them."""
        self._site.server.emit("that's all", to=self.sids[namespace], namespace=namespace)
        last = f'2{prefix(namespace)}["that\'s all"]'
        return list(iter(self.receive, last))

    def close(self):
        """End the connection."""
        self._transport.close()

    def wait_until_gone(self):
        """Wait for the server to end the connection; return the packets that came before."""
        packets = []
        while True:
            try:
                packets.append(self.receive())
            except Gone:
                return packets


def prefix(namespace):
    """Return what stands for a namespace in a packet."""
    return "" if namespace == "/" else f"{namespace},"


def refusal(packet, namespace="/"):
    """Return the payload of a CONNECT_ERROR packet."""
    head = f"4{prefix(namespace)}"
    assert packet.startswith(head + "{"), packet
    return json.loads(packet.removeprefix(head))


def wait(event):
    """Wait for a `threading.Event`."""
    assert event.wait(LIMIT), f"waited {LIMIT} s in vain"
