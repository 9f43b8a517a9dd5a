"""Bytes in, decisions out: no server."""

import gzip
import json
import zlib

import pytest
from doubles import UPGRADE, Floor, KeptTransport

from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.engineio.requests import Read, Respond, Upgrade, Wait

OPEN = "EIO=4&transport=polling"


@pytest.fixture
def floor():
    return Floor()


def of(session, transport="polling", more=""):
    return f"EIO=4&transport={transport}&sid={session.sid}{more}"


def check_refused(answered, code, message=None):
    assert isinstance(answered, Respond)
    assert answered.status == 400
    assert dict(answered.headers)["Content-Type"] == "application/json"
    assert dict(answered.headers)["Cache-Control"] == "no-store"
    body = json.loads(answered.body)
    assert body["code"] == code
    assert message is None or message in body["message"]


# The handshake


def test_a_handshake_over_polling(floor):
    answered = floor.request()
    assert answered.status == 200
    assert dict(answered.headers)["Content-Type"] == "text/plain; charset=UTF-8"
    assert dict(answered.headers)["Cache-Control"] == "no-store"
    assert answered.body[:1] == b"0"
    hello = json.loads(answered.body[1:])
    (session,) = floor.engine.sessions.values()
    assert hello == {
        "sid": session.sid,
        "upgrades": ["websocket"],
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 1000000,
    }
    assert session.environ == {"made by": "test"}


@pytest.mark.parametrize(
    ("websocket", "options"),
    [(False, {}), (True, {"allow_upgrades": False}), (True, {"transports": ["polling"]})],
)
def test_upgrades_are_offered_only_where_they_can_be_had(websocket, options):
    answered = Floor(**options).request(websocket=websocket)
    assert json.loads(answered.body[1:])["upgrades"] == []


def test_a_handshake_over_websocket(floor):
    outcome = floor.upgrade()
    assert isinstance(outcome, Upgrade)
    assert dict(outcome.headers)["Sec-WebSocket-Accept"]
    transport = KeptTransport()
    receive, _ = outcome.start(transport)
    hello = json.loads(transport.messages[0][1:])
    receive("4hello")
    assert floor.messages == [(hello["sid"], "hello")]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("EIO=4", 0),
        ("EIO=4&transport=", 0),
        ("EIO=4&transport=flashsocket", 0),
        ("EIO=4&transport=Polling", 0),
        ("", 0),
        ("transport=polling", 5),
        ("EIO=3&transport=polling", 5),
        ("EIO=&transport=polling", 5),
        ("EIO=four&transport=polling", 5),
        ("EIO=4&transport=polling&sid=unknown", 1),
        ("EIO=4&transport=polling&sid=", 1),
        ("EIO=4&transport=polling&j=0", 3),
        ("EIO=4&transport=websocket", 3),
        ("&".join(f"a{i}=" for i in range(65)), 3),
    ],
)
def test_requests_that_are_refused(floor, query, code):
    check_refused(floor.request(query=query), code)
    assert floor.engine.sessions == {}


def test_only_enabled_transports_are_known():
    check_refused(Floor(transports=["websocket"]).request(), 0)
    check_refused(Floor(transports=["polling"]).upgrade(), 0)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "PATCH"])
def test_a_handshake_is_a_get(floor, method):
    check_refused(floor.request(method), 2)
    assert floor.engine.sessions == {}


def test_an_old_protocol_is_refused_before_the_switch(floor):
    check_refused(floor.upgrade(query="EIO=3&transport=websocket"), 5, "expected EIO=4")


def test_a_server_that_cannot_switch_says_so(floor):
    named = {name.replace("-", "_"): value for name, value in UPGRADE.items()}
    check_refused(floor.request(query="EIO=4&transport=websocket", websocket=False, **named), 3, "can't do WebSocket")


@pytest.mark.parametrize(
    "headers", [{"Sec_WebSocket_Key": "short"}, {"Sec_WebSocket_Version": "12"}, {"Connection": "close"}]
)
def test_a_broken_upgrade_is_refused(floor, headers):
    check_refused(floor.upgrade(**headers), 3, "not a WebSocket upgrade")
    assert floor.engine.sessions == {}


def test_an_upgrade_with_the_wrong_transport_is_refused(floor):
    check_refused(floor.upgrade(query=OPEN), 3, "transport=polling")


@pytest.mark.parametrize("refusal", ["Unauthorized", {"message": "no"}, [], 0])
@pytest.mark.parametrize("kind", ["request", "upgrade"])
def test_the_application_may_refuse(floor, refusal, kind):
    floor.refusal = refusal
    answered = getattr(floor, kind)()
    assert (answered.status, json.loads(answered.body)) == (401, refusal)
    assert floor.engine.sessions == {}
    floor.runtime.advance(100)
    assert floor.ended == []


