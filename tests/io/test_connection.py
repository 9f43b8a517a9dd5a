import contextlib
import socket
import ssl
import subprocess
import threading
import zlib

import pytest
from doubles import client_frame
from serving import LIMIT

from flask_realtime.io.connection import Connection
from flask_realtime.io.hub import Hub
from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.websocket.reader import Reader


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def connect(hub):
    """Make ends of connections; what a test leaves open is closed."""
    with contextlib.ExitStack() as stack:

        def make(*args, **options):
            end = End(hub, *args, **options)
            stack.callback(end.close)
            return end

        yield make


def settle(hub):
    done = threading.Event()
    hub.call_soon(done.set)
    assert done.wait(LIMIT)


class End:
    """Both ends of a connection.

    Attributes:
        messages: What came in.
        reasons: Why it ended.
        ended: Set when the socket was given back.
    """

    def __init__(self, hub, early=b"", max_backlog=1 << 20, deflate_from=None):
        self.hub = hub
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.settimeout(LIMIT)
        self.messages, self.reasons = [], []
        self.got, self.ended = threading.Semaphore(0), threading.Event()

        def end():
            ours.close()
            self.ended.set()

        self.connection = Connection(hub, ours, Reader(1000), max_backlog, deflate_from, end)
        self.connection.open(self.message, self.reasons.append, early)

    def message(self, message):
        self.messages.append(message)
        self.got.release()
        if message == "fail":
            raise RuntimeError("of ours")
        if message == "close":
            self.connection.close(1000)

    def close(self):
        """Close this side and wait until the other has ended."""
        self.theirs.close()
        assert self.ended.wait(LIMIT)

    def rest(self):
        """Read until the other side ends."""
        data = b""
        while True:
            try:
                part = self.theirs.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return data
            data += part


def test_early_bytes_come_first(connect):
    end = connect(early=client_frame(1, b"early"))
    end.theirs.sendall(client_frame(1, b"later"))
    for _ in range(2):
        assert end.got.acquire(timeout=LIMIT)
    assert end.messages == ["early", "later"]
    end.theirs.close()
    assert end.ended.wait(LIMIT)
    assert end.reasons == ["transport close"]


def test_early_bytes_may_be_the_end(connect):
    end = connect(early=client_frame(8, b"\x03\xe8"))
    assert end.rest() == b"\x88\x02\x03\xe8"
    end.theirs.close()
    assert end.ended.wait(LIMIT)
    assert end.reasons == ["transport close"]


def test_what_comes_behind_a_close_frame_is_taken_without_a_reset(connect):
    end = connect()
    end.theirs.sendall(client_frame(8, b"\x03\xe8"))
    assert end.theirs.recv(65536) == b"\x88\x02\x03\xe8"
    assert end.theirs.recv(65536) == b""  # the end of our side, not of the connection
    end.theirs.sendall(client_frame(1, b"late"))
    assert not end.ended.is_set()
    end.theirs.close()
    assert end.ended.wait(LIMIT)
    assert end.messages == [] and end.reasons == ["transport close"]


def test_what_breaks_the_protocol_ends_with_its_code(connect):
    end = connect()
    end.theirs.sendall(b"\x83\x80\x00\x00\x00\x00")
    assert end.rest()[2:4] == (1002).to_bytes(2, "big")
    end.theirs.close()  # it is given the time to read why
    assert end.ended.wait(LIMIT)
    assert end.reasons == ["transport error"]


def test_an_error_of_ours_ends_only_this_connection(connect, caplog):
    end, other = connect(), connect()
    end.theirs.sendall(client_frame(1, b"fail"))
    assert end.ended.wait(LIMIT)
    assert end.reasons == ["transport error"]
    assert "of ours" in caplog.text
    other.theirs.sendall(client_frame(1, b"fine"))
    assert other.got.acquire(timeout=LIMIT)
    other.theirs.close()
    assert other.ended.wait(LIMIT)


def test_nothing_is_handed_on_after_our_close(connect):
    end = connect()
    end.theirs.sendall(client_frame(1, b"close") + client_frame(1, b"late") + client_frame(8, b"\x03\xe8"))
    assert end.rest() == b"\x88\x02\x03\xe8"
    end.theirs.close()
    assert end.ended.wait(LIMIT)
    assert end.messages == ["close"] and end.reasons == []


def test_who_does_not_answer_a_close_is_cut_off(connect, hub, monkeypatch):
    monkeypatch.setattr("flask_realtime.io.connection.LINGER", 0.01)
    end = connect()
    end.connection.close(1001, "away")
    end.connection.close(1001, "away")
    assert end.ended.wait(LIMIT)
    assert end.rest() == b"\x88\x06\x03\xe9away"
    end.connection.write([Frame("4late")])
    end.connection.close()
    end.connection.pause(False)
    settle(hub)


