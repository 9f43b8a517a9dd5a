"""Each file of nginx/ is loaded by a real proxy, stands in front of real servers, and carries real traffic."""

import contextlib
import gzip
import http.client
import json
import socket
import ssl
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from .player import LIMIT, TRANSPORTS, arguments
from .proxies import FILES, HAPROXY_CRASH, NGINX_CRASH, HAProxy, Nginx, cluster, kill
from .raw import Polling, WebSocket, fetch, target
from .servers import HEARTBEAT, wait_until
from .test_contract_python import Peer, rubbish  # noqa: F401

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # by python-socketio's client
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REALIP = "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;"
PREFIXES = ("a.", "b.", "c.")
LARGE = 900_000
OPEN = target(EIO=4, transport="polling")

# File of nginx/ -> kind of the servers behind it, their number, their options.
BEHIND = {
    "single.conf": ("gunicorn-threads", 1, {}),
    "tls.conf": ("gevent", 1, {}),
    "static.conf": ("werkzeug", 1, {}),
    "ip-hash.conf": ("gevent", 3, {}),
    "sticky.conf": ("werkzeug", 3, {"sid_prefix": PREFIXES.__getitem__, "cookie": "io"}),
    "haproxy.cfg": ("gunicorn-threads", 3, {}),
}
SEVERAL = [name for name, (_, count, _) in BEHIND.items() if count > 1]


@contextlib.contextmanager
def standing(name, directory, alarm=None, **options):
    """Run the servers that a file is for and its proxy in front of them, and judge their logs at the end."""
    kind, count, own = BEHIND[name]
    alarm = {"alarm": alarm} if alarm else {}
    with cluster(kind, directory, count, **own, **options) as servers:
        ports = [server.port for server in servers]
        if name == "haproxy.cfg":
            proxy = HAProxy(directory, ports, **alarm)
        else:
            more = {"extra": REALIP} if name == "ip-hash.conf" else {}
            if name == "static.conf":
                more["changes"] = {"/srv/example/static/": f"{make_static(directory)}/"}
            proxy = Nginx(directory, ports, name, **more, **alarm)
        proxy.servers = servers
        try:
            yield proxy
        finally:
            proxy.stop()


@contextlib.contextmanager
def nginx(directory, backends, **more):
    """Run an nginx in front of servers that run already, and judge its log at the end."""
    proxy = Nginx(directory, backends, **more)
    try:
        yield proxy
    finally:
        proxy.stop()


def make_static(directory):
    """Make static files and return their folder."""
    folder = directory / "static"
    (folder / "hashed").mkdir(parents=True, exist_ok=True)
    (folder / "page.js").write_text("let x = 1;\n" * 1000)
    (folder / "hashed" / "page.0a1b2c3d.css").write_text("p { margin: 0 }")
    return folder


@pytest.fixture(scope="module", params=list(BEHIND))
def proxy(request, tmp_path_factory):
    """A proxy with each file; its log of the whole module is a normal run's."""
    with standing(request.param, tmp_path_factory.mktemp("proxies")) as proxy:
        yield proxy


def address():
    """Return headers that make a client one of its own for ip_hash, which looks at the first three numbers."""
    return {"X-Forwarded-For": f"10.{uuid.uuid4().bytes[0]}.{uuid.uuid4().bytes[0]}.7"}


def test_every_file_is_tested():
    elsewhere = {"supervisor.conf"}  # test_supervisor.py
    assert {path.name for path in FILES.iterdir()} == set(BEHIND) | elsewhere


# Clients.


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["connect_with_auth", "binary", "order"])
def test_javascript_client(play, proxy, scenario, transport):
    play(proxy, scenario, transport, **options(proxy))


# These scenarios ask for pages of the process that the client is connected to.
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["large", "rooms"])
@pytest.mark.parametrize("proxy", ["single.conf", "tls.conf", "static.conf", "ip-hash.conf"], indirect=True)
def test_javascript_client_that_asks_for_pages(play, proxy, scenario, transport):
    play(proxy, scenario, transport, **options(proxy))