def test_more_connections_than_allowed_get_503():
    floor = Floor(max_connections=2)
    first, _ = floor.polling(), floor.websocket()
    answered = floor.request()
    assert answered.status == 503
    assert dict(answered.headers)["Retry-After"] == "5"
    first.close("server disconnect")
    assert floor.request().status == 200


def test_a_cookie_is_set_by_the_handshake_only():
    floor = Floor(cookie="io")
    answered = floor.request()
    (session,) = floor.engine.sessions.values()
    assert dict(answered.headers)["Set-Cookie"] == f"io={session.sid}; Path=/; HttpOnly; SameSite=Lax"
    assert "Secure" in dict(floor.request(scheme="https").headers)["Set-Cookie"]
    session.send((Frame("4"),))
    wait = floor.request(query=of(session))
    assert "Set-Cookie" not in dict(wait.respond(wait.poll(print)).headers)
    upgrade = floor.upgrade()
    assert "Set-Cookie" in dict(upgrade.headers)


# Polls


def test_a_poll_waits_for_something_to_say(floor):
    session = floor.polling()
    wait = floor.request(query=of(session))
    assert isinstance(wait, Wait)
    answers = []
    assert wait.poll(answers.append) is None
    session.send((Frame("4a"), Frame(b"\x01")))
    answered = wait.respond(answers[0])
    assert (answered.status, answered.body) == (200, b"4a\x1ebAQ==")


def test_an_empty_poll_is_a_noop(floor):
    wait = floor.request(query=of(floor.polling()))
    assert wait.respond([]).body == b"6"


def test_a_second_poll_ends_the_session(floor):
    session = floor.polling()
    answers = []
    floor.request(query=of(session)).poll(answers.append)
    second = floor.request(query=of(session))
    assert (second.refuse().status, second.refuse().body) == (400, b"")
    assert [frame.message for frame in answers[0]] == ["1"]
    assert floor.ended == [(session.sid, "transport error")]
    check_refused(floor.request(query=of(session)), 1)


def test_a_poll_whose_client_leaves_ends_the_session(floor):
    session = floor.polling()
    floor.request(query=of(session)).abort()
    assert floor.ended == [(session.sid, "transport error")]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
def test_a_session_is_asked_by_get_and_post(floor, method):
    session = floor.polling()
    check_refused(floor.request(method, query=of(session)), 3)
    assert not session.closed


def test_a_session_on_websocket_is_not_polled(floor):
    session, _ = floor.websocket()
    check_refused(floor.request(query=of(session)), 3)
    check_refused(floor.request("POST", query=of(session)), 3)
    check_refused(floor.upgrade(query=of(session, "websocket")), 3)
    assert not session.closed


def test_an_upgrade_is_a_get(floor):
    session = floor.polling()
    named = {name.replace("-", "_"): value for name, value in UPGRADE.items()}
    check_refused(floor.request("POST", query=of(session, "websocket"), **named), 3, "expected GET")


def test_upgrades_may_be_switched_off():
    floor = Floor(allow_upgrades=False)
    check_refused(floor.upgrade(query=of(floor.polling(), "websocket")), 3, "no upgrade")


def test_an_upgrade_of_an_ended_session_starts_nothing(floor):
    session = floor.polling()
    outcome = floor.upgrade(query=of(session, "websocket"))
    session.close("server disconnect")
    assert outcome.start(KeptTransport()) is None
    outcome.abort()


# Posts


def post(floor, session, body, **headers):
    read = floor.request("POST", query=of(session), **headers)
    return give(read, body) if isinstance(read, Read) else read


def give(read, body):
    """Give a body to who reads it; return the answer."""
    packets = read.begin(body)
    if isinstance(packets, Respond):
        return packets
    for packet in packets:
        read.take(packet)
    return read.end()


def test_a_post_is_read_and_answered_with_ok(floor):
    session = floor.polling()
    answered = post(floor, session, "4a\x1ebAQ==\x1e4ü".encode(), Content_Type="text/plain;charset=UTF-8")
    assert (answered.status, answered.body) == (200, b"ok")
    assert dict(answered.headers)["Content-Type"] == "text/html"
    assert [message for _, message in floor.messages] == ["a", b"\x01", "ü"]


def test_the_limit_of_a_body_is_that_of_the_options():
    floor = Floor(max_http_buffer_size=123)
    session = floor.polling()
    read = floor.request("POST", query=of(session))
    assert read.limit == 123
    assert read.begin(None).status == 413
    assert not session.closed
    assert post(floor, session, b"4a").status == 200, "the session lives on"


