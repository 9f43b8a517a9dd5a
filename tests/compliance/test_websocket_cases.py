"""What RFC 6455 asks of a server, as a table: frames in, frames out.

The families have the numbers that they have in Autobahn. Each case runs whole (all its frames in one read), frame by
frame, in chops, and byte by byte.
"""

import base64
import codecs
import hashlib
import struct
from dataclasses import dataclass, field

import pytest
from peer import MAX_FRAGMENTS, MAX_SIZE, REQUEST, accept

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b"\x37\xfa\x21\x3d"
OPEN = None  # the connection stays open
EMPTY = 1005  # a close frame without a code


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True, length=None):
    """Return a client's frame (RFC 6455, 5.2). `length` overrules the length that is announced."""
    size = len(payload) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if size < 126:
        head += bytes([masked << 7 | size])
    elif size < 65536:
        head += bytes([masked << 7 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked << 7 | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    repeated = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + KEY + mixed.to_bytes(len(payload), "big")


def close(code=None, reason=b""):
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def fragments(opcode, *parts):
    """Return the frames of one message in these parts."""
    last = len(parts) - 1
    return [frame(CONT if i else opcode, part, fin=i == last) for i, part in enumerate(parts)]


def octets(data):
    return [data[i : i + 1] for i in range(len(data))]


def read_frames(data):
    """Return ``(opcode, payload)`` of each frame that a server sent, and check what must hold for all of them."""
    frames = []
    while data:
        first, second = data[0], data[1]
        assert first & 0xF0 == 0x80, "the echo is whole and uses no reserved bit"
        assert not second & 0x80, "a server doesn't mask (RFC 6455, 5.1)"
        size, start = second, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
            assert size > 125, "the length takes as few bytes as it can (RFC 6455, 5.2)"
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
            assert size > 65535, "the length takes as few bytes as it can (RFC 6455, 5.2)"
        payload = data[start : start + size]
        assert len(payload) == size, "no frame is cut off"
        frames.append((first & 0x0F, payload))
        data = data[start + size :]
    return frames


@dataclass
class Case:
    """What the client sends, and what must come of it.

    Attributes:
        frames: What the client sends, piece by piece.
        messages: What arrives.
        pongs: The payloads of the pongs that are sent.
        close: The code, or the set of codes, with which the server closes; OPEN when it doesn't.
        by: By which piece it closes: the wrong one, not a later one. None for the last.
    """

    name: str
    frames: list
    messages: list = field(default_factory=list)
    pongs: list = field(default_factory=list)
    close: int | set | None = OPEN
    by: int | None = None


CASES = []


def case(name, frames, messages=(), pongs=(), close=OPEN, by=None):
    CASES.append(Case(name, list(frames), list(messages), list(pongs), close, by))


# 1: lengths

for number, kind in enumerate((TEXT, BINARY), 1):
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536):
        data = b"*" * size if kind == TEXT else bytes(i * 7 % 256 for i in range(size))
        case(f"1.{number}-{size}", [frame(kind, data)], [data.decode() if kind == TEXT else data])

# 2: pings and pongs

case("2.1-empty-ping", [frame(PING)], pongs=[b""])
case("2.2-text-ping", [frame(PING, b"Hello")], pongs=[b"Hello"])
case("2.3-binary-ping", [frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], pongs=[b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"])
case("2.4-longest-ping", [frame(PING, b"\xfe" * 125)], pongs=[b"\xfe" * 125])
case("2.5-ping-too-long", [frame(PING, b"\xfe" * 126)], close=1002)
case("2.6-ping-too-long-64-bit", [frame(PING, b"\xfe" * 65536)], close=1002)
case("2.7-unsolicited-pong", [frame(PONG)])
case("2.8-unsolicited-pong-with-data", [frame(PONG, b"unasked")])
case("2.9-unsolicited-pong-then-ping", [frame(PONG, b"unasked"), frame(PING, b"ask")], pongs=[b"ask"])
case("2.10-ten-pings", [frame(PING, b"%d" % i) for i in range(10)], pongs=[b"%d" % i for i in range(10)])
case("2.11-pong-too-long", [frame(PONG, b"\xfe" * 126)], close=1002)
case("2.12-ping-between-messages", [frame(TEXT, b"a"), frame(PING, b"p"), frame(TEXT, b"b")], ["a", "b"], [b"p"])

# 3: reserved bits without an extension

for bits in range(1, 8):
    for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
        wrong = [frame(opcode, b"", rsv=bits)]
        case(f"3.{bits}-{opcode}", wrong, close=1002)
        case(f"3.{bits}-{opcode}-after-text", [frame(TEXT, b"ok"), *wrong, frame(PING)], ["ok"], close=1002, by=1)
    continued = [frame(TEXT, b"a", fin=False), frame(CONT, b"b", rsv=bits)]
    case(f"3.{bits}-continuation", continued, close=1002)

# 4: reserved opcodes

for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    for payload in (b"", b"reserved"):
        wrong = frame(opcode, payload)
        name = f"4-{opcode}-{len(payload)}"
        case(name, [wrong], close=1002)
        case(f"{name}-after-text", [frame(TEXT, b"ok"), wrong, frame(PING)], ["ok"], close=1002, by=1)
        case(f"{name}-in-a-message", [frame(TEXT, b"a", fin=False), wrong], close=1002)

# 5: fragments

case("5.1-fragmented-ping", fragments(PING, b"a", b"b"), close=1002, by=0)
case("5.2-fragmented-pong", fragments(PONG, b"a", b"b"), close=1002, by=0)
case("5.2-fragmented-close", [frame(CLOSE, b"\x03\xe8", fin=False)], close=1002)
case("5.3-two-text-parts", fragments(TEXT, b"one", b"two"), ["onetwo"])
case("5.4-two-binary-parts", fragments(BINARY, b"one", b"two"), [b"onetwo"])
case("5.5-many-parts", fragments(BINARY, *octets(bytes(range(256)))), [bytes(range(256))])
a, b = fragments(TEXT, b"one", b"two")
case("5.6-ping-between-parts", [a, frame(PING, b"p"), b], ["onetwo"], [b"p"])
case("5.7-pong-between-parts", [a, frame(PONG, b"p"), b], ["onetwo"])
case("5.8-empty-parts", fragments(BINARY, b"", b"", b"x", b"", b""), [b"x"])
for fin in (True, False):
    for payload in (b"", b"nothing to continue"):
        wrong = frame(CONT, payload, fin=fin)
        name = f"5.9-continuation-of-nothing-{fin}-{len(payload)}"
        case(name, [wrong, frame(TEXT, b"late")], close=1002, by=0)
        case(f"{name}-after-text", [frame(TEXT, b"ok"), wrong], ["ok"], close=1002)
        case(f"{name}-after-parts", [a, b, wrong, frame(TEXT, b"late")], ["onetwo"], close=1002, by=2)
case("5.16-text-amid-text", [a, frame(TEXT, b"x"), b], close=1002, by=1)
case("5.17-binary-amid-text", [a, frame(BINARY, b"x"), b], close=1002, by=1)
case("5.18-first-part-twice", [a, a, b], close=1002, by=1)
parts = fragments(TEXT, b"1", b"2", b"3", b"4", b"5")
pings = [frame(PING, b"%d" % i) for i in range(5)]
mixed = [piece for pair in zip(parts, pings, strict=True) for piece in pair]
case("5.19-pings-between-all-parts", mixed, ["12345"], [b"0", b"1", b"2", b"3", b"4"])
case("5.20-message-after-parts", [*mixed, *mixed], ["12345"] * 2, [b"0", b"1", b"2", b"3", b"4"] * 2)

# 6: UTF-8

case("6.1-three-empty-parts", fragments(TEXT, b"", b"", b""), [""])
case("6.1-text-between-empty-parts", fragments(TEXT, b"", b"mitten", b""), ["mitten"])

VALID = {
    "6.2-several-scripts": "Grüße, κόσμε, мир, 世界, 🎈",
    "6.5-greek": "κόσμε",
    "6.7-first-of-1": "\x00",
    "6.7-first-of-2": "\x80",
    "6.7-first-of-3": "\u0800",
    "6.7-first-of-4": "\U00010000",
    "6.9-last-of-1": "\x7f",
    "6.9-last-of-2": "\u07ff",
    "6.9-last-of-3": "\uffff",
    "6.9-last-of-4": "\U0010ffff",
    "6.11-before-surrogates": "\ud7ff",
    "6.11-after-surrogates": "\ue000",
    "6.11-replacement": "\ufffd",
    "6.22-noncharacters": "\ufffe\ufdd0\ufdef\U0001fffe\U0010fffe\U0010ffff",
    "6.23-specials": "\ufff9\ufffa\ufffb\ufffc\ufffd\ufeff",
}
for name, text in VALID.items():
    data = text.encode()
    case(name, [frame(TEXT, data)], [text])
    case(f"{name}-octets", fragments(TEXT, *octets(data)), [text])
    for cut in range(1, len(data)):
        case(f"{name}-cut-at-{cut}", fragments(TEXT, data[:cut], data[cut:]), [text])

# Name: bytes, and how many of them are enough to know (RFC 3629, 4). Two would be for a surrogate, but Python's
# decoder looks at the third before it says so; no rule asks for haste.
WRONG = {
    "6.3-amid-text": (b"\xce\xba\xed\xa0\x80edited", 5),
    "6.4-above-the-last": (b"\xce\xba\xf4\x90\x80\x80edited", 4),
    "6.8-five-bytes": (b"\xf8\x88\x80\x80\x80", 1),
    "6.8-six-bytes": (b"\xfc\x84\x80\x80\x80\x80", 1),
    "6.10-last-of-4-bits": (b"\xf7\xbf\xbf\xbf", 1),
    "6.10-last-of-five": (b"\xfb\xbf\xbf\xbf\xbf", 1),
    "6.10-last-of-six": (b"\xfd\xbf\xbf\xbf\xbf\xbf", 1),
    "6.11-first-too-high": (b"\xf4\x90\x80\x80", 2),
    "6.12-continuation-first": (b"\x80", 1),
    "6.12-continuation-last": (b"\xbf", 1),
    "6.12-many-continuations": (b"\x80\xbf\x80\xbf", 1),
    "6.13-lonely-start-of-2": (b"\xc3 ", 2),
    "6.13-lonely-start-of-3": (b"\xe1 ", 2),
    "6.13-lonely-start-of-4": (b"\xf1 ", 2),
    "6.14-cut-off-2": (b"\xc3", None),
    "6.14-cut-off-3": (b"\xe1\x80", None),
    "6.14-cut-off-4": (b"\xf1\x80\x80", None),
    "6.14-cut-off-greek": ("κόσμε".encode()[:-1], None),
    "6.15-cut-off-in-a-row": (b"\xe1\x80\xf1\x80\x80\xc3", 3),
    "6.16-fe": (b"\xfe", 1),
    "6.16-ff": (b"\xff", 1),
    "6.16-both": (b"\xfe\xfe\xff\xff", 1),
    "6.17-overlong-slash-2": (b"\xc0\xaf", 1),
    "6.17-overlong-slash-3": (b"\xe0\x80\xaf", 2),
    "6.17-overlong-slash-4": (b"\xf0\x80\x80\xaf", 2),
    "6.18-last-overlong-2": (b"\xc1\xbf", 1),
    "6.18-last-overlong-3": (b"\xe0\x9f\xbf", 2),
    "6.18-last-overlong-4": (b"\xf0\x8f\xbf\xbf", 2),
    "6.19-overlong-nul-2": (b"\xc0\x80", 1),
    "6.19-overlong-nul-3": (b"\xe0\x80\x80", 2),
    "6.20-first-surrogate": (b"\xed\xa0\x80", 3),
    "6.20-last-surrogate": (b"\xed\xbf\xbf", 3),
    "6.21-pair-of-surrogates": (b"\xed\xa0\x80\xed\xb0\x80", 3),
}
for name, (data, enough) in WRONG.items():
    case(name, [frame(TEXT, data)], close=1007)
    case(f"{name}-after-a-good-one", [frame(TEXT, b"ok"), frame(TEXT, data)], ["ok"], close=1007)
    case(f"{name}-is-good-binary", [frame(BINARY, data)], [data])
    # The octet that makes it wrong closes; the rest of the message isn't waited for. Only a cut-off end needs the end.
    case(
        f"{name}-octets",
        fragments(TEXT, *octets(data), b""),
        close=1007,
        by=len(data) if enough is None else enough - 1,
    )
    if enough is not None:
        unfinished = fragments(TEXT, data[:enough], b"never sent")[:1]
        case(f"{name}-fails-fast", unfinished, close=1007)
        case(f"{name}-fails-fast-after-a-ping", [frame(PING, b"p"), *unfinished], [], [b"p"], close=1007)

# 7: closing

case("7.1-message-then-close", [frame(TEXT, b"bye"), close(1000)], ["bye"], close=1000)
case("7.1-two-closes", [close(1000), close(1000)], close=1000, by=0)
case("7.1-ping-after-close", [close(1000), frame(PING, b"p")], close=1000, by=0)
case("7.1-text-after-close", [close(1000), frame(TEXT, b"late")], close=1000, by=0)
case("7.1-rubbish-after-close", [close(1000), b"\xff" * 64], close=1000, by=0)
# A cut-off message may count as an error of the client.
case("7.1-close-amid-parts", [a, close(1000), b], close={1000, 1002}, by=1)
case("7.3-empty", [close()], close=EMPTY)
case("7.3-half-a-code", [frame(CLOSE, b"\x03")], close=1002)
case("7.3-code-only", [close(1000)], close=1000)
case("7.3-reason", [close(1000, "Schönes Ende".encode())], close=1000)
case("7.3-longest-reason", [close(1000, b"r" * 123)], close=1000)
case("7.3-reason-too-long", [close(1000, b"r" * 124)], close=1002)
for name, (data, _) in WRONG.items():
    case(f"7.5-reason-{name}", [close(1000, data)], close=1007)
for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
    case(f"7.7-{code}", [close(code)], close=code)
for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999):
    case(f"7.9-{code}", [close(code)], close=1002)
for code in (5000, 65535):
    case(f"7.13-{code}", [close(code)], close={1002, code})  # RFC 6455, 7.4.2 says nothing about them

# Not in Autobahn: what only a server can get wrong, and sizes

case("8-unmasked-text", [frame(TEXT, b"bare", masked=False)], close=1002)
case("8-unmasked-ping", [frame(PING, b"", masked=False)], close=1002)
case("8-unmasked-close", [frame(CLOSE, b"\x03\xe8", masked=False)], close=1002)
case("8-too-big-as-announced", [frame(BINARY, b"", length=MAX_SIZE + 1)], close=1009)
case("8-too-big-for-63-bits", [frame(BINARY, b"", length=2**63)], close={1002, 1009})
case(
    "8-too-big-as-a-sum",
    [frame(BINARY, b"", fin=False), frame(CONT, b"x", fin=False), frame(CONT, b"", length=MAX_SIZE)],
    close=1009,
)
case("8-most-fragments", fragments(BINARY, *[b"."] * MAX_FRAGMENTS), [b"." * MAX_FRAGMENTS])
case("8-too-many-fragments", fragments(BINARY, *[b"."] * (MAX_FRAGMENTS + 1)), close={1008, 1009})


def whole(pieces):
    return [b"".join(pieces)]


def chopped(pieces):
    data = b"".join(pieces)
    return [data[i : i + 997] for i in range(0, len(data), 997)]


def bytewise(pieces):
    return octets(b"".join(pieces))


@pytest.fixture
def peer():
    return accept(REQUEST)[0]


def outcome(peer, reads):
    """Feed all reads and return ``(messages, frames)``."""
    messages, out = [], b""
    for data in reads:
        new, bytes_out = peer.feed(data)
        messages += new
        out += bytes_out
    return messages, read_frames(out)


def check_close(peer, expected, frames):
    closes = [payload for opcode, payload in frames if opcode == CLOSE]
    if expected is OPEN:
        assert closes == []
        assert not peer.closed
        return
    assert len(closes) == 1
    assert frames[-1][0] == CLOSE, "nothing is sent after a close frame (RFC 6455, 5.5.1)"
    code = int.from_bytes(closes[0][:2], "big") if closes[0] else EMPTY
    assert code in (expected if isinstance(expected, set) else {expected})
    assert len(closes[0]) <= 125
    closes[0][2:].decode()
    assert peer.closed, "a server closes the network connection at once (RFC 6455, 7.1.1)"


@pytest.mark.parametrize("split", [whole, chopped, list, bytewise], ids=["whole", "chopped", "frames", "bytes"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(peer, case, split):
    messages, frames = outcome(peer, split(case.frames))
    assert messages == case.messages
    assert [payload for opcode, payload in frames if opcode == PONG] == case.pongs
    check_close(peer, case.close, frames)
    echoes = [payload.decode() if opcode == TEXT else payload for opcode, payload in frames if opcode in (TEXT, BINARY)]
    # What fails or closes in the same read may overtake the echo.
    if split in (list, bytewise) or case.close is OPEN:
        assert echoes == case.messages
    assert {opcode for opcode, _ in frames} <= {TEXT, BINARY, PONG, CLOSE}


@pytest.mark.parametrize("case", [case for case in CASES if case.close is not OPEN], ids=lambda case: case.name)
def test_the_wrong_frame_closes_and_not_a_later_one(peer, case):
    last = len(case.frames) - 1 if case.by is None else case.by
    for i, data in enumerate(case.frames[: last + 1]):
        assert not peer.closed, f"closed by frame {i - 1}, expected {last}"
        peer.feed(data)
    assert peer.closed


@pytest.mark.parametrize("case", [case for case in CASES if case.close is not OPEN], ids=lambda case: case.name)
def test_nothing_comes_after_the_end(peer, case):
    peer.feed(b"".join(case.frames))
    for data in (frame(TEXT, b"late"), frame(PING, b"late"), close(1000), b"\xff" * 16):
        assert peer.feed(data) == ([], b"")


@pytest.mark.parametrize("case", [case for case in CASES if case.close is OPEN], ids=lambda case: case.name)
def test_the_connection_goes_on_afterwards(peer, case):
    outcome(peer, case.frames)
    messages, frames = outcome(peer, [frame(TEXT, b"next"), frame(PING, b"p"), close(1000)])
    assert messages == ["next"]
    assert frames == [(TEXT, b"next"), (PONG, b"p"), (CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("name", VALID)
def test_the_valid_table_says_what_rfc_3629_says(name):
    assert codecs.decode(VALID[name].encode(), "utf-8") == VALID[name]


@pytest.mark.parametrize("name", WRONG)
def test_the_wrong_table_says_what_rfc_3629_says(name):
    data, enough = WRONG[name]
    with pytest.raises(UnicodeDecodeError):
        data.decode()
    decoder = codecs.getincrementaldecoder("utf-8")()
    if enough is None:
        decoder.decode(data)
    else:
        decoder.decode(data[: enough - 1])
        with pytest.raises(UnicodeDecodeError):
            decoder.decode(data[enough - 1 : enough])


def test_the_handshake_is_answered_with_its_key():
    peer, response = accept(REQUEST)
    assert peer is not None
    head, _, rest = response.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    key = REQUEST.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    expected = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    assert lines[0].split()[1] == "101"
    assert headers["sec-websocket-accept"] == expected
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    assert "sec-websocket-extensions" not in headers
    assert rest == b""


OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"


@pytest.mark.parametrize(("deflate", "agreed"), [(False, False), (True, True)])
def test_deflate_is_agreed_on_only_when_it_is_on(deflate, agreed):
    _, response = accept(REQUEST[:-2] + OFFER, deflate=deflate)
    assert (b"permessage-deflate" in response) is agreed


@pytest.mark.parametrize("removed", [b"Upgrade: websocket", b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="])
def test_a_request_that_is_no_handshake_is_refused(removed):
    peer, response = accept(REQUEST.replace(removed + b"\r\n", b""))
    assert peer is None
    assert response.split()[1].startswith(b"4")
