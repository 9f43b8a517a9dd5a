"""What is on the wire, byte for byte: Engine.IO 4 and Socket.IO 5 by raw requests and a strict WebSocket peer."""

import contextlib
import http.client
import json
import socket
import ssl
import uuid

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from .raw import SEPARATOR, Polling, fetch, target
from .servers import GOOD_ORIGIN, Server, wait_until

pytestmark = pytest.mark.e2e

MAX = 1_000_000
LIMIT = 10  # seconds for any single frame
ERRORS = {
    0: (400, "Transport unknown"),
    1: (400, "Session ID unknown"),
    2: (400, "Bad handshake method"),
    3: (400, "Bad request"),
    5: (400, "Unsupported protocol version"),
}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
UPGRADE["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest.fixture
def wire(server_for):
    """The server that gets hostile peers: it may complain about them, but not crash."""
    return server_for("hostile")


@contextlib.contextmanager
def websocket(server, headers=None, **query):
    """Open a WebSocket; ``who`` is its name in the journal."""
    who = uuid.uuid4().hex
    query = {"EIO": "4", "transport": "websocket", "who": who, **query}
    address = server.websocket_url + target(**query)
    options = {}
    if server.tls:
        options["ssl"] = context = server.tls
        # This client reads in a thread while it sends in another, and under TLS 1.3 the server's tickets, which come
        # after the handshake, then spoil one connection in 500. Under 1.2 they are part of the handshake.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(
        address,
        additional_headers=headers,
        compression=None,
        max_size=None,
        open_timeout=LIMIT,
        close_timeout=LIMIT,
        ping_interval=None,
        proxy=None,
        **options,
    ) as peer:
        peer.who = who
        yield peer


def joined(peer):
    """Take the handshake of a WebSocket and join the main namespace."""
    handshake = peer.recv(timeout=LIMIT)
    assert handshake[0] == "0", handshake
    peer.send("40")
    answer = peer.recv(timeout=LIMIT)
    assert answer.startswith('40{"sid":"'), answer
    return json.loads(handshake[1:])


def until_closed(peer):
    """Read until the server closes; return the close code and what came before."""
    received = []
    try:
        while True:
            received.append(peer.recv(timeout=LIMIT))
    except ConnectionClosed as closed:
        return (closed.rcvd.code if closed.rcvd else 1006), received


def assert_error(answer, code):
    status, message = ERRORS[code]
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/json"), answer.headers
    assert set(answer.json) == {"code", "message"}
    assert answer.json["code"] == code
    assert answer.json["message"].split(":")[0] == message  # what exactly was wrong may follow


def assert_unknown(session):
    """The session is gone: polls and posts get code 1."""
    assert_error(session.poll(), 1)
    assert_error(session.post('42["sync"]'), 1)


def reasons(server, who):
    return [detail for _, event, detail in server.journal(who) if event == "disconnect"]


def ended(server, who):
    """Wait for the disconnect of a client and return its reasons (one, if all is well)."""
    return wait_until(lambda: reasons(server, who), what="a disconnect in the journal")


def settle(server):
    """Make some round trips: what was sent before on other connections has been taken up by then."""
    for _ in range(3):
        server.get("/")


# Handshake


def test_polling_handshake(wire):
    session = Polling(wire)
    assert set(session.open) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
    assert session.open["upgrades"] == ["websocket"]
    assert [session.open[key] for key in ("pingInterval", "pingTimeout", "maxPayload")] == [25000, 20000, MAX]
    assert all(type(session.open[key]) is int for key in ("pingInterval", "pingTimeout", "maxPayload"))
    assert len(session.sid) == 22 and session.sid.replace("-", "").replace("_", "").isalnum()
    assert session.handshake.headers["Content-Type"] == "text/plain; charset=UTF-8"
    assert session.handshake.headers["Cache-Control"] == "no-store"
    assert session.handshake.headers["Set-Cookie"] is None


def test_sub_second_values_survive(server_for):
    session = Polling(server_for("heartbeat"))
    assert (session.open["pingInterval"], session.open["pingTimeout"]) == (300, 1500)


def test_websocket_handshake(wire):
    with websocket(wire) as peer:
        handshake = joined(peer)
        assert set(handshake) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
        assert handshake["upgrades"] == []
        peer.send('427["echo",1]')
        assert peer.recv(timeout=LIMIT) == "437[[1]]"


