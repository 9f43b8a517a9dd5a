"""The documentation's code runs: each page's Python blocks, in their order, are one program, which is then used."""

import dataclasses
import decimal
import importlib.util
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import threading
import types
import uuid
from pathlib import Path

import flask
import flask_login
import pytest
import socketio as peer
from werkzeug.serving import make_server

import flask_realtime
from flask_realtime.metrics import METRICS

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide"
LIMIT = 20  # seconds, generous, for what happens at once


def blocks(path, language):
    """Return the text of a page's fenced blocks of one language ('' for those that name none)."""
    found, block = [], None
    for line in path.read_text().splitlines():
        if block is None:
            match = re.match(r"(`{3,})(.*)$", line)
            if match:
                block = (match[1], match[2], [])
        elif line == block[0]:
            if block[1] == language:
                found.append("\n".join(block[2]) + "\n")
            block = None
        else:
            block[2].append(line)
    assert block is None, f"{path.name}: a block isn't closed"
    return found


def program(path, name, head=""):
    """Run a page's Python blocks as one module and return it."""
    module = types.ModuleType(name)
    module.__file__ = str(path)
    for number, text in enumerate([head, *blocks(path, "python")]):
        exec(compile(text, f"{path.name}, block {number}", "exec"), module.__dict__)
    return module


def guide(name):
    """Run a page of the guide, below the lines that its first page gives for all of them."""
    (head,) = blocks(GUIDE / "index.md", "")
    return program(GUIDE / f"{name}.md", "docs_" + name, head)


def shown(client, namespace=None):
    """Return what a test client has received as (name, arguments)."""
    return [(event["name"], event["args"]) for event in client.get_received(namespace)]


def test_every_page_with_code_is_run_here():
    pages = {path.stem for path in (ROOT / "docs").rglob("*.md") if blocks(path, "python")}
    elsewhere = {"celery", "external", "workers"}  # test_queue_pages.py
    assert pages - elsewhere == {
        "acks",
        "architecture",
        "emitting",
        "errors",
        "eventlet",
        "events",
        "getting-started",
        "gevent",
        "migrating",
        "monitoring",
        "nginx",
        "rooms",
        "security",
        "sessions",
        "testing",
    }


def test_getting_started():
    page = program(ROOT / "docs" / "getting-started.md", "app")
    page.test_a_message_reaches_everybody()
    page.test_nobody_comes_in_without_a_name()
    ann = page.socketio.test_client(page.app, auth={"name": "Ann"})
    bob = page.socketio.test_client(page.app, auth={"name": "Bob"})
    assert ann.emit("say", " ", callback=True) == {"ok": False, "why": "there is no text"}
    assert ann.emit("enter", "cellar", callback=True)["ok"] is False
    assert bob.emit("enter", "lobby", callback=True) == {"ok": True}
    assert ann.emit("enter", "garden", callback=True) == {"ok": True}
    assert ann.emit("enter", "lobby", callback=True) == {"ok": True}
    assert ann.emit("whisper", "psst", callback=True) == {"ok": True}
    assert page.app.test_client().post("/announce", data={"text": "tea"}).status_code == 204
    said = ("said", [{"name": "Ann", "text": "psst"}])
    assert shown(bob) == [("notice", ["Ann came in"]), said, ("notice", ["tea"])]
    ann.close()
    assert shown(bob) == [("notice", ["Ann left"])]


def test_events_page():
    page = guide("events")
    client = page.socketio.test_client(page.app)
    client.emit("move", 3, 4)
    assert shown(client) == [("moved", [client.sids["/"], 3, 4])]
    for event in ("jump", "roll", "nothing like it"):
        client.emit(event, 1)
    client.connect("/admin")
    assert not client.is_connected("/admin")
    client.connect("/board")
    other = page.socketio.test_client(page.app, "/board")
    client.emit("draw", [1, 2], namespace="/board")
    assert shown(client, "/board") == [("hello", [])]
    assert shown(other, "/board") == [("hello", []), ("drawn", [[1, 2]])]
    client.close()


def test_what_is_emitted_arrives_as_the_events_page_says():
    page = guide("events")
    client = page.socketio.test_client(page.app)
    for args in ((), (None,), ((),), ([1, 2],), (1, 2), ((1, 2),), ({"a": (b"x", memoryview(b"y"))},)):
        page.socketio.emit("e", *args)
    assert [args for _, args in shown(client)] == [[], [], [], [[1, 2]], [1, 2], [1, 2], [{"a": [b"x", b"y"]}]]


