"""HTTP decided without a server: a request to what the shell has to do."""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from websockets.extensions import Extension

from ...errors import RemoteProtocolError
from ...typing import Frame, Transport
from ..counters import CONNECT, CONNECTIONS, HOST, HTTP, ORIGIN, REQUEST, SID
from ..websocket import handshake
from . import polling
from .cors import show
from .engine import Engine
from .frame import CLOSE
from .frame import Frame as Packet
from .options import cookie_header
from .session import PROBING, TRANSPORT_ERROR, WEBSOCKET, Session

Headers = list[tuple[str, str]]


class Request(NamedTuple):
    """What the shell knows of a request.

    Attributes:
        method: In capitals.
        query: The raw query string.
        header: Returns the value of a header, or None.
        scheme: ``"http"`` or ``"https"``.
        environ: Handed on to the application.
        websocket: Whether the server could switch this connection to WebSocket.
    """

    method: str
    query: str
    header: Callable[[str], str | None]
    scheme: str
    environ: Any
    websocket: bool


class Respond(NamedTuple):
    """Answer with this."""

    status: int
    headers: Headers
    body: bytes


class Wait(NamedTuple):
    """Answer later: call ``poll(ready)``, and answer with ``respond`` of what it returns, or of what ``ready`` gets.

    Attributes:
        poll: Returns frames, or None: ``ready`` will be called. Raises RemoteProtocolError: answer with ``refuse()``.
        forget: Withdraws ``ready``; False when it was called.
        respond: Makes the answer.
        refuse: Makes the other answer.
        abort: To be called when the peer has gone before it had the answer.
    """

    poll: Callable[[polling.Ready], Sequence[Frame] | None]
    forget: Callable[[polling.Ready], bool]
    respond: Callable[[Sequence[Frame]], Respond]
    refuse: Callable[[], Respond]
    abort: Callable[[], object]


class Read(NamedTuple):
    """Read the body, then hand its packets on, one by one, and answer.

    Attributes:
        limit: Bytes of the body at most.
        begin: Gets the body, or None for one that is larger. Returns the packets in it, or the answer that refuses it.
        take: Gets one packet after the other.
        end: Makes the answer, when all are taken.
        fail: To be called when the body doesn't come.
    """

    limit: int
    begin: Callable[[bytes | None], Sequence[str | bytes] | Respond]
    take: Callable[[str | bytes], object]
    end: Callable[[], Respond | Wait]
    fail: Callable[[], object]


class Upgrade(NamedTuple):
    """Switch to WebSocket, then call ``start(transport)``: it returns what takes each message, and what to call at the
    end.

    If the switch fails, call ``abort()``.

    Attributes:
        headers: Of the answer with status 101.
        extensions: For the `Reader`.
        refusal: Why the connection is closed when ``start`` returns None.
    """

    start: Callable[[Transport], tuple[Callable[[str | bytes], object], Callable[[str], object]] | None]
    abort: Callable[[], object]
    headers: Headers
    extensions: list[Extension]
    refusal: str = "no upgrade is possible now"


Outcome = Respond | Wait | Read | Upgrade

_OF_PROXIES = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")

ERRORS = {
    0: "Transport unknown",
    1: "Session ID unknown",
    2: "Bad handshake method",
    3: "Bad request",
    4: "Forbidden",
    5: "Unsupported protocol version",
}


def answer(engine: Engine, request: Request) -> Outcome:
    """Decide what to do with a request for the Engine.IO path.

    Source: Engine.IO 4, HTTP long-polling and WebSocket; the errors' numbers and order are its reference server's.
    """
    return _Answer(engine, request).decide()