def test_user_parameters_and_cache_buster_are_no_matter(wire):
    session = Polling(wire, t="abc123", extra="ü&=", b64="1")
    session.join()
    assert session.alive()


# Polling


def test_poll_and_post(wire):
    session = Polling(wire)
    session.join()
    answer = session.post('421["echo",1]')
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["Content-Type"].startswith("text/")
    answer = session.poll()
    assert (answer.status, answer.body) == (200, b"431[[1]]")
    assert answer.headers["Content-Type"] == "text/plain; charset=UTF-8"


def test_a_poll_waits_for_a_packet(wire):
    session = Polling(wire)
    session.join()
    pending = session.get()
    settle(wire)
    session.send('421["echo","late"]')
    assert pending.answer().body == b'431[["late"]]'


def ask(connection, method, path, body=None, headers=None):
    """Send a request on a connection that is kept if the server keeps it, and return the answer's body."""
    connection.request(method, path, body, headers or {})
    return read(connection)


def read(connection):
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return body.decode()


def test_pages_polls_and_posts_share_connections(wire):
    session = Polling(wire)
    session.join()
    with contextlib.closing(wire.connection()) as one, contextlib.closing(wire.connection()) as two:
        for number in range(20):
            one.request("GET", session.target)
            assert ask(two, "POST", session.target, f'42{number}["sync"]') == "ok"
            assert read(one) == f'43{number}["synced"]'
            for connection in (one, two):
                assert ask(connection, "GET", "/") == "ready"
                assert ask(connection, "GET", "/", headers={"X-Forwarded-For": "10.0.0.1"}) == "ready"
            one, two = two, one
    assert session.alive()


KEEP = {"Connection": "keep-alive"}  # as browsers and Node say; eventlet knows no other sign


def test_a_client_keeps_its_connections(wire):
    session = Polling(wire)
    session.join()
    kept, number = 0, 0
    with contextlib.closing(wire.connection()) as one, contextlib.closing(wire.connection()) as two:
        while kept < 10 and number < 200:
            before = one.sock, two.sock
            one.request("GET", session.target, headers=KEEP)
            assert ask(two, "POST", session.target, f'42{number}["sync"]', KEEP) == "ok"
            assert read(one) == f'43{number}["synced"]'
            number += 1
            kept = kept + 1 if None not in before and (one.sock, two.sock) == before else 0
    assert kept == 10 or not wire.row.keeps


def request(method, path, *fields, body=""):
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Answers:
    """The answers on one socket, which all are read through one buffer: one that comes early isn't lost with another's.

    It is what ``HTTPResponse`` takes for a socket, and for its file.
    """

    def __init__(self, sock):
        self._file = sock.makefile("rb")
        self.readline, self.read, self.readinto = self._file.readline, self._file.read, self._file.readinto

    def makefile(self, mode):
        return self

    def flush(self):
        pass

    def close(self):
        """The end of an answer isn't the end of the socket."""

    def next(self):
        """Read one answer; None at the end of the stream."""
        response = http.client.HTTPResponse(self)
        try:
            response.begin()
        except (http.client.RemoteDisconnected, ConnectionError):
            return None
        return response.status, response.read().decode()


def test_what_follows_a_post_in_chunks_is_answered_or_the_connection_ends(wire):
    session = Polling(wire)
    session.join()
    with contextlib.closing(wire.socket()) as sock:
        chunked = request("POST", session.target, "Transfer-Encoding: chunked", body="b\r\n420[\"sync\"]\r\n0\r\n\r\n")
        sock.sendall(chunked + request("GET", session.target))
        answers = Answers(sock)
        assert answers.next() == (200, "ok")
        assert answers.next() in ((200, '430["synced"]'), None)


