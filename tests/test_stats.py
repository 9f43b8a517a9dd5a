"""stats(): each thing that happens moves its own numbers, by the exact amount, and no others."""

import json
import threading

import flask
import pytest
from figures import flat
from werkzeug.test import Client

from flask_realtime import ConnectionRefusedError, SocketIO, engineio

LIMIT = 30
OPEN = "/socket.io/?EIO=4&transport=polling"


class Site:
    """An application, a client of its pages, and what has changed since the last look."""

    def __init__(self, **options):
        self.app = flask.Flask(__name__)
        self.socketio = SocketIO(self.app, **options)
        self.http = Client(self.app)
        self.seen = flat(self.socketio.stats())

    def moved(self):
        """Return by how much each number but those of time and threads has moved since the last call."""
        before, self.seen = self.seen, flat(self.socketio.stats())
        changed = {key: self.seen[key] - before[key] for key in self.seen if self.seen[key] != before[key]}
        return {key: by for key, by in changed.items() if key != "handlers.seconds" and not key.startswith("pool.")}

    def client(self, **options):
        return self.socketio.test_client(self.app, **options)

    def polling(self):
        """Open a connection over polling; return its URL."""
        answer = self.http.get(OPEN)
        assert answer.status_code == 200
        return f"{OPEN}&sid={json.loads(answer.data[1:])['sid']}"

    def join(self):
        """Open a connection over polling and join the default namespace; return its URL."""
        url = self.polling()
        assert self.http.post(url, data="40").status_code == 200
        assert self.http.get(url).data.startswith(b"40")
        return url


@pytest.fixture
def site():
    made = []

    def make(**options):
        made.append(Site(**options))
        return made[-1]

    yield make
    for one in made:
        one.socketio.server.shutdown()


def test_nothing_has_happened_at_first(site):
    stats = site().socketio.stats()
    assert stats == {
        "clients": {"polling": 0, "websocket": 0},
        "connects": 0,
        "disconnects": dict.fromkeys(
            ["server disconnect", "client disconnect", "ping timeout", "transport close", "transport error"], 0
        ),
        "events_in": 0,
        "events_out": 0,
        "bytes_waiting": 0,
        "slow_clients": 0,
        "bad_input": dict.fromkeys(["http", "websocket", "engineio", "socketio"], 0),
        "refusals": dict.fromkeys(["origin", "host", "sid", "connect", "connections", "request", "stopping"], 0),
        "handlers": {"calls": 0, "errors": 0, "seconds": 0, "running": 0},
        "pool": {"threads": 0, "most": 64, "waiting": 0},
        "queue": {
            **{"connected": False, "members": 0, "waiting": 0, "published": 0, "received": 0, "unwanted": 0},
            **{"dropped": 0, "lost": 0, "repeated": 0, "refused": 0, "reconnects": 0},
        },
    }
    json.dumps(stats)


def test_before_init_app_there_is_nothing_to_tell():
    with pytest.raises(RuntimeError, match="init_app"):
        SocketIO().stats()


def test_an_event_its_acknowledgement_and_its_deliveries(site):
    one = site()
    one.socketio.on_event("tell", lambda text: one.socketio.emit("told", text))
    clients = [one.client() for _ in range(3)]
    assert one.moved() == {"clients.polling": 3, "connects": 3}
    clients[0].emit("tell", "x")
    assert one.moved() == {"events_in": 1, "events_out": 3, "handlers.calls": 1}
    clients[0].emit("tell", "x", callback=True)
    assert one.moved() == {"events_in": 1, "events_out": 4, "handlers.calls": 1}
    clients[0].emit("unknown")
    assert one.moved() == {"events_in": 1}
    one.socketio.emit("told", to="nobody")
    assert one.moved() == {}
    clients[0].close()
    assert one.moved() == {"clients.polling": -1, "disconnects.client disconnect": 1}


def test_what_a_client_acknowledges_came_in(site):
    one = site()
    client = one.client()
    client.answer("ask", lambda: 7)
    answers = []
    one.moved()
    one.socketio.emit("ask", callback=answers.append)
    assert answers == [7]
    assert one.moved() == {"events_out": 1, "events_in": 1, "handlers.calls": 1}


def test_handlers_are_timed_while_they_run(site):
    one = site()
    seen = []
    one.socketio.on_event("look", lambda: seen.append(one.socketio.stats()["handlers"]))
    client = one.client()
    client.emit("look")
    client.emit("look")
    assert [stats["running"] for stats in seen] == [1, 1]
    assert [stats["calls"] for stats in seen] == [1, 2]
    assert seen[1]["seconds"] > seen[0]["seconds"] == 0


