import pytest

from flask_realtime.errors import ConfigurationError
from flask_realtime.protocol.engineio.options import NAMES, Options, cookie_header, split


def test_defaults_are_those_of_the_field():
    options = Options()
    assert (options.interval, options.grace, options.ping_timeout) == (25, 0, 20)
    assert options.max_http_buffer_size == 1_000_000
    assert options.enabled == ("polling", "websocket")
    assert options.cookie is None and options.cors_allowed_origins is None
    assert not options.allow_jsonp and not options.websocket_compression


@pytest.mark.parametrize("value", [(30, 5), [30, 5]])
def test_an_interval_may_have_a_grace_period(value):
    options = Options(ping_interval=value)
    assert (options.interval, options.grace) == (30, 5)


@pytest.mark.parametrize(
    ("wanted", "enabled"),
    [
        (None, ("polling", "websocket")),
        ("websocket", ("websocket",)),
        (["polling"], ("polling",)),
        (("websocket", "polling"), ("polling", "websocket")),
    ],
)
def test_transports(wanted, enabled):
    assert Options(transports=wanted).enabled == enabled


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ping_interval", 0),
        ("ping_interval", -1),
        ("ping_interval", "25"),
        ("ping_interval", True),
        ("ping_interval", None),
        ("ping_interval", (1, 2, 3)),
        ("ping_interval", (25, "5")),
        ("ping_interval", (25, -30)),
        ("ping_timeout", 0),
        ("ping_timeout", float("nan")),
        ("upgrade_timeout", 0),
        ("close_timeout", -1),
        ("close_timeout", "30"),
        ("max_http_buffer_size", 0),
        ("max_http_buffer_size", "1 MB"),
        ("max_backlog", 0),
        ("max_fragments", 0),
        ("max_connections", "many"),
        ("compression_threshold", "1k"),
        ("trusted_proxies", "1"),
        ("allowed_hosts", "http://example.com"),
        ("allowed_hosts", ["example.com", ""]),
        ("allowed_hosts", ["*"]),
        ("allowed_hosts", [7]),
        ("transports", []),
        ("transports", "carrier-pigeon"),
        ("sid_prefix", None),
        ("sid_prefix", 7),
        ("sid_prefix", "x" * 17),
        ("sid_prefix", "a b"),
        ("sid_prefix", "a/"),
        ("sid_prefix", "ä"),
        ("sid_prefix", "a\n"),
        ("cookie", "a b"),
        ("cookie", "a=b"),
        ("cookie", "a;b"),
        ("cookie", {"name": ""}),
        ("cookie", {"name": 7}),
        ("cookie", "a\r\nSet-Cookie: b"),
    ],
)
def test_values_that_cannot_work_are_refused(name, value):
    with pytest.raises(ConfigurationError, match=name) as caught:
        Options(**{name: value})
    assert "got" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_options_cannot_be_changed_later():
    with pytest.raises(AttributeError):
        Options().ping_timeout = 5


def test_unknown_options_are_named_with_the_nearest():
    ours, complaints = split({"ping_timout": 5, "cookie": "io", "zzz": 1, "async_handler": 2}, ["async_handlers"])
    assert ours == {"cookie": "io"}
    assert complaints == [
        "unknown option 'ping_timout' is ignored; did you mean 'ping_timeout'?",
        "unknown option 'zzz' is ignored",
        "unknown option 'async_handler' is ignored; did you mean 'async_handlers'?",
    ]


def test_derived_values_are_no_options():
    assert "interval" not in NAMES and "ping_interval" in NAMES


@pytest.mark.parametrize(
    ("cookie", "secure", "expected"),
    [
        (None, False, None),
        ("", False, None),
        ("io", False, "io=SID; Path=/; HttpOnly; SameSite=Lax"),
        ("io", True, "io=SID; Path=/; HttpOnly; SameSite=Lax; Secure"),
        ({"name": "x"}, False, "x=SID; Path=/; HttpOnly; SameSite=Lax"),
        ({"path": "/a", "httponly": False}, False, "io=SID; Path=/a; SameSite=Lax"),
        ({"name": "x", "SameSite": "Strict", "secure": None}, True, "x=SID; Path=/; HttpOnly; SameSite=Strict"),
        ({"name": "x", "Max-Age": lambda: 60}, False, "x=SID; Path=/; HttpOnly; SameSite=Lax; Max-Age=60"),
    ],
)
def test_cookies(cookie, secure, expected):
    assert cookie_header(cookie, "SID", secure) == expected


def test_a_cookie_cannot_begin_another_header():
    with pytest.raises(ConfigurationError):
        cookie_header({"name": "x", "Path": "/\r\nX: y"}, "SID", False)