def test_the_word_of_a_proxy_counts_once_for_a_connection(tmp_path, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--proxy-protocol")
    server = Server("gunicorn-threads", tmp_path)
    try:
        session = Polling(server)
        session.join()
        with contextlib.closing(server.socket()) as sock:
            answers = Answers(sock)
            for _ in range(3):
                sock.sendall(request("POST", session.target, "Content-Length: 1", body="6"))
                assert answers.next() == (200, "ok")
            sock.sendall(b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n" + request("GET", "/"))
            assert answers.next()[0] == 400
    finally:
        server.stop()


def test_one_post_carries_a_thousand_packets(wire):
    session = Polling(wire)
    session.join()
    session.send(*[f'42["numbered",{number}]' for number in range(1000)])

    def numbers():
        session.send('420["numbers"]')
        (answer,) = session.packets()
        return json.loads(answer.removeprefix("430"))[0]

    wait_until(lambda: len(numbers()) >= 1000, what="1,000 numbers")
    assert sorted(numbers()) == list(range(1000))


def test_one_poll_carries_all_that_waits(wire):
    session = Polling(wire)
    session.join()
    received = []
    session.send(*[f'42{number}["echo",{number}]' for number in range(20)])
    while len(received) < 20:
        received += session.packets()
    assert sorted(received) == sorted(f"43{number}[[{number}]]" for number in range(20))


def test_binary_is_base64_behind_its_header(wire):
    session = Polling(wire)
    session.join()
    session.send('451-3["echo",{"_placeholder":true,"num":0},"x"]', "bAQIDBA==")
    assert session.packets() == ['461-3[[{"_placeholder":true,"num":0},"x"]]', "bAQIDBA=="]


def test_the_attachment_may_come_in_another_post(wire):
    session = Polling(wire)
    session.join()
    session.send('452-3["echo",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]', "bAQIDBA==")
    session.send("b")
    assert session.packets() == [
        '462-3[[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]]',
        "b",
        "bAQIDBA==",
    ]


def test_a_separator_in_text_is_escaped(wire):
    session = Polling(wire)
    session.join()
    session.send('421["echo","a\\u001eb"]')
    assert session.packets() == ['431[["a\\u001eb"]]']


def test_chunked_post(wire):
    session = Polling(wire)
    session.join()
    body = iter([b'421["ec', b'ho","chunked"]'])
    answer = fetch(wire, "POST", session.target, body, {"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.body) == (200, b"ok")
    assert session.packets() == ['431[["chunked"]]']


def test_a_post_of_the_limit_passes_and_one_byte_more_is_413(wire):
    session = Polling(wire)
    session.join()
    frame = '42["numbered",""]'
    session.send(f'42["numbered","{"x" * (MAX - len(frame))}"]')
    answer = session.post(f'42["numbered","{"x" * (MAX - len(frame) + 1)}"]')
    assert (answer.status, answer.body) == (413, b"")
    assert session.alive(), "only the request is refused"
    assert reasons(wire, session.who) == []


def test_the_limit_counts_bytes(wire):
    session = Polling(wire)
    session.join()
    answer = session.post(f'42["numbered","{"€" * 340_000}"]')
    assert (answer.status, answer.body) == (413, b"")
    assert session.alive()


def test_a_chunked_post_beyond_the_limit_is_413(wire):
    session = Polling(wire)
    session.join()
    body = iter([b'42["numbered","', *[b"x" * 10_000] * 101, b'"]'])
    answer = fetch(wire, "POST", session.target, body, {"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.body) == (413, b"")
    assert session.alive()


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"7", b"4\x1e", b"bA", b"b!!!!", b"\xff\xfe"],
    ids=["empty", "letter", "type 7", "empty packet", "short base64", "no base64", "no UTF-8"],
)
def test_a_bad_payload_is_400_and_ends_the_session(wire, body):
    session = Polling(wire)
    session.join()
    answer = fetch(wire, "POST", session.target, body, {"Content-Type": "text/plain;charset=UTF-8"})
    assert answer.status == 400, answer
    assert len(ended(wire, session.who)) == 1
    assert_unknown(session)


@pytest.mark.parametrize("packet", ['42["sync"', "2", "4", "42", '42["connect"]', '42/custom,["sync"]'])
def test_a_bad_packet_in_a_good_payload_ends_the_session(wire, packet):
    session = Polling(wire)
    session.join()
    # The payload was readable, so either answer is right; what counts is that the session ends.
    assert session.post(packet).status in (200, 400)
    assert len(ended(wire, session.who)) == 1
    assert_unknown(session)


def test_octet_stream_is_400_and_ends_the_session(wire):
    session = Polling(wire)
    session.join()
    answer = session.post('42["sync"]', headers={"Content-Type": "application/octet-stream"})
    assert answer.status == 400
    assert_unknown(session)
    assert len(ended(wire, session.who)) == 1


def test_overlapping_polls_end_the_session(wire):
    session = Polling(wire)
    session.join()
    first = session.get()
    settle(wire)
    second = session.poll()
    assert (second.status, second.body) == (400, b"")
    answer = first.answer()
    assert (answer.status, answer.body) == (200, b"1")
    assert ended(wire, session.who) == ["transport error"]
    assert_unknown(session)


def test_an_aborted_poll_ends_the_session(wire):
    session = Polling(wire)
    session.join()
    pending = session.get()
    settle(wire)
    pending.abort()
    assert ended(wire, session.who)[0] in ("transport error", "transport close")
    assert len(reasons(wire, session.who)) == 1
    assert_unknown(session)


def test_a_close_packet_answers_the_pending_poll_with_noop(wire):
    session = Polling(wire)
    session.join()
    pending = session.get()
    settle(wire)
    session.send("1")
    answer = pending.answer()
    assert (answer.status, answer.body) == (200, b"6")
    assert ended(wire, session.who) == ["client disconnect"]
    assert_unknown(session)


def test_a_close_by_the_server_answers_the_pending_poll_with_close(wire):
    session = Polling(wire)
    session.join()
    pending = session.get()
    settle(wire)
    session.send(f'42["close_engine","{session.sid}"]')
    answer = pending.answer()
    assert answer.status == 200
    assert answer.text.split(SEPARATOR)[-1] == "1", answer
    assert len(ended(wire, session.who)) == 1
    assert_unknown(session)


def test_disconnect_of_a_namespace_keeps_the_session(wire):
    session = Polling(wire)
    session.join()
    session.send("41")
    assert ended(wire, session.who) == ["client disconnect"]
    session.join()
    assert session.alive()


# Errors


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("GET", {"EIO": "4"}, 0),
        ("GET", {"EIO": "4", "transport": "carrier-pigeon"}, 0),
        ("GET", {"EIO": "4", "transport": "webtransport"}, 0),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "nobody"}, 1),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "__proto__"}, 1),
        ("POST", {"EIO": "4", "transport": "polling", "sid": "nobody"}, 1),
        ("POST", {"EIO": "4", "transport": "polling"}, 2),
        ("PUT", {"EIO": "4", "transport": "polling"}, 2),
        ("DELETE", {"EIO": "4", "transport": "polling"}, 2),
        ("GET", {"EIO": "4", "transport": "websocket"}, 3),
        ("GET", {"EIO": "3", "transport": "polling"}, 5),
        ("GET", {"EIO": "5", "transport": "polling"}, 5),
        ("GET", {"EIO": "abc", "transport": "polling"}, 5),
        ("GET", {"transport": "polling"}, 5),
    ],
)
def test_refusals(wire, method, query, code):
    assert_error(fetch(wire, method, target(**query)), code)


