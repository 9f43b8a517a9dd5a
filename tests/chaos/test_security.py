"""Who may talk to the server, what it gives away, what reaches the log: lines 6, 28, 29, 31 and 32."""

import base64
import collections
import json
import re
import struct
import time
import uuid

import pytest

from .test_bad_input import damage
from .wires import POLLING, UPGRADE, WEBSOCKET, Wire, exchange, frame, open_session, post, request, text


@pytest.fixture(scope="module")
def server(start):
    return start()


# Line 28.


def refused(server, message, **headers):
    """Check that requests of each kind are refused with a 400; return how many they are."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    sid = open_session(server, join=None).partition("sid=")[2]
    replies = [
        exchange(server, request(headers=headers)),
        exchange(server, request(query=WEBSOCKET, headers={**UPGRADE, **headers})),
        exchange(server, request("POST", f"{POLLING}&sid={sid}", headers, b"3")),
        exchange(server, request("GET", f"{POLLING}&sid={sid}", headers)),
        exchange(server, request(query=f"{WEBSOCKET}&sid={sid}", headers={**UPGRADE, **headers})),
        exchange(server, request("OPTIONS", headers=headers), method="OPTIONS"),
    ]
    for reply in replies:
        assert (reply.status, reply.code) == (400, 3), (headers, reply)
        assert message in reply.body.decode()
        assert reply.headers["Access-Control-Allow-Origin"] is None
    return len(replies)


def accepted(server, **headers):
    """Check that handshakes are let in; return the headers of the answer to the polling one."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with Wire(server, headers=headers) as wire:
        assert wire.status == 101, headers
    reply = exchange(server, request(headers=headers))
    assert reply.status == 200, (headers, reply)
    return reply.headers


def foreign(scheme, port):
    """Return origins that aren't those of a server on 127.0.0.1."""
    other = "http" if scheme == "https" else "https"
    yield from ("http://evil.org", "https://evil.org", "null", "", "*", "file://", "x", "127.0.0.1", "//127.0.0.1")
    yield f"{other}://127.0.0.1:{port}"
    yield f"{scheme}://127.0.0.1:{port + 1}"
    yield f"{scheme}://127.0.0.1"
    yield f"{scheme}://127.0.0.1.evil.org:{port}"
    yield f"{scheme}://evil127.0.0.1:{port}"
    yield f"{scheme}://127.0.0.1:{port}.evil.org"
    yield f"{scheme}://127.0.0.1:{port}@evil.org"
    yield f"{scheme}://evil.org@127.0.0.1:{port}"
    yield f"{scheme}://evil.org#127.0.0.1:{port}"
    yield f"{scheme}://evil.org/127.0.0.1:{port}"
    yield f"{scheme}://127.0.0.1:{port}/"
    yield f"{scheme}://127.0.0.1:{port} {scheme}://evil.org"
    yield f"{scheme}://127.0.0.1:{port}, {scheme}://evil.org"
    yield f"{scheme}://evil.org, {scheme}://127.0.0.1:{port}"
    yield f"{scheme}://2130706433:{port}"
    yield f"{scheme}://[::1]:{port}"
    yield f"{scheme}://localhost:{port}"


def test_foreign_origins(server, row):
    scheme, port = server.url.split(":")[0], server.port
    host = f"127.0.0.1:{port}"
    origins = list(foreign(scheme, port))
    ways = 0
    for origin in origins:
        ways += refused(server, "Not an accepted origin.", Host=host, Origin=origin)
    ways += refused(server, "Not an accepted origin.", Host=host, Sec_Fetch_Site="cross-site")
    accepted(server, Host=host, Origin=f"{scheme}://{host}")
    accepted(server, Host="LOCALHOST:1", Origin=f"{scheme.upper()}://localhost:1")
    accepted(server, Host=host, Sec_Fetch_Site="same-origin")
    accepted(server, Host=host)
    row(28, "foreign origins", f"{len(origins)} of {len(origins)} refused in {ways} requests, before any 101")


def test_forged_forwarding(server, start, row):
    evil = {"Host": f"127.0.0.1:{server.port}", "Origin": "https://evil.org"}
    ways = 0
    for headers in (
        {"X_Forwarded_Host": "evil.org", "X_Forwarded_Proto": "https"},
        {"X_Forwarded_Host": "evil.org:443"},
        {"Forwarded": "host=evil.org;proto=https"},
        {"X_Original_Host": "evil.org", "X_Host": "evil.org"},
    ):
        ways += refused(server, "Not an accepted origin.", **evil, **headers)
    behind = start(trusted_proxies=1)
    forwarded = {"X_Forwarded_Proto": "https", "Host": "inner:1"}
    accepted(behind, **forwarded, X_Forwarded_Host="public.com", Origin="https://public.com")
    # What the client itself sent stands before what the proxy added.
    accepted(behind, **forwarded, X_Forwarded_Host="evil.org, public.com", Origin="https://public.com")
    ways += refused(
        behind, "Not an accepted origin.", **forwarded, X_Forwarded_Host="evil.org, public.com", Origin="https://evil.org"
    )
    row(28, "forged X-Forwarded-*", f"refused in {ways} requests")


