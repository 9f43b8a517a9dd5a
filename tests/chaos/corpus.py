"""Bad input and what has to come of it, in tables: HTTP, WebSocket, Engine.IO, Socket.IO. The seeds are fixed."""

import base64
import random
from typing import NamedTuple

from .wires import POLLING, UPGRADE, WEBSOCKET, frame, request, text

MAX = 1_000_000

# HTTP


class Http(NamedTuple):
    """A request.

    Attributes:
        name: Of the case.
        data: The bytes; SID in them becomes a session's id.
        status: The right ones; None stands for an end without an answer.
        code: In the JSON body; None where the body isn't ours.
        method: Of the request, since it decides whether the answer has a body.
        shut: Whether no more comes, though the request isn't whole.
    """

    name: str
    data: bytes
    status: tuple = (400,)
    code: int | None = None
    method: str = "GET"
    shut: bool = False


# A server may answer for itself what isn't HTTP, or end the connection; also "HTTP version not supported" and
# "not implemented", which are answers to what a client asked for.
BY_THE_SERVER = (*range(400, 500), 501, 505, None)


def http_cases():
    """Yield requests that have to be refused."""
    for query in (
        *("", "x", "EIO=4", "EIO=4&transport=", "EIO=4&transport=smoke"),
        *("EIO=4&transport=WEBSOCKET", "EIO=4&transport"),
        *("EIO=4&transport=polling%00", "EIO=4&transport=+polling", "EIO=4&transport=__class__", "EIO=4&transport[]=x"),
        *("EIO=4&transport=constructor", "EIO=4&transport=toString"),
        *("EIO=4&transport=%ff%fe", "EIO=4;transport=polling"),
        *("EIO=4&transport=polling%0d%0aX:%20y", "EIO=4&transport=webtransport", "EIO=4&transport=polling,websocket"),
    ):
        yield Http(f"query {query}", request(query=query), code=0)
    for version in ("", "3", "5", "0", "-4", "04", "4.0", "4x", "4%00", "%204", "1e1", "%e0%a5%aa", "9" * 20):
        yield Http(f"version {version}", request(query=f"EIO={version}&transport=polling"), code=5)
    yield Http("no version", request(query="transport=polling"), code=5)
    for sid in (
        *("", "nobody", "../../etc/passwd", "x" * 2000, "a%0d%0ab"),
        *("%1b[2J", "%00", "%ff", "__proto__", "%e2%80%ae", "0"),
        *("None", "%27%20OR%201=1--", "$%7Bjndi:x%7D", "%7B%7B7*7%7D%7D"),
    ):
        for method in ("GET", "POST"):
            body = b"42" if method == "POST" else b""
            yield Http(f"{method} sid {sid[:20]}", request(method, f"{POLLING}&sid={sid}", body=body), code=1)
    yield Http("many parameters", request(query=POLLING + "&a=b" * 63), code=3)
    yield Http("many separators", request(query=POLLING + "&" * 3000), code=3)
    yield Http("JSONP is off", request(query=POLLING + "&j=0"), code=3)
    yield Http("JSONP with a script for a number", request(query=POLLING + "&j=alert(1)"), code=3)
    yield Http("websocket after polling", request(query=POLLING + "&transport=websocket"), code=3)

    for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
        yield Http(f"{method} without sid", request(method, body=b"4"), code=2)
    yield Http("HEAD without sid", request("HEAD"), method="HEAD")
    yield Http("TRACE without sid", request("TRACE"), code=2)
    yield Http("get in small letters", request("get"), BY_THE_SERVER)
    for method in ("PUT", "DELETE", "PATCH", "BREW"):
        yield Http(f"{method} with sid", request(method, POLLING + "&sid=SID", body=b"4"), code=3)
    yield Http("POST to the websocket", request("POST", WEBSOCKET + "&sid=SID", body=b"4"), code=3)

    upgrades = {
        "no key": {"Sec-WebSocket-Key": None},
        "empty key": {"Sec-WebSocket-Key": ""},
        "short key": {"Sec-WebSocket-Key": "AAAA"},
        "long key": {"Sec-WebSocket-Key": "A" * 5000},
        "key of 15 bytes": {"Sec-WebSocket-Key": base64.b64encode(bytes(15)).decode()},
        "key of 17 bytes": {"Sec-WebSocket-Key": base64.b64encode(bytes(17)).decode()},
        "key that isn't base64": {"Sec-WebSocket-Key": "!" * 22 + "=="},
        "no version": {"Sec-WebSocket-Version": None},
        "version 12": {"Sec-WebSocket-Version": "12"},
        "version 99": {"Sec-WebSocket-Version": "99"},
        "version x": {"Sec-WebSocket-Version": "x"},
        "versions": {"Sec-WebSocket-Version": "13, 13"},
        "no connection": {"Connection": None},
        "keep-alive": {"Connection": "keep-alive"},
        "no upgrade": {"Upgrade": None},
        "h2c": {"Upgrade": "h2c"},
        "websocket2": {"Upgrade": "websocket2"},
        "an escape in the key": {"Sec-WebSocket-Key": "\x1b" + UPGRADE["Sec-WebSocket-Key"]},
        "a bell in the version": {"Sec-WebSocket-Version": "13\x07"},
        "an escape in the extensions": {"Sec-WebSocket-Extensions": "\x1b[2J"},
        "long extensions": {"Sec-WebSocket-Extensions": "x" * 5000},
    }
    for name, headers in upgrades.items():
        code = None if name.startswith(("an escape", "a bell")) else 3  # which servers may refuse by themselves
        yield Http(f"handshake: {name}", request(query=WEBSOCKET, headers={**UPGRADE, **headers}), code=code)
    yield Http("an upgrade by POST", request("POST", WEBSOCKET, UPGRADE, b"4"), code=2)
    yield Http("an upgrade of an unknown session", request(query=WEBSOCKET + "&sid=nobody", headers=UPGRADE), code=1)
    yield Http("an upgrade with transport=polling", request(query=POLLING, headers=UPGRADE), code=3)

    for origin in ("http://evil.org", "null", "", "x", "http://127.0.0.1.evil.org", "http://127.0.0.1@evil.org", "\\"):
        yield Http(f"origin {origin!r}", request(headers={"Origin": origin}), code=3)
        headers = {**UPGRADE, "Origin": origin}
        yield Http(f"websocket, origin {origin!r}", request(query=WEBSOCKET, headers=headers), code=3)

    sid = POLLING + "&sid=SID"
    yield Http("octets", request("POST", sid, {"Content-Type": "application/octet-stream"}, b"\x04x"), code=3)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="d"\r\n\r\n4\r\n--x--\r\n'
    yield Http("multipart", request("POST", sid, form, body), code=3)
    yield Http("zipped", request("POST", sid, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08\0\0\0\0\0"), code=3)
    for length in ("x", "-1", "+2", "1_0", "0x10", "2e3", "1.0", "1" * 30, "2, 2", "2 3"):
        data = request("POST", sid, {"Content-Length": length}, b'42["x"]')
        yield Http(f"length {length}", data, BY_THE_SERVER, shut=True)
    yield Http("no length", request("POST", sid, {"Content-Length": None}, b"42"), BY_THE_SERVER)
    data = request("POST", sid, {"Content-Length": "2\r\nContent-Length: 7"}, b'42["x"]')
    yield Http("two lengths", data, BY_THE_SERVER)
    yield Http("a length beyond the limit", request("POST", sid, {"Content-Length": str(MAX + 1)}, b"4"), (413,))
    yield Http("a length of terabytes", request("POST", sid, {"Content-Length": str(10**13)}, b"4"), (413,))
    data = request("POST", sid, {"Content-Length": "100"}, b"4")
    yield Http("a body that ends early", data, BY_THE_SERVER, shut=True)
    chunks = {
        "bad size": b"zz\r\n4\r\n0\r\n\r\n",
        "negative size": b"-1\r\n4\r\n0\r\n\r\n",
        "huge size": b"ffffffffffffffffff\r\n4\r\n",
        "no end": b"1\r\n4\r\n",
        "no line break": b"1\r\n4X0\r\n\r\n",
        "size 0x1": b"0x1\r\n4\r\n0\r\n\r\n",
    }
    for name, body in chunks.items():
        data = request("POST", sid, {"Transfer-Encoding": "chunked", "Content-Length": None}, body)
        yield Http(f"chunked: {name}", data, BY_THE_SERVER, shut=True)
    for coding in ("gzip", "x", "chunked, x", "chunked, chunked"):
        data = request("POST", sid, {"Transfer-Encoding": coding, "Content-Length": None}, b"1\r\n4\r\n0\r\n\r\n")
        yield Http(f"transfer coding {coding}", data, BY_THE_SERVER, shut=True)
    for path in ("/socket.io/../../etc/passwd", "/socket.io/%2e%2e/%2e%2e/etc/passwd", "/socket.io", "/socket.io%00/"):
        yield Http(f"path {path}", request(path=path, query=""), (301, 308, *BY_THE_SERVER))

    # What isn't HTTP at all. Whatever the server says, it says it itself.
    head = request()
    broken = {
        "zeros": bytes(100),
        "ones": b"\xff" * 100 + b"\r\n\r\n",
        "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
        "no method": b"\r\n\r\n / HTTP/1.1\r\n\r\n",
        "one word": b"GET\r\n\r\n",
        "four words": b"GET / / HTTP/1.1\r\n\r\n",
        "version 9.9": head.replace(b"HTTP/1.1", b"HTTP/9.9"),
        "version x": head.replace(b"HTTP/1.1", b"HTTP/x"),
        "another protocol": head.replace(b"HTTP/1.1", b"SIP/2.0"),
        "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        "a long header": head[:-2] + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        "many headers": head[:-2] + b"".join(b"X-%d: y\r\n" % number for number in range(3000)) + b"\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    }
    for name, data in broken.items():
        yield Http(f"broken: {name}", data, BY_THE_SERVER, shut=True)
    # Lenient servers take these for what they probably mean.
    lenient = {
        "a header without a colon": head[:-2] + b"nonsense\r\n\r\n",
        "a blank before the colon": head[:-2] + b"X : y\r\n\r\n",
        "a folded header": head[:-2] + b"X: y\r\n z\r\n\r\n",
        "NUL in a header": head[:-2] + b"X: a\0b\r\n\r\n",
        "bare line feeds": head.replace(b"\r\n", b"\n"),
        "no host": request(headers={"Host": None}),
        "two hosts": request(headers={"Host": "a\r\nHost: b"}),
        "an absolute target": request(path="http://127.0.0.1/socket.io/"),
        "octets in the query": request(query=POLLING + "&x=\xff\xfe"),
        "a broken escape in the query": request(query=POLLING + "&x=%zz%"),
    }
    for name, data in lenient.items():
        yield Http(f"lenient: {name}", data, (200, *BY_THE_SERVER), shut=True)


# WebSocket


class Frames(NamedTuple):
    """Bytes on a WebSocket that has joined.

    Attributes:
        name: Of the case.
        data: What is sent.
        code: The right close codes.
    """

    name: str
    data: bytes
    code: tuple


def frame_cases():
    """Yield frames that end the connection."""
    for name, opcode in (("text", 1), ("binary", 2), ("close", 8), ("ping", 9), ("pong", 10)):
        yield Frames(f"unmasked {name}", frame(opcode, b"\x03\xe8", mask=False), (1002,))
        for rsv in range(1, 8):
            yield Frames(f"reserved bits {rsv} on {name}", frame(opcode, b"\x03\xe8", rsv=rsv), (1002,))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Frames(f"opcode {opcode}", frame(opcode, b"x"), (1002,))
    for name, opcode in (("close", 8), ("ping", 9), ("pong", 10)):
        yield Frames(f"{name} in fragments", frame(opcode, b"\x03\xe8", fin=False), (1002,))
        yield Frames(f"{name} of 126 bytes", frame(opcode, b"\x03\xe8" + b"x" * 124), (1002,))
    yield Frames("close of one byte", frame(8, b"\x03"), (1002,))
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Frames(f"close with code {code}", frame(8, code.to_bytes(2, "big")), (1002,))
    yield Frames("close with bad text", frame(8, b"\x03\xe8\xff"), (1002, 1007))
    yield Frames("a continuation of nothing", frame(0, b"x"), (1002,))
    yield Frames("a fragment of nothing", frame(0, b"x", fin=False), (1002,))
    for opcode in (1, 2):
        yield Frames(f"opcode {opcode} within a message", frame(1, b"4", fin=False) + frame(opcode, b"x"), (1002,))
    bad = {
        "a lone byte": b"\xff",
        "an overlong form": b"\xc0\x80",
        "a surrogate": b"\xed\xa0\x80",
        "beyond Unicode": b"\xf4\x90\x80\x80",
        "cut short": b"\xe2\x82",
        "a lone continuation": b"\x80",
        "five bytes": b"\xf8\x88\x80\x80\x80",
    }
    for name, octets in bad.items():
        yield Frames(f"bad text: {name}", frame(1, b'42["x","' + octets + b'"]'), (1007,))
        parts = frame(1, b"4", fin=False) + frame(0, b"2" + octets + b"x")
        yield Frames(f"bad text in fragments: {name}", parts, (1007,))
    yield Frames("a length of 2^63", frame(2, size=b"\x7f\x80" + bytes(7)), (1002, 1009))
    yield Frames("a length of 2^62", frame(2, size=b"\x7f\x40" + bytes(7)), (1009,))
    yield Frames("a length of 4 GB", frame(2, size=b"\x7f\0\0\0\1\0\0\0\0"), (1009,))
    yield Frames("one byte beyond the limit", frame(1, b"4" * (MAX + 1)), (1009,))
    half = b"4" * (MAX // 2)
    parts = frame(1, half, fin=False) + frame(0, half, fin=False) + frame(0, b"4")
    yield Frames("fragments beyond the limit", parts, (1009,))
    tiny = frame(1, b"4", fin=False) + frame(0, b"4", fin=False) * 1024
    yield Frames("many fragments", tiny, (1008, 1009))
    empty = frame(1, b"", fin=False) + frame(0, b"", fin=False) * 1024
    yield Frames("many empty fragments", empty, (1008, 1009))
    yield Frames("HTTP", request(), (1002,))
    yield Frames("zeros", bytes(64), (1002,))
    yield Frames("ones", b"\xff" * 64, (1002,))
    dice = random.Random(20261121)
    for number in range(20):
        first = dice.randrange(256) & 0x8F | dice.randrange(1, 8) << 4  # some reserved bit
        yield Frames(f"noise {number}", bytes([first]) + dice.randbytes(200), (1002, 1009))


# Packets. The same for both transports: close code 1008 unless said otherwise, and status 400.


class Packets(NamedTuple):
    """Engine.IO packets of a client that has joined the main namespace.

    Attributes:
        name: Of the case.
        packets: Text, or bytes, which are a binary message.
        code: The close code.
    """

    name: str
    packets: tuple
    code: int = 1008

    @property
    def frames(self):
        return b"".join(text(item) if isinstance(item, str) else frame(2, item) for item in self.packets)

    @property
    def payload(self):
        items = [item if isinstance(item, str) else "b" + base64.b64encode(item).decode() for item in self.packets]
        return "\x1e".join(items).encode()


ENGINE = (
    *("", "0", "0{}", "2", "2probe", "5", "7", "8", "9", "a", "x"),
    *("-1", "{}", "\0", "\n", " 4", "é", "１", "٤", "\ufeff4"),
    *("4", "4\0", "44", "probe", "null", "0x4", "+4", "\u202e4"),
)

PLACEHOLDER = '{"_placeholder":true,"num":0}'

SOCKET = (
    # The type.
    *("7", "8", "9", "-", "x", "-1", "a", '7["sync"]', '9["sync"]'),
    *(' 2["sync"]', '２["sync"]', '٢["sync"]', '"2"', "null"),
    # The payload of an event.
    *("2", "2[]", "2{}", "2null", '2"sync"', "2 1", "2true", "2[", "2]", "2{", '2["sync"', '2["sync"]]', '2["sync"]x'),
    *('2["sync",]', "2['sync']", "2[null]", "2[true]", "2[false]", "2[{}]", "2[[]]", "2[1.5]", '2[{"toString":1}]'),
    *("2[NaN]", '2["x",NaN]', '2["x",Infinity]', '2["x",-Infinity]'),
    *('2["x",01]', '2["x",1.]', '2["x",.5]', '2["x",+1]'),
    *('2["x",0x10]', '2["x","\\x"]', '2["x","\\u12"]', '2["x","\n"]', '2["x","\t"]', "2undefined", "2[undefined]"),
    *('2["x"/**/]', '2["x"]\0', '2\ufeff["x"]', '2["x",' + "9" * 5000 + "]", '2["x",tru]', '2["x":1]', '2{"0":"x"}'),
    # Names that are the library's own.
    *(
        f'2["{name}"]'
        for name in ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
    ),
    # Numbers.
    *('2-1["sync"]', '2+1["sync"]', '21.5["sync"]', '2１["sync"]'),
    *("2" + "9" * 21 + '["sync"]', '21e5["sync"]', '2 1["sync"]'),
    # Acknowledgements.
    *("3", "3[]", "31", "31{}", "31null", '31"x"', "31[", "3" + "9" * 21 + "[]", "3-1[]"),
    # Connect, disconnect, connect_error.
    *("0", "0{}", "0[]", "0/", "0/custom,[]", '0/custom,1"x"'),
    *('0/custom,"x"', "0/custom,true", "0/custom,{", "0custom,"),
    *("0/" + "x" * 256, "0/" + "y" * 256 + ",", "1{}", "1[]"),
    *('1"x"', "1x", "1/nope,", "1/,x", "4{}", '4"x"', "4", '4/,"x"'),
    # Namespaces that it hasn't joined.
    *('2/custom,["sync"]', "3/custom,1[]", '2/nope,["sync"]'),
    *('2/constructor,["x"]', '2/\x1b[2J,["x"]', '2/custom["sync"]'),
    # The head of what has attachments.
    *("5", "5[]", "5-", "51", "51[]", "51-", "51-[]", "51-{}"),
    *('5-1-["x"]', '51.5-["x"]', '5１-["x"]', '5 1-["x"]', '6["x"]'),
    *("6", "61-", "61-1", "61-1{}", "60-[]", '50-["connect"]'),
    *('50-["x",' + PLACEHOLDER + "]", "5" + "9" * 11 + '-["x"]'),
    *('51["x",' + PLACEHOLDER + "]", '51-["disconnect",' + PLACEHOLDER + "]", "51-[" + PLACEHOLDER + "]", "60-1{}"),
)

TOO_MUCH = (
    ("65 lists", '2["x",' + "[" * 64 + "]" * 65),
    ("65 objects", '2["x",' + '{"a":' * 64 + "1" + "}" * 64 + "]"),
    ("lists without end", '2["x",' + "[" * 100_000),
    ("objects without end", '2["x",' + '{"a":' * 50_000),
    ("deep auth", "0/custom," + '{"a":' * 65 + "1" + "}" * 65),
    ("deep acknowledgement", "31" + "[" * 65 + "]" * 65),
    ("11 attachments", '511-["x",' + PLACEHOLDER + "]"),
    ("a thousand million attachments", '5999999999-["x",' + PLACEHOLDER + "]"),
    ("10 digits of attachments", '59999999999-["x",' + PLACEHOLDER + "]"),
)


def packet_cases():
    """Yield packets that end the session."""
    for packet in ENGINE:
        yield Packets(f"engine {packet!a}", (packet,))
    for packet in SOCKET:
        yield Packets(f"socket {packet[:40]!a}", ("4" + packet,))
    for name, packet in TOO_MUCH:
        yield Packets(f"socket {name}", ("4" + packet,), 1009)
    for number in ("-1", "1", "1.0", "0.5", '"0"', "null", "true", "9999999999999999999999", "[]", "{}", '"__proto__"'):
        placeholder = f'{{"_placeholder":true,"num":{number}}}'
        yield Packets(f"placeholder {number}", ('451-["x",' + placeholder + "]", b"x"))
    yield Packets("placeholder without a number", ('451-["x",{"_placeholder":true}]', b"x"))
    head = '451-["x",' + PLACEHOLDER + "]"
    yield Packets("text instead of an attachment", (head, '42["sync"]'))
    yield Packets("a second head", (head, head))
    yield Packets("a connect instead of an attachment", (head, "40/custom,"))
    yield Packets("an attachment of nothing", (b"x",))
    yield Packets("an attachment too many", (head, b"x", b"y"))
    yield Packets("attachments in a namespace that isn't joined", ('451-/custom,["x",' + PLACEHOLDER + "]", b"x"))
    yield Packets("an acknowledgement with attachments and no number", ("461-[" + PLACEHOLDER + "]", b"x"))
    yield Packets("an event after the disconnect", ("41", '42["sync"]'))
    yield Packets("good, bad, good", ('42["nothing"]', "42[", '42["nothing"]'))


LARGE = Packets("too large together", ('452-["x",' + PLACEHOLDER + "]", bytes(600_000), bytes(600_000)), 1009)

# What only a payload can have.
PAYLOADS = (
    *(b"\x1e", b"\x1e\x1e", b"\x1e4", b"4\x1e", b"6\x1e\x1e6", b"b"),
    *(b"b!", b"bA", b"bAAA", b"b====", b"bAA=A", b"bAAAA=", b"bAAAA"),
    *(b"b\xc3\xa9", b"\xff", b"\xff\xfe4\0", b"4\xed\xa0\x80", b"\xef\xbb\xbf6", b"d=6", b"8:6", b"\0\x01\xff6"),
)

# Odd, but nothing that has to be refused: the session goes on.
FINE = (
    *("6", "3", "3probe", "3junk", "6\0", "6,6"),
    *('42["nothing"]', '42["nothing",null,true,-1.5e-3,"\\u0000"]'),
    *('42 ["nothing"]', '42["nothing"] ', "42[1]", '42[""]'),
    *('42["__proto__"]', '42["constructor",{"__proto__":{"a":1}}]'),
    *('42["\\ud800"]', '42["nothing","\\u001e"]', '421["nothing"]'),
    *("431[]", "43" + "9" * 20 + "[]", '42["x",' + "[" * 63 + "]" * 64, '450-["nothing"]', "460-1[]"),
    *("40/custom,1", "40/nope,", "40/constructor,{}", "40/\x1b[2J,"),
    *("40/nope?a=b,", "40/" + "x" * 255 + ",", "40/\u202e,"),
    *('42["x",1e999]', '42["x",{"_placeholder":true,"num":0}]', '42["x",{"a":1,"a":2}]', '42/,["nothing"]'),
)


def count():
    """Return how many bad inputs there are, each transport's for itself."""
    packets = list(packet_cases())
    return len(list(http_cases())) + len(list(frame_cases())) + 2 * len(packets) + len(PAYLOADS) + 1

