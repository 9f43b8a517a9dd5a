"""What passed on which server, as a table for the documentation.

With the environment variable ``E2E_TABLE`` a run of the end-to-end tests writes the table to the file that it names.
Its results are added to a file beside it, ``<name>.jsonl``, one line a test, so a run may be split over several
processes; the last result of a test counts. ``python -m tests.e2e.table RESULTS...`` prints the table of any such
files.
"""

import collections
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

from .servers import KINDS

CLIENTS = {"test_contract_js": "JavaScript", "test_contract_python": "Python"}
WAYS = {"polling": "polling", "websocket": "WebSocket", "upgrade": "upgrade"}
NGINX = "behind nginx"
COLUMNS = [*(f"{client}: {way}" for client in CLIENTS.values() for way in WAYS.values()), NGINX]


def cell_of(item):
    """Return the row and the column that a test counts for, or None."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    module = item.module.__name__.rpartition(".")[2]
    kind = params.get("kind") or _behind(item.module, params.values())
    way = WAYS.get(params.get("transport"))
    if kind not in KINDS:
        return None
    if module == "test_nginx" or params.get("front") == "nginx":
        return kind, NGINX
    return (kind, f"{CLIENTS[module]}: {way}") if module in CLIENTS and way else None


def _behind(module, values):
    """Return the kind of server behind the proxy of a test, which is set up by a file of nginx/."""
    files = getattr(module, "BEHIND", {})
    found = [files[value][0] for value in values if isinstance(value, str) and value in files]
    return found[0] if found and not any(value == "haproxy.cfg" for value in values) else None


class Recorder:
    """A plugin that keeps what each test came to.

    Args:
        path: Where the table goes.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.results = self.path.with_name(self.path.name + ".jsonl")
        self._cells, self._passed = {}, {}

    def pytest_collection_finish(self, session):
        cells = {item.nodeid: cell_of(item) for item in session.items}
        self._cells = {name: cell for name, cell in cells.items() if cell is not None}

    def pytest_runtest_logreport(self, report):
        if report.nodeid not in self._cells:
            return
        if report.failed:  # also at the end: a server's log is judged behind the last of its tests
            self._passed[report.nodeid] = False
        elif report.passed and report.when == "call":
            self._passed[report.nodeid] = True

    def pytest_runtest_logfinish(self, nodeid):
        if nodeid in self._passed:
            kind, column = self._cells[nodeid]
            line = json.dumps({"test": nodeid, "kind": kind, "column": column, "passed": self._passed.pop(nodeid)})
            with self.results.open("a") as results:
                results.write(line + "\n")

    def pytest_sessionfinish(self):
        if self.results.exists():
            self.path.write_text(table([self.results]))


def command(kind):
    """Return how a kind of server is started, as a reader would write it."""
    with tempfile.TemporaryDirectory() as directory:
        words = [str(word).replace(directory + os.sep, "") for word in KINDS[kind].command(0, directory)]
    if "gunicorn" not in words:
        if words[0] == sys.executable and words[1].endswith("contract_app.py"):
            more = ["certfile=…", "keyfile=…"] if "--cert" in words else []
            if "--handler" in words:
                more.append("handler_class=" + words[words.index("--handler") + 1].rpartition(":")[2])
            return f"socketio.run({', '.join(['app', *more])})"
        words = [Path(words[0]).name, *words[1:]]
    else:
        words = ["gunicorn", *words[words.index("gunicorn") + 1 :]]
    own = {"--no-control-socket": 0, "-b": 1, "--pythonpath": 1, "--no-orphans": 0, "-H": 1, "--disable-logging": 0}
    for name, arguments in own.items():  # the tests' own affair
        if name in words:
            at = words.index(name)
            del words[at : at + arguments + 1]
    return shlex.join(words).replace("contract_app:app", "app:app").replace(":0 ", ":5000 ")


def table(paths):
    """Return the table that some files of results come to; each kind of server has its row."""
    last = {}
    for path in paths:
        for line in Path(path).read_text().splitlines():
            result = json.loads(line)
            last[result["test"]] = result
    ran, passed = collections.Counter(), collections.Counter()
    for result in last.values():
        cell = result["kind"], result["column"]
        ran[cell] += 1
        passed[cell] += result["passed"]
    lines = [f"| Server | Started by | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, row in KINDS.items():
        cells = [f"{passed[kind, column]} of {ran[kind, column]}" if ran[kind, column] else "–" for column in COLUMNS]
        lines.append(f"| {row.label} | `{command(kind)}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(sys.argv[1:]))