def test_foreign_hosts(start, row):
    server = start(allowed_hosts=["127.0.0.1", ".example.com", "other.org:81"], cors_allowed_origins="*")
    hosts = ("evil.org", "127.0.0.1.evil.org", "notexample.com", "example.com.evil.org", "other.org:82", "localhost")
    ways = 0
    for host in hosts:
        ways += refused(server, "Not an accepted host.", Host=host, Origin=f"http://{host}")
        ways += refused(server, "Not an accepted host.", Host=host)
    for host in ("127.0.0.1", "127.0.0.1:5000", "example.com", "A.Example.COM:99", "other.org:81"):
        accepted(server, Host=host)
    row(28, "foreign hosts", f"{len(hosts)} of {len(hosts)} refused in {ways} requests")


# Line 29.


def test_ids_are_128_random_bits(server, row):
    sids = [json.loads(exchange(server, request()).body[1:])["sid"] for _ in range(50)]
    assert len(set(sids)) == 50
    for sid in sids:
        assert len(sid) == 22 and len(base64.urlsafe_b64decode(sid + "==")) == 16
    for place in range(21):  # the last character has two bits only
        assert len({sid[place] for sid in sids}) > 15, f"character {place} hardly changes"
    row(29, "ids", "22 characters, 128 bits, no part of them counts")


def test_the_public_id_opens_nothing(server, row):
    with Wire(server) as wire:
        wire.receive()
        wire.send(text("40"))
        public = json.loads(wire.receive()[1][2:])["sid"]
        for method, query, headers in (
            ("GET", f"{POLLING}&sid={public}", {}),
            ("POST", f"{POLLING}&sid={public}", {}),
            ("GET", f"{WEBSOCKET}&sid={public}", UPGRADE),
        ):
            body = b"41" if method == "POST" else b""
            reply = exchange(server, request(method, query, headers, body))
            assert (reply.status, reply.code) == (400, 1)
        wire.send(text('42999["sync"]'))
        assert wire.outcome(b'43999["synced"]') == "answered"
    row(29, "the id that others see", "opens nothing")


# Line 31.


def test_headers(server, start, row):
    scheme = "https" if server.tls else "http"
    own = {"Host": f"127.0.0.1:{server.port}", "Origin": f"{scheme}://127.0.0.1:{server.port}"}
    query = open_session(server)
    replies = [
        *(exchange(server, request()), exchange(server, request(headers=own)), exchange(server, request(query="x"))),
        *(post(server, query, b"3"), post(server, query, b"9"), post(server, query, b"3")),
        exchange(server, request("OPTIONS", headers=own), method="OPTIONS"),
        exchange(server, request("POST", open_session(server), {"Content-Length": "9999999"})),
        exchange(server, request(headers={"Origin": "http://evil.org"})),
        exchange(server, request(query=WEBSOCKET)),
    ]
    assert {reply.status for reply in replies} == {200, 204, 400, 413}
    for reply in replies:
        assert reply.headers["Cache-Control"] == "no-store", reply
    for rule in (None, "*", ["http://a.com"]):
        other = server if rule is None else start(cors_allowed_origins=rule, cookie="io")
        origin = own["Origin"] if rule is None else "http://a.com"
        headers = exchange(other, request(headers={**own, "Origin": origin})).headers
        assert headers["Access-Control-Allow-Origin"] == origin
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in headers["Vary"]
    name, *attributes = headers["Set-Cookie"].split("; ")
    assert re.fullmatch(r"io=[A-Za-z0-9_-]{22}", name)
    assert {"HttpOnly", "SameSite=Lax"} <= set(attributes)
    assert ("Secure" in attributes) == bool(server.tls)
    jsonp = exchange(server, request(query=POLLING + "&j=0"))
    assert (jsonp.status, jsonp.code) == (400, 3)
    row(31, "headers", f"{len(replies)} answers are no-store, no wildcard, the cookie HttpOnly and SameSite, no JSONP")


# Line 32.


