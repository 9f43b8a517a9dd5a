"""Line 34: each kind of fault moves its own counters by the exact amount, and no others."""

import struct

import pytest
from e2e.raw import Polling, WebSocket, fetch, target
from e2e.servers import wait_until
from figures import flat
from prometheus_client.parser import text_string_to_metric_families

LIMIT = 30  # seconds
PARTS = (
    *("clients", "connects", "disconnects", "events_in", "events_out", "bytes_waiting", "slow_clients"),
    *("bad_input", "refusals", "handlers"),
)


class Watched:
    """A server, and what its counters should be."""

    def __init__(self, server):
        self.server = server
        self.expected = self.look()

    def look(self):
        stats = self.server.get_json("/stats")
        del stats["handlers"]["seconds"]
        return flat({part: stats[part] for part in PARTS})

    def moved(self, by):
        """Wait until the counters have moved by just this much since the last call."""
        expected = dict(self.expected)
        for key, number in by.items():
            expected[key] += number
        self.expected = expected  # what comes late is found by the next one
        try:
            wait_until(lambda: self.look() == expected, LIMIT)
        except AssertionError:
            seen = self.look()
            assert {key: seen[key] - expected[key] for key in seen if seen[key] != expected[key]} == {}


@pytest.fixture(scope="module")
def server(start):
    return start(max_http_buffer_size=100_000, ping_interval=120)


@pytest.fixture
def watched(server):
    return Watched(server)


# The contract's program has a handler for connect and one for disconnect.
CAME = {"connects": 1, "handlers.calls": 1}
WENT = {"handlers.calls": 1}


def joined(server):
    """Return a WebSocket that has joined the default namespace."""
    client = WebSocket(server)
    client.receive()
    client.send("40")
    assert client.receive().startswith("40{")
    return client


def until_closed(client):
    """Read to the close frame and return its code."""
    while True:
        opcode, payload = client.frame()
        assert opcode is not None, "the server closed without a close frame"
        if opcode == 8:
            client.abandon(reset=False)
            return struct.unpack("!H", payload[:2])[0]


WEBSOCKET_FAULTS = [
    ("websocket", lambda client: client.socket.sendall(b"\x81\x02hi"), 1002),  # not masked
    ("websocket", lambda client: client.send(b"", opcode=3), 1002),
    ("websocket", lambda client: client.send(b"\xff\xfe"), 1007),
    ("websocket", lambda client: client.socket.sendall(struct.pack("!BBQ", 0x81, 0xFF, 100_001)), 1009),
    ("engineio", lambda client: client.send("9"), 1008),
    ("engineio", lambda client: client.send(""), 1008),
    ("engineio", lambda client: client.send("0"), 1008),
    ("socketio", lambda client: client.send("4x"), 1008),
    ("socketio", lambda client: client.send('42/elsewhere,["x"]'), 1008),
    ("socketio", lambda client: client.send("40"), 1008),
    ("socketio", lambda client: client.send(b"stray", opcode=2), 1008),
]


def test_bad_input_over_websocket(server, watched, row):
    for layer, send, code in WEBSOCKET_FAULTS:
        client = joined(server)
        watched.moved({**CAME, "clients.websocket": 1})
        send(client)
        assert until_closed(client) == code
        watched.moved({f"bad_input.{layer}": 1, "clients.websocket": -1, "disconnects.transport error": 1, **WENT})
    row(
        34,
        "bad input over WebSocket moves its counter",
        f"{len(WEBSOCKET_FAULTS)} inputs, each by 1",
    )


POLLING_FAULTS = [
    ("engineio", "9", {}),
    ("engineio", "b*", {}),
    ("engineio", "", {}),
    ("engineio", "4", {"Content-Type": "application/octet-stream"}),
    ("socketio", "49", {}),
    ("socketio", '42/elsewhere,["x"]', {}),
]