def test_other_methods_on_a_session(wire):
    session = Polling(wire)
    session.join()
    assert fetch(wire, "PUT", session.target, b"4x").status == 400
    assert session.alive()


def test_websocket_transport_on_a_polling_session_without_an_upgrade(wire):
    session = Polling(wire)
    session.join()
    assert_error(fetch(wire, "GET", target(**{**session.query, "transport": "websocket"})), 3)
    assert session.alive()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"EIO": "4", "transport": "websocket", "sid": "nobody"}, 1),
        ({"EIO": "4", "transport": "polling"}, 3),
        ({"EIO": "3", "transport": "websocket"}, 5),
        ({"EIO": "4", "transport": "carrier-pigeon"}, 0),
    ],
)
def test_refusals_of_the_upgrade(wire, query, code):
    if not wire.row.shakes:
        assert_error(fetch(wire, "GET", target(**query), headers=UPGRADE), code)
        return
    with connect(wire.websocket_url + target(**query), compression=None, proxy=None) as peer:
        with pytest.raises(ConnectionClosed) as refusal:
            peer.recv(timeout=LIMIT)
    assert refusal.value.rcvd.code == 1008
    assert refusal.value.rcvd.reason.startswith(f'{{"code":{code},"message":"{ERRORS[code][1]}')