def options(proxy):
    """Return what a client needs to be led to its process: an address of its own, or cookies."""
    # Not both: the client would send cookies of its former connections too, once it has fields of its own to send.
    return {"withCredentials": True} if proxy.kind == "haproxy" else {"headers": address()}


@contextlib.contextmanager
def connected(proxy, transport):
    """Run a python-socketio client with an address of its own."""
    peer, headers = Peer(proxy, transport), address()
    peer.session.headers.update(headers)  # the argument is for the first request only
    peer.listen("news")
    try:
        yield peer.connect(headers=headers)
    finally:
        peer.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("proxy", [name for name in BEHIND if name != "tls.conf"], indirect=True)
def test_python_client(proxy, transport):
    chat(proxy, transport)


@pytest.mark.parametrize("proxy", ["tls.conf"], indirect=True)
def test_python_client_over_tls(proxy):
    chat(proxy, "polling")  # its WebSocket isn't sound over TLS, see conftest.py


def chat(proxy, transport):
    """Let a client ask, send, and hear of something."""
    with connected(proxy, transport) as peer:
        assert peer.call("echo", {"text": "ü😀", "binary": bytes(range(256))}) == [
            {"text": "ü😀", "binary": bytes(range(256))}
        ]
        assert peer.call("echo", "x" * LARGE) == ["x" * LARGE]
        peer.call("cast", ("to me", {}))
        assert peer.next() == ("news", ("to me",))
        assert peer.call("whoami")["query"]["who"] == peer.who


def test_a_websocket_carries_a_large_frame_and_is_closed_in_good_order(proxy):
    headers = [f"{name}: {value}" for name, value in address().items()]
    websocket = WebSocket(proxy, headers=headers)
    assert websocket.receive().startswith("0{")
    websocket.send("40")
    assert websocket.receive().startswith("40{")
    websocket.send(f'421["echo","{"x" * LARGE}"]')
    assert websocket.receive() == f'431[["{"x" * LARGE}"]]'
    websocket.close()


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_client_that_is_gone_without_a_word_leaves_no_error_in_the_log(proxy, reset):
    who = uuid.uuid4().hex
    headers = address()
    websocket = WebSocket(proxy, headers=[f"{name}: {value}" for name, value in headers.items()], who=who)
    websocket.receive()
    websocket.send("40")
    websocket.receive()
    websocket.abandon(reset=reset)
    wait_until(lambda: any(left(server, who) for server in proxy.servers), what="the disconnect")


def left(server, who):
    return [reason for _, event, reason in server.journal(who) if event == "disconnect"]


def test_a_connection_that_the_server_ends_leaves_no_error_in_the_log(proxy):
    who = uuid.uuid4().hex
    websocket = WebSocket(proxy, who=who)
    sid = json.loads(websocket.receive()[1:])["sid"]
    websocket.send("40")
    websocket.receive()
    websocket.send(f'42["close_engine","{sid}"]')
    opcode, reason = websocket.frame()
    assert (opcode, struct.unpack("!H", reason[:2])[0]) == (8, 1000)
    websocket.send(reason, opcode=8)
    assert websocket.frame() == (None, b"")
    websocket.abandon(reset=False)


# Where a request comes from.


def test_the_origin_of_the_public_address_is_ours(proxy):
    assert fetch(proxy, "GET", OPEN, headers={"Origin": proxy.url}).status == 200
    for origin in ("http://evil.example", "http://127.0.0.1:1", "http://127.0.0.1", "https://127.0.0.1"):
        assert fetch(proxy, "GET", OPEN, headers={"Origin": origin}).status == 400
    other = "http" if proxy.tls else "https"
    assert fetch(proxy, "GET", OPEN, headers={"Origin": f"{other}://127.0.0.1:{proxy.port}"}).status == 400


