"""Traps T61, T66, T67 and T69 to T85: Engine.IO on the wire, and what its servers are told."""

import base64
import gzip
import json
import math
import re
import socket
import struct
import threading
import time
import zlib
from urllib.parse import quote, urlencode

import flask
import pytest

from flask_realtime import engineio, socketio

from ..e2e.raw import SEPARATOR, Polling, WebSocket, fetch, target
from .engineio_server import LIMIT, engine, get, plain, program, serving

TEXT, BINARY, CLOSE = 1, 2, 8
HANDSHAKE = target(EIO="4", transport="polling")


def opened(log):
    """Take the entry of a connect, and return its sid."""
    event, sid = get(log)
    assert event == "connect"
    return sid


def closing(client):
    """Read to the end of the stream and return the close frame's code."""
    try:
        while True:
            opcode, payload = client.frame()
            if opcode == CLOSE:
                break
            assert opcode in (TEXT, BINARY), (opcode, payload)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.file.read() == b""
    finally:
        client.abandon(reset=False)
    return struct.unpack("!H", payload[:2])[0]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('{"a":1}', {"a": 1}),
        ("[1,2]", [1, 2]),
        ("true", True),
        ("null", None),
        ("-1", -1),
        ('"quoted"', "quoted"),
        ("12", "12"),
        ('2["e"]', '2["e"]'),
        ("plain", "plain"),
        ("", ""),
        ("{broken", "{broken"),
        ("[" * 50000, "[" * 50000),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_t61_text_for_an_engineio_program_is_decoded_when_it_is_json(text, data):
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        client.send("4" + text)
        assert get(server.log) == ("message", data)


def test_t61_binary_and_leading_digits_are_left_alone():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        client.send("b" + base64.b64encode(b'{"a":1}').decode())
        assert get(server.log) == ("message", b'{"a":1}')


def test_t61_what_a_program_sends_becomes_text():
    with engine() as (server, running):
        client = Polling(running)
        sid = opened(server.log)
        for data in ("text", {"a": [1]}, [1, 2], True, None, 1.5, b"bytes", bytearray(b"array")):
            server.send(sid, data)
        assert client.packets() == [
            "4text",
            '4{"a":[1]}',
            "4[1,2]",
            "4True",
            "4",
            "41.5",
            "b" + base64.b64encode(b"bytes").decode(),
            "b" + base64.b64encode(b"array").decode(),
        ]


@pytest.mark.parametrize("interval", [(25, 5), [25, 5]])
def test_t66_interval_and_grace_may_be_a_tuple_or_a_list(interval):
    with engine(ping_interval=interval) as (_, running):
        assert Polling(running).open["pingInterval"] == 30000


@pytest.mark.parametrize("interval", [(25,), [1, 2, 3], "25", 0, -1, True, (25, "5"), (25, -5), (25, None), math.nan])
def test_t66_interval_that_can_not_work_is_refused_at_once(interval):
    with pytest.raises(ValueError, match="ping_interval"):
        engineio.Server(ping_interval=interval)


@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.5, 500), (2.9, 2900), (25, 25000), (0.001, 1)])
def test_t67_fractions_of_seconds_are_announced(seconds, milliseconds):
    with engine(ping_interval=seconds, ping_timeout=seconds * 2) as (_, running):
        client = Polling(running)
        assert client.open["pingInterval"] == milliseconds
        assert client.open["pingTimeout"] == milliseconds * 2


def test_t69_server_pings_and_goes_on_after_each_pong():
    with engine(ping_interval=0.05, ping_timeout=LIMIT) as (_, running):
        client = WebSocket(running)
        client.receive()
        for _ in range(3):
            assert client.receive() == "2"
            client.send("3")
        client.close()


def test_t69_client_that_does_not_answer_ends_with_ping_timeout():
    with engine(ping_interval=0.05, ping_timeout=0.05) as (server, running):
        client = WebSocket(running)
        opened(server.log)
        client.receive()
        assert client.receive() == "2"
        assert closing(client) == 1001
        assert get(server.log) == ("disconnect", "ping timeout")


def test_t69_deadlines_do_not_depend_on_the_wall_clock(monkeypatch):
    with engine(ping_interval=0.05, ping_timeout=LIMIT) as (server, running):
        client = WebSocket(running)
        opened(server.log)
        client.receive()
        real = time.time
        for shift in (86400, -86400):
            monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
            assert client.receive() == "2"
            client.send("3")
            client.send("4still here")
            assert get(server.log) == ("message", "still here")
        client.close()