def test_every_engine_answer_forbids_caching(wire):
    session = Polling(wire)
    answers = {"handshake": session.handshake, "post": session.post("40"), "poll": session.poll()}
    answers["too large"] = session.post("4" + "x" * MAX)
    answers["wrong method"] = fetch(wire, "PUT", session.target)
    answers["unknown sid"] = fetch(wire, "GET", target(EIO=4, transport="polling", sid="nobody"))
    answers["unknown transport"] = fetch(wire, "GET", target(EIO=4, transport="smoke"))
    answers["version"] = fetch(wire, "GET", target(EIO=3, transport="polling"))
    answers["handshake by post"] = fetch(wire, "POST", target(EIO=4, transport="polling"))
    if not wire.row.shakes:
        answers["no upgrade"] = fetch(wire, "GET", target(EIO=4, transport="websocket", sid="nobody"), headers=UPGRADE)
    answers["origin"] = fetch(
        wire, "GET", target(EIO=4, transport="polling"), headers={"Origin": "http://evil.example"}
    )
    answers["bad payload"] = session.post("x")
    headers = {name: answer.headers["Cache-Control"] for name, answer in answers.items()}
    assert headers == dict.fromkeys(headers, "no-store")


# Origins


def assert_websocket_refused(server, headers):
    """No WebSocket is opened with these headers; where the server has accepted the handshake, it is closed at once."""
    with pytest.raises((InvalidStatus, ConnectionClosed)) as refusal, websocket(server, headers=headers) as peer:
        peer.recv(timeout=LIMIT)
    if server.row.shakes:
        assert refusal.value.rcvd.code == 1008
    else:
        assert refusal.value.response.status_code == 400


def test_a_foreign_origin_is_refused(wire):
    origin = {"Origin": "http://evil.example"}
    answer = fetch(wire, "GET", target(EIO=4, transport="polling"), headers=origin)
    assert answer.status == 400
    assert answer.headers["Access-Control-Allow-Origin"] is None
    assert_websocket_refused(wire, origin)


def test_the_own_origin_is_accepted(wire):
    origin = {"Origin": wire.url}
    session = Polling(wire, headers=origin)
    assert session.handshake.headers["Access-Control-Allow-Origin"] == wire.url
    with websocket(wire, headers=origin) as peer:
        joined(peer)


def test_an_allowed_origin_gets_its_headers_on_errors_too(server_for):
    server = server_for("origins")
    origin = {"Origin": GOOD_ORIGIN}
    answers = [
        Polling(server, headers=origin).handshake,
        fetch(server, "GET", target(EIO=4, transport="polling", sid="nobody"), headers=origin),
        fetch(server, "GET", target(EIO=4, transport="smoke"), headers=origin),
        fetch(server, "GET", target(EIO=3, transport="polling"), headers=origin),
        fetch(server, "POST", target(EIO=4, transport="polling"), headers=origin),
    ]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == GOOD_ORIGIN, answer
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in answer.headers["Vary"]
    preflight = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answer = fetch(server, "OPTIONS", target(EIO=4, transport="polling"), headers=preflight)
    assert answer.status in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == GOOD_ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"].lower() == "content-type"
    with websocket(server, headers=origin) as peer:
        joined(peer)
    assert_websocket_refused(server, {"Origin": server.url})


# WebSocket


def test_binary_over_websocket(wire):
    with websocket(wire) as peer:
        joined(peer)
        peer.send('451-3["echo",{"_placeholder":true,"num":0}]')
        peer.send(b"\x01\x02\x1e\xff")
        assert peer.recv(timeout=LIMIT) == '461-3[[{"_placeholder":true,"num":0}]]'
        assert peer.recv(timeout=LIMIT) == b"\x01\x02\x1e\xff"


def test_a_close_packet_over_websocket_ends_the_session(wire):
    with websocket(wire) as peer:
        joined(peer)
        peer.send("1")
        until_closed(peer)
    assert ended(wire, peer.who) == ["client disconnect"]


def test_a_message_beyond_the_limit_closes_with_1009(wire):
    with websocket(wire) as peer:
        joined(peer)
        frame = '420["measure",""]'
        peer.send(f'420["measure","{"x" * (MAX - len(frame))}"]')
        assert peer.recv(timeout=LIMIT) == f'430["str",{MAX - len(frame)}]'
        with contextlib.suppress(ConnectionClosed):  # the close may come while it is still being sent
            peer.send(f'420["measure","{"x" * (MAX - len(frame) + 1)}"]')
        assert until_closed(peer)[0] == 1009
    assert len(ended(wire, peer.who)) == 1


def test_a_lost_websocket_ends_the_session(wire):
    with websocket(wire) as peer:
        joined(peer)
        peer.socket.shutdown(socket.SHUT_RDWR)
        assert ended(wire, peer.who)[0] in ("transport close", "transport error")
    assert len(reasons(wire, peer.who)) == 1