def test_a_client_cannot_make_up_what_the_proxy_says(proxy):
    made_up = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "Origin": "http://evil.example"}
    assert fetch(proxy, "GET", OPEN, headers=made_up).status == 400
    assert fetch(proxy, "GET", OPEN, headers={**made_up, "Origin": proxy.url}).status == 200


# Connections that are kept, and quiet ones.


def connections(port):
    """Return the ports of those who are, or were lately, connected to a port of this machine."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, remote = [int(end.split(":")[1], 16) for end in line.split()[1:3]]
        if local == port or remote == port:
            found.add(local + remote - port)
    return found


def test_polls_and_posts_share_connections_to_the_server(tmp_path):
    with standing("single.conf", tmp_path) as proxy:
        (server,) = proxy.servers
        before = connections(server.port)
        client = Polling(proxy)
        client.join()
        assert all(client.alive() for _ in range(30))
        assert len(connections(server.port) - before) < 6  # for 63 requests


def test_a_quiet_connection_outlives_the_timeouts_of_nginx(tmp_path):
    seconds = {"proxy_read_timeout 60s": "proxy_read_timeout 1s", "proxy_send_timeout 60s": "proxy_send_timeout 1s"}
    with (
        cluster("gevent", tmp_path, 1, **HEARTBEAT) as (server,),
        nginx(tmp_path, [server.port], changes=seconds) as proxy,
    ):
        websocket = WebSocket(proxy, who="websocket")
        polling = Polling(proxy)
        polling.join()
        websocket.receive()
        websocket.send("40")
        assert websocket.receive().startswith("40")
        for _ in range(8):  # 2.4 seconds
            assert websocket.receive() == "2"
            websocket.send("3")
            assert polling.packets() == ["2"]
            polling.send("3")
        assert polling.alive()
        assert not left(server, "websocket") and not left(server, polling.who)
        websocket.close()


def test_the_application_may_listen_on_a_unix_socket(play, tmp_path):
    with cluster("gunicorn-unix", tmp_path, 1) as (server,):
        with nginx(tmp_path, [f"unix:{tmp_path}/{server.port}.sock"]) as proxy:
            for transport in TRANSPORTS:
                play(proxy, "large", transport, **options(proxy))
            assert fetch(proxy, "GET", OPEN, headers={"Origin": proxy.url}).status == 200


# TLS.


def test_tls(tmp_path):
    with standing("tls.conf", tmp_path) as proxy:
        plain = http.client.HTTPConnection("127.0.0.1", proxy.plain_port, timeout=LIMIT)
        plain.request("GET", "/page?a=1", headers={"Host": f"example.com:{proxy.plain_port}"})
        answer = plain.getresponse()
        assert (answer.status, answer.headers["Location"]) == (301, "https://example.com/page?a=1")
        plain.close()

        context = ssl.create_default_context(cafile=str(proxy.ca))
        for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
            context.set_alpn_protocols(offered)
            with socket.create_connection(("127.0.0.1", proxy.port), LIMIT) as raw:
                with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                    assert (tls.version(), tls.selected_alpn_protocol()) == ("TLSv1.3", chosen)

        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", proxy.port), LIMIT) as raw:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                assert tls.version() == "TLSv1.2" and "GCM" in tls.cipher()[0]

        assert proxy.get("/") == b"ready"


# Static files.


def test_static_files(tmp_path):
    with standing("static.conf", tmp_path) as proxy:
        page = fetch(proxy, "GET", "/static/page.js")
        assert (page.status, page.headers["Content-Type"]) == (200, "application/javascript")
        assert page.body == b"let x = 1;\n" * 1000
        assert set(page.headers.get_all("Cache-Control")) == {"max-age=3600", "public"}
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        again = fetch(proxy, "GET", "/static/page.js", headers={"If-None-Match": page.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        packed = fetch(proxy, "GET", "/static/page.js", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["Content-Encoding"] == "gzip" and gzip.decompress(packed.body) == page.body
        assert packed.headers["Vary"] == "Accept-Encoding"
        hashed = fetch(proxy, "GET", "/static/hashed/page.0a1b2c3d.css")
        assert (hashed.status, hashed.headers["Content-Type"]) == (200, "text/css")
        assert "public, immutable" in hashed.headers.get_all("Cache-Control")
        missing = fetch(proxy, "GET", "/static/none.js")
        assert missing.status == 404 and "Cache-Control" not in missing.headers
        assert fetch(proxy, "GET", "/static/../single.conf").status == 404
        assert proxy.get("/") == b"ready"


# Several processes.


def test_an_address_keeps_to_its_process(tmp_path):
    with standing("ip-hash.conf", tmp_path) as proxy:
        seen = set()
        for number in range(20):
            headers = {"X-Forwarded-For": f"10.{number}.0.1"}
            processes = {fetch(proxy, "GET", "/process", headers=headers).json for _ in range(3)}
            assert len(processes) == 1
            seen |= processes
        assert seen == {server.get_json("/process") for server in proxy.servers}


def test_an_id_leads_to_its_process(tmp_path):
    with standing("sticky.conf", tmp_path) as proxy:
        clients = [Polling(proxy) for _ in range(12)]
        for client in clients:
            client.join()
        assert {client.sid[:2] for client in clients} == set(PREFIXES)
        assert all(client.alive() for client in clients for _ in range(3))
        for client in clients:
            own = proxy.servers[PREFIXES.index(client.sid[:2])]
            cookie = client.handshake.headers["Set-Cookie"].partition(";")[0]
            assert cookie == f"io={client.sid}"
            page = fetch(proxy, "GET", "/process", headers={"Cookie": cookie})
            assert page.json == own.get_json("/process")
        # The id of the request counts before that of the cookie.
        one, other = clients[0], next(client for client in clients if client.sid[:2] != clients[0].sid[:2])
        answer = fetch(proxy, "POST", one.target, "3", headers={"Cookie": f"io={other.sid}"})
        assert (answer.status, answer.body) == (200, b"ok")


def test_a_process_that_takes_nobody_is_left_for_another_one(tmp_path):
    with standing("sticky.conf", tmp_path) as proxy:
        proxy.servers[0].get("/shut")
        clients = [Polling(proxy) for _ in range(9)]
        assert {client.sid[:2] for client in clients} == {"b.", "c."}
        headers = {"Cookie": "io=a.whatever"}
        assert fetch(proxy, "GET", OPEN, headers=headers).status == 200


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", SEVERAL)
def test_clients_of_a_process_that_died_come_back_and_the_others_notice_nothing(play, name, transport, tmp_path):
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(standing(name, tmp_path, {"haproxy.cfg": HAPROXY_CRASH}.get(name, NGINX_CRASH)))
        homes = {}  # number of a process -> a client of it
        for _ in range(100):
            if len(homes) == len(proxy.servers):
                break
            peer, headers = Peer(proxy, transport), address()
            peer.session.headers.update(headers)
            peer.connect(headers=headers)
            (home,) = [n for n, server in enumerate(proxy.servers) if server.journal(peer.who)]
            if home in homes:
                peer.close()
            else:
                homes[home] = peer
                stack.callback(peer.close)
        assert len(homes) == len(proxy.servers)

        settings = {**options(proxy), "limit": LIMIT}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        client = stack.enter_context(subprocess.Popen(**arguments(proxy, "restart", transport, settings), **pipes))
        stack.callback(client.kill)
        assert json.loads(client.stdout.readline() or "null") == {"event": "ready"}, client.stderr.read()
        counts = [server.get_json("/stats")["connected"] for server in proxy.servers]
        (home,) = [number for number, count in enumerate(counts) if count == 2]
        kill(proxy.servers[home])
        assert json.loads(client.stdout.readline() or "null") == {"event": "disconnected"}, client.stderr.read()
        _, errors = client.communicate("restarted\n", timeout=LIMIT)
        assert client.returncode == 0, errors

        for number, peer in homes.items():
            if number != home:
                assert peer.call("echo", number) == [number]
                assert not left(proxy.servers[number], peer.who)