@pytest.mark.parametrize("body", [b"", b"\xff", b"4\x1e", b"b!", b"5", b"4a\x1e9", b"4a\x1e0{}", b"2"])
def test_a_bad_payload_ends_the_session(floor, body):
    session = floor.polling()
    check_refused(post(floor, session, body), 3)
    assert floor.ended == [(session.sid, "transport error")]
    check_refused(floor.request(query=of(session)), 1)


@pytest.mark.parametrize("kind", ["application/octet-stream", "Application/Octet-Stream; x=y"])
def test_a_binary_payload_ends_the_session(floor, kind):
    session = floor.polling()
    check_refused(post(floor, session, b"", Content_Type=kind), 3)
    assert session.closed


def test_a_second_post_ends_the_session(floor):
    session = floor.polling()
    first = floor.request("POST", query=of(session))
    second = floor.request("POST", query=of(session))
    assert (second.status, second.body) == (400, b"")
    assert floor.ended == [(session.sid, "transport error")]
    check_refused(give(first, b"4late"), 3)
    assert floor.messages == []


def test_a_post_that_breaks_off_ends_the_session(floor):
    session = floor.polling()
    floor.request("POST", query=of(session)).fail()
    assert floor.ended == [(session.sid, "transport error")]


def test_a_close_packet_by_post(floor):
    session = floor.polling()
    assert post(floor, session, b"4a\x1e1\x1e4late").body == b"ok"
    assert floor.ended == [(session.sid, "client disconnect")]
    assert [message for _, message in floor.messages] == ["a"]


# JSONP


def test_jsonp_from_handshake_to_post():
    floor = Floor(allow_jsonp=True)
    answered = floor.request(query=OPEN + "&j=5")
    assert answered.body.startswith(b'___eio[5]("0{')
    headers = dict(answered.headers)
    assert headers["Content-Type"] == "text/javascript; charset=UTF-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    (session,) = floor.engine.sessions.values()
    wait = floor.request(query=of(session, more="&j=5"))
    assert wait.respond([Frame("4<b>")]).body == b'___eio[5]("4\\u003cb\\u003e");'
    assert post(floor, session, b"d=4hello%20world", Content_Type="application/x-www-form-urlencoded").body == b"ok"
    assert floor.messages == [(session.sid, "hello world")]
    check_refused(post(floor, session, b"4hello"), 3)


def test_a_jsonp_body_with_many_fields_is_refused():
    floor = Floor(allow_jsonp=True)
    floor.request(query=OPEN + "&j=5")
    (session,) = floor.engine.sessions.values()
    check_refused(post(floor, session, b"&".join([b"d=4"] * 10)), 3)


# Compression


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate, gzip;q=0.5", "deflate"),
        ("gzip;q=0.2, deflate;q=0.8", "deflate"),
        ("GZIP; q=1.0", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("gzip;q=1.2.3", None),
        ("br", None),
        ("", None),
        ("identity, ,;", None),
    ],
)
def test_long_answers_are_compressed_as_the_client_likes(floor, accepted, coding):
    session = floor.polling()
    wait = floor.request(query=of(session), Accept_Encoding=accepted)
    answered = wait.respond([Frame("4" + "a" * 2000)])
    headers = dict(answered.headers)
    assert headers.get("Content-Encoding") == coding
    unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding]
    assert unpack(answered.body) == b"4" + b"a" * 2000
    assert "Accept-Encoding" in headers["Vary"] and "Origin" in headers["Vary"]
    assert [name for name, _ in answered.headers].count("Vary") == 1


def test_short_answers_are_not_compressed(floor):
    wait = floor.request(query=of(floor.polling()), Accept_Encoding="gzip")
    assert "Content-Encoding" not in dict(wait.respond([Frame("4a")]).headers)


def test_compression_may_be_switched_off():
    floor = Floor(http_compression=False)
    wait = floor.request(query=of(floor.polling()), Accept_Encoding="gzip")
    assert "Content-Encoding" not in dict(wait.respond([Frame("4" * 5000)]).headers)


@pytest.mark.parametrize(("on", "count"), [(True, 1), (False, 0)])
def test_websocket_compression(on, count):
    outcome = Floor(websocket_compression=on).upgrade(Sec_WebSocket_Extensions="permessage-deflate")
    assert len(outcome.extensions) == count


# Origins