class _Answer:
    """One request under way."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self.engine, self.request = engine, request
        self.cors: Headers = []
        self.query: dict[str, str] = {}
        self.accepted = handshake.Accepted([], [])

    def decide(self) -> Outcome:
        engine, request = self.engine, self.request
        if not engine.origins.is_ours(request.scheme, request.header):
            return self.bad_host()
        origin = request.header("Origin")
        if origin is None and engine.origins.asks_for_another_site(request.header):
            return self.bad_origin("none, from another site")
        if origin is not None and not engine.origins.allows(origin, request.scheme, request.header, request.environ):
            return self.bad_origin(origin)
        asked = request.header("Access-Control-Request-Headers")
        self.cors = engine.origins.headers(origin, request.method == "OPTIONS", _header_safe(asked))
        if request.method == "OPTIONS":
            return Respond(204, [*self.cors, ("Cache-Control", "no-store")], b"")
        try:
            self.query = fields_of(request.query)
        except ValueError:
            return self.refuse(3, "more than 64 query parameters", HTTP)
        transport = self.query.get("transport", "")
        if transport not in engine.options.enabled:
            return self.refuse(0)
        upgrading = "websocket" in (request.header("Upgrade") or "").lower()
        sid = self.query.get("sid")
        if transport == "websocket":
            self.look_for_proxy(upgrading)
        if transport == "websocket" and not (upgrading and request.websocket):
            return self.refuse(
                3,
                "this server can't do WebSocket here" if upgrading else "expected an upgrade to WebSocket",
                REQUEST if upgrading else HTTP,
            )
        if transport == "polling" and upgrading:
            return self.refuse(3, "an upgrade to WebSocket with transport=polling", HTTP)
        if transport == "websocket":
            try:
                self.accepted = handshake.accept(request.header, engine.options.websocket_compression)
            except RemoteProtocolError as error:
                return self.refuse(3, ascii(str(error))[1:-1][:200], HTTP)
        if sid is None:
            return self.handshake(transport)
        session = engine.sessions.get(sid)
        if session is None:
            farewell = engine.farewells.get(sid) if transport == "polling" and request.method == "GET" else None
            if farewell is not None:
                frames = farewell.poll(lambda frames: None) or ()
                if not farewell.holds:
                    engine.farewells.pop(sid, None)
                return self.packets(frames, None)
            engine.warn_once("a client came with an unknown session id: %s", engine.why_unknown)
            return self.refuse(1, why=SID)
        if transport == "websocket":
            return self.upgrade(session) if request.method == "GET" else self.refuse(3, "expected GET")
        if session.state is WEBSOCKET:
            return self.refuse(3, "this session has gone on to WebSocket")
        if request.method == "GET":
            return self.poll(session)
        if request.method == "POST":
            return self.post(session)
        return self.refuse(3, "expected GET or POST")

    def look_for_proxy(self, upgrading: bool) -> None:
        """Tell of a proxy that doesn't let the handshake of a WebSocket through."""
        header = self.request.header
        missing = [] if upgrading else ["Upgrade: websocket"]
        if "upgrade" not in (header("Connection") or "").lower():
            missing.append("Connection: upgrade")
        # No client sends the key without them.
        if missing and any(header(name) is not None for name in ("Sec-WebSocket-Key", *_OF_PROXIES)):
            self.engine.warn_once(
                "a WebSocket handshake came without `%s`, which a proxy has to hand on; nginx does with "
                "`proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
                'proxy_set_header Connection "upgrade";`',
                "` and `".join(missing),
            )

    # One method for each kind of request.

    def handshake(self, transport: str) -> Outcome:
        engine, request = self.engine, self.request
        if request.method != "GET":
            return self.refuse(2)
        if self.query.get("EIO") != "4":
            version = ascii(self.query.get("EIO", "none"))[:40]
            engine.complain(
                logging.WARNING, "refused: a client with EIO=%s; use socket.io-client 3 or later, which has 4", version
            )
            return self.refuse(5, f"expected EIO=4, got {version}")
        if "j" in self.query and not engine.options.allow_jsonp:
            return self.refuse(3, "JSONP is switched off (allow_jsonp)")
        limit = engine.options.max_connections
        if limit is not None and len(engine.sessions) >= limit:
            engine.counters.refusals.one(CONNECTIONS)
            return self.respond(503, b'{"code":4,"message":"too many connections"}', [("Retry-After", "5")])
        session = engine.prepare(request.environ)
        try:
            refusal = engine.on_connect(session)
        except BaseException:
            engine.drop(session)
            raise
        if refusal is not None:
            engine.drop(session)
            engine.counters.refusals.one(CONNECT)
            return self.respond(401, json.dumps(refusal).encode())
        engine.accept(session)
        cookie = cookie_header(engine.options.cookie, session.sid, request.scheme == "https")
        extra = [("Set-Cookie", cookie)] if cookie else []
        if transport == "websocket":

            def start(transport: Transport) -> tuple[Callable[[str | bytes], object], Callable[[str], object]]:
                engine.open_websocket(session, transport)
                return session.receive, session.lost

            headers = [*self.accepted.headers, *extra]
            return Upgrade(start, lambda: session.lost(TRANSPORT_ERROR), headers, self.accepted.extensions)
        session.jsonp = self.query.get("j")
        engine.open_polling(session)
        return self.packets([engine.open_packet(session, engine.upgrades(request.websocket))], session, extra)

    def poll(self, session: Session) -> Outcome:
        polling_ = session.polling
        assert polling_ is not None

        def refuse() -> Respond:
            # "A second GET while one is pending": the pending one ends with a close packet, the session with both.
            polling_.release((Packet(CLOSE),))
            session.fault(RemoteProtocolError("a second poll while one is pending"))
            return self.respond(400, b"")

        return Wait(
            polling_.poll,
            polling_.forget,
            lambda frames: self.packets(frames, session),
            refuse,
            lambda: session.lost(TRANSPORT_ERROR),
        )

    def post(self, session: Session) -> Outcome:
        if not session.begin_post():
            session.fault(RemoteProtocolError("a second POST while one is pending"))
            return self.respond(400, b"")
        kind = (self.request.header("Content-Type") or "").split(";")[0].strip().lower()
        if kind == "application/octet-stream":
            session.fault(RemoteProtocolError("binary payloads belong to Engine.IO 3"))
            return self.refuse(3, "expected a text payload", None)

        def fail() -> None:
            session.end_post()
            session.lost(TRANSPORT_ERROR)

        def begin(body: bytes | None) -> Sequence[str | bytes] | Respond:
            if body is None:
                session.end_post()
                self.engine.counters.bad_input.one(HTTP)
                return self.respond(413, b"")
            try:
                text = body.decode()
                if session.jsonp is not None:
                    text = polling.unwrap(text)
                return polling.decode(text)
            except (RemoteProtocolError, ValueError) as error:
                session.end_post()
                session.fault(RemoteProtocolError(f"bad payload: {error}"))
                return self.refuse(3, "bad payload", None)

        def end() -> Respond | Wait:
            if session.paused:  # its handlers are behind: it may post again when they aren't
                return Wait(session.hold, session.unhold, done, lambda: done(()), lambda: session.lost(TRANSPORT_ERROR))
            return done(())

        def done(frames: Sequence[Frame]) -> Respond:
            session.end_post()
            if session.reason == TRANSPORT_ERROR:
                return self.refuse(3, "bad payload", None)
            return self.respond(200, b"ok", kind="text/html")

        return Read(self.engine.options.max_http_buffer_size, begin, session.receive, end, fail)

    def upgrade(self, session: Session) -> Outcome:
        if session.state in (WEBSOCKET, PROBING) or not self.engine.options.allow_upgrades:
            return self.refuse(3, "no upgrade is possible now")

        def start(transport: Transport) -> tuple[Callable[[str | bytes], object], Callable[[str], object]] | None:
            if not session.begin_probe(transport):
                return None
            self.engine.watch_probe(session, transport)
            taken = False

            def receive(message: str | bytes) -> None:
                nonlocal taken
                if taken:
                    session.receive(message)
                else:
                    taken = session.receive_probe(transport, message)

            def lost(reason: str) -> None:
                if taken:
                    session.lost(reason)
                else:
                    session.end_probe(transport)

            return receive, lost

        return Upgrade(start, lambda: None, self.accepted.headers, self.accepted.extensions)

    # Answers.

    def packets(
        self, frames: Sequence[Frame], session: Session | None, extra: Sequence[tuple[str, str]] = ()
    ) -> Respond:
        """Answer with a payload, compressed if both sides like it."""
        text = polling.encode(frames) if frames else "6"
        headers: Headers = list(extra)
        if session is not None and session.jsonp is not None:
            text = polling.wrap(session.jsonp, text)
            # A script served as anything else would be refused under nosniff; as a script it can't be read as a page.
            kind = "text/javascript; charset=UTF-8"
            headers.append(("X-Content-Type-Options", "nosniff"))
        else:
            kind = "text/plain; charset=UTF-8"
        body = text.encode(errors="replace")
        options = self.engine.options
        if options.http_compression and len(body) >= options.compression_threshold:
            coding = _coding(self.request.header("Accept-Encoding"))
            if coding is not None:
                squeeze = zlib.compressobj(wbits=31 if coding == "gzip" else zlib.MAX_WBITS)
                body = squeeze.compress(body) + squeeze.flush()
                headers.append(("Content-Encoding", coding))
            headers.append(("Vary", "Accept-Encoding"))
        return self.respond(200, body, headers, kind)

    def refuse(self, code: int, detail: str = "", why: str | None = REQUEST) -> Respond:
        """Answer with one of the protocol's errors, and with what exactly was wrong.

        Args:
            code: A key of `ERRORS`.
            detail: What was wrong.
            why: What it counts as: a reason of refusals, `HTTP` for bad input; None when it is counted already.
        """
        counters = self.engine.counters
        if why is not None:
            (counters.bad_input if why == HTTP else counters.refusals).one(why)
        text = f"{ERRORS[code]}: {detail}" if detail else ERRORS[code]
        self.engine.complain(logging.INFO, "refused: %s", text)
        return self.respond(400, json.dumps({"code": code, "message": text}, separators=(",", ":")).encode())

    def bad_host(self) -> Respond:
        host = self.engine.origins.host(self.request.header)
        self.engine.counters.refusals.one(HOST)
        self.engine.complain(logging.WARNING, "refused: the host %s isn't one of allowed_hosts", ascii(host)[:200])
        return self.respond(400, b'{"code":3,"message":"Not an accepted host."}')

    def bad_origin(self, origin: str) -> Respond:
        request = self.request
        own = self.engine.origins.own(request.scheme, request.header)
        hint = ""
        if request.header("X-Forwarded-Host") or request.header("X-Forwarded-Proto"):
            hint = "; behind a proxy set trusted_proxies=1, or use ProxyFix"
        self.engine.complain(
            logging.WARNING,
            "refused: origin %s isn't allowed; this server's own is %s; see cors_allowed_origins%s",
            ascii(origin)[:200],
            ascii(show(own)),
            hint,
        )
        self.engine.counters.refusals.one(ORIGIN)
        return self.respond(400, b'{"code":3,"message":"Not an accepted origin."}')

    def respond(
        self, status: int, body: bytes, extra: Sequence[tuple[str, str]] = (), kind: str = "application/json"
    ) -> Respond:
        headers = [("Content-Type", kind), ("Cache-Control", "no-store"), *self.cors, *extra]
        return Respond(status, _join_vary(headers), body)


