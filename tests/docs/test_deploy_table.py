"""The table of what passed on which server: how it is made, and that the documentation's has each server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from e2e.servers import KINDS
from e2e.table import COLUMNS, NGINX, command, table

PAGE = Path(__file__).parents[2] / "docs" / "deploy" / "table.md"


def rows(text):
    """Return the cells behind each label."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines[2:]}


def test_the_page_has_a_row_for_each_kind_of_server():
    text = PAGE.read_text()
    assert [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")][2:] == COLUMNS
    assert {label: cells[0] for label, cells in rows(text).items()} == {
        row.label: f"`{command(kind)}`" for kind, row in KINDS.items()
    }


def test_the_page_holds_what_passed():
    cells = [cell for cells in rows(PAGE.read_text()).values() for cell in cells[1:]]
    assert all(re.fullmatch(r"(\d+) of \1|–", cell) for cell in cells), cells


def test_labels_tell_kinds_apart():
    labels = [row.label for row in KINDS.values()]
    assert all(labels) and len(set(labels)) == len(labels)


def test_results_of_several_runs_make_one_table(tmp_path):
    def write(name, *results):
        keys = ("test", "kind", "column", "passed")
        path = tmp_path / name
        path.write_text("".join(json.dumps(dict(zip(keys, result, strict=True))) + "\n" for result in results))
        return path

    column = COLUMNS[0]
    first = write("a", ("t1", "werkzeug", column, True), ("t2", "werkzeug", column, False))
    again = ("t2", "werkzeug", column, True)
    second = write("b", ("t3", "werkzeug", column, False), again, ("n", "gevent", NGINX, True))
    made = rows(table([first, second]))
    assert made[KINDS["werkzeug"].label][1:] == ["2 of 3", *["–"] * (len(COLUMNS) - 1)]
    assert made[KINDS["gevent"].label][-1] == "1 of 1"
    assert len(made) == len(KINDS)


RUN = """
import pytest

@pytest.fixture
def server(kind):
    yield
    assert kind != "eventlet", "the log of the server is bad"

@pytest.mark.parametrize("kind", ["werkzeug", "gevent", "eventlet", "gunicorn-gevent"])
@pytest.mark.parametrize("transport", ["polling", "upgrade"])
def test_something(kind, transport, server):
    if kind == "gunicorn-gevent":
        pytest.skip("nothing to see")
    assert (kind, transport) != ("gevent", "upgrade")

@pytest.mark.parametrize("kind", ["werkzeug"])
def test_without_a_transport(kind):
    pass
"""


def test_a_run_writes_the_table_also_in_parts(tmp_path):
    (tmp_path / "test_contract_js.py").write_text(RUN)
    (tmp_path / "conftest.py").write_text(
        "import os\nfrom e2e.table import Recorder\n"
        "def pytest_configure(config):\n    config.pluginmanager.register(Recorder(os.environ['E2E_TABLE']))\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "E2E_TABLE": str(tmp_path / "table.md")}
    for part, code in (("polling", 1), ("upgrade", 1), ("polling and werkzeug", 0), ("without", 0)):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", part, str(tmp_path)]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert run.returncode == code, run.stdout + run.stderr
    made = rows((tmp_path / "table.md").read_text())
    seen = {kind: made[KINDS[kind].label][1:4] for kind in ("werkzeug", "gevent", "eventlet", "gunicorn-gevent")}
    assert seen == {
        "werkzeug": ["1 of 1", "–", "1 of 1"],
        "gevent": ["1 of 1", "–", "0 of 1"],
        "eventlet": ["0 of 1", "–", "0 of 1"],
        "gunicorn-gevent": ["–", "–", "–"],
    }


def test_commands_are_shown_as_they_are_typed():
    assert command("werkzeug") == "socketio.run(app)"
    assert command("werkzeug-tls") == "socketio.run(app, certfile=…, keyfile=…)"
    assert command("gevent-websocket") == "socketio.run(app, handler_class=WebSocketHandler)"
    assert command("gunicorn-gevent") == "gunicorn -w 1 -k gevent app:app"
