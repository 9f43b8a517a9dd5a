"""The gateway behind a real server: requests on bare sockets."""

import errno
import json
import socket
import threading
import time

import pytest
from doubles import client_frame
from serving import LIMIT, Http, WebSocket, serving
from werkzeug.test import Client, EnvironBuilder

from flask_realtime import engineio
from flask_realtime.io import wsgi

OPEN = "EIO=4&transport=polling"


class Site:
    """A server that echoes, on a port.

    Attributes:
        log: ``(what, sid, argument)``.
    """

    def __init__(self, **options):
        self.server = engineio.Server(**options)
        self.log, self.stay, self.happened = [], False, threading.Condition()
        self.server.on("connect", lambda sid, environ: self.note("connect", sid, environ))
        self.server.on("message", self.message)
        self.server.on("disconnect", lambda sid, reason: self.note("disconnect", sid, reason))
        self.application = engineio.WSGIApp(self.server)

    def __call__(self, environ, start_response):
        if self.stay:
            environ["flask_realtime.stay"] = True  # as if the socket couldn't leave its server
        return self.application(environ, start_response)

    def note(self, *entry):
        with self.happened:
            self.log.append(entry)
            self.happened.notify_all()

    def message(self, sid, data):
        self.note("message", sid, data)
        self.server.send(sid, data)

    def wait_for(self, what, count=1):
        """Wait until something has happened; return its last entry."""
        with self.happened:
            assert self.happened.wait_for(lambda: sum(entry[0] == what for entry in self.log) >= count, LIMIT), self.log
            return [entry for entry in self.log if entry[0] == what][-1]


@pytest.fixture(params=[False, True], ids=["moved", "stays"])
def site(request):
    site = Site(ping_interval=300)
    site.stay = request.param
    with serving(site) as site.port:
        yield site
        site.server.shutdown()


def handshake(site):
    with Http(site.port) as http:
        status, _, body = http.send("GET", OPEN).answer()
    assert status == 200
    return json.loads(body[1:])["sid"]


def post(site, sid, body, **headers):
    with Http(site.port) as http:
        return http.send("POST", f"{OPEN}&sid={sid}", body, **headers).answer()


def poll(site, http, sid):
    """Send a poll and wait until it waits."""
    http.send("GET", f"{OPEN}&sid={sid}")
    polling, end = site.server.engine.sessions[sid].polling, time.monotonic() + LIMIT
    while polling._poll is None:
        assert time.monotonic() < end


# Polling


def test_a_poll_waits_for_a_message(site):
    sid = handshake(site)
    with Http(site.port) as http:
        http.send("GET", f"{OPEN}&sid={sid}")
        assert post(site, sid, b"4hello\x1ebAQI=")[::2] == (200, b"ok")
        site.wait_for("message", 2)
        status, headers, body = http.answer()
    assert status == 200 and headers["content-type"] == "text/plain; charset=UTF-8"
    if body == b"4hello":
        with Http(site.port) as http:
            body += b"\x1e" + http.send("GET", f"{OPEN}&sid={sid}").answer()[2]
    assert body == b"4hello\x1ebAQI="


def test_a_large_answer_to_a_poll(site):
    sid = handshake(site)
    with Http(site.port) as http:
        poll(site, http, sid)
        text = "x" * 5_000_000
        site.server.send(sid, text)
        assert http.answer()[2] == b"4" + text.encode()


def test_a_large_message_between_polls(site):
    sid = handshake(site)
    site.server.send(sid, "x" * 2_000_000)
    with Http(site.port) as http:
        assert len(http.send("GET", f"{OPEN}&sid={sid}").answer()[2]) == 2_000_001


def test_what_waits_already_is_answered_at_once(site):
    sid = handshake(site)
    site.server.send(sid, "one")
    site.server.send(sid, b"\x02")
    with Http(site.port) as http:
        assert http.send("GET", f"{OPEN}&sid={sid}").answer()[2] == b"4one\x1ebAg=="


def test_a_second_poll_ends_both(site):
    sid = handshake(site)
    with Http(site.port) as first, Http(site.port) as second:
        poll(site, first, sid)
        assert second.send("GET", f"{OPEN}&sid={sid}").answer()[0] == 400
        assert first.answer()[::2] == (200, b"1")
    assert site.wait_for("disconnect") == ("disconnect", sid, "transport error")


