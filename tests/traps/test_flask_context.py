"""Traps T86 to T97: request, session, test client, run, stop and background tasks."""

import contextlib
import gc
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import flask
import pytest
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import CallbackDict

import flask_realtime
from flask_realtime import disconnect, emit

from ..e2e.raw import Polling, WebSocket, fetch
from ..e2e.servers import Server, free_port, wait_until
from .engineio_server import LIMIT, Running, get, program, serving, wait


class StoredSession(CallbackDict, SessionMixin):
    """A session that lives on the server."""

    def __init__(self, initial, sid):
        def changed(session):
            session.modified = True

        super().__init__(initial, changed)
        self.sid = sid
        self.modified = False


class Store(SessionInterface):
    """Keeps sessions in a dict; the cookie holds the key."""

    def __init__(self):
        self.kept = {}
        self._numbers = itertools.count(1)

    def open_session(self, app, request):
        sid = request.cookies.get("session") or f"s{next(self._numbers)}"
        return StoredSession(self.kept.get(sid, {}), sid)

    def save_session(self, app, session, response):
        self.kept[session.sid] = dict(session)
        response.set_cookie("session", session.sid)


# T86


@pytest.mark.parametrize("async_handlers", [True, False])
def test_t86_event_for_a_client_that_is_gone_is_not_answered_with_a_status(async_handlers):
    app, extension = program(async_handlers=async_handlers, namespaces=["/", "/stay"])
    extension.on("leave")(disconnect)
    extension.on("e")(lambda: "result")
    extension.on("last", namespace="/stay")(lambda: "end")
    with serving(app, extension.server) as running:
        client = WebSocket(running)
        client.receive()
        for packet in ("40", "40/stay,"):
            client.send(packet)
            client.receive()
        for packet in ('421["leave"]', '422["e"]', '423["e"]', '42/stay,4["last"]'):
            client.send(packet)
        answers = []
        while not answers or answers[-1] != '43/stay,4["end"]':
            answers.append(client.receive())
        client.close()
    assert "41" in answers
    assert set(answers) <= {"41", "431[]", '432["result"]', '433["result"]', '43/stay,4["end"]'}


def test_t86_callback_runs_although_its_emitter_has_left():
    app, extension = program()
    log = queue.Queue()
    extension.on("go")(lambda: emit("ask", broadcast=True, include_self=False, callback=log.put))
    emitter, other = extension.test_client(app), extension.test_client(app)
    other.answer("ask", lambda: "before")
    emitter.emit("go")
    assert get(log) == "before"

    def answer():
        emitter.disconnect()
        return "after"

    other.answer("ask", answer)
    emitter.emit("go")
    assert get(log) == "after"


# T87 and T88


def login_program(**options):
    app, extension = program(**options)

    @app.route("/set/<value>")
    def set_value(value):
        flask.session["value"] = value
        return "ok"

    @app.route("/get")
    def get_value():
        return flask.session.get("value", "nothing")

    for namespace in ("/", "/chat"):
        extension.on("get", namespace=namespace)(lambda: flask.session.get("value"))
        extension.on("set", namespace=namespace)(lambda value: flask.session.update(value=value))
    return app, extension


def test_t87_session_is_copied_at_the_first_event_and_shared_by_the_namespaces():
    app, extension = login_program()
    browser = app.test_client()
    browser.get("/set/http")
    client = extension.test_client(app, flask_test_client=browser)
    client.connect("/chat")
    assert client.emit("get", callback=True) == "http"
    client.emit("set", "socket")
    assert client.emit("get", callback=True) == "socket"
    assert client.emit("get", callback=True, namespace="/chat") == "socket"
    assert browser.get("/get").text == "http"  # never written back
    browser.get("/set/later")
    assert client.emit("get", callback=True) == "socket"  # never read again
    assert extension.test_client(app, flask_test_client=browser).emit("get", callback=True) == "later"


def test_t87_session_of_a_real_connection_comes_from_its_handshake():
    app, extension = login_program()
    with serving(app, extension.server) as running:
        answer = fetch(running, "GET", "/set/cookie")
        client = Polling(running, headers={"Cookie": answer.headers["Set-Cookie"].partition(";")[0]})
        client.join()
        client.send('421["get"]')
        assert client.packets() == ['431["cookie"]']