def test_a_handler_that_fails(site):
    one = site()

    @one.socketio.on("fail")
    def fail():
        raise ZeroDivisionError("as it should")

    client = one.client()
    one.moved()
    with pytest.raises(ZeroDivisionError):
        client.emit("fail")
    assert one.moved() == {"events_in": 1, "handlers.calls": 1, "handlers.errors": 1}
    one.socketio.on_error_default(lambda error: "handled")
    assert client.emit("fail", callback=True) == "handled"
    assert one.moved() == {"events_in": 1, "events_out": 1, "handlers.calls": 1}


def test_a_result_that_cannot_be_sent_is_an_error(site):
    one = site()
    one.socketio.on_event("odd", lambda: object())
    client = one.client()
    one.moved()
    with pytest.raises(TypeError):
        client.emit("odd", callback=True)
    assert one.moved() == {"events_in": 1, "handlers.calls": 1, "handlers.errors": 1}


def test_who_is_refused_by_a_connect_handler(site):
    one = site()

    @one.socketio.on("connect")
    def connect(auth):
        if auth:
            raise KeyError("as it should")
        raise ConnectionRefusedError("no")

    one.client()
    assert one.moved() == {"clients.polling": 1, "connects": 1, "refusals.connect": 1, "handlers.calls": 1}
    with pytest.raises(KeyError):
        one.client(auth={"crash": True})
    assert one.moved() == {
        **{"clients.polling": 1, "connects": 1, "refusals.connect": 1},
        **{"handlers.calls": 1, "handlers.errors": 1},
    }


def test_a_namespace_that_is_not_there_is_refused(site):
    one = site()
    client = one.client()
    one.moved()
    client.connect("/elsewhere")
    assert one.moved() == {"refusals.connect": 1}


WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
}


@pytest.mark.parametrize(
    ("request_", "status", "number"),
    [
        (("GET", "EIO=4&transport=smoke"), 400, "refusals.request"),
        (("GET", "EIO=3&transport=polling"), 400, "refusals.request"),
        (("POST", "EIO=4&transport=polling"), 400, "refusals.request"),
        (("GET", "EIO=4&transport=polling&j=1"), 400, "refusals.request"),
        (("GET", "EIO=4&transport=websocket", WEBSOCKET), 400, "refusals.request"),
        (("GET", "EIO=4&transport=polling&sid=unknown"), 400, "refusals.sid"),
        (("GET", "EIO=4&transport=polling", {"Origin": "http://evil.example"}), 400, "refusals.origin"),
        (("GET", "&".join(f"a{n}=1" for n in range(65))), 400, "bad_input.http"),
        (("GET", "EIO=4&transport=websocket"), 400, "bad_input.http"),
        (("GET", "EIO=4&transport=polling", WEBSOCKET), 400, "bad_input.http"),
        (("OPTIONS", "EIO=4&transport=polling"), 204, None),
    ],
)
def test_a_request_that_is_refused(site, request_, status, number):
    one = site()
    method, query, *headers = request_
    answer = one.http.open("/socket.io/?" + query, method=method, headers=headers[0] if headers else {})
    assert answer.status_code == status
    assert one.moved() == ({number: 1} if number else {})


def test_one_connection_too_many(site):
    one = site(max_connections=1)
    one.polling()
    assert one.moved() == {"clients.polling": 1, "connects": 1}
    assert one.http.get(OPEN).status_code == 503
    assert one.moved() == {"refusals.connections": 1}


def test_a_request_while_the_server_stops(site):
    one = site()
    one.polling()
    one.moved()
    one.socketio.server.shutdown()
    assert one.moved() == {"clients.polling": -1, "disconnects.server disconnect": 1}
    assert one.http.get(OPEN).status_code == 503
    assert one.moved() == {"refusals.stopping": 1}


@pytest.mark.parametrize(
    ("body", "options", "kind"),
    [
        (b"4", {}, "socketio"),
        (b'42/elsewhere,["x"]', {}, "socketio"),
        (b"40", {}, "socketio"),
        (b"9", {}, "engineio"),
        (b"2", {}, "engineio"),
        (b"", {}, "engineio"),
        (b"bA", {}, "engineio"),
        (b"\xff", {}, "engineio"),
        (b'42["x"]', {"content_type": "application/octet-stream"}, "engineio"),
    ],
)
def test_bad_input_over_polling_ends_the_connection_and_counts_once(site, body, options, kind):
    one = site()
    url = one.join()
    one.moved()
    one.http.post(url, data=body, **options)
    assert one.moved() == {f"bad_input.{kind}": 1, "clients.polling": -1, "disconnects.transport error": 1}


