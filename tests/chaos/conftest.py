"""The acceptance list of docs/reliability.md: each test holds one line of it up to a real server and notes its figure.

``make test`` runs it short, ``make chaos`` (``CHAOS=full``) in full length and prints the table.
"""

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path

import pytest
from e2e.servers import CRASH, SELECTED, Server

ROWS = []
FULL = os.environ.get("CHAOS") == "full"
# The short list has each mode, and the two servers of threads that differ most.
SHORT = ("werkzeug", "gunicorn-threads", "werkzeug-tls", "gevent", "eventlet", "uwsgi-gevent")
WANTED = SELECTED if FULL or "E2E_KINDS" in os.environ else SHORT


def pytest_configure(config):
    config.addinivalue_line("markers", "only(table): runs only for these values of its parameters")
    config.addinivalue_line("markers", "long(table): values that only the full list runs; all of them without a table")


def pytest_collection_modifyitems(config, items):
    left_out = []
    for item in items:
        if "/chaos/" in item.nodeid.replace(os.sep, "/"):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.chaos)
            if any(not _matches(item, mark) for mark in item.iter_markers("only")) or (
                not FULL and any(_matches(item, mark) for mark in item.iter_markers("long"))
            ):
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _matches(item, mark):
    """Whether each parameter that the mark names has one of the values that it lists."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return all(params.get(name) in values for name, values in mark.kwargs.items())


def pytest_terminal_summary(terminalreporter):
    if not ROWS:
        return
    rows = sorted(ROWS, key=lambda row: (row[0], row[1], row[2]))
    terminalreporter.section("the list")
    for line, promise, kind, figure in rows:
        terminalreporter.write_line(f"{line:>3}  {kind:<17} {promise}: {figure}")
    table = os.environ.get("CHAOS_TABLE")
    if table:
        Path(table).write_text(_as_markdown(rows))
        terminalreporter.write_line(f"written to {table}")


def _as_markdown(rows):
    names = ("flask", "werkzeug", "gunicorn", "websockets")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    length = "in full" if FULL else "in the short form of `make test`"
    head = (
        f"Run {length} on Python {platform.python_version()} with {versions}; {os.cpu_count()} cores, "
        f"{platform.system()} {platform.release().split('-')[0]}.\n\n"
        "| Line | Promise | Server | Seen |\n|--:|---|---|---|\n"
    )
    return head + "".join(
        f"| {line} | {promise.replace('|', ' ')} | {kind} | {figure} |\n" for line, promise, kind, figure in rows
    )


@pytest.fixture(scope="session", params=WANTED)
def kind(request):
    """The kind of server, a key of ``KINDS``."""
    return request.param


@pytest.fixture(scope="session")
def full():
    """Whether the list runs in full length."""
    return FULL


@pytest.fixture
def rows():
    """Return a function that notes what was seen: ``rows(line of the list, promise, kind, figure)``."""
    return lambda *row: ROWS.append(row)


@pytest.fixture
def row(rows, kind):
    """The same for the kind under test: ``row(line of the list, promise, figure)``."""
    return lambda line, promise, figure: rows(line, promise, kind, figure)


@pytest.fixture(scope="session")
def start(kind, tmp_path_factory):
    """Return a function that starts a server for one test module: ``start(**options)``; all are judged at the end."""
    directory = tmp_path_factory.mktemp("chaos")
    servers = []
    with contextlib.ExitStack() as stack:

        def make(alarm=CRASH, **options):
            server = Server(kind, directory, alarm=alarm, **options)
            servers.append(server)
            stack.callback(server.stop)
            return server

        yield make
        for server in servers:
            server.begin_to_stop()