def test_t88_without_manage_session_each_event_opens_and_saves_flasks_session():
    app, extension = login_program(manage_session=False)
    app.session_interface = Store()
    browser = app.test_client()
    browser.get("/set/http")
    client = extension.test_client(app, flask_test_client=browser)
    assert client.emit("get", callback=True) == "http"
    browser.get("/set/later")
    assert client.emit("get", callback=True) == "later"
    client.emit("set", "socket")
    assert browser.get("/get").text == "socket"


def test_t88_changes_before_an_error_are_kept_only_when_it_is_handled():
    app, extension = login_program(manage_session=False)
    app.session_interface = Store()

    @extension.on("fail")
    def fail():
        flask.session["value"] = "half done"
        raise LookupError

    browser = app.test_client()
    browser.get("/set/http")
    client = extension.test_client(app, flask_test_client=browser)
    with pytest.raises(LookupError):
        client.emit("fail")
    assert browser.get("/get").text == "http"
    extension.on_error_default(lambda error: "handled")
    assert client.emit("fail", callback=True) == "handled"
    assert browser.get("/get").text == "half done"


def test_t88_cookie_session_stays_that_of_the_handshake():
    app, extension = login_program(manage_session=False)
    browser = app.test_client()
    browser.get("/set/http")
    client = extension.test_client(app, flask_test_client=browser)
    client.emit("set", "socket")
    assert client.emit("get", callback=True) == "http"
    assert browser.get("/get").text == "http"


# T89 and T90


def test_t89_request_is_the_handshake_for_the_whole_connection():
    app, extension = program()
    seen = []

    @extension.on("e")
    def event():
        request = flask.request
        seen.append((request.method, request.path, request.args["token"], request.headers["X-Mine"]))

    with serving(app, extension.server) as running:
        client = Polling(running, headers={"X-Mine": "handshake"}, token="a")
        client.join()
        client.send('421["e"]')
        assert client.packets() == ["431[]"]
        websocket = WebSocket(running, sid=client.sid, token="b", headers=["X-Mine: upgrade"])
        websocket.send("2probe")
        assert websocket.receive() == "3probe"
        websocket.send("5")
        websocket.send('422["e"]')
        assert websocket.receive() == "432[]"
        websocket.close()
    assert seen == [("GET", "/socket.io/", "a", "handshake")] * 2


def test_t89_g_is_new_and_only_teardowns_run_for_each_event():
    app, extension = program()
    calls = []
    app.before_request(lambda: calls.append("before"))
    app.after_request(lambda response: calls.append("after") or response)
    app.teardown_request(lambda error: calls.append(("teardown request", error)))
    app.teardown_appcontext(lambda error: calls.append(("teardown app", error)))

    @extension.on("e")
    def event():
        first = "mark" not in flask.g
        flask.g.mark = True
        return first

    client = extension.test_client(app)
    client.emit("e")  # the first event also makes the connection's session
    del calls[:]
    for _ in range(2):
        assert client.emit("e", callback=True) is True
        assert calls == [("teardown request", None), ("teardown app", None)]
        del calls[:]


def test_t90_request_has_three_more_attributes():
    app, extension = program()

    @app.route("/plain")
    def plain():
        return sorted(vars(flask.request._get_current_object()))

    @extension.on("e")
    def event(data):
        request = flask.request._get_current_object()
        return [sorted(vars(request)), request.sid, request.namespace, request.event]

    client = extension.test_client(app)
    names, *values = client.emit("e", 1, callback=True)
    assert values == [client.sids["/"], "/", {"message": "e", "args": [1]}]
    assert set(names) - set(app.test_client().get("/plain").json) == {"sid", "namespace", "event"}


# T91 to T93


def test_t91_shapes_of_what_the_test_client_received():
    app, extension = program()
    client = extension.test_client(app)
    extension.emit("e", (1, [2]))
    extension.emit("none")
    extension.send("text")
    extension.send({"a": 1}, json=True)
    extension.emit("message", (1, 2))
    extension.emit("message")
    assert [(event["name"], event["args"]) for event in client.get_received()] == [
        ("e", [1, [2]]),
        ("none", []),
        ("message", "text"),
        ("json", {"a": 1}),
        ("message", 1),
        ("message", None),
    ]
    assert client.get_received() == []