def test_a_poll_whose_client_goes_ends_the_session(site):
    sid = handshake(site)
    with Http(site.port) as http:
        poll(site, http, sid)
    assert site.wait_for("disconnect") == ("disconnect", sid, "transport error")


def test_a_closed_session_answers_its_poll(site):
    sid = handshake(site)
    with Http(site.port) as http:
        poll(site, http, sid)
        site.server.disconnect(sid)
        assert http.answer()[2] == b"1"


def test_bodies_in_chunks(site):
    sid = handshake(site)
    with Http(site.port) as http:
        http.send("POST", f"{OPEN}&sid={sid}", b"2\r\n4h\r\n4\r\nello\r\n0\r\n\r\n", Transfer_Encoding="chunked")
        assert http.answer()[0] == 200
    assert site.wait_for("message")[2] == "hello"


def test_a_body_that_does_not_come_in_time_frees_its_thread(site, monkeypatch):
    monkeypatch.setattr(wsgi, "BODY", 0.2)
    sid = handshake(site)
    with Http(site.port) as http:
        http.send("POST", f"{OPEN}&sid={sid}", b"4", Content_Length="100")
        status, headers, _ = http.answer()
    assert status == 400 and headers["connection"] == "close"
    site.wait_for("disconnect")


def test_a_body_that_nobody_reads_ends_its_connection(site):
    """A server that keeps connections would wait for the rest of it, with a thread."""
    with Http(site.port) as http:
        status, headers, _ = http.send("POST", f"{OPEN}&sid=unknown", b"4", Content_Length="100").answer()
    assert status == 400 and headers["connection"] == "close"


def test_a_body_over_the_limit_is_413_and_the_session_lives_on(site):
    sid = handshake(site)
    status, headers, body = post(site, sid, b"", Content_Length=1_000_001)
    assert (status, body) == (413, b"") and headers["connection"] == "close"
    chunk = b"f4241\r\n" + b"4" * 1_000_001 + b"\r\n0\r\n\r\n"
    with Http(site.port) as http:
        http.send("POST", f"{OPEN}&sid={sid}", chunk, Transfer_Encoding="chunked")
        assert http.answer()[0] == 413
    assert post(site, sid, b"4still here")[0] == 200
    assert site.wait_for("message")[2] == "still here"


def test_a_body_that_breaks_off_ends_the_session(site):
    sid = handshake(site)
    with Http(site.port) as http:
        http.send("POST", f"{OPEN}&sid={sid}", b"4hal", Content_Length=10)
        http.sock.shutdown(socket.SHUT_WR)
        assert http.answer()[0] == 400
    assert site.wait_for("disconnect") == ("disconnect", sid, "transport error")


@pytest.mark.parametrize("length", ["-1", "x", "1.0", "٣", "9" * 5000])
def test_a_length_that_is_none(length):
    site = Site()
    client = Client(site)
    sid = json.loads(client.get("/engine.io/?" + OPEN).data[1:])["sid"]
    environ = EnvironBuilder("/engine.io/", method="POST", query_string=f"{OPEN}&sid={sid}").get_environ()
    environ["CONTENT_LENGTH"] = length
    assert client.open(environ).status_code in (400, 413)
    session = site.server.engine.sessions.get(sid)
    assert session is None or session.begin_post(), "the turn to post was given back"
    site.server.shutdown()


# WebSockets


def test_a_websocket_echoes(site):
    with WebSocket(site.port) as websocket:
        assert websocket.status == 101
        sid = json.loads(websocket.read()[1:])["sid"]
        websocket.write("4hello")
        assert websocket.read() == "4hello"
        websocket.write(b"\x00" * 100_000)
        assert websocket.read() == b"\x00" * 100_000
        websocket.write(b"p", opcode=9)
        assert websocket.read() == b"p"
        assert site.server.transport(sid) == "websocket"
        assert site.log[0][2]["REQUEST_METHOD"] == "GET"
        websocket.write(b"\x03\xe8", opcode=8)
        assert websocket.read() == 1000
        assert websocket.read() is None and websocket.ended()
    assert site.wait_for("disconnect") == ("disconnect", sid, "transport close")