@pytest.mark.parametrize("query", [OPEN, "EIO=4&transport=websocket", "nonsense"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_foreign_host_is_refused_before_anything_else(method, query, caplog):
    floor = Floor(allowed_hosts=["example.com"], cors_allowed_origins="*")
    answered = floor.request(method, query, host="evil.org\x1b[2J")
    check_refused(answered, 3, "Not an accepted host.")
    assert not floor.engine.sessions
    assert "evil.org\\x1b" in caplog.text
    assert floor.request("GET", OPEN, host="example.com:5000").status == 200


def test_another_sites_request_without_an_origin_is_refused(floor):
    check_refused(floor.request(Sec_Fetch_Site="cross-site"), 3, "Not an accepted origin.")
    check_refused(floor.upgrade(Sec_Fetch_Site="cross-site"), 3, "Not an accepted origin.")
    assert not floor.engine.sessions
    assert floor.request(Sec_Fetch_Site="same-origin").status == 200
    floor = Floor(cors_allowed_origins="http://a.com")
    assert floor.request(Sec_Fetch_Site="cross-site", Origin="http://a.com").status == 200


def test_a_foreign_origin_is_refused(floor, caplog):
    answered = floor.request(Origin="http://evil.org")
    check_refused(answered, 3, "Not an accepted origin.")
    assert "Access-Control-Allow-Origin" not in dict(answered.headers)
    assert "evil.org" in caplog.text and "cors_allowed_origins" in caplog.text
    assert floor.engine.sessions == {}
    check_refused(floor.upgrade(Origin="http://evil.org"), 3)


def test_a_proxy_in_front_is_guessed_in_the_log(floor, caplog):
    floor.request(Origin="https://public.com", X_Forwarded_Proto="https")
    assert "trusted_proxies" in caplog.text


def test_the_own_origin_is_answered_with_headers(floor):
    headers = dict(floor.request(Origin="http://example.com").headers)
    assert headers["Access-Control-Allow-Origin"] == "http://example.com"


def test_a_preflight():
    floor = Floor(cors_allowed_origins="http://a.com")
    answered = floor.request("OPTIONS", Origin="http://a.com", Access_Control_Request_Headers="x-token, content-type")
    assert (answered.status, answered.body) == (204, b"")
    headers = dict(answered.headers)
    assert headers["Access-Control-Allow-Headers"] == "x-token, content-type"
    assert headers["Access-Control-Allow-Methods"] == "OPTIONS, GET, POST"


@pytest.mark.parametrize("asked", ["x\r\ny", "a" * 1001, "ü"])
def test_what_a_preflight_asks_for_is_not_repeated_unseen(floor, asked):
    answered = floor.request("OPTIONS", Origin="http://example.com", Access_Control_Request_Headers=asked)
    assert "Access-Control-Allow-Headers" not in dict(answered.headers)


# Farewells


def test_a_farewell_is_for_polls_only(floor):
    session = floor.polling()
    session.close("server disconnect")
    check_refused(floor.request("POST", query=of(session)), 1)
    check_refused(floor.upgrade(query=of(session, "websocket")), 1)
    assert floor.request(query=of(session)).body == b"1"


# Mistakes in front of us


def test_an_unknown_session_id_is_explained_once(floor, caplog):
    floor.engine.why_unknown = "there are two processes"
    for _ in range(3):
        check_refused(floor.request(query=f"{OPEN}&sid=nobody"), 1)
    assert caplog.messages == [
        "a client came with an unknown session id: there are two processes; this is said once"
    ]


WEBSOCKET = "EIO=4&transport=websocket"


@pytest.mark.parametrize("sign", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via"])
def test_a_proxy_that_takes_the_upgrade_away_is_told_once(sign, floor, caplog):
    for _ in range(3):
        check_refused(floor.request(query=WEBSOCKET, **{sign: "x"}), 3, "expected an upgrade to WebSocket")
    (text,) = caplog.messages
    assert "came without `Upgrade: websocket` and `Connection: upgrade`" in text
    assert "proxy_set_header Upgrade $http_upgrade;" in text and text.endswith("this is said once")


def test_the_key_alone_shows_the_proxy(floor, caplog):
    check_refused(floor.request(query=WEBSOCKET, **{**UPGRADE, "Upgrade": None, "Connection": "close"}), 3)
    assert "came without `Upgrade: websocket` and `Connection: upgrade`" in caplog.text


def test_a_proxy_that_keeps_half_of_the_upgrade(floor, caplog):
    check_refused(floor.request(query=WEBSOCKET, **{**UPGRADE, "Connection": "close"}), 3)
    assert "came without `Connection: upgrade`, " in caplog.text


def test_who_only_looks_at_the_address_is_no_proxy(floor, caplog):
    check_refused(floor.request(query=WEBSOCKET), 3)
    assert caplog.messages == []