def test_t70_body_over_the_limit_is_refused_at_once_with_nobody_polling():
    with engine(max_http_buffer_size=1000) as (server, running):
        client = Polling(running)
        opened(server.log)
        assert client.post("4" + "x" * 1000).status == 413
        # The limit is no fault that ends the session: what fits still arrives.
        client.send("4" + "x" * 999)
        assert get(server.log) == ("message", "x" * 999)


def test_t70_unknown_packet_type_is_refused_at_once_with_nobody_polling():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        assert client.post("4first", "9").status == 400
        assert get(server.log) == ("message", "first")
        assert get(server.log) == ("disconnect", "transport error")
        assert client.poll().status == 400


def test_t71_chunked_body_is_read():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        connection = running.connection()
        connection.request("POST", client.target, iter([b"4he", b"llo"]), encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"ok")
        connection.close()
        assert get(server.log) == ("message", "hello")


@pytest.mark.parametrize("length", [None, "0", "abc", "-1"])
def test_t71_request_without_a_body_is_not_answered_with_ok(length):
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        connection = running.connection()
        connection.putrequest("POST", client.target)
        if length is not None:
            connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()
        assert get(server.log) == ("disconnect", "transport error")


def test_t72_number_of_packets_in_a_body_is_not_limited():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        client.send(*[f"4m{number}" for number in range(500)])
        assert [get(server.log) for _ in range(500)] == [("message", f"m{number}") for number in range(500)]


@pytest.mark.parametrize(("text", "fits"), [("x" * 99, True), ("é" * 49, True), ("x" * 100, False), ("é" * 50, False)])
def test_t73_websocket_messages_are_measured_in_bytes(text, fits):
    with engine(max_http_buffer_size=100) as (server, running):
        client = WebSocket(running)
        opened(server.log)
        client.receive()
        client.send("4" + text)
        if fits:
            assert get(server.log) == ("message", text)
            client.close()
        else:
            assert closing(client) == 1009
            assert get(server.log)[0] == "disconnect"


def test_t73_client_that_is_still_sending_learns_why_it_is_closed():
    with engine(max_http_buffer_size=100) as (_, running):
        client = WebSocket(running)
        client.receive()
        client.socket.sendall(struct.pack("!BBQ4s", 0x81, 0x80 | 127, 1 << 30, b"mask") + bytes(500_000))
        assert closing(client) == 1009


def test_t73_frame_is_refused_by_its_header():
    with engine(max_http_buffer_size=100) as (_, running):
        client = WebSocket(running)
        client.receive()
        client.socket.sendall(struct.pack("!BBQ4s", 0x81, 0x80 | 127, 1 << 30, b"mask"))
        assert closing(client) == 1009


def test_t74_second_poll_ends_both_and_the_session():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        first = client.get()
        second = client.get()
        answers = sorted([(answer.status, answer.body) for answer in (first.answer(), second.answer())])
        assert answers[0] == (200, b"1")
        assert answers[1][0] == 400
        assert get(server.log) == ("disconnect", "transport error")
        assert client.poll().status == 400


def test_t74_poll_without_news_gets_a_ping_and_then_the_end():
    with engine(ping_interval=0.05, ping_timeout=0.05) as (server, running):
        client = Polling(running)
        opened(server.log)
        assert client.packets() == ["2"]
        answer = client.poll()
        assert (answer.status, answer.body) == (200, b"1") or answer.status == 400
        assert get(server.log) == ("disconnect", "ping timeout")
        assert client.poll().status == 400


@pytest.mark.parametrize("text", ["x", "", "9", "é"])
def test_t75_text_frame_that_is_no_packet_ends_the_session_at_once(text):
    with engine() as (server, running):
        client = WebSocket(running)
        opened(server.log)
        client.receive()
        client.send(text)
        assert get(server.log) == ("disconnect", "transport error")
        # The stream holds a close frame and its end, nothing else.
        assert closing(client) == 1008


def upgrade(client):
    """Begin an upgrade: return the WebSocket after its probe was answered."""
    websocket = WebSocket(client.server, sid=client.sid)
    websocket.send("2probe")
    assert websocket.receive() == "3probe"
    return websocket