@pytest.mark.parametrize(
    "frames",
    [
        [""],
        ["x"],
        ["7"],
        ["2"],
        ["4"],
        ["42"],
        ["42[]"],
        ["42{}"],
        ['42"sync"'],
        ['42["sync"'],
        ['42["connect",{}]'],
        ['42["disconnect","forged"]'],
        ['42["connect_error"]'],
        ['42 7["sync"]'],
        ['42abc["sync"]'],
        ["40"],
        ['44{"message":"no"}'],
        ['42/custom,["sync"]'],
        ["41/custom,"],
        ['451-["echo",{"_placeholder":true,"num":1}]', b"a"],
        ['451-["echo",{"_placeholder":true,"num":-1}]', b"a"],
        ['451-["echo",{"_placeholder":true,"num":"0"}]', b"a"],
        ['451-["echo",{"_placeholder":true,"num":true}]', b"a"],
        ['451-["echo",{"_placeholder":true,"num":0}]', '42["sync"]'],
        [b"unasked"],
        ["49"],
        ['42["echo",' + "[" * 100_000 + "]" * 100_000 + "]"],
        ['42["echo",' + "1" * 5000 + "]"],
    ],
    ids=lambda frames: repr(frames[0])[:40],
)
def test_a_breach_of_the_protocol_closes_the_connection(wire, frames):
    with websocket(wire) as peer:
        joined(peer)
        for frame in frames:
            with contextlib.suppress(ConnectionClosed):
                peer.send(frame)
        until_closed(peer)
    wait_until(lambda: reasons(wire, peer.who), what="a disconnect")
    assert len(reasons(wire, peer.who)) == 1
    assert [event for _, event, _ in wire.journal(peer.who)] == ["connect", "disconnect"]


@pytest.mark.parametrize("frame", ['42["sync"]', "41", "430[]", "b", '40["list"]', "40{", '40"text"'])
def test_nothing_but_connect_opens(wire, frame):
    with websocket(wire) as peer:
        peer.recv(timeout=LIMIT)
        peer.send(frame)
        until_closed(peer)
    assert wire.journal(peer.who) == []


def test_unasked_acknowledgements_and_plain_placeholders_are_harmless(wire):
    with websocket(wire) as peer:
        joined(peer)
        peer.send("430[]")
        peer.send('4399["x"]')
        peer.send('421["echo",{"_placeholder":true,"num":0}]')
        assert peer.recv(timeout=LIMIT) == '431[[{"_placeholder":true,"num":0}]]'


def test_connect_errors_are_objects(wire):
    with websocket(wire) as peer:
        peer.recv(timeout=LIMIT)
        peer.send("40/nowhere,")
        assert peer.recv(timeout=LIMIT) == '44/nowhere,{"message":"Invalid namespace"}'
        peer.send('40{"refuse":["why",{"code":7}]}')
        assert json.loads(peer.recv(timeout=LIMIT)[2:]) == {"message": "why", "data": {"code": 7}}
        peer.send("40/custom")
        assert peer.recv(timeout=LIMIT).startswith('40/custom,{"sid":"')


# Upgrade


def test_upgrade(wire):
    session = Polling(wire)
    session.join()
    with websocket(wire, sid=session.sid) as peer:
        peer.send("2probe")
        assert peer.recv(timeout=LIMIT) == "3probe"
        # Between the probe and 5 polling goes on.
        session.send('421["echo","while probing"]')
        packets = []
        while '431[["while probing"]]' not in packets:  # polls don't wait now
            packets += session.packets()
        assert set(packets) <= {'431[["while probing"]]', "6"}
        # An idle poll is ended, however often it comes.
        for _ in range(2):
            answer = session.poll()
            assert (answer.status, answer.body) == (200, b"6")
        with pytest.raises(TimeoutError):
            peer.recv(timeout=0.2)
        peer.send("5")
        peer.send('422["echo","upgraded"]')
        assert peer.recv(timeout=LIMIT) == '432[["upgraded"]]', "the answer is the first frame after the probe"
        assert_error(session.poll(), 3)
        assert_error(session.post('42["sync"]'), 3)
        peer.send('423["echo","still there"]')
        assert peer.recv(timeout=LIMIT) == '433[["still there"]]'
    assert len(ended(wire, session.who)) == 1