@pytest.mark.parametrize(
    ("result", "acknowledged"), [(1, 1), ((1, 2), [1, 2]), ([1, 2], [1, 2]), (None, []), ((), []), ((None,), None)]
)
def test_t91_shapes_of_acknowledgements_in_the_test_client(result, acknowledged):
    app, extension = program()
    extension.on("e")(lambda: result)
    client = extension.test_client(app)
    assert client.emit("e", callback=True) == acknowledged
    assert client.emit("nobody handles this", callback=True) is None


def test_t92_further_namespaces_share_the_handshake_as_in_production():
    app, extension = login_program()
    client = extension.test_client(app, query_string="?a=1", headers={"X-Mine": "yes"})
    client.emit("set", "kept")
    client.connect("/chat")
    assert client.emit("get", callback=True, namespace="/chat") == "kept"
    extension.on("who", namespace="/chat")(lambda: [flask.request.args["a"], flask.request.headers["X-Mine"]])
    assert client.emit("who", callback=True, namespace="/chat") == ["1", "yes"]


def test_t92_test_clients_leave_the_server_as_it_is():
    app, extension = program()
    following = threading.Event()
    extension.on("slow")(lambda: following.wait(LIMIT))
    extension.on("next")(following.set)
    inside = extension.test_client(app)
    with serving(app, extension.server) as running:
        outside = Polling(running)
        outside.join()
        # Handlers of a real client still don't hold up each other.
        outside.send('421["slow"]', '42["next"]')
        assert outside.packets() == ["431[true]"]
        extension.emit("both")
        assert outside.packets() == ['42["both"]']
    assert [event["name"] for event in inside.get_received()] == ["both"]


def test_t92_applications_made_for_tests_leave_nothing_behind():
    def use_one():
        app, extension = program()
        extension.on("e")(lambda: "result")
        client = extension.test_client(app)
        assert client.emit("e", callback=True) == "result"
        return weakref.ref(app)

    gc.collect()
    before = threading.active_count()
    used = [use_one() for _ in range(20)]
    gc.collect()
    # Threads of earlier tests may end meanwhile.
    wait_until(lambda: threading.active_count() <= before + 1, what="the threads of 20 applications to end")
    assert sum(reference() is not None for reference in used) <= 1


def test_t93_errors_of_handlers_and_of_payloads_reach_the_test():
    app, extension = program()

    @extension.on("bad")
    def bad():
        raise LookupError("from the handler")

    extension.on("unsendable")(lambda: emit("answer", object()))
    client = extension.test_client(app)
    with pytest.raises(LookupError, match="from the handler"):
        client.emit("bad")
    with pytest.raises(TypeError):
        client.emit("unsendable")
    with pytest.raises(TypeError):
        client.emit("bad", object())
    assert client.is_connected() and client.get_received() == []


# T94 to T97: the real thing.

PROGRAM = """
import sys
import flask
import flask_realtime

app = flask.Flask(__name__)
socketio = flask_realtime.SocketIO(app)


@app.route("/")
def ready():
    return "ready"


@app.route("/stop")
def stop():
    socketio.stop()
    return "stopping"


@socketio.on("stop")
def stop_by_event():
    socketio.stop()


@socketio.on("disconnect")
def disconnected(reason):
    print(f"disconnected: {reason}\\n", end="", flush=True)  # one write: the server's log goes the same way


socketio.run(app, port=int(sys.argv[1]), **eval(sys.argv[2]))
print("run has returned\\n", end="", flush=True)
"""


class Ran:
    """A program that was run without a terminal, until it ended by itself.

    Attributes:
        output: All that it wrote.
    """

    def __init__(self):
        self.port = free_port()
        self.output = ""
        self.process = None

    connection, socket = Running.connection, Running.socket

    def answers(self):
        assert self.process.poll() is None, self.process.communicate()
        with contextlib.suppress(OSError):
            return fetch(self, "GET", "/").body == b"ready"

    def end(self):
        """Wait for the end that something else has caused."""
        self.output = self.process.communicate(timeout=LIMIT)[0]
        assert self.process.returncode == 0, self.output
        assert "Traceback" not in self.output