def upgrade_again(client):
    """Upgrade when the server has seen the end of the attempt before."""
    for _ in range(1000):
        try:
            return upgrade(client)
        except AssertionError:  # refused
            continue
    raise AssertionError("no further upgrade is possible")


def test_t76_upgrade_takes_along_what_waits():
    with engine() as (server, running):
        client = Polling(running)
        sid = opened(server.log)
        pending = client.get()
        websocket = upgrade(client)
        assert pending.answer().body == b"6"
        server.send(sid, "held")
        assert server.transport(sid) == "polling"
        websocket.send("5")
        assert websocket.receive() == "4held"
        assert server.transport(sid) == "websocket"
        server.send(sid, "direct")
        assert websocket.receive() == "4direct"
        websocket.send("4up")
        assert get(server.log) == ("message", "up")
        websocket.close()
        assert get(server.log) == ("disconnect", "transport close")


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def test_t76_second_upgrade_is_refused_and_the_session_lives():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        websocket = upgrade(client)
        again = target(EIO="4", transport="websocket", sid=client.sid)
        assert fetch(running, "GET", again, headers=UPGRADE).status == 400
        websocket.send("5")
        websocket.send("4first")
        assert get(server.log) == ("message", "first")
        assert fetch(running, "GET", again, headers=UPGRADE).status == 400
        websocket.send("4second")
        assert get(server.log) == ("message", "second")
        websocket.close()


def drop(client):
    client.abandon()


def too_large(client):
    client.socket.sendall(struct.pack("!BBQ4s", 0x81, 0x80 | 127, 1 << 30, b"mask"))
    assert closing(client) == 1009


def wrong_packet(client):
    client.send("4too early")
    assert closing(client) == 1008


@pytest.mark.parametrize("fail", [drop, too_large, wrong_packet])
def test_t76_upgrade_that_fails_after_the_probe_leaves_polling_as_it_was(fail):
    with engine() as (server, running):
        client = Polling(running)
        sid = opened(server.log)
        fail(upgrade(client))
        # Until the server has seen the end, polls are answered with a noop.
        server.send(sid, "over polling")
        packets = client.packets()
        while packets == ["6"]:
            packets = client.packets()
        assert packets == ["4over polling"]
        # And now one waits again until there is something.
        pending = client.get()
        server.send(sid, "next")
        packets = pending.answer().text.split(SEPARATOR)
        while packets == ["6"]:
            packets = client.packets()
        assert packets == ["4next"]
        # A further attempt succeeds, as soon as the server has seen the end of the first.
        websocket = upgrade_again(client)
        websocket.send("5")
        websocket.send("4up")
        assert get(server.log) == ("message", "up")
        websocket.close()


ORIGIN = "http://friend.example"


@pytest.mark.parametrize(
    ("method", "query", "status", "code"),
    [
        ("GET", {"EIO": "4", "transport": "smoke"}, 400, 0),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "unknown"}, 400, 1),
        ("POST", {"EIO": "4", "transport": "polling"}, 400, 2),
        ("GET", {"EIO": "4", "transport": "websocket"}, 400, 3),
        ("GET", {"EIO": "3", "transport": "polling"}, 400, 5),
    ],
)
def test_t77_errors_are_json_objects_that_browsers_may_read(method, query, status, code):
    with engine(cors_allowed_origins=[ORIGIN]) as (_, running):
        answer = fetch(running, method, target(**query), headers={"Origin": ORIGIN})
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.json["code"] == code and isinstance(answer.json["message"], str)


def test_t77_refused_origin_gets_an_object_but_no_permission():
    with engine() as (_, running):
        answer = fetch(running, "GET", HANDSHAKE, headers={"Origin": "http://stranger.example"})
        assert answer.status == 400
        assert answer.json == {"code": 3, "message": "Not an accepted origin."}
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_t78_forwarded_headers_count_only_behind_trusted_proxies():
    headers = {"Origin": "https://site.example", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "site.example"}
    with engine() as (_, running):
        assert fetch(running, "GET", HANDSHAKE, headers=headers).status == 400
    with engine(trusted_proxies=1) as (_, running):
        answer = fetch(running, "GET", HANDSHAKE, headers=headers)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://site.example")


