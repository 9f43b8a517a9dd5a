"""The contract as python-socketio's client sees it, over every transport, against every kind of server."""

import gc
import queue
import threading
import uuid

import pytest
import requests
import socketio
from engineio.payload import Payload

from .servers import wait_until

pytestmark = [
    pytest.mark.e2e,
    # The client leaves sockets to the garbage collector; ours are in the server's process.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMIT = 15  # seconds for any single answer
TRANSPORTS = {"polling": ["polling"], "websocket": ["websocket"], "upgrade": ["polling", "websocket"]}
BINARY = bytes(range(256))

Payload.max_decode_packets = 10_000  # this client takes 16 packets from one poll unless told otherwise


@pytest.fixture(scope="module", autouse=True)
def rubbish():
    """What the client still leaves is collected among these tests, which know of it, and not in another's time."""
    yield
    gc.collect()


@pytest.fixture(params=list(TRANSPORTS))
def transport(request):
    return request.param


class Peer:
    """A client with a name in the server's journal, and its events in a queue.

    Args:
        server: The running server.
        transport: A key of ``TRANSPORTS``.
    """

    def __init__(self, server, transport):
        self.server = server
        self.transport = transport
        self.who = uuid.uuid4().hex
        self.events = queue.Queue()
        self.session = requests.Session()
        self.session.trust_env = False  # a bundle named by the environment would win over ours
        if server.ca:
            self.session.verify = str(server.ca)
        self.client = socketio.Client(reconnection=False, http_session=self.session, handle_sigint=False)
        self._take_in_order(self.client.eio)

    @staticmethod
    def _take_in_order(engine):
        """Let it take messages one by one: each gets a thread of its own there, and attachments may overtake."""
        trigger = engine._trigger_event
        engine._trigger_event = lambda event, *args, run_async=False, **kwargs: trigger(
            event, *args, run_async=run_async and event != "message", **kwargs
        )

    def listen(self, *events, namespace="/"):
        """Put these events into the queue as ``(event, args)``."""
        for event in events:
            self.client.on(event, lambda *args, event=event: self.events.put((event, args)), namespace=namespace)

    def connect(self, namespaces=("/",), auth=None, headers=None):
        """Connect, and wait until the transport is the one to test."""
        self.client.connect(
            f"{self.server.url}?who={self.who}",
            transports=TRANSPORTS[self.transport],
            namespaces=list(namespaces),
            auth=auth,
            headers=headers or {},
            wait_timeout=LIMIT,
        )
        expected = "polling" if self.transport == "polling" else "websocket"
        assert self.client.transport() == expected
        return self

    def call(self, event, data=None, namespace="/"):
        return self.client.call(event, data, namespace=namespace, timeout=LIMIT)

    def next(self):
        return self.events.get(timeout=LIMIT)

    def close(self):
        """Disconnect, and close what the client itself would leave to the garbage collector."""
        engine = self.client.eio
        # It says goodbye by a post only when the one before was answered; otherwise it waits for the next ping.
        if self.transport == "polling":
            wait_until(lambda: engine.state != "connected" or not engine.queue.unfinished_tasks, what="the last post")
        self.client.disconnect()
        if engine.ws is not None:
            engine.ws.shutdown()
        self.session.close()


@pytest.fixture
def server(front_for):
    """The server with default options, or the nginx in front of it."""
    return front_for("default")


@pytest.fixture
def peer(server, transport):
    """A peer that is not connected yet; closed at the end."""
    peer = Peer(server, transport)
    yield peer
    peer.close()


def test_connect_with_auth(peer):
    peer.connect(auth={"token": "ü😀"})
    me = peer.call("whoami")
    assert me["sid"] == peer.client.get_sid() != peer.client.sid
    assert me["auth"] == {"token": "ü😀"}
    assert me["namespace"] == "/"
    assert me["query"]["who"] == peer.who


def test_refusal_with_data(peer):
    peer.listen("connect_error")
    with pytest.raises(socketio.exceptions.ConnectionError):
        peer.connect(auth={"refuse": ["no entry", {"code": 7}]})
    assert peer.next() == ("connect_error", ({"message": "no entry", "data": {"code": 7}},))
    assert peer.server.journal(peer.who) == [["/", "refused", None]]


def test_unknown_namespace(peer):
    peer.listen("connect_error", namespace="/nowhere")
    with pytest.raises(socketio.exceptions.ConnectionError):
        peer.connect(namespaces=["/nowhere"])
    assert peer.next() == ("connect_error", ({"message": "Invalid namespace"},))


def test_acknowledgements_of_the_server(peer):
    peer.connect()
    assert peer.call("ack_none") is None
    assert peer.call("ack_one") == "one"
    assert peer.call("ack_several") == (1, "two", {"three": [3]}, b"\x04")
    assert peer.call("ack_list") == [1, "two"]


@pytest.mark.parametrize(
    "answer",
    [None, "one", (1, "two", {"three": [3]}, b"\x04"), [1, "two"]],
    ids=["none", "one", "several", "list"],
)
def test_acknowledgements_of_the_client(peer, answer):
    peer.client.on("question", lambda *args: answer)
    peer.listen("answered")
    peer.connect()
    expected = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
    peer.client.emit("ask", "?")
    assert peer.next() == ("answered", (expected,))
    kind = "tuple" if isinstance(answer, tuple) else "value"
    value = list(answer) if isinstance(answer, tuple) else answer
    assert peer.call("ask_call", (LIMIT, "?")) == (kind, value)
    assert peer.call("ask_socketio_call", (LIMIT, "?")) == (kind, value)


@pytest.mark.parametrize(
    "value",
    [
        True,
        0,
        -1.5,
        2**53,
        "",
        "ünï😀\u2028\u001e\u0000",
        [],
        {"ключ": [1, {"deep": None}]},
        b"",
        BINARY,
        {"list": [BINARY, {"deeper": b"\x1e"}], "text": "x"},
        ["x" * 100_000, BINARY * 300],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_echo(peer, value):
    peer.listen("echoed")
    peer.connect()
    assert peer.call("echo", value) == [value]
    peer.client.emit("echo_event", (value, "and", value))
    assert peer.next() == ("echoed", (value, "and", value))


def test_a_surrogate_harms_nobody(peer):
    peer.connect()
    assert peer.call("echo", "a\ud83d") == ["a\ud83d"]
    assert peer.call("sync") == "synced"


def test_namespaces(peer):
    peer.listen("news")
    peer.listen("news", namespace="/custom")
    peer.connect(namespaces=["/", "/custom", "/class"])
    assert len({peer.client.get_sid(path) for path in ("/", "/custom", "/class")}) == 3
    assert peer.call("whoami", namespace="/custom")["namespace"] == "/custom"
    assert peer.call("echo", 1, namespace="/class") == [1]
    peer.call("cast", ("custom", {"to": peer.client.get_sid("/custom")}), namespace="/custom")
    assert peer.next() == ("news", ("custom",))
    peer.call("cast", ("foreign", {"to": peer.client.get_sid("/custom")}))
    assert peer.call("sync", namespace="/custom") == "synced"
    assert peer.events.empty()


def test_rooms(server, transport):
    peers = [Peer(server, transport) for _ in range(3)]
    try:
        for peer in peers:
            peer.listen("news")
            peer.connect()
        first, second, third = peers
        first.call("join", "room")
        second.call("join", "room")
        third.call("cast", ("to room", {"to": "room"}))
        third.call("cast", ("to all", {"broadcast": True, "include_self": False}))
        third.call("cast", ("to one", {"to": third.client.get_sid()}))
        received = [sorted(item.events.get(timeout=LIMIT)[1][0] for _ in range(2)) for item in (first, second)]
        assert received == [["to all", "to room"]] * 2
        assert third.next() == ("news", ("to one",))
        assert all(peer.call("sync") == "synced" and peer.events.empty() for peer in peers)
    finally:
        for peer in peers:
            peer.close()


def test_a_thousand_events_of_the_server_all_arrive(peer):
    # The client runs each handler in a thread of its own, so the order is not for it to tell.
    numbers, done = set(), threading.Event()

    def tick(number, attachment=None):
        numbers.add(number)
        if len(numbers) == 1000:
            done.set()

    peer.client.on("tick", tick)
    peer.connect()
    peer.client.emit("stream", 1000)
    assert done.wait(LIMIT), f"{len(numbers)} of 1,000 came"
    assert numbers == set(range(1000))


def disconnects(peer):
    return [[path, reason] for path, event, reason in peer.server.journal(peer.who) if event == "disconnect"]


def test_the_client_disconnects(peer, transport):
    peer.connect()
    # This client sends nothing of its good-bye over polling when its last POST is still under way.
    peer.client.eio.queue.join()
    peer.client.disconnect()
    # This client closes its WebSocket without waiting for what it still had to send.
    ends = ("client disconnect",) if transport == "polling" else ("client disconnect", "transport close")
    ((path, reason),) = wait_until(lambda: disconnects(peer))
    assert path == "/" and reason in ends


def test_the_server_disconnects(peer):
    peer.listen("disconnect")
    peer.connect()
    peer.client.emit("kick")
    assert peer.next()[0] == "disconnect"
    assert wait_until(lambda: disconnects(peer)) == [["/", "server disconnect"]]


def test_the_server_closes_the_transport(peer):
    peer.listen("disconnect")
    peer.connect()
    peer.client.emit("close_engine", peer.client.sid)
    assert peer.next()[0] == "disconnect"
    assert len(wait_until(lambda: disconnects(peer))) == 1


def test_pings_keep_the_client(front_for, transport):
    peer = Peer(front_for("heartbeat"), transport)
    pings = threading.Semaphore(0)
    answer = peer.client.eio._send_packet

    def count(packet):
        if packet.packet_type == 3:
            pings.release()
        answer(packet)

    peer.client.eio._send_packet = count
    peer.connect()
    try:
        for _ in range(4):
            assert pings.acquire(timeout=LIMIT)
        assert peer.call("sync") == "synced"
        assert disconnects(peer) == []
    finally:
        peer.close()