def test_a_backlog_is_sent_before_the_end(connect):
    end = connect(max_backlog=1 << 30)
    end.connection.write([Frame(b"x" * 3_000_000)])
    end.theirs.sendall(client_frame(8, b"\x03\xe8"))
    data = end.rest()
    assert len(data) == 10 + 3_000_000 + 4 and data[-4:] == b"\x88\x02\x03\xe8"
    end.theirs.close()
    assert end.ended.wait(LIMIT)


def test_who_asks_for_pongs_and_reads_none_is_cut_off(connect):
    end = connect(max_backlog=1000)
    ping = client_frame(9, b"p" * 125) * 100
    try:
        while not end.ended.is_set():
            end.theirs.sendall(ping)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert end.ended.wait(LIMIT)
    assert end.reasons == ["transport error"]


def test_paused_reading_goes_on_where_it_was(connect, hub):
    end = connect()
    end.connection.pause(True)
    settle(hub)
    end.theirs.sendall(client_frame(1, b"a"))
    for _ in range(3):
        settle(hub)
    assert end.messages == []
    end.connection.write([Frame("4still")])
    assert end.theirs.recv(100) == b"\x81\x064still"
    end.connection.pause(False)
    assert end.got.acquire(timeout=LIMIT)
    end.theirs.close()
    assert end.ended.wait(LIMIT)


def test_large_messages_are_compressed_when_agreed(connect):
    end = connect(deflate_from=100)
    end.connection.write([Frame("4short"), Frame(b"x" * 100)])
    end.theirs.sendall(client_frame(8, b"\x03\xe8"))
    data = end.rest()
    assert data[:8] == b"\x81\x064short"
    assert data[8] == 0xC2
    assert zlib.decompressobj(wbits=-15).decompress(data[10 : 10 + data[9]]) == b"x" * 100


def test_a_write_to_one_who_has_gone(connect):
    end = connect()
    end.theirs.close()
    for _ in range(100):
        end.connection.write([Frame("4" * 1000)])
    assert end.ended.wait(LIMIT)
    assert end.reasons in (["transport close"], ["transport error"])


def test_nothing_is_read_before_it_is_open(hub):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    messages, got = [], threading.Semaphore(0)
    ended = threading.Event()
    connection = Connection(hub, ours, Reader(1000), 1 << 24, None, ended.set)
    connection.write((Frame("4" + "x" * 3_000_000),))  # more than a socket takes
    theirs.sendall(client_frame(1, b"later"))
    for _ in range(3):
        settle(hub)
    try:
        connection.open(
            lambda message: (messages.append(message), got.release()), lambda reason: None, client_frame(1, b"early")
        )
        for _ in range(2):
            assert got.acquire(timeout=5)
        assert messages == ["early", "later"]
    finally:
        theirs.close()
        assert ended.wait(LIMIT)
        ours.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Contexts ``(server, client)``."""
    directory = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


@pytest.mark.parametrize("size", [300_000, 3_000_000, 12_000_000])
def test_a_large_message_arrives_over_tls(hub, tls, size):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # a Unix pair would take too little at once
        far = socket.create_connection(listening.getsockname(), LIMIT)
        plain, _ = listening.accept()
    box = []
    shaking = threading.Thread(target=lambda: box.append(tls[1].wrap_socket(far)), daemon=True)
    shaking.start()
    ours = tls[0].wrap_socket(plain, server_side=True)
    shaking.join(LIMIT)
    theirs = box[0]
    theirs.settimeout(5)
    ours.setblocking(False)
    ended = threading.Event()
    connection = Connection(hub, ours, Reader(1000), 1 << 20, None, ended.set)
    connection.open(lambda message: None, lambda reason: None, b"")
    frame = Frame("4" + "x" * size)
    connection.write((frame,))
    got = bytearray()
    try:
        while len(got) < len(frame.websocket):
            got += theirs.recv(65536) or pytest.fail("the connection ended in the middle")
        assert got == frame.websocket
    finally:
        theirs.close()
        hub.stop(0)
        ours.close()


class Gevents:
    """A socket as gevent's with TLS: one that takes nothing now says 0 instead of an error."""

    def __init__(self, sock):
        self._sock = sock

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def pending(self):
        return 0

    def send(self, data):
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0


def test_a_full_socket_that_takes_nothing_holds_nobody_up(hub):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(LIMIT)
    ended = threading.Event()
    connection = Connection(hub, Gevents(ours), Reader(1000), 1 << 26, None, ended.set)
    connection.open(lambda message: None, lambda reason: None, b"")
    connection.write((Frame("4" + "x" * (1 << 24)),))  # returns, though nobody reads
    settle(hub)
    left = (1 << 24) + 1 + 10
    while left:
        left -= len(theirs.recv(min(left, 1 << 20)))
    theirs.close()
    assert ended.wait(LIMIT)
    ours.close()
