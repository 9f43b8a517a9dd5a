"""Connections that are kept for polls and posts: what the hub serves, what goes back to the server, how they end."""

import json
import re
import socket
import struct
import threading

import pytest
from serving import LIMIT, Http, serving

from flask_realtime import engineio, socketio
from flask_realtime.io import exchange

OPEN = "EIO=4&transport=polling"
PATH = "/socket.io/"


class Site:
    """A Socket.IO server behind Werkzeug's, which takes connections back.

    Attributes:
        asked: Paths of the requests that came by the server.
    """

    def __init__(self, **options):
        self.server = socketio.Server(**{"ping_interval": 300, **options})
        self.asked, self.free, self.left = [], threading.Event(), threading.Semaphore(0)
        self.clients = []
        self.application = socketio.WSGIApp(self.server, self.page)
        self.server.on("echo", lambda sid, value: value)
        self.server.on("large", lambda sid, size: "x" * size)
        self.server.on("wait", self.wait)
        self.server.on("disconnect", lambda sid, reason: self.left.release())

    def __call__(self, environ, start_response):
        self.asked.append(environ["PATH_INFO"])
        return self.application(environ, start_response)

    def page(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("200 OK", [("Content-Length", str(len(body) + 5))])
        return [b"page " + body]

    def wait(self, sid, really):
        if really:
            assert self.free.wait(LIMIT)
        return "waited"

    def served_by(self, server):
        self.exchanges.take_back = lambda sock: server.process_request(sock, sock.getpeername())

    @property
    def exchanges(self):
        return self.server.eio.gateway.exchanges


@pytest.fixture
def site_with():
    stack = []

    def make(**options):
        site = Site(**options)
        stack.append(serving(site))
        site.port = stack[-1].__enter__()
        stack.append(site)
        return site

    yield make
    while stack:
        site = stack.pop()
        for client in site.clients:
            client.close()
        site.server.shutdown()
        stack.pop().__exit__(None, None, None)


@pytest.fixture
def site(site_with):
    return site_with()


class Client:
    """A client with two connections that are kept: one waits for what comes, the other posts."""

    def __init__(self, site):
        self.site = site
        site.clients.append(self)
        with Http(site.port) as http:
            self.sid = json.loads(http.send("GET", OPEN, path=PATH).answer()[2][1:])["sid"]
        self.query = f"{OPEN}&sid={self.sid}"
        self.polls, self.posts = Http(site.port), Http(site.port)
        self.polls.send("GET", self.query, path=PATH)
        polling = site.server.eio.engine.sessions[self.sid].polling
        while polling._poll is None:
            pass  # if it were answered at once, Werkzeug would do that, and close the connection
        self.post("40")
        assert self.polls.answer()[2].startswith(b"40{")
        assert self.posts.answer()[::2] == (200, b"ok")
        site.asked.clear()  # from here on it is the hub that answers

    def post(self, text, **headers):
        self.posts.send("POST", self.query, text.encode(), PATH, **headers)

    def next(self):
        return self.polls.send("GET", self.query, path=PATH).answer()[2].decode()

    def close(self):
        self.polls.close()
        self.posts.close()


@pytest.fixture
def client(site):
    return Client(site)


def test_polls_and_posts_need_no_walk_through_the_application(site, client):
    for number in range(20):
        client.post(f'42{number}["echo",{number}]')
        assert client.next() == f"43{number}[{number}]"
        status, headers, body = client.posts.answer()
        assert (status, body) == (200, b"ok")
        assert headers["cache-control"] == "no-store" and "connection" not in headers
    assert site.asked == []
    assert len(site.exchanges) == 2


def test_a_poll_waits_without_a_thread(site, client):
    client.polls.send("GET", client.query, path=PATH)
    site.server.emit("news", 1)
    assert client.polls.answer()[2] == b'42["news",1]'
    assert site.asked == []


def test_both_may_use_one_connection(site, client):
    for number in range(3):
        client.posts.send("POST", client.query, f'42{number}["echo",1]'.encode(), PATH)
        assert client.posts.answer()[0] == 200
        client.posts.send("GET", client.query, path=PATH)
        assert client.posts.answer()[2] == f"43{number}[1]".encode()
    assert site.asked == []


def test_other_pages_are_the_servers(site, client):
    for http in (client.polls, client.posts):
        assert http.send("GET", "a=b", path="/page").answer()[2] == b"page "
    assert site.asked == ["/page", "/page"]


def test_a_post_for_another_page_keeps_its_body(site, client):
    assert client.polls.send("POST", "", b"x" * 100_000, "/page").answer()[2] == b"page " + b"x" * 100_000


REQUEST = "{method} {path}?{query} HTTP/{version}\r\n{fields}\r\n{body}"
POSTED = {"method": "POST", "fields": "Host: 127.0.0.1\r\nContent-Length: 1\r\n", "body": "6"}
BACK = {
    "no session": {"query": OPEN},
    "an unknown session": {"query": f"{OPEN}&sid=nobody"},
    "no sid, though it looks like one": {"query": f"{OPEN}&xsid=SID"},
    "two sids of which the last counts": {"query": f"{OPEN}&sid=SID&%73id=nobody"},
    "another query": {"query": f"{OPEN}&sid=SID&a=b"},
    "too many fields": {"query": f"{OPEN}&sid=SID" + "&a" * 70},
    "another path": {"path": "/socket.io"},
    "another version": {"version": "1.0"},
    "another method": {"method": "OPTIONS"},
    "another host": {"fields": "Host: localhost\r\n"},
    "another visitor of a proxy": {"fields": "Host: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n"},
    "a cookie": {"fields": "Host: 127.0.0.1\r\nCookie: a=b\r\n"},
    "a way to write it that isn't ordinary": {"fields": "Host: 127.0.0.1\r\n, \r\n"},
    "a body in chunks": {**POSTED, "fields": "Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n", "body": "0\r\n\r\n"},
    "a body that is too large": {
        **POSTED,
        "fields": "Host: 127.0.0.1\r\nContent-Length: 2000\r\n",
        "body": "x" * 2000,
    },
    "an upgrade": {"fields": "Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"},
}


@pytest.mark.parametrize("change", BACK.values(), ids=BACK)
def test_what_is_not_ordinary_goes_back_unread(site_with, change):
    site = site_with(max_http_buffer_size=1000)
    client = Client(site)
    parts = {"method": "GET", "path": PATH, "query": client.query, "version": "1.1", "fields": "Host: 127.0.0.1\r\n"}
    site.server.emit("news")  # a poll that is answered at once is answered by the server
    text = REQUEST.format(**{**parts, "body": "", **change}).replace("SID", client.sid)
    client.polls.sock.sendall(text.encode())
    status, headers, _ = client.polls.answer()
    assert status in (200, 204, 400, 413) and "server" in headers, "the server's own answer has that header"


def test_a_head_that_comes_in_pieces_goes_back(site, client):
    text = _get(client)
    client.posts.sock.sendall(text[:30])
    while len(site.exchanges) == 2:
        pass  # until it is given back
    client.posts.sock.sendall(text[30:])
    site.server.emit("news", 1)
    assert client.posts.answer()[2] == b'42["news",1]'
    assert site.asked == [PATH]


def test_a_body_may_come_byte_by_byte(site, client):
    body = b'420["echo","\xc3\xa4"]'
    head = f"POST {PATH}?{client.query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    client.posts.sock.sendall(head)
    for place in range(len(body)):
        client.posts.sock.sendall(body[place : place + 1])
    assert client.posts.answer()[::2] == (200, b"ok")
    assert client.next() == '430["ä"]'
    assert site.asked == []


def test_a_large_body_and_a_large_answer(site, client):
    client.post(f'420["echo","{"x" * 900_000}"]')
    assert client.next() == f'430["{"x" * 900_000}"]'
    assert client.posts.answer()[0] == 200
    assert site.asked == []


def test_the_client_may_be_ahead(site, client):
    """The next request may come before this one's answer; they are answered in their order."""
    client.polls.send("GET", client.query, path=PATH)
    client.polls.send("GET", client.query, path=PATH)
    site.server.emit("first")
    assert client.polls.answer()[2] == b'42["first"]'
    site.server.emit("second")
    assert client.polls.answer()[2] == b'42["second"]'
    client.posts.sock.sendall(b"".join(_post(client, f'42["echo",{number}]') for number in range(5)))
    assert [client.posts.answer()[2] for _ in range(5)] == [b"ok"] * 5


def _post(client, text):
    head = f"POST {PATH}?{client.query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n\r\n"
    return (head + text).encode()


def test_the_client_may_end_it(site, client):
    client.post("6", Connection="close")
    _, headers, _ = client.posts.answer()
    assert headers["connection"] == "close" and client.posts.ended()
    client.polls.send("GET", client.query, path=PATH, Connection="close")
    site.server.emit("news")
    _, headers, _ = client.polls.answer()
    assert headers["connection"] == "close" and client.polls.ended()


def test_a_session_that_ends_ends_its_connections(site, client):
    client.polls.send("GET", client.query, path=PATH)
    client.post("1")
    assert client.posts.answer()[1]["connection"] == "close" and client.posts.ended()
    assert client.polls.answer()[2] == b"6" and client.polls.ended()


def test_the_other_connection_of_a_session_ends_soon(site, client, monkeypatch):
    monkeypatch.setattr(exchange, "_SWEEP", 0.01)
    monkeypatch.setattr(exchange, "AFTER", 0.01)
    site.server.eio.disconnect(client.sid)
    assert client.posts.ended() and client.polls.ended()


def test_a_request_that_has_come_is_served_before_its_connection_is_given_up(site, client):
    kept = next(each for each in site.exchanges._all if each._sock.getpeername() == client.posts.sock.getsockname())

    def within_the_hub():
        client.post('421["echo",1]')
        kept.leave()

    site.server.eio.runtime.hub.call_soon(within_the_hub)
    assert client.posts.answer()[0] == 200
    assert client.next() == "431[1]"


def test_a_stop_gives_up_what_is_not_in_use(site, client):
    client.polls.send("GET", client.query, path=PATH)
    site.server.shutdown()
    assert client.posts.ended()
    assert client.polls.answer()[1]["connection"] == "close" and client.polls.ended()
    assert len(site.exchanges) == 0


@pytest.fixture
def stopping(site, client, monkeypatch):
    """A thread that stops the server, for which the client's last two packets wait."""

    def refuse(sock):
        raise OSError("it takes no connections any more")

    monkeypatch.setattr(engineio, "BETWEEN_POLLS", 2 * LIMIT)
    client.post('421["echo",1]')
    assert client.posts.answer()[0] == 200
    site.server.emit("news", 1)
    site.exchanges.take_back = refuse
    thread = threading.Thread(target=site.server.shutdown)
    thread.start()
    while client.sid in site.server.eio.engine.sessions:
        assert thread.is_alive()
    thread.join(0.1)
    assert thread.is_alive()
    return thread


def test_a_stop_waits_for_who_is_between_two_polls(client, stopping, caplog):
    assert client.next() == '431[1]\x1e42["news",1]'
    assert stopping.is_alive()
    assert client.next() == "1"
    stopping.join(LIMIT)
    assert not stopping.is_alive()
    assert client.polls.ended()
    assert caplog.text == ""


def test_a_stop_that_is_hurried_waits_for_nobody(site, stopping):
    site.server.eio.hurry()
    stopping.join(LIMIT / 2)  # after LIMIT the client's packets are given up in any case
    assert not stopping.is_alive()


def test_a_server_that_begins_again_keeps_and_gives_up_again(site_with, monkeypatch):
    monkeypatch.setattr(exchange, "_SWEEP", 0.01)
    site = site_with()
    Client(site)
    site.server.shutdown()
    site.server.eio.begin()
    client = Client(site)
    monkeypatch.setattr(exchange, "KEEP", 0.02)
    client.post('421["echo",1]')
    assert client.next() == "431[1]" and site.asked == []
    assert client.posts.answer()[0] == 200 and client.posts.ended()


def test_who_never_comes_from_the_same_place_is_left_to_the_server(site, client):
    for number in range(4):
        client.posts.send("POST", client.query, b"6", PATH, X_Number=number)
        _, headers, _ = client.posts.answer()
        if headers.get("connection") == "close":
            client.posts.close()
            client.posts = Http(site.port)
    assert site.exchanges.strangers == {client.sid}
    assert len(site.asked) == 4
    client.post("1")
    assert site.left.acquire(timeout=LIMIT)


def test_a_body_behind_which_the_server_may_have_read_on_keeps_nothing(site, client):
    """Nobody can say what the server has read behind a body in chunks, so its connection stays where it is."""
    with Http(site.port) as http:
        text = f"POST {PATH}?{client.query} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        http.sock.sendall(text.encode() + b"1\r\n6\r\n0\r\n\r\n" + _get(client))
        status, headers, _ = http.answer()
        assert status == 200 and "server" in headers
        assert http.ended()


def _get(client):
    return f"GET {PATH}?{client.query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def test_an_unused_connection_is_not_kept_for_ever(site_with, monkeypatch):
    monkeypatch.setattr(exchange, "_SWEEP", 0.01)
    monkeypatch.setattr(exchange, "KEEP", 0.02)
    site = site_with()
    client = Client(site)
    assert client.posts.ended() and client.polls.ended()
    assert client.sid in site.server.eio.engine.sessions


def test_a_body_that_stops_ends_the_session(site_with, monkeypatch):
    monkeypatch.setattr(exchange, "_SWEEP", 0.01)
    monkeypatch.setattr(exchange, "BODY", 0.02)
    site = site_with()
    client = Client(site)
    client.posts.sock.sendall(_post(client, '42["echo",1]')[:-3])
    assert site.left.acquire(timeout=LIMIT)
    assert client.posts.ended()


def test_a_client_that_goes_amid_its_body_ends_the_session(site, client):
    client.posts.sock.sendall(_post(client, '42["echo",1]')[:-3])
    client.posts.close()
    assert site.left.acquire(timeout=LIMIT)


def test_a_client_that_goes_amid_its_poll_ends_the_session(site, client):
    client.polls.send("GET", client.query, path=PATH)
    client.posts.sock.sendall(_post(client, '420["echo",1]'))  # so that the poll is surely there
    assert client.polls.answer()[0] == 200
    client.polls.send("GET", client.query, path=PATH)
    client.polls.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.polls.close()
    assert site.left.acquire(timeout=LIMIT)


def test_a_client_that_takes_nothing_of_its_answer_is_given_up(site_with, monkeypatch):
    monkeypatch.setattr(exchange, "_SWEEP", 0.01)
    monkeypatch.setattr(exchange, "STALL", 0.05)
    site = site_with()
    client = Client(site)
    client.polls.send("GET", client.query, path=PATH)
    client.post('420["large",30000000]')
    assert site.left.acquire(timeout=LIMIT)


def test_a_slow_reader_gets_all(site, client):
    client.polls.send("GET", client.query, path=PATH)
    client.post('420["large",20000000]')
    client.polls.send("GET", client.query, path=PATH)  # ahead, while the hub still sends
    assert client.posts.answer()[0] == 200
    assert len(client.polls.answer()[2]) == 20000000 + len('430[""]')
    site.server.emit("news")
    assert client.polls.answer()[2] == b'42["news"]'
    assert site.asked == []


def test_a_handler_that_waits_holds_up_nobody_else(site, client):
    """It has shown to be short, so the hub runs it; another thread then goes on with everybody else."""
    other = Client(site)
    for number in range(50):
        client.post(f'42{number}["wait",false]')
        assert client.next() == f'43{number}["waited"]'
        assert client.posts.answer()[0] == 200
    client.post('421["wait",true]\x1e422["echo",2]')
    assert client.posts.answer()[::2] == (200, b"ok")
    assert client.next() == "432[2]"
    for number in range(5):
        other.post(f'42{number}["echo",1]')
        assert other.next() == f"43{number}[1]"
        assert other.posts.answer()[0] == 200
        client.post(f'42{number}["echo",1]')
        assert client.next() == f"43{number}[1]"
        assert client.posts.answer()[0] == 200
    site.free.set()
    assert client.next() == '431["waited"]'


def test_a_client_whose_handlers_are_behind_waits_with_its_post(site, client):
    """Its answer is late; then the connection goes on."""
    events = "\x1e".join(f'42["wait",{json.dumps(number == 0)}]' for number in range(100))
    client.post(events)
    other = Client(site)
    other.post('420["echo",1]')
    assert other.next() == "430[1]"
    site.free.set()
    assert client.posts.answer()[::2] == (200, b"ok")
    client.post('422["echo",1]')
    assert client.next() == "432[1]"


def test_a_bad_payload_ends_the_session_as_everywhere(site, client):
    client.post("9")
    status, headers, body = client.posts.answer()
    assert (status, headers["connection"]) == (400, "close") and b'"code":3' in body
    assert site.left.acquire(timeout=LIMIT)


def test_two_polls_at_a_time_end_the_session(site, client):
    client.polls.send("GET", client.query, path=PATH)
    with Http(site.port) as third:
        client.posts.send("GET", client.query, path=PATH)
        answers = sorted(http.answer()[::2] for http in (client.polls, client.posts))
        assert answers == [(200, b"1"), (400, b"")]
        assert third.send("GET", client.query, path=PATH).answer()[0] in (200, 400)


def test_an_origin_is_judged_each_time(site_with):
    site = site_with(cors_allowed_origins=["http://good.example"])
    client = Client(site)
    client.post('420["echo",1]', Origin="http://good.example")
    assert client.posts.answer()[1]["access-control-allow-origin"] == "http://good.example"
    assert client.next() == "430[1]"
    client.post('421["echo",1]', Origin="http://bad.example")
    status, headers, body = client.posts.answer()
    assert status == 400 and b"origin" in body and "access-control-allow-origin" not in headers
    assert site.asked == []


def test_a_function_that_judges_origins_sees_the_environ(site_with):
    seen = []
    site = site_with(cors_allowed_origins=lambda origin, environ: seen.append(environ["REQUEST_METHOD"]) is None)
    client = Client(site)
    client.post("6", Origin="http://a.example")
    assert client.posts.answer()[0] == 200
    assert seen == ["POST"] and site.asked == [PATH]


def test_answers_are_compressed_as_everywhere(site, client):
    client.post('420["large",5000]')
    client.polls.send("GET", client.query, path=PATH, Accept_Encoding="gzip")
    assert client.polls.answer()[1]["content-encoding"] == "gzip"
    assert client.posts.answer()[0] == 200
    assert site.asked == []


def test_there_is_an_end_to_how_many_are_kept(site_with, monkeypatch):
    monkeypatch.setattr(exchange, "_SPARE", 0)
    site = site_with()
    client = Client(site)
    with Http(site.port) as third:
        assert third.send("POST", client.query, b"6", PATH).answer()[0] == 200
    assert len(site.exchanges) == 2


def test_a_server_that_has_gone_takes_nothing_back(site, client, caplog):
    site.exchanges.take_back = None
    client.posts.send("GET", "", path="/page")
    assert client.posts.ended()
    assert re.search("could not be given back", caplog.text)


def test_without_a_server_to_go_back_to_none_is_kept(site_with, monkeypatch):
    monkeypatch.setattr(Site, "served_by", lambda site, server: None)
    site = site_with()
    client = Client(site)
    assert client.polls.ended()
    assert len(site.exchanges) == 0


def test_what_came_with_the_first_request_is_not_lost(site):
    """Its server has read the next one already, so the connection can't be kept: it is closed after the answer."""
    with Http(site.port) as http:
        sid = json.loads(http.send("GET", OPEN, path=PATH).answer()[2][1:])["sid"]
    with Http(site.port) as http:
        text = f"GET {PATH}?{OPEN}&sid={sid} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        http.sock.sendall(text + text)
        polling = site.server.eio.engine.sessions[sid].polling
        while polling._poll is None:
            pass
        site.server.eio.send(sid, "hello")
        status, headers, body = http.answer()
        assert (status, headers["connection"], body) == (200, "close", b"4hello")


def test_an_origin_needs_the_raw_target():
    known = {"REQUEST_URI": "/a?b", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "x", "wsgi.url_scheme": "https"}
    assert exchange.origin_of(known) == ("https", "/a", {"b": ""}, {"host": "x"})
    free = {"HTTP_CONNECTION": "Keep-Alive", "HTTP_ORIGIN": "y"}
    assert exchange.origin_of({**known, **free}) == exchange.origin_of(known)
    long = "/a?" + "&".join(f"a{number}" for number in range(70))
    for change in (
        {"REQUEST_URI": ""},
        {"REQUEST_URI": long},
        {"SERVER_PROTOCOL": "HTTP/1.0"},
        {"HTTP_CONNECTION": "close"},
    ):
        assert exchange.origin_of({**known, **change}) is None


def test_a_server_that_nobody_runs_keeps_none():
    server = engineio.Server()
    assert server.gateway.exchanges.take_back is None
    server.shutdown()


def test_a_post_is_answered_before_its_events_are(site, client, monkeypatch):
    """A client that says goodbye by the next post, as soon as it has an acknowledgement, doesn't wait for a ping."""
    order, respond = [], exchange.Exchange._respond
    monkeypatch.setattr(
        exchange.Exchange, "_respond", lambda self, answered: (order.append(answered.body), respond(self, answered))
    )
    polling = site.server.eio.engine.sessions[client.sid].polling
    for number in range(60):  # after some, the handler has shown to be short and runs where it is read
        client.polls.send("GET", client.query, path=PATH)
        while polling._poll is None:
            pass
        client.post(f'42{number}["echo",{number}]')
        assert client.polls.answer()[2] == b"43%d[%d]" % (number, number)
        assert client.posts.answer()[0] == 200
    assert order[-20:] == [answer for number in range(50, 60) for answer in (b"ok", b"43%d[%d]" % (number, number))]


def test_those_that_come_and_go_leave_one_timer(site):
    exchanges = site.exchanges
    for _ in range(20):
        Client(site).close()
        while len(exchanges):
            pass
    timers = [*site.server.eio.runtime.hub._timers, *site.server.eio.runtime.hub._new_timers]
    assert [timer.function for timer in timers].count(exchanges._sweep) == 1
