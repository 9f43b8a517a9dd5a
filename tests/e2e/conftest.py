"""Fixtures of the end-to-end tests: each test runs once per kind of server."""

import contextlib
import os
import shutil

import pytest

from .brokers import BROKERS
from .player import Player
from .proxies import Nginx
from .servers import CRASH, HERE, KINDS, PROFILES, SELECTED, Server
from .table import Recorder

LONG = (
    *("test_autobahn", "test_example_app", "test_example_celery", "test_nginx", "test_gunicorn", "test_uwsgi"),
    *("test_message_queue", "test_broker_faults", "test_fleet"),
)


def pytest_configure(config):
    config.addinivalue_line("markers", "e2e: runs real servers in subprocesses and real clients against them")
    if os.environ.get("E2E_TABLE"):
        config.pluginmanager.register(Recorder(os.environ["E2E_TABLE"]))


def pytest_collection_modifyitems(config, items):
    # websocket-client reads and writes one TLS socket in two threads at a time, which OpenSSL doesn't allow: it loses
    # the connection now and then. Its polling uses a socket for each, and the other clients are sound.
    def unsound(item):
        params = getattr(getattr(item, "callspec", None), "params", {})
        tls = params.get("kind") in KINDS and KINDS[params["kind"]].tls
        return tls and "test_contract_python" in item.nodeid and params.get("transport") in ("websocket", "upgrade")

    # Behind nginx it is seen that clients are let through, not once more what they say.
    def spared(item):
        params = getattr(getattr(item, "callspec", None), "params", {})
        variant = params.get("kind") in KINDS and KINDS[params["kind"]].variant
        proxied = params.get("front") == "nginx"
        long = "msgpack" in item.name or "one_after_another" in item.name
        costly = "nothing_is_left" in item.name or (long and item.path.stem == "test_contract_js")
        return (variant and (proxied or costly)) or (proxied and long)

    if "PYTEST_XDIST_WORKER" in os.environ:  # what takes long and can't be shared out begins first
        items.sort(key=lambda item: item.path.stem not in LONG)

    left_out = [item for item in items if unsound(item) or spared(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not (unsound(item) or spared(item))]


@pytest.fixture(scope="session", params=SELECTED)
def kind(request):
    """The kind of server, a key of ``KINDS``."""
    return request.param


@pytest.fixture(scope="session")
def play():
    """Return the method that runs a scenario of the JavaScript client."""
    if not shutil.which("node") or not (HERE / "node_modules" / "socket.io-client").is_dir():
        pytest.skip("needs Node and its packages: run `npm install` in tests/e2e")
    player = Player()
    yield player.play
    player.stop()


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """Logs and certificates."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def broker_for(tmp_path_factory):
    """Return a function: a key of ``BROKERS`` -> the broker, which is started when it is first asked for."""
    running = {}

    def get(name):
        if name not in running:
            running[name] = BROKERS[name](tmp_path_factory.mktemp(name)).start()
        return running[name]

    yield get
    for broker in running.values():
        broker.stop()


@pytest.fixture(scope="session")
def server_for(kind, directory):
    """Return a function: profile -> running server; each is started once and judged at the end."""
    running = {}

    def get(profile):
        if profile not in running:
            alarm = {"alarm": CRASH} if profile in ("hostile", "origins") else {}
            running[profile] = Server(kind, directory, **alarm, **PROFILES[profile])
        return running[profile]

    with contextlib.ExitStack() as stack:
        yield get
        for server in running.values():
            stack.callback(server.stop)


@pytest.fixture(scope="module", params=["direct", "nginx"])
def front(request):
    """What stands in front of the servers."""
    return request.param


@pytest.fixture(scope="module")
def front_for(server_for, front, directory):
    """Return a function: profile -> running server, or the nginx in front of it."""
    running = {}

    def get(profile):
        server = server_for(profile)
        if front == "nginx" and profile not in running:
            changes = {}
            if "max_http_buffer_size" in PROFILES[profile]:
                changes["client_max_body_size 1m"] = "client_max_body_size 5m"
            tls = server.tls is not None  # on both sides, or the origin wouldn't be the server's own
            if tls:
                changes["proxy_pass http:"] = "proxy_pass https:"
            running[profile] = Nginx(directory, [server.port], tls=tls, changes=changes, behind=server.kind)
        return running.get(profile, server)

    with contextlib.ExitStack() as stack:
        yield get
        for proxy in running.values():
            stack.callback(proxy.stop)


@pytest.fixture
def server(server_for):
    """The server with default options."""
    return server_for("default")