def test_what_the_application_can_encode_is_sent_as_the_events_page_says():
    page = guide("events")
    client = page.socketio.test_client(page.app)
    number = uuid.UUID(int=7)
    page.socketio.emit("e", [decimal.Decimal("1.5"), number, Point(1, 2), float("nan")])
    assert shown(client) == [("e", [["1.5", str(number), {"x": 1, "y": 2}, None]])]
    with pytest.raises(TypeError):
        page.socketio.emit("e", object())


@dataclasses.dataclass
class Point:
    x: int
    y: int


def test_rooms_page():
    page = guide("rooms")
    ann, bob = page.socketio.test_client(page.app), page.socketio.test_client(page.app)
    assert ann.emit("join", "secret", callback=True) is False
    assert ann.emit("join", "public-1", callback=True) is True
    assert bob.emit("join", "public-1", callback=True) is True
    assert shown(ann) == [("came", [bob.sids["/"]])]
    ann.emit("edit", "public-1", "x")
    bob.emit("leave", "public-1")
    bob.emit("edit", "public-1", "y")
    assert shown(bob) == [("edited", ["x"])]
    assert shown(ann) == [("edited", ["x"])]
    page.socketio.server.enter_room(bob.sids["/"], "admins")
    ann.emit("alert", "fire")
    assert (shown(ann), shown(bob)) == ([], [("alerted", ["fire"])])
    ann.connect("/mail")
    assert ann.refusals["/mail"] == {"message": "Please log in."}


def test_empty_targets_are_nobody():
    page = guide("rooms")
    client = page.socketio.test_client(page.app)
    for target in ("", [], (), set(), 0):
        page.socketio.emit("e", to=target)
        page.socketio.emit("e", room=target)
    assert shown(client) == []


def test_acks_page(caplog):
    page = guide("acks")
    client = page.socketio.test_client(page.app)
    assert client.emit("save", "text", callback=True) == {"id": 7}
    client.answer("ready?", lambda task: (task, "yes"))
    page.app.logger.setLevel("INFO")
    client.emit("start", "wash")
    assert f"{client.sids['/']} says ('wash', 'yes')" in caplog.text
    client.answer("confirm", lambda question: "sure")
    assert client.emit("begin", callback=True) == "sure"


def test_sessions_page():
    page = guide("sessions")
    browser = page.app.test_client()
    browser.post("/login", data={"user": "ann"})
    client = page.socketio.test_client(
        page.app, flask_test_client=browser, headers={"User-Agent": "a test"}
    )
    assert client.emit("who", callback=True) == {
        "sid": client.sids["/"],
        "namespace": "/",
        "event": "who",
        "arguments": [],
        "browser": "a test",
        "calls": 1,
    }
    assert client.emit("who", callback=True)["calls"] == 1
    assert client.emit("greet", callback=True) == ["ann", 1]
    assert client.emit("greet", callback=True) == ["ann", 2]
    client.emit("choose", "red")
    assert page.color_of(client.sids["/"]) == "red"
    client.close()
    with pytest.raises(KeyError):
        page.color_of(client.sids["/"])


def test_request_functions_run_as_the_sessions_page_says():
    page = guide("sessions")
    ran = []
    page.app.before_request(lambda: ran.append("before"))
    page.app.after_request(lambda response: ran.append("after") or response)
    page.app.teardown_request(lambda error: ran.append("teardown"))
    page.app.teardown_appcontext(lambda error: ran.append("app"))
    client = page.socketio.test_client(page.app)
    client.emit("who")
    ran.clear()
    client.emit("who")
    assert ran == ["teardown", "app"]


def test_flask_login_works_as_the_sessions_page_says():
    page = guide("sessions")

    class User(flask_login.UserMixin):
        id = "7"

    flask_login.LoginManager(page.app).user_loader(lambda number: User())

    @page.app.post("/in")
    def enter():
        flask_login.login_user(User())
        return ""

    @page.socketio.on("connect")
    def connect():
        return flask_login.current_user.is_authenticated

    @page.socketio.on("me")
    def me():
        return flask_login.current_user.get_id()

    assert not page.socketio.test_client(page.app).is_connected()
    browser = page.app.test_client()
    browser.post("/in")
    client = page.socketio.test_client(page.app, flask_test_client=browser)
    assert client.emit("me", callback=True) == "7"


