import pytest

from flask_realtime.protocol.engineio.cors import Origins, normalise
from flask_realtime.protocol.engineio.options import Options


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://example.com", "http://example.com:80"),
        ("HTTPS://Example.COM", "https://example.com:443"),
        ("https://example.com:443", "https://example.com:443"),
        ("http://example.com:8080", "http://example.com:8080"),
        ("ws://example.com", "http://example.com:80"),
        ("wss://example.com", "https://example.com:443"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", None),
        ("", None),
        ("example.com", None),
        ("http://", None),
        ("http://user@example.com", None),
        ("http://example.com/path", None),
        ("http://example.com?x", None),
        ("http://example.com:port", None),
        ("http://example.com:99999", None),
        ("http://[::1", None),
    ],
)
def test_normalise(origin, expected):
    assert normalise(origin) == expected


def allows(origin, scheme="http", environ=None, host="example.com", headers=(), **options):
    named = {"Host": host, **dict(headers)}
    return Origins(Options(**options)).allows(origin, scheme, named.get, environ)


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "allowed"),
    [
        ("http://example.com", "example.com", "http", True),
        ("http://example.com:80", "example.com", "http", True),
        ("http://EXAMPLE.com", "example.COM:80", "http", True),
        ("https://example.com", "example.com", "http", False),
        ("https://example.com", "example.com", "https", True),
        ("http://example.com:8080", "example.com", "http", False),
        ("http://example.com.evil.org", "example.com", "http", False),
        ("http://evil.org", "example.com", "http", False),
        ("null", "example.com", "http", False),
        ("http://x", "", "http", False),
        ("http://[::1]:5000", "[::1]:5000", "http", True),
    ],
)
def test_by_default_the_own_origin_is_allowed(origin, host, scheme, allowed):
    assert allows(origin, scheme, host=host) is allowed


@pytest.mark.parametrize(
    ("rule", "origin", "allowed"),
    [
        ("*", "http://anything", True),
        ("*", "null", True),
        (["*"], "http://anything", True),
        ([], "http://anything", True),
        ("http://a.com", "http://a.com", True),
        ("http://a.com:80", "http://a.com", True),
        ("http://a.com", "https://a.com", False),
        ("http://a.com", "http://example.com", False),
        (["http://a.com", "http://b.com"], "http://b.com", True),
        (("http://a.com",), "http://b.com", False),
        (["http://a.com"], "null", False),
        (["null"], "null", True),
        (lambda origin: origin.endswith(".org"), "http://b.org", True),
        (lambda origin: origin.endswith(".org"), "http://b.com", False),
        (lambda origin, environ: environ["tenant"] in origin, "http://seven.com", True),
        (lambda origin, environ: 0, "http://seven.com", False),
        (str.isascii, "http://seven.com", True),
    ],
)
def test_rules(rule, origin, allowed):
    assert allows(origin, environ={"tenant": "seven"}, cors_allowed_origins=rule) is allowed


FORWARDED = {"X-Forwarded-Host": "public.com", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("proxies", "headers", "allowed"),
    [
        (0, FORWARDED, False),
        (1, FORWARDED, True),
        (1, {"X-Forwarded-Host": "evil.org, public.com", "X-Forwarded-Proto": "http,https"}, True),
        (2, {"X-Forwarded-Host": "evil.org, public.com, inner", "X-Forwarded-Proto": "http, https, http"}, True),
        (2, FORWARDED, False),
        (1, {}, False),
    ],
)
def test_proxies_are_believed_as_far_as_they_are_trusted(proxies, headers, allowed):
    assert allows("https://public.com", headers=headers, trusted_proxies=proxies) is allowed


def test_a_forged_header_does_not_allow_its_origin():
    headers = {"X-Forwarded-Host": "evil.org, public.com"}
    assert not allows("http://evil.org", headers=headers, trusted_proxies=1)
    assert not allows("http://evil.org", headers=headers)


def test_headers_of_an_allowed_origin():
    origins = Origins(Options())
    assert origins.headers("http://a.com", False, None) == [
        ("Access-Control-Allow-Origin", "http://a.com"),
        ("Vary", "Origin"),
        ("Access-Control-Allow-Credentials", "true"),
    ]
    preflight = dict(origins.headers("http://a.com", True, "X-Token"))
    assert preflight["Access-Control-Allow-Methods"] == "OPTIONS, GET, POST"
    assert preflight["Access-Control-Allow-Headers"] == "X-Token"


def test_headers_without_an_origin_and_without_credentials():
    assert Origins(Options()).headers(None, False, None) == [("Vary", "Origin")]
    names = dict(Origins(Options(cors_credentials=False)).headers("http://a.com", False, None))
    assert "Access-Control-Allow-Credentials" not in names


def test_an_empty_list_switches_all_off():
    origins = Origins(Options(cors_allowed_origins=[]))
    assert origins.off
    assert origins.headers("http://a.com", True, "X") == []


@pytest.mark.parametrize(
    ("allowed", "host", "ours"),
    [
        (None, "evil.org", True),
        (None, "", True),
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com:8080", True),
        ("Example.COM", "example.com.", True),
        ("example.com", "www.example.com", False),
        ("example.com", "example.com.evil.org", False),
        ("example.com", "notexample.com", False),
        ("example.com", "evil.org", False),
        ("example.com", "", False),
        ("example.com", "example.com, evil.org", False),
        ("example.com", "example.com:port", False),
        ("example.com", "example.com@evil.org", False),
        ("example.com", "evil.org/example.com", False),
        (["example.com:8080"], "example.com:8080", True),
        (["example.com:8080"], "example.com", False),
        (["example.com:80"], "example.com", True),
        ([".example.com"], "example.com", True),
        ([".example.com"], "a.b.example.com:5000", True),
        ([".example.com"], "notexample.com", False),
        ([".example.com:80"], "a.example.com", True),
        (["[::1]"], "[::1]:5000", True),
        (["[::1]:5000"], "[::1]:5001", False),
        (["a.com", "127.0.0.1"], "127.0.0.1:5000", True),
        ([], "example.com", False),
    ],
)
def test_allowed_hosts(allowed, host, ours):
    assert Origins(Options(allowed_hosts=allowed)).is_ours("http", {"Host": host}.get) is ours


@pytest.mark.parametrize(("proxies", "ours"), [(0, False), (1, True), (2, False)])
def test_the_host_that_a_trusted_proxy_was_asked_for_counts(proxies, ours):
    headers = {"Host": "inner:8000", "X-Forwarded-Host": "public.com"}
    origins = Origins(Options(allowed_hosts=["public.com"], trusted_proxies=proxies))
    assert origins.is_ours("http", headers.get) is ours


@pytest.mark.parametrize(
    ("rule", "site", "another"),
    [
        (None, "cross-site", True),
        (None, " Cross-Site", True),
        (None, "same-site", False),
        (None, "none", False),
        (None, None, False),
        ("http://a.com", "cross-site", True),
        ("*", "cross-site", False),
        ([], "cross-site", False),
    ],
)
def test_a_request_of_another_site_that_names_no_origin(rule, site, another):
    origins = Origins(Options(cors_allowed_origins=rule))
    assert origins.asks_for_another_site({"Sec-Fetch-Site": site}.get) is another
