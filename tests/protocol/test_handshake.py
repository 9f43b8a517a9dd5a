import pytest
from doubles import UPGRADE

from flask_realtime.errors import RemoteProtocolError
from flask_realtime.protocol.websocket.handshake import accept


def test_the_key_of_the_rfc_gets_the_answer_of_the_rfc():
    headers = {**UPGRADE, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    accepted = accept(headers.get)
    assert dict(accepted.headers)["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert dict(accepted.headers)["Upgrade"] == "websocket"
    assert dict(accepted.headers)["Connection"] == "Upgrade"
    assert "Date" not in dict(accepted.headers), "the shell writes it"
    assert accepted.extensions == []


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "upgrade", "UPGRADE,close"])
def test_connection_may_list_more(connection):
    assert accept({**UPGRADE, "Connection": connection}.get).headers


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade"])
@pytest.mark.parametrize("extensions", [None, "permessage-deflate", "permessage-deflate; client_max_window_bits"])
def test_what_nearly_every_client_sends_is_answered_as_all_else_is(connection, extensions):
    headers = {**UPGRADE, "Connection": connection}
    if extensions is not None:
        headers["Sec-WebSocket-Extensions"] = extensions
    unusual = {**headers, "Connection": f"{connection}, x"}
    assert sorted(accept(headers.get).headers) == sorted(accept(unusual.get).headers)


@pytest.mark.parametrize("missing", UPGRADE)
def test_each_header_is_needed(missing):
    headers = {name: value for name, value in UPGRADE.items() if name != missing}
    with pytest.raises(RemoteProtocolError, match="not a WebSocket upgrade"):
        accept(headers.get)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Connection", "close"),
        ("Connection", "\u00fc, ,"),
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket, websocket"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Version", "13, 13"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "c2hvcnQ="),
        ("Sec-WebSocket-Key", "not base64!"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; ="),
    ],
)
def test_wrong_headers_are_refused(name, value):
    with pytest.raises(RemoteProtocolError):
        accept({**UPGRADE, name: value}.get, deflate=True)


@pytest.mark.parametrize("octet", ["\0", "\x07", "\n", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("name", [*UPGRADE, "Sec-WebSocket-Extensions"])
def test_headers_with_control_characters_are_refused(name, octet):
    value = UPGRADE.get(name, "permessage-deflate")
    for where in (octet, octet + value, value + octet, value[:3] + octet + value[3:]):
        with pytest.raises(RemoteProtocolError):
            accept({**UPGRADE, name: where}.get, deflate=True)


@pytest.mark.parametrize("name", [*UPGRADE, "Sec-WebSocket-Extensions"])
def test_overlong_headers_are_refused_unread(name):
    with pytest.raises(RemoteProtocolError, match="longer than 4096"):
        accept({**UPGRADE, name: "a" * 4097}.get, deflate=True)


@pytest.mark.parametrize(
    ("offer", "deflate", "agreed"),
    [
        (None, True, False),
        ("permessage-deflate", False, False),
        ("permessage-deflate", True, True),
        ("permessage-deflate; client_max_window_bits", True, True),
        ("permessage-deflate; server_max_window_bits=10", True, True),
        ("x-webkit-deflate-frame", True, False),
        ("x-unknown, permessage-deflate", True, True),
    ],
)
def test_compression_is_agreed_on_when_both_want_it(offer, deflate, agreed):
    headers = UPGRADE if offer is None else {**UPGRADE, "Sec-WebSocket-Extensions": offer}
    accepted = accept(headers.get, deflate)
    answer = dict(accepted.headers).get("Sec-WebSocket-Extensions", "")
    assert bool(accepted.extensions) is agreed
    assert ("permessage-deflate" in answer) is agreed
    # One frame serves all recipients, so neither side may depend on what was sent before.
    assert ("server_no_context_takeover" in answer) is agreed
    assert ("client_no_context_takeover" in answer) is agreed