def test_two_users_never_see_each_others(server, row, full):
    total = 10_000 if full else 1_000
    wires, owners = [], []
    for _ in range(2):
        who = uuid.uuid4().hex
        wire = Wire(server, WEBSOCKET + "&who=" + who)
        wire.receive()
        wire.send(text("40"))
        owners.append((who, json.loads(wire.receive()[1][2:])["sid"]))
        wires.append(wire)
    seen = 0
    for first in range(0, total // 2, 20):
        numbers = range(first, first + 20)
        for number in numbers:
            for wire, (who, _) in zip(wires, owners, strict=True):
                wire.send(text(f'42{number}["mine","{who}-{number}"]'))
        for wire, (who, sid) in zip(wires, owners, strict=True):
            for _ in numbers:
                opcode, answer = wire.receive()
                assert opcode == 1
                number, _, rest = answer.decode()[2:].partition("[")
                ((me, my_sid, *values),) = json.loads("[" + rest)
                assert (me, my_sid) == (who, sid)
                assert values[2:] == [f"{who}-{number}"] * 2
                for value in values[:2]:
                    assert value is None or value.startswith(who)
                seen += 1
    for wire in wires:
        wire.close()
    assert seen == total
    row(32, "two users interleaved", f"{seen} events, each saw its own session, context and id")


# Line 6.

INJECTED = "\r\nINJECTED line \x1b]0;title\x07\x1b[2J\u202e\x85INJECTED"
QUOTED = "%0d%0aINJECTED%20line%20%1b]0;title%07%1b[2J%c2%85INJECTED"


def test_nothing_is_injected_into_the_log(start, row):
    server = start(logger=True, engineio_logger=True, allowed_hosts=["127.0.0.1", "evil.org"])
    for query in (
        *(f"EIO={QUOTED}&transport=polling", f"EIO=4&transport={QUOTED}", f"{POLLING}&sid={QUOTED}", QUOTED),
        *(f"{WEBSOCKET}&sid={QUOTED}", f"{POLLING}&j={QUOTED}", f"{POLLING}&who={QUOTED}"),
    ):
        for method in ("GET", "POST", "OPTIONS"):
            assert exchange(server, request(method, query), method).status in (200, 204, 400)
    raw = "\x1b]0;title\x07\x1b[2J\x85INJECTED"
    names = ("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol")
    for name in (*names, "Origin", "Host", "Upgrade", "Connection", "X-Forwarded-Host", "Cookie", "Sec-Fetch-Site"):
        assert exchange(server, request(headers={name: raw})).status in (200, 400)
        assert exchange(server, request(query=WEBSOCKET, headers={**UPGRADE, name: raw})).status in (101, 400)
    exchange(server, request(headers={"Origin": "http://evil.org/" + "%0d%0aINJECTED"}))
    escaped = json.dumps(INJECTED)
    for packet in (
        *(f"40/{INJECTED},", f"42/{INJECTED},[1]", f"42[{escaped}]", f"42{INJECTED}", INJECTED, f"9{INJECTED}"),
        *(f'42["connect",{escaped}]', f'40/custom,{{"reject":true,"x":{escaped}}}', f'451-["x",{{"num":{escaped}}}]'),
        f'451-["x",{{"_placeholder":true,"num":{escaped}}}]',
    ):
        with Wire(server) as wire:
            wire.join()
            wire.send(text(packet) + frame(2, b"x"))
            wire.send(text('42999["sync"]'))
            wire.outcome(b'43999["synced"]')
        post(server, open_session(server), packet)
    for data in (frame(8, struct.pack("!H", 1000) + INJECTED.encode()[:100]), frame(1, b"\xff" + INJECTED.encode())):
        with Wire(server) as wire:
            wire.join()
            wire.send(data)
            wire.outcome()
    query = open_session(server)
    with Wire(server, query=query.replace("polling", "websocket")) as probe:
        probe.send(text(INJECTED))
        assert probe.outcome() == 1008
    log = server.log.read_bytes().decode(errors="replace")
    assert "INJECTED" in log, "something of it is told"
    for line in log.splitlines():
        assert not line.lstrip().startswith("INJECTED"), line
    assert "\x1b]0" not in log and "\x07" not in log and "\x1b[2J" not in log and "\u202e" not in log
    assert damage(server) == []
    row(6, "nothing is injected into the log", "neither a line nor an escape")


FLOODS = {
    "engineio": lambda server: post(server, open_session(server, join=None), b"9").status,
    "socketio": lambda server: post(server, open_session(server, join=None), b"42[").status,
    "version": lambda server: exchange(server, request(query="EIO=3&transport=polling")).status,
    "origin": lambda server: exchange(server, request(headers={"Origin": "http://evil.org"})).status,
    "host": lambda server: exchange(server, request(headers={"Host": "evil.org"})).status,
}


def test_bad_input_does_not_fill_the_log(start, row, full):
    server = start(allowed_hosts=["127.0.0.1"])
    begun, at = time.monotonic(), server.log.stat().st_size
    rounds = 300 if full else 30
    for _ in range(rounds):
        for flood in FLOODS.values():
            assert flood(server) == 400
    took = time.monotonic() - begun
    log = server.log.read_text(errors="replace")[at:]
    # Werkzeug's own line for each request isn't ours.
    lines = [line for line in log.splitlines() if line.strip() and not re.search(r'HTTP/1\.1.*" \d{3} -$', line)]
    kinds = collections.Counter(re.sub(r"^\S{22}:|\(and \d+ more.*|'.*", "", line) for line in lines)
    assert lines, "the first of each kind is told"
    for kind, count in kinds.items():
        assert count <= took + 2, (kind, count)
    assert len(lines) <= len(FLOODS) * (took + 2)
    row(6, "bad input does not fill the log", f"{rounds * len(FLOODS)} bad inputs in {took:.1f} s: {len(lines)} lines")