def test_a_pending_poll_is_ended_by_the_probe(wire):
    session = Polling(wire)
    session.join()
    pending = session.get()
    settle(wire)
    with websocket(wire, sid=session.sid) as peer:
        peer.send("2probe")
        answer = pending.answer()
        assert (answer.status, answer.body) == (200, b"6")
        assert peer.recv(timeout=LIMIT) == "3probe"
        peer.send("5")
        peer.send('421["echo",1]')
        assert peer.recv(timeout=LIMIT) == "431[[1]]"


def test_what_waited_on_polling_goes_out_on_the_websocket(wire):
    session = Polling(wire)
    sid = session.join()
    wire.get(f"/emit?to={sid}&data=kept")
    with websocket(wire, sid=session.sid) as peer:
        peer.send("2probe")
        assert peer.recv(timeout=LIMIT) == "3probe"
        peer.send("5")
        assert peer.recv(timeout=LIMIT) == '42["from_route","kept"]'


def test_a_second_websocket_is_turned_away(wire):
    session = Polling(wire)
    session.join()

    def turned_away():
        try:
            with websocket(wire, sid=session.sid) as second:
                with contextlib.suppress(ConnectionClosed):
                    second.send("2probe")
                return until_closed(second)[1] == []
        except InvalidStatus as refusal:
            return refusal.response.status_code == 400

    with websocket(wire, sid=session.sid) as peer:
        peer.send("2probe")
        assert peer.recv(timeout=LIMIT) == "3probe"
        assert turned_away(), "while upgrading"
        peer.send("5")
        peer.send('421["echo",1]')
        assert peer.recv(timeout=LIMIT) == "431[[1]]"
        assert turned_away(), "after the upgrade"
        peer.send('422["echo",2]')
        assert peer.recv(timeout=LIMIT) == "432[[2]]"


@pytest.mark.parametrize("first", ["3probe", '42["sync"]', "2", "2other", b"2probe", "x"])
def test_a_websocket_that_does_not_probe_is_closed_and_polling_goes_on(wire, first):
    session = Polling(wire)
    session.join()
    with websocket(wire, sid=session.sid) as peer:
        peer.send(first)
        assert until_closed(peer)[1] == []
    assert session.alive()
    assert reasons(wire, session.who) == []


def test_a_lost_probe_leaves_polling_and_a_new_attempt_may_follow(wire):
    session = Polling(wire)
    session.join()
    with websocket(wire, sid=session.sid) as peer:
        peer.send("2probe")
        assert peer.recv(timeout=LIMIT) == "3probe"
        peer.socket.shutdown(socket.SHUT_RDWR)
    assert session.alive()

    def upgraded():
        with contextlib.suppress(InvalidStatus, ConnectionClosed), websocket(wire, sid=session.sid) as peer:
            peer.send("2probe")
            assert peer.recv(timeout=LIMIT) == "3probe"
            peer.send("5")
            peer.send('421["echo",1]')
            return peer.recv(timeout=LIMIT) == "431[[1]]"
        return False

    wait_until(upgraded, what="the second attempt")


# JSONP


def jsonp(answer, index):
    """Return the payload inside a JSONP answer."""
    assert answer.status == 200, answer
    text = answer.text
    head, tail = f"___eio[{index}](", ");"
    assert text.startswith(head) and text.endswith(tail), text
    return json.loads(text.removeprefix(head).removesuffix(tail))


def test_jsonp(wire):
    session = Polling(wire, j="3x4")
    payload = jsonp(session.handshake, 34)
    assert payload[0] == "0"
    session.query["sid"] = json.loads(payload[1:])["sid"]

    def post(data):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = fetch(wire, "POST", session.target, target(d=data).partition("?")[2].encode(), form)
        assert (answer.status, answer.body) == (200, b"ok")

    post("40")
    assert jsonp(session.poll(), 34).startswith('40{"sid":"')
    awkward = 'quote " back\\slash new\nline \u2028\u2029 </script> ü😀'
    # The client doubles what reads as an escaped newline: \n in JSON travels as \\n.
    post(f'421["echo",{json.dumps(awkward)}]'.replace("\\n", "\\\\n"))
    answer = session.poll()
    assert json.loads(jsonp(answer, 34).removeprefix("431")) == [[awkward]]
    assert "\u2028" not in answer.text and "\u2029" not in answer.text
    post("1")
    assert ended(wire, session.who) == ["client disconnect"]
