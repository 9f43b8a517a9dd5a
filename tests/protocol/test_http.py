"""Heads of requests: what is understood means the same to a whole HTTP server; the rest is left to one."""

from urllib.parse import parse_qsl

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from flask_realtime.protocol.engineio.requests import fields_of
from flask_realtime.protocol.http import LARGEST, Heads

GET = b"GET /socket.io/?EIO=4&sid=a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /socket.io/?sid=a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Type: text/plain\r\n\r\nabc"


def test_a_get():
    head = Heads().read(GET + b"what follows")
    assert head == ("GET", "/socket.io/", "EIO=4&sid=a", {"host": "x"}, len(GET), 0, False)


def test_a_post():
    head = Heads().read(POST)
    assert (head.method, head.size, head.length) == ("POST", len(POST) - 3, 3)
    assert head.fields == {"host": "x", "content-length": "3", "content-type": "text/plain"}


def test_there_is_no_query():
    assert Heads().read(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[1:3] == ("/", "")


@pytest.mark.parametrize("data", [GET, POST])
def test_a_head_has_to_be_whole(data):
    heads, size = Heads(), Heads().read(data).size
    for end in range(len(data)):
        assert (heads.read(data[:end]) is not None) is (end >= size)


def test_fields_are_kept_while_they_are_the_same():
    heads = Heads()
    first, second = heads.read(GET), heads.read(GET.replace(b"sid=a", b"sid=b"))
    assert first.fields is second.fields and second.query == "EIO=4&sid=b"
    assert heads.read(GET.replace(b"Host: x", b"Host: y")).fields == {"host": "y"}
    assert heads.read(POST).length == 3
    assert heads.read(GET).length == 0


@pytest.mark.parametrize(
    ("value", "last"), [(b"close", True), (b"Close", True), (b"keep-alive", False), (b"Keep-Alive", False)]
)
def test_the_client_says_whether_it_is_the_last(value, last):
    assert Heads().read(GET[:-2] + b"Connection: " + value + b"\r\n\r\n").last is last


def field(line, request=GET):
    return request.replace(b"Host: x\r\n", b"Host: x\r\n" + line + b"\r\n")


ODD = {
    "nothing": b"",
    "an empty line first": b"\r\n" + GET,
    "bare line feeds": GET.replace(b"\r\n", b"\n"),
    "a bare line feed in a field": field(b"A: b\nC: d"),
    "a bare return in a field": field(b"A: b\rC"),
    "HTTP/1.0": GET.replace(b"1.1", b"1.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "small letters": GET.replace(b"GET", b"get"),
    "another method": GET.replace(b"GET", b"PUT"),
    "two spaces": GET.replace(b"GET ", b"GET  "),
    "a space in the target": GET.replace(b"sid", b"s id"),
    "a fragment": GET.replace(b"sid", b"#sid"),
    "a whole address": GET.replace(b"/socket.io", b"http://x/socket.io"),
    "bytes in the target": GET.replace(b"sid", b"s\xc3\xbcd"),
    "no host": GET.replace(b"Host: x\r\n", b""),
    "an empty host": GET.replace(b"Host: x", b"Host:"),
    "two hosts": field(b"Host: y"),
    "the same twice": field(b"A: b\r\na: c"),
    "a continued line": field(b"A: b\r\n c"),
    "a space before the colon": field(b"A : b"),
    "no colon": field(b"A"),
    "no name": field(b": b"),
    "a control character": field(b"A: b\x00c"),
    "a deleted character": field(b"A: \x7f"),
    "chunks": field(b"Transfer-Encoding: chunked"),
    "chunks and a length": field(b"Transfer-Encoding: chunked", POST),
    "two lengths": field(b"Content-Length: 3", POST),
    "a list of lengths": POST.replace(b": 3", b": 3, 3"),
    "a signed length": POST.replace(b": 3", b": +3"),
    "a length with a zero": POST.replace(b": 3", b": 03"),
    "a length in other digits": POST.replace(b": 3", b": \xb3"),
    "a length that isn't one": POST.replace(b": 3", b": many"),
    "an endless length": POST.replace(b": 3", b": " + b"9" * 30),
    "no length": POST.replace(b"Content-Length: 3\r\n", b""),
    "a body nobody expects": field(b"Content-Length: 3"),
    "an expectation": field(b"Expect: 100-continue", POST),
    "an upgrade": field(b"Connection: Upgrade\r\nUpgrade: websocket"),
    "an upgrade to HTTP/2": field(b"HTTP2-Settings: x"),
    "options of the connection": field(b"Connection: keep-alive, a"),
    "trailers": field(b"TE: trailers"),
    "too much": field(b"A: " + b"b" * LARGEST),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_is_odd_is_left_alone(data):
    assert Heads().read(data) is None


def as_gunicorn_reads(data):
    """Return the same of a request as gunicorn finds it; None when it refuses."""
    try:
        request = Request(Config(), IterUnreader(iter([data])), ("127.0.0.1", 1), 1)
    except (ParseException, StopIteration):
        return None
    return request.method, request.path, request.query, {name.lower(): value for name, value in request.headers}


PARTS = st.sampled_from(
    [
        *(b"GET", b"POST", b" ", b"/", b"?", b"&", b"=", b"sid", b"#", b"%", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r"),
        *(b"\n", b"\t", b":", b"Host", b"Content-Length", b"Transfer-Encoding", b"chunked", b"Connection", b"close"),
        *(b"keep-alive", b"0", b"3", b"a", b"\xfc", b"\x00", b",", b"Cookie", b"\r\n\r\n", b"_", b'"', b"\\"),
    ]
)


@given(st.binary(max_size=200))
def test_any_bytes(data):
    assert Heads().read(data) is None or data[:1] in b"GP"


@given(st.sampled_from([GET, POST]), st.lists(st.tuples(st.integers(0, 120), PARTS), max_size=3))
def test_no_head_has_two_meanings(data, changes):
    for place, part in changes:
        data = data[:place] + part + data[place:]
    head = Heads().read(data)
    if head is not None:
        assert as_gunicorn_reads(data) == head[:4]


@given(st.text(alphabet="ab=&%+;/ü\x00 4", max_size=20) | st.text(max_size=20))
def test_a_query_means_the_same_either_way(query):
    assert fields_of(query) == dict(parse_qsl(query, keep_blank_values=True))


def test_a_query_has_an_end():
    with pytest.raises(ValueError, match="fields"):
        fields_of("&".join(f"a{number}" for number in range(65)))
    assert len(fields_of("&".join(f"a{number}" for number in range(64)))) == 64