def test_a_second_poll_is_bad_input(site):
    one = site()
    url = one.join()
    one.moved()
    waiting = threading.Thread(target=one.http.get, args=(url,))
    waiting.start()
    (session,) = one.socketio.server.eio.engine.sessions.values()
    pause = threading.Event()
    for _ in range(LIMIT * 100):
        if session.polling._poll is not None:
            break
        pause.wait(0.01)
    assert Client(one.app).get(url).status_code == 400
    waiting.join(LIMIT)
    assert one.moved() == {"bad_input.engineio": 1, "clients.polling": -1, "disconnects.transport error": 1}


def test_a_body_that_is_too_large_is_bad_input_and_the_connection_lives_on(site):
    one = site(max_http_buffer_size=100)
    url = one.join()
    one.moved()
    assert one.http.post(url, data="4" * 101).status_code == 413
    assert one.moved() == {"bad_input.http": 1}


def test_a_length_that_is_no_number_is_bad_input(site):
    one = site()
    url = one.join()
    one.moved()
    answer = one.http.post(url, data="40", environ_overrides={"CONTENT_LENGTH": "-1"})
    assert answer.status_code == 400
    assert one.moved() == {"bad_input.http": 1, "clients.polling": -1, "disconnects.transport error": 1}


def test_bytes_wait_until_a_poll_takes_them(site):
    one = site()
    url = one.join()
    one.moved()
    one.socketio.emit("news", "x" * 1000)
    assert one.moved() == {"events_out": 1, "bytes_waiting": len('42["news",""]') + 1000}
    one.http.get(url)
    assert one.moved() == {"bytes_waiting": -(len('42["news",""]') + 1000)}


def test_a_slow_client_is_counted_once(site):
    one = site(max_backlog=1000)
    one.socketio.core.send_at_once()
    one.join()
    one.moved()
    for _ in range(4):
        one.socketio.emit("news", "x" * 900)
    assert one.moved() == {
        **{"slow_clients": 1, "clients.polling": -1, "disconnects.transport error": 1},
        "events_out": 2,  # afterwards nobody is there
    }


# The Engine.IO face.


@pytest.fixture
def server():
    server = engineio.Server(max_handler_threads=3)
    yield server
    server.shutdown()


def open_session(http):
    answer = http.get("/engine.io/?EIO=4&transport=polling")
    return answer.status_code, answer.data[1:]


def test_the_engineio_server_counts_messages(server):
    ended = threading.Event()

    @server.on("message")
    def message(sid, data):
        ended.set()

    http = Client(engineio.WSGIApp(server))
    sid = json.loads(open_session(http)[1])["sid"]
    assert http.post(f"/engine.io/?EIO=4&transport=polling&sid={sid}", data="4hello").status_code == 200
    assert ended.wait(LIMIT)
    server.send(sid, "hello")
    server.send("nobody", "hello")
    stats = server.stats()
    assert (stats["events_in"], stats["events_out"], stats["connects"]) == (1, 1, 1)
    assert stats["clients"] == {"polling": 1, "websocket": 0}
    assert stats["handlers"]["calls"] == 1
    assert stats["pool"]["threads"] == 1
    assert stats["pool"]["most"] == 3


@pytest.mark.parametrize("why", ["refuses", "fails", "ends it itself"])
def test_who_the_engineio_servers_connect_handler_refuses_was_never_connected(server, why):
    @server.on("connect")
    def connect(sid, environ):
        assert server.stats()["clients"] == {"polling": 0, "websocket": 0}
        if why == "fails":
            raise ZeroDivisionError
        if why == "ends it itself":
            server.disconnect(sid)
        return False if why == "refuses" else None

    assert open_session(Client(engineio.WSGIApp(server)))[0] == 401
    stats = server.stats()
    assert (stats["connects"], sum(stats["disconnects"].values())) == (0, 0)
    assert stats["refusals"]["connect"] == 1
    assert stats["handlers"]["calls"] == 1
    assert stats["handlers"]["errors"] == (why == "fails")