def test_bad_input_over_polling(server, watched, row):
    for layer, body, headers in POLLING_FAULTS:
        client = Polling(server)
        client.join()
        watched.moved({**CAME, "clients.polling": 1})
        assert client.post(body, headers=headers).status == 400
        watched.moved({f"bad_input.{layer}": 1, "clients.polling": -1, "disconnects.transport error": 1, **WENT})
    row(34, "bad input over polling moves its counter", f"{len(POLLING_FAULTS)} inputs, each by 1")


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
}

REQUESTS = [
    ("bad_input.http", "GET", target(EIO=4, transport="websocket"), {}),
    ("bad_input.http", "GET", target(EIO=4, transport="polling"), UPGRADE),
    ("bad_input.http", "GET", target(EIO=4, transport="websocket"), {**UPGRADE, "Sec-WebSocket-Key": "short"}),
    ("bad_input.http", "GET", target(**{f"a{number}": 1 for number in range(65)}), {}),
    ("refusals.request", "GET", target(EIO=4, transport="smoke"), {}),
    ("refusals.request", "GET", target(EIO=3, transport="polling"), {}),
    ("refusals.request", "PUT", target(EIO=4, transport="polling"), {}),
    ("refusals.sid", "GET", target(EIO=4, transport="polling", sid="unknown"), {}),
    ("refusals.sid", "GET", target(EIO=4, transport="websocket", sid="unknown"), UPGRADE),
    ("refusals.origin", "GET", target(EIO=4, transport="polling"), {"Origin": "http://evil.example"}),
    ("refusals.origin", "GET", target(EIO=4, transport="websocket"), {**UPGRADE, "Origin": "http://evil.example"}),
]


def test_requests_that_are_refused(server, watched, row):
    for counter, method, path, headers in REQUESTS:
        assert 400 <= fetch(server, method, path, headers=headers).status < 500
        watched.moved({counter: 1})
    row(34, "a refused request moves its counter", f"{len(REQUESTS)} requests, each by 1")


def test_a_body_that_is_too_large(server, watched):
    client = Polling(server)
    watched.moved({"connects": 1, "clients.polling": 1})
    assert client.post("4" * 100_001).status == 413
    watched.moved({"bad_input.http": 1})
    client.send("1")
    watched.moved({"clients.polling": -1, "disconnects.client disconnect": 1})


def test_refused_by_the_connect_handler(server, watched, row):
    client = WebSocket(server)
    client.receive()
    watched.moved({"connects": 1, "clients.websocket": 1})
    client.send('40{"refuse":["no"]}')
    assert client.receive().startswith("44")
    watched.moved({"refusals.connect": 1, "handlers.calls": 1})
    client.send('40{"crash":true}')
    assert client.receive().startswith("44")
    watched.moved({"refusals.connect": 1, "handlers.calls": 1, "handlers.errors": 1})
    client.send("40/nowhere")
    assert client.receive().startswith("44/nowhere")
    watched.moved({"refusals.connect": 1})
    client.close()
    watched.moved({"clients.websocket": -1, "disconnects.transport close": 1})
    row(34, "a refusing, and a failing, connect handler", "each by 1")


def test_a_slow_client_over_polling(server, watched, row):
    slow = Polling(server)
    slow.join()  # the first to join is the first to be sent to: when the other has a message, this one has it too
    healthy = joined(server)
    watched.moved({"connects": 2, "handlers.calls": 2, "clients.polling": 1, "clients.websocket": 1})
    for number in range(15):  # one by one, so that the healthy one is never behind
        healthy.send(f'42["flood",{number},1,100000]')
        assert healthy.receive().startswith(f'42["flooded",{number},"xxx')
    # The limit is 1,048,576 bytes: the eleventh message is one too many, and the last that goes to it.
    watched.moved(
        {
            **{"slow_clients": 1, "clients.polling": -1, "disconnects.transport error": 1},
            **{"events_in": 15, "events_out": 15 + 11, "handlers.calls": 15 + 1},
        }
    )
    healthy.close()
    watched.moved({"clients.websocket": -1, "disconnects.transport close": 1, **WENT})
    row(34, "a slow client is cut off and counted", "slow_clients by 1, nothing else")