def fields_of(query: str) -> dict[str, str]:
    """Return the fields of a query; of a name that stands more than once, the last.

    Raises:
        ValueError: There are more than 64.
    """
    if "%" in query or "+" in query or query.count("&") >= 64:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=64))
    fields = {}
    for item in query.split("&"):
        if item:
            name, _, value = item.partition("=")
            fields[name] = value
    return fields


_WEIGHT = re.compile(r"\s*([^\s;,]+)\s*(?:;\s*q\s*=\s*([0-9.]+)\s*)?$")


def _coding(accepted: str | None) -> str | None:
    """Choose gzip or deflate as an Accept-Encoding header weighs them."""
    best, chosen = 0.0, None
    for item in (accepted or "")[:500].split(","):
        match = _WEIGHT.match(item)
        if match is None or match[1].lower() not in ("gzip", "deflate"):
            continue
        try:
            weight = float(match[2] or 1)
        except ValueError:
            continue
        if weight > best:
            best, chosen = weight, match[1].lower()
    return chosen


def _join_vary(headers: Headers) -> Headers:
    vary = [value for name, value in headers if name == "Vary"]
    if len(vary) < 2:
        return headers
    return [*(item for item in headers if item[0] != "Vary"), ("Vary", ", ".join(vary))]


def _header_safe(value: str | None) -> str | None:
    if value is None or len(value) > 1000 or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]*", value):
        return None
    return value
