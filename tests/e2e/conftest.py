"""Fixtures of the end-to-end tests: each test runs once per kind of server."""

import contextlib

import pytest

from .servers import CRASH, KINDS, PROFILES, Server


def pytest_configure(config):
    config.addinivalue_line("markers", "e2e: runs real servers in subprocesses and real clients against them")


def pytest_collection_modifyitems(config, items):
    # websocket-client reads and writes one TLS socket in two threads at a time, which OpenSSL doesn't allow: it loses
    # the connection now and then. Its polling uses a socket for each, and the other clients are sound.
    def unsound(item):
        params = getattr(getattr(item, "callspec", None), "params", {})
        tls = params.get("kind") in KINDS and KINDS[params["kind"]].tls
        return tls and "test_contract_python" in item.nodeid and params.get("transport") in ("websocket", "upgrade")

    left_out = [item for item in items if unsound(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not unsound(item)]


@pytest.fixture(scope="session", params=list(KINDS))
def kind(request):
    """The kind of server, a key of ``KINDS``."""
    return request.param


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    """Logs and certificates."""
    return tmp_path_factory.mktemp("e2e")


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


@pytest.fixture
def server(server_for):
    """The server with default options."""
    return server_for("default")