def test_a_message_right_behind_the_request():
    site = Site()
    with serving(site) as port:
        with WebSocket(port, early=client_frame(1, b"4early")) as websocket:
            websocket.read()
            assert websocket.read() == "4early"
        site.server.shutdown()


def test_a_websocket_that_breaks_off(site):
    with WebSocket(site.port) as websocket:
        websocket.read()
    assert site.wait_for("disconnect")[2] == "transport close"


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x81\x01a", 1002), (client_frame(1, b"4\xff"), 1007), (client_frame(2, b"x" * 1_000_001), 1009),
     (client_frame(1, b"9"), 1008)],
    ids=["not masked", "not UTF-8", "too large", "no packet"],
)  # fmt: skip
def test_a_websocket_that_breaks_the_protocol(site, data, code):
    with WebSocket(site.port) as websocket:
        websocket.read()
        websocket.sock.sendall(data)
        assert websocket.read() == code
    assert site.wait_for("disconnect")[2] == "transport error"


def test_a_close_by_the_server(site):
    with WebSocket(site.port) as websocket:
        sid = json.loads(websocket.read()[1:])["sid"]
        site.server.disconnect(sid)
        assert websocket.read() == 1000
        websocket.write(b"\x03\xe8", opcode=8)
        assert websocket.ended()
    assert site.wait_for("disconnect") == ("disconnect", sid, "server disconnect")


def test_an_upgrade(site):
    sid = handshake(site)
    with WebSocket(site.port, f"EIO=4&transport=websocket&sid={sid}") as websocket:
        websocket.write("2probe")
        assert websocket.read() == "3probe"
        websocket.write("5")
        websocket.write("4over the socket")
        assert websocket.read() == "4over the socket"


def test_an_upgrade_that_is_not_possible_any_more(site):
    sid = handshake(site)
    with WebSocket(site.port, f"EIO=4&transport=websocket&sid={sid}") as first:
        first.write("2probe")
        assert first.read() == "3probe"
        with WebSocket(site.port, f"EIO=4&transport=websocket&sid={sid}") as second:
            assert second.status == 400


def test_a_refused_handshake_is_plain_http(site):
    with WebSocket(site.port, "EIO=3&transport=websocket") as websocket:
        assert websocket.status == 400
        assert json.loads(websocket.body)["code"] == 5


def test_compressed_websockets():
    site = Site(websocket_compression=True, compression_threshold=10)
    with serving(site) as port:
        with WebSocket(port, Sec_WebSocket_Extensions="permessage-deflate") as websocket:
            assert "permessage-deflate" in websocket.headers["sec-websocket-extensions"]
        site.server.shutdown()


# The rest


def test_a_server_without_sockets_polls_only():
    site = Site()
    client = Client(site)
    hello = json.loads(client.get("/engine.io/?" + OPEN).data[1:])
    assert hello["upgrades"] == []
    sid = hello["sid"]
    assert client.post(f"/engine.io/?{OPEN}&sid={sid}", data="4a").data == b"ok"
    site.wait_for("message")
    assert client.get(f"/engine.io/?{OPEN}&sid={sid}").data == b"4a"
    site.server.shutdown()


def test_a_server_that_stops_says_so():
    site = Site()
    client = Client(site)
    site.server.shutdown()
    answered = client.get("/engine.io/?" + OPEN)
    assert answered.status_code == 503 and answered.headers["Retry-After"] == "5"


def test_other_paths_are_not_ours():
    site = Site()
    client = Client(site)
    for path in ("/", "/engine.ioX/", "/static"):
        assert client.get(path).status_code == 404
    assert client.get("/engine.io?" + OPEN).status_code == 200
    site.server.shutdown()


@pytest.mark.parametrize(
    ("environ", "found"),
    [({}, False), ({"werkzeug.socket": "sock"}, False), ({"werkzeug.socket": None, "HTTP_VERSION": "2"}, False)],
)
def test_sockets_are_found_where_they_are(environ, found):
    assert (wsgi.find_socket(environ) is not None) is found


def test_a_socket_of_http_2_is_shared():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert wsgi.find_socket({"gunicorn.socket": ours}) is ours
        assert wsgi.find_socket({"gunicorn.socket": ours, "HTTP_VERSION": "2"}) is None