def test_t78_answers_vary_by_origin_and_credentials_need_one():
    with engine(cors_allowed_origins="*") as (_, running):
        plain_answer = fetch(running, "GET", HANDSHAKE)
        assert plain_answer.headers["Vary"] == "Origin"
        assert not [name for name in plain_answer.headers if name.lower().startswith("access-control")]
        answer = fetch(running, "GET", HANDSHAKE, headers={"Origin": ORIGIN})
        assert answer.headers["Vary"] == "Origin"
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"


def test_t78_preflight_needs_nothing_in_the_query():
    with engine(cors_allowed_origins=[ORIGIN]) as (_, running):
        asked = {"Origin": ORIGIN, "Access-Control-Request-Headers": "X-Token, Content-Type"}
        answer = fetch(running, "OPTIONS", "/socket.io/", headers=asked)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Access-Control-Allow-Methods"] == "OPTIONS, GET, POST"
        assert answer.headers["Access-Control-Allow-Headers"] == "X-Token, Content-Type"


NASTY = "back\\slash \"quotes\" 'single' new\nline \\n return\r tab\t  </script> é 😀"


def test_t79_jsonp_script_holds_any_text_unharmed():
    with engine(allow_jsonp=True) as (server, running):
        client = Polling(running, j="7")
        sid = opened(server.log)
        script = re.compile(r"___eio\[7\]\((.*)\);")
        client.query["sid"] = json.loads(json.loads(script.fullmatch(client.handshake.text)[1])[1:])["sid"]
        assert client.query["sid"] == sid
        server.send(sid, NASTY)
        answer = client.poll()
        assert answer.headers["Content-Type"].startswith("text/javascript")
        literal = script.fullmatch(answer.text)[1]
        assert literal.isascii() and "<" not in literal and "\n" not in literal
        assert json.loads(literal) == "4" + NASTY


def test_t79_jsonp_form_is_taken_as_the_client_escapes_it():
    text = 'back\\slash "quotes" new\nline \\n é 😀 & = +'
    with engine(allow_jsonp=True) as (server, running):
        client = Polling(running, j="0")
        client.query["sid"] = opened(server.log)
        # As the JavaScript client does: a written \n gets one more backslash, a line break becomes \n.
        escaped = ("4" + text).replace("\\n", "\\\\n").replace("\n", "\\n")
        form = urlencode({"d": escaped}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        assert fetch(running, "POST", client.target, form, kind).body == b"ok"
        assert get(server.log) == ("message", text)


def test_t79_text_that_begins_like_a_form_is_text_without_jsonp():
    with engine() as (server, running):
        client = Polling(running)
        opened(server.log)
        client.send("4d=" + quote("a b"))
        assert get(server.log) == ("message", "d=" + quote("a b"))
        assert client.post("d=4hello").status == 400


def test_t79_jsonp_is_off_by_default():
    with engine() as (_, running):
        answer = fetch(running, "GET", target(EIO="4", transport="polling", j="0"))
        assert answer.status == 400 and "JSONP" in answer.json["message"]


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.5, deflate;q=0.9", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0.0, deflate;q=0", None),
        ("br", None),
        ("", None),
    ],
)
def test_t80_coding_is_chosen_as_the_client_weighs_it(accepted, coding):
    with engine() as (server, running):
        client = Polling(running)
        text = "a" * 2000
        server.send(opened(server.log), text)
        answer = fetch(running, "GET", client.target, headers={"Accept-Encoding": accepted})
        assert answer.headers["Content-Encoding"] == coding
        body = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding](answer.body)
        assert body.decode() == "4" + text
        assert "Accept-Encoding" in answer.headers["Vary"]