def test_errors_page():
    page = guide("errors")
    client = page.socketio.test_client(page.app)
    assert client.emit("divide", 6, 3, callback=True) == 2
    assert client.emit("divide", 1, 0, callback=True) == {"error": "division by zero"}
    client.connect("/orders")
    assert client.refusals["/orders"] == {"message": "Please log in.", "data": {"code": 17}}
    client.connect("/orders", auth={"token": 1})
    assert client.is_connected("/orders")


@pytest.mark.parametrize(
    "error, told",
    [
        (flask_realtime.ConnectionRefusedError("text"), {"message": "text"}),
        (flask_realtime.ConnectionRefusedError("text", 1), {"message": "text", "data": 1}),
        (flask_realtime.ConnectionRefusedError("text", 1, 2), {"message": "text", "data": [1, 2]}),
        (flask_realtime.ConnectionRefusedError(), {"message": "Connection rejected by server"}),
        (ZeroDivisionError(), {"message": "Connection rejected by server"}),
        (ConnectionRefusedError("hidden"), {"message": "Connection refused by server"}),
    ],
)
def test_refusals_are_told_as_the_errors_page_says(error, told):
    page = guide("errors")

    @page.socketio.on("connect")
    def connect():
        raise error

    assert page.socketio.test_client(page.app).refusals["/"] == told


def test_emitting_page():
    page = guide("emitting")
    page.task.join(LIMIT)
    client = page.socketio.test_client(page.app)
    assert page.crowd(client.sids["/"]) == {"here": 1, "all": 1}
    page.socketio.server.enter_room(client.sids["/"], "order-3")
    assert page.app.test_client().post("/orders/3/paid").status_code == 204
    assert ("paid", [3]) in shown(client)


def test_a_command_reaches_the_server_as_the_emitting_page_says(monkeypatch):
    page = guide("emitting")
    with werkzeug(page.app) as url:
        client = peer.Client(reconnection=False)
        paid = threading.Event()
        client.on("paid", lambda number: paid.set() if number == 3 else None)
        client.connect(url, wait_timeout=LIMIT)
        page.socketio.server.enter_room(client.get_sid(), "order-3")
        open_url = page.urllib.request.urlopen
        monkeypatch.setattr(
            page.urllib.request, "urlopen", lambda at, **kw: open_url(at.replace("http://127.0.0.1:5000", url), **kw)
        )
        result = page.app.test_cli_runner().invoke(args=["announce", "3"])
        assert result.exception is None
        assert paid.wait(LIMIT)
        client.disconnect()


def test_testing_page():
    page = guide("testing")
    tests = [value for name, value in vars(page).items() if name.startswith("test_")]
    assert len(tests) == 6
    for test in tests:
        test()


def test_security_page():
    page = guide("security")
    assert page.socketio.server.eio.options.max_backlog == 500_000


def test_architecture_page():
    program(ROOT / "docs" / "architecture.md", "docs_architecture")


def test_what_the_architecture_page_names_exists():
    found = {}
    for info in pkgutil.walk_packages(flask_realtime.__path__, "flask_realtime."):
        for name, value in vars(importlib.import_module(info.name)).items():
            if isinstance(value, type) and value.__module__ == info.name:
                found.setdefault(name, []).append(value)
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)
    assert len(named) > 20
    missing = [(owner, name) for owner, name in named if not any(hasattr(one, name) for one in found.get(owner, []))]
    assert missing == []