def test_bytes_that_wait_and_handlers_that_run(server, watched, row):
    waits, asks = Polling(server), joined(server)
    sid = waits.join()
    watched.moved({"connects": 2, "handlers.calls": 2, "clients.polling": 1, "clients.websocket": 1})
    fetch(server, "GET", f"/emit?data={'x' * 1000}&to={sid}")
    waiting = len('42["from_route",""]') + 1000
    watched.moved({"events_out": 1, "bytes_waiting": waiting})
    waits.packets()
    watched.moved({"bytes_waiting": -waiting})
    asks.send('421["ask_call",60,"why?"]')
    question = asks.receive()
    assert question.endswith('["question","why?"]')
    watched.moved({"events_in": 1, "events_out": 1, "handlers.calls": 1, "handlers.running": 1})
    number = question[2 : question.index("[")]
    asks.send(f'43{number}["because"]')
    assert asks.receive() == '431["value","because"]'
    watched.moved({"events_in": 1, "events_out": 1, "handlers.running": -1})
    asks.close()
    waits.send("1")
    watched.moved(
        {
            **{"clients.websocket": -1, "disconnects.transport close": 1, "handlers.calls": 2},
            **{"clients.polling": -1, "disconnects.client disconnect": 1},
        }
    )
    row(34, "bytes that wait, handlers that run", "exact, and 0 again")


def test_prometheus_reads_the_same_numbers(server, watched, row):
    watched.moved({})
    answer = fetch(server, "GET", "/metrics")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    shown = {
        (sample.name.removeprefix("flask_realtime_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    stats = server.get_json("/stats")
    single = {
        ("connects_total",): stats["connects"],
        ("events_received_total",): stats["events_in"],
        ("events_sent_total",): stats["events_out"],
        ("waiting_bytes",): stats["bytes_waiting"],
        ("slow_clients_total",): stats["slow_clients"],
        ("handler_calls_total",): stats["handlers"]["calls"],
        ("handler_errors_total",): stats["handlers"]["errors"],
        ("handler_seconds_total",): stats["handlers"]["seconds"],
        ("handlers_running",): stats["handlers"]["running"],
        ("pool_threads_max",): stats["pool"]["most"],
        **{
            (f"queue_{name}" if name in ("connected", "members", "waiting") else f"queue_{name}_total",): number
            for name, number in stats["queue"].items()
        },
    }
    labelled = {
        (name, label): number
        for part, name in (
            *(("clients", "clients"), ("disconnects", "disconnects_total")),
            *(("bad_input", "bad_input_total"), ("refusals", "refusals_total")),
        )
        for label, number in stats[part].items()
    }
    for threads in ("pool_threads", "pool_waiting"):  # they come and go by themselves
        assert shown.pop((threads,)) >= 0
    assert shown == {**single, **labelled}
    row(34, "/metrics says what stats() says", f"{len(shown) + 2} samples")


def test_a_client_that_answers_no_ping(start):
    server = start(ping_interval=0.5, ping_timeout=0.5)
    watched = Watched(server)
    Polling(server)
    watched.moved({"connects": 1, "disconnects.ping timeout": 1})


def test_one_client_too_many_and_the_end_of_the_server(start, row):
    server = start(max_connections=2)
    watched = Watched(server)
    assert fetch(server, "GET", "/healthz").status == fetch(server, "GET", "/readyz").status == 200
    client, _ = WebSocket(server), Polling(server)
    watched.moved({"connects": 2, "clients.websocket": 1, "clients.polling": 1})
    assert fetch(server, "GET", target(EIO=4, transport="polling")).status == 503
    watched.moved({"refusals.connections": 1})
    server.get("/shut")
    assert until_closed(client) == 1001
    watched.moved({"disconnects.server disconnect": 2, "clients.websocket": -1, "clients.polling": -1})
    assert fetch(server, "GET", target(EIO=4, transport="polling")).status == 503
    watched.moved({"refusals.stopping": 1})
    ready = fetch(server, "GET", "/readyz")
    assert (ready.status, ready.json) == (503, {"status": "stopping"})
    assert fetch(server, "GET", "/healthz").json == {"status": "ok"}
    row(34, "/readyz while the server stops", "503; /healthz 200")