def test_t80_small_answers_and_errors_are_not_compressed():
    with engine(compression_threshold=50) as (server, running):
        client = Polling(running)
        server.send(opened(server.log), "a" * 40)
        headers = {"Accept-Encoding": "gzip"}
        assert fetch(running, "GET", client.target, headers=headers).body == b"4" + b"a" * 40
        error = fetch(running, "GET", target(EIO="4", transport="websocket"), headers=headers)
        assert len(error.body) > 50 and error.json["code"] == 3


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("io", {"io=SID", "Path=/", "HttpOnly", "SameSite=Lax"}),
        ({"name": "io", "Path": "/app", "SameSite": "Strict"}, {"io=SID", "Path=/app", "HttpOnly", "SameSite=Strict"}),
        ({"name": "io", "path": None, "HttpOnly": False}, {"io=SID", "SameSite=Lax"}),
        (
            {"name": "io", "Max-Age": 60, "Secure": True, "Domain": lambda: "a.example"},
            {"io=SID", "Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=60", "Secure", "Domain=a.example"},
        ),
    ],
    ids=["name", "attributes", "left out", "number, flag, callable"],
)
def test_t81_cookie_of_any_form_is_set_on_both_transports(cookie, expected, transport):
    with engine(cookie=cookie) as (server, running):
        if transport == "polling":
            headers = Polling(running).handshake.headers
        else:
            client = WebSocket(running)
            headers = client.headers
            client.receive()
            client.close()
        sid = opened(server.log)
        assert set(headers["Set-Cookie"].replace(sid, "SID").split("; ")) == expected


def test_t81_no_cookie_when_off():
    for off in (None, {}, ""):
        with engine(cookie=off) as (_, running):
            assert "Set-Cookie" not in Polling(running).handshake.headers


def test_t82_path_is_served_with_and_without_its_slash_but_not_as_a_prefix():
    app, extension = program()
    app.add_url_rule("/socket.iox", view_func=lambda: "the application's own", endpoint="own")
    with serving(app, extension.server) as running:
        query = "?EIO=4&transport=polling"
        for path in ("/socket.io/", "/socket.io", "/socket.io/deeper/"):
            answer = fetch(running, "GET", path + query)
            assert (answer.status, answer.text[:1]) == (200, "0"), path
        assert fetch(running, "GET", "/socket.iox" + query).body == b"the application's own"
        assert fetch(running, "GET", "/other").status == 404


def test_t83_static_files_stay_below_their_directory(tmp_path):
    public = tmp_path / "public"
    public.mkdir()
    (public / "page.html").write_text("<p>page</p>")
    (tmp_path / "secret").write_text("secret")
    (public / "link").symlink_to(tmp_path / "secret")
    for server, wrap in (
        (engineio.Server(), engineio.WSGIApp),
        (socketio.Server(), socketio.WSGIApp),
    ):
        with serving(wrap(server, static_files={"/static": str(public)}), server) as running:
            answer = fetch(running, "GET", "/static/page.html")
            assert (answer.status, answer.body) == (200, b"<p>page</p>")
            ways = "../secret", "%2e%2e/secret", "..%2fsecret", "..%5csecret", "x/../../secret", "/etc/passwd", "link"
            for way in ways:
                answer = fetch(running, "GET", f"/static/{way}")
                assert answer.status == 404 and b"secret" not in answer.body, way


def test_t84_ids_of_connection_and_namespaces_differ():
    app, extension = program(namespaces=["/", "/chat"])
    sids = []
    for namespace in ("/", "/chat"):
        extension.on("e", namespace=namespace)(lambda: sids.append((flask.request.sid, flask.request.args.get("sid"))))
    with serving(app, extension.server) as running:
        client = Polling(running)
        mine = [client.join(), client.join("/chat")]
        assert list(extension.server.environ) == [client.sid]
        client.send('42["e"]', '42/chat,1["e"]')
        assert client.packets() == ["43/chat,1[]"]
        # request.sid is that of the namespace; the URL of the first request had no id yet.
        assert sids == [(mine[0], None), (mine[1], None)]
        client.send("41")
        mine.append(client.join())
        assert len({client.sid, *mine}) == 4
        for sid, namespace in ((mine[1], "/chat"), (mine[2], "/")):
            assert extension.server.manager.eio_sid_from_sid(sid, namespace) == client.sid


def test_t85_send_never_runs_the_disconnect_handler_of_its_target():
    server = socketio.Server(ping_interval=0.05, ping_timeout=0.05)
    ended, threads = threading.Event(), []

    @server.on("disconnect")
    def disconnect(sid, reason):
        threads.append((threading.get_ident(), reason))
        ended.set()

    with plain(server) as running:
        sid = Polling(running).join()
        for _ in range(10000):
            server.emit("e", to=sid)
            if ended.wait(0.001):
                break
        assert threads == [(threads[0][0], "ping timeout")]
        assert threads[0][0] != threading.get_ident()