def test_nginx_page():
    page = program(ROOT / "docs" / "deploy" / "nginx.md", "docs_nginx")
    assert page.socketio.server.eio.options.trusted_proxies == 1


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_pages_of_green_servers(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs flask_realtime[{library}]")
    (text,) = blocks(ROOT / "docs" / "deploy" / f"{library}.md", "python")
    text = text.replace('"__main__"', '"not this"') + "print(socketio.async_mode)\n"  # it patches its process
    command = [sys.executable, "-W", "ignore", "-c", text]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{library}\n", "")


def test_monitoring_page():
    page = program(ROOT / "docs" / "monitoring.md", "docs_monitoring")
    browser = page.app.test_client()
    assert browser.get("/healthz").json == {"status": "ok"}
    assert browser.get("/readyz").json == {"status": "ready"}
    page.socketio.test_client(page.app)
    assert "flask_realtime_connects_total 1.0" in browser.get("/metrics").text
    assert page.busy() is False
    try:
        assert page.REGISTRY.get_sample_value("flask_realtime_connects_total") == 1
    finally:
        page.REGISTRY.unregister(page.collector)


def test_the_monitoring_page_lists_all_numbers_and_all_metrics():
    text = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)`.*\| `(flask_realtime_\w+?)(_total)?(?:\{(\w+)\})?` \|$", text, re.MULTILINE)
    assert [(path, name, bool(total), label) for path, name, total, label in rows] == [
        (
            ".".join(metric.path),
            "flask_realtime_" + metric.name,
            metric.family.__name__.startswith("Counter"),
            metric.label,
        )
        for metric in METRICS
    ]


def test_migrating_page():
    program(ROOT / "docs" / "migrating.md", "docs_migrating", "from flask import Flask\napp = Flask(__name__)\n")


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)|src=\"(docs/[^\"]+)\"", text)
    names = [one or other for one, other in links if not (one or other).startswith("http")]
    assert len(names) >= 8
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_readme_and_deploy_page_say_the_same_of_each_server():
    def rows(path, columns):
        lines = [line for line in path.read_text().splitlines() if line.count(" | ") >= 4]
        table = [line for line in lines if re.match(r"\| (Werkzeug|gunicorn|gevent|eventlet|uWSGI|waitress)", line)]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
        return [[row[number] for number in columns] for row in cells]

    deploy = rows(ROOT / "docs" / "deploy" / "index.md", (0, 1, 2, 3, 4))
    assert len(deploy) == 9
    assert [[*row[:4], row[4].split(":")[0]] for row in deploy] == rows(ROOT / "README.md", (0, 2, 3, 4, 5))


# The README, with real servers.


class werkzeug:
    """Serves an application in a thread; gives the URL."""

    def __init__(self, app):
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join(LIMIT)
        self.server.server_close()


@pytest.fixture
def readme(tmp_path):
    """The README's application in a directory of its own, as it tells its reader to make it."""
    app, test = blocks(ROOT / "README.md", "python")
    (page,) = blocks(ROOT / "README.md", "html")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "index.html").write_text(page)
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "test_app.py").write_text(test)
    return tmp_path


def readme_command(start):
    """Return the command of the README that starts with some words."""
    lines = [line.split("#")[0].strip() for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    (command,) = [line for line in lines if line.startswith(start)]
    return command.split()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("start", ["python app.py", "flask run", "gunicorn"])
def test_readme_application_is_served_by(start, readme):
    port = free_port()
    name, *rest = readme_command(start)
    if name == "python":  # it listens on 5000, which may be taken on this machine
        text = (readme / "app.py").read_text()
        assert text.count("socketio.run(app)") == 1
        (readme / "app.py").write_text(text.replace("socketio.run(app)", f"socketio.run(app, port={port})"))
        command = [sys.executable, *rest]
    elif name == "flask":
        command = [sys.executable, "-m", "flask", *rest, "--port", str(port)]
    else:
        command = [sys.executable, "-m", name, "-b", f"127.0.0.1:{port}", *rest]
        known = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, timeout=60).stdout
        if "--no-control-socket" in known:
            command.insert(3, "--no-control-socket")
    with (readme / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=readme, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        talk(f"http://127.0.0.1:{port}", server, readme / "log")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(LIMIT)
    assert "Traceback" not in (readme / "log").read_text()


def talk(url, server, log):
    """Connect as soon as the server is there, say something and hear it."""
    client = peer.Client(reconnection=False)
    heard = threading.Event()
    client.on("said", lambda text: heard.set() if text == "hello" else None)
    for _ in range(400):
        try:
            client.connect(url, wait_timeout=LIMIT)
            break
        except peer.exceptions.ConnectionError:
            assert server.poll() is None, log.read_text()
            heard.wait(0.05)
    client.emit("say", "hello")
    assert heard.wait(LIMIT), log.read_text()
    client.disconnect()


def test_readme_page_is_served(readme):
    module = types.ModuleType("app")
    module.__file__ = str(readme / "app.py")
    exec((readme / "app.py").read_text(), module.__dict__)
    module.app.root_path = str(readme)
    answer = flask.Flask.test_client(module.app).get("/")
    assert b"socket.io.min.js" in answer.data


def test_readme_test_passes(readme):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"]
    run = subprocess.run(command, cwd=readme, env=environment(), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