def test_headers_are_found_by_any_spelling():
    header = wsgi.header_of({"CONTENT_TYPE": "a", "HTTP_X_TOKEN": "b", "CONTENT_LENGTH": "1"})
    assert header("content-type") == "a" and header("X-Token") == "b"
    assert header("Content-Length") == "1" and header("none") is None


def test_an_environ_is_kept_without_the_request():
    kept = wsgi.keep({"REMOTE_USER": "ann", "wsgi.input": object(), "werkzeug.socket": object()})
    assert kept["REMOTE_USER"] == "ann" and kept["wsgi.input"].read() == b"" and "werkzeug.socket" not in kept


def test_equal_texts_of_kept_environs_are_one_and_those_of_the_past_are_let_go(monkeypatch):
    monkeypatch.setattr(wsgi, "_MOST_TEXTS", 100)
    agent = "a browser's name"
    for number in range(1000):
        kept = wsgi.keep({"HTTP_USER_AGENT": "".join(agent), "HTTP_SEC_WEBSOCKET_KEY": str(number)})
        assert len(wsgi._texts) <= 104
    wsgi._texts.clear()
    one, two = (wsgi.keep({"HTTP_USER_AGENT": f"a browser's {what}"}) for what in ("name", "name"))
    assert one["HTTP_USER_AGENT"] is two["HTTP_USER_AGENT"] and kept["HTTP_SEC_WEBSOCKET_KEY"] == "999"


def test_a_poll_that_was_answered_but_not_delivered_ends_the_session():
    """The peer goes between the answer and its sending: nobody knows what was lost, so nothing may go on."""
    site = Site()
    session = site.server.engine.prepare({})
    site.server.engine.open_polling(session)
    polling = session.polling
    wait = wsgi.Wait(polling.poll, polling.forget, lambda frames: wsgi.Respond(200, [], b"4a"), None, session.lost)
    exchange = wsgi.Exchange(site.server.gateway.exchanges, session.sid, None)
    assert exchange.poll(wait) is None
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    sent, ended = threading.Event(), threading.Event()

    def within_the_hub():
        session.send([engineio.Frame("4a")])
        sent.set()

    site.server.runtime.hub.call_soon(within_the_hub)
    exchange.begin(ours)
    assert sent.wait(LIMIT)
    site.server.runtime.hub.call_soon(lambda: site.server.runtime.hub.call_soon(ended.set))
    assert ended.wait(LIMIT)
    assert session.closed and ours.fileno() == -1
    site.server.shutdown()


def test_a_poll_whose_client_goes_amid_its_answer_ends_the_session(site):
    sid = handshake(site)
    with Http(site.port) as http:
        poll(site, http, sid)
        site.server.send(sid, "x" * 50_000_000)
        assert http.sock.recv(1000).startswith(b"HTTP/1.1 200")
    if not site.stay:  # there the server's own thread writes, and the next ping tells
        assert site.wait_for("disconnect") == ("disconnect", sid, "transport error")


def test_what_comes_while_a_poll_waits_is_ignored(site):
    sid = handshake(site)
    with Http(site.port) as http:
        poll(site, http, sid)
        http.sock.sendall(b"GET /next HTTP/1.1\r\n\r\n")
        site.server.send(sid, "hello")
        assert http.answer()[2] == b"4hello"
    assert sid in site.server.engine.sessions


def no_more_files(*args):
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_websocket_without_a_descriptor_keeps_its_thread(monkeypatch):
    site = Site()
    with serving(site) as port:
        monkeypatch.setattr(wsgi.os, "dup", no_more_files)
        with WebSocket(port) as websocket:
            assert websocket.read().startswith("0{")
            assert len(site.server.engine.sessions) == 1
    site.server.shutdown()


def test_a_poll_without_a_descriptor_loses_nothing(monkeypatch):
    site = Site(ping_interval=1)
    with serving(site) as port:
        with Http(port) as http:
            sid = json.loads(http.send("GET", OPEN).answer()[2][1:])["sid"]
        with monkeypatch.context() as short:
            short.setattr(wsgi.os, "dup", no_more_files)
            with Http(port) as http:
                poll(site, http, sid)
                site.server.send(sid, "kept")
                assert http.answer()[2] == b"4kept"
    site.server.shutdown()
