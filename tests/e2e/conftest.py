"""Fixtures of the end-to-end tests: each test runs once per kind of server."""

import contextlib

import pytest

from .servers import CRASH, KINDS, PROFILES, Server


def pytest_configure(config):
    config.addinivalue_line("markers", "e2e: runs real servers in subprocesses and real clients against them")


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