@pytest.fixture
def run_program(tmp_path):
    """A context manager that runs the program; it must have ended by itself when the block is left."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)

    @contextlib.contextmanager
    def run(**options):
        this = Ran()
        this.process = subprocess.Popen(
            [sys.executable, str(file), str(this.port), repr(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # the reloader has a child
            env={**os.environ, "PYTHONPATH": str(Path(flask_realtime.__file__).parents[1])},
        )
        try:
            wait_until(this.answers, what="the program")
            yield this
            this.end()
        finally:
            if not this.output:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(this.process.pid, signal.SIGKILL)
                this.process.communicate()

    return run


@pytest.mark.parametrize("options", [{}, {"allow_unsafe_werkzeug": True}])
def test_t94_run_without_a_terminal_warns_and_t95_stop_ends_it(run_program, options):
    with run_program(**options) as this:
        client = WebSocket(this)
        client.receive()
        client.send("40")
        client.receive()
        assert fetch(this, "GET", "/stop").body == b"stopping"
        # The client is told that the server goes.
        assert client.receive() is None
        client.abandon(reset=False)
    assert "disconnected: server disconnect" in this.output
    assert "run has returned" in this.output
    assert ("meant for development" in this.output) is not bool(options)


def test_t95_shutdown_ends_every_connection_to_its_last_byte():
    app, extension = program()
    with serving(app, extension.server) as running:
        client = WebSocket(running)
        client.receive()
        polling = Polling(running)
        polling.join()
        poll = polling.get()
        extension.server.shutdown()
        assert client.frame()[0] == 8
        client.socket.shutdown(socket.SHUT_WR)
        assert client.file.read() == b""
        client.abandon(reset=False)
        answer = poll.answer()
        assert answer.body == b"1" or answer.status == 503  # the poll may have come after the end
        assert fetch(running, "GET", "/socket.io/?EIO=4&transport=polling").status == 503


def test_t95_stop_works_in_a_handler(run_program):
    with run_program() as this:
        client = Polling(this)
        client.join()
        client.send('42["stop"]')
    assert "disconnected: server disconnect" in this.output
    assert "run has returned" in this.output


def test_t95_stop_ends_the_reloader_too(run_program):
    with run_program(debug=True) as this:
        client = WebSocket(this)
        client.receive()
        client.send("40")
        client.receive()
        assert fetch(this, "GET", "/stop").body == b"stopping"
        assert client.receive() is None
        client.abandon(reset=False)
    assert "disconnected: server disconnect" in this.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_t95_signals_end_run_in_good_order(run_program, number):
    with run_program() as this:
        client = WebSocket(this)
        client.receive()
        client.send("40")
        client.receive()
        this.process.send_signal(number)
        assert client.receive() is None
        client.abandon(reset=False)
    assert "disconnected: server disconnect" in this.output


def test_t96_no_traceback_under_gunicorns_threads_when_websockets_end(tmp_path):
    server = Server("gunicorn-threads", tmp_path)
    try:
        for _ in range(3):
            for end in ("close", "reset", "cut", "upgraded"):
                if end == "upgraded":
                    polling = Polling(server)
                    polling.join()
                    client = WebSocket(server, sid=polling.sid)
                    client.send("2probe")
                    assert client.receive() == "3probe"
                    client.send("5")
                else:
                    client = WebSocket(server)
                    client.receive()
                    client.send("40")
                    assert client.receive().startswith("40{")
                if end in ("reset", "cut"):
                    client.abandon(reset=end == "reset")
                else:
                    client.close()
        # More than the worker has threads, and open when it is told to end.
        remaining = [WebSocket(server) for _ in range(20)]
        for client in remaining:
            assert client.receive().startswith("0{")
    finally:
        server.stop()  # fails when the log holds an error
    assert "Traceback" not in server.log.read_text()
    for client in remaining:
        assert client.receive() is None
        client.abandon(reset=False)


def test_t97_background_task_has_no_context_and_can_be_joined():
    app, extension = program()
    log = queue.Queue()

    def task(one, two=None):
        log.put((one, two, flask.has_app_context(), flask.has_request_context(), threading.current_thread().daemon))
        with app.app_context():
            log.put(flask.current_app.name == app.name)

    @extension.on("go")
    def go():
        log.put(extension.start_background_task(task, 1, two=2))

    extension.test_client(app).emit("go")
    entries = [get(log) for _ in range(3)]
    (thread,) = [entry for entry in entries if hasattr(entry, "join")]
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert (1, 2, False, False, True) in entries and True in entries


def test_t97_background_task_emits_to_everybody():
    app, extension = program()
    client = extension.test_client(app)
    done = threading.Event()

    def task():
        extension.sleep(0)
        extension.emit("news", 1)
        done.set()

    extension.start_background_task(task)
    wait(done)
    assert client.get_received() == [{"name": "news", "args": [1], "namespace": "/"}]
