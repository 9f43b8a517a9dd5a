import datetime
import threading

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface

from flask_realtime import Namespace, SocketIO


@pytest.fixture
def app():
    return flask.Flask("site_under_test")


@pytest.mark.parametrize(
    "use",
    [
        lambda extension: extension.emit("x"),
        lambda extension: extension.close_room("x"),
        lambda extension: extension.start_background_task(print),
        lambda extension: extension.sleep(0),
        lambda extension: extension.core,
    ],
)
def test_before_init_app_there_is_nothing_to_use(use):
    extension = SocketIO()
    assert extension.async_mode is None
    with pytest.raises(RuntimeError, match="init_app"):
        use(extension)


def test_handlers_may_be_registered_before_and_after(app):
    extension = SocketIO()
    ran = []
    extension.on_event("a", lambda: ran.append("a"))

    @extension.event
    def b():
        ran.append("b")

    class Before(Namespace):
        def on_x(self):
            ran.append("before")

    class After(Namespace):
        def on_x(self):
            ran.append("after")

    before, after = Before("/before"), After("/after")
    extension.on_namespace(before)
    assert before.socketio is extension
    extension.init_app(app)

    @extension.event(namespace="/")
    def c():
        ran.append("c")

    extension.on("d")(lambda: ran.append("d"))
    extension.on_namespace(after)
    assert extension.async_mode == "threading"
    client = extension.test_client(app)
    for name in "abcd":
        client.emit(name)
    for namespace in ("/before", "/after"):
        client.connect(namespace)
        client.emit("x", namespace=namespace)
    assert ran == ["a", "b", "c", "d", "before", "after"]


def test_what_is_no_handler_is_refused(app):
    extension = SocketIO(app)
    for register in (
        lambda: extension.on_event("x", "text"),
        lambda: extension.on_namespace(object()),
        lambda: extension.on_error()("text"),
        lambda: extension.on_error_default("text"),
    ):
        with pytest.raises(ValueError):
            register()


def test_a_namespace_emits_to_all_of_its_own(app):
    class Room(Namespace):
        def on_x(self):
            self.emit("event", {"a": 1})
            self.send("text")
            self.emit("empty")
            self.socketio.close_room("x")
            self.close_room("x")

    extension = SocketIO(app)
    extension.on_namespace(Room("/room"))
    a, b = (extension.test_client(app, "/room") for _ in range(2))
    a.emit("x", namespace="/room")
    expected = [("event", [{"a": 1}]), ("message", "text"), ("empty", [])]
    for client in (a, b):
        assert [(event["name"], event["args"]) for event in client.get_received("/room")] == expected


def test_errors_go_to_their_handlers(app):
    extension = SocketIO(app)
    seen = []
    extension.on_event("x", lambda: 1 / 0)
    extension.on_event("x", lambda: 1 / 0, namespace="/a")

    @extension.on_error()
    def own(error):
        seen.append(("own", type(error), flask.request.event["message"]))
        return "handled"

    @extension.on_error_default
    def default(error):
        seen.append(("default", type(error), flask.request.namespace))

    client = extension.test_client(app)
    client.connect("/a")
    assert client.emit("x", callback=True) == "handled"
    client.emit("x", namespace="/a")
    assert seen == [("own", ZeroDivisionError, "x"), ("default", ZeroDivisionError, "/a")]


@pytest.mark.parametrize("json", [None, flask.json])
def test_the_json_of_the_application_is_used(app, json):
    extension = SocketIO(app, json=json)
    client = extension.test_client(app)
    extension.emit("day", datetime.date(2000, 1, 2))
    (event,) = client.get_received()
    assert event["args"] == ["Sun, 02 Jan 2000 00:00:00 GMT"]


def test_callbacks_run_in_the_context_of_who_emitted(app):
    extension = SocketIO(app)
    seen = []

    @extension.on("go")
    def go(target):
        extension.emit("ask", to=target, callback=lambda answer: seen.append((answer, flask.request.sid)))

    a, b = (extension.test_client(app) for _ in range(2))
    b.answer("ask", lambda: "yes")
    a.emit("go", b.sids["/"])
    assert seen == [("yes", a.sids["/"])]


def test_a_call_needs_one_to_call(app):
    with pytest.raises(ValueError, match="broadcast"):
        SocketIO(app).call("x")


def test_background(app):
    extension = SocketIO(app)
    ran = threading.Event()
    extension.start_background_task(ran.set).join(30)
    extension.sleep(0)
    assert ran.is_set()


@pytest.mark.parametrize("option", ["path", "resource"])
def test_the_path(app, option):
    SocketIO(app, **{option: "/live/io"})
    app.add_url_rule("/socket.io/", view_func=lambda: "page")
    client = app.test_client()
    assert client.get("/live/io/?EIO=4&transport=polling").status_code == 200
    assert client.get("/socket.io/").data == b"page"


def test_unknown_options_are_warned_about(app):
    with pytest.warns(UserWarning, match="did you mean 'manage_session'"):
        SocketIO(app, manage_sessions=False)


def test_a_session_store_that_fails_leaves_no_context_behind(app):
    app.secret_key = "for tests"

    class Store(SecureCookieSessionInterface):
        down = False

        def open_session(self, app, request):
            if self.down:
                raise RuntimeError("the store is down")
            return super().open_session(app, request)

    app.session_interface = store = Store()
    extension = SocketIO(app, manage_session=False)
    seen = []

    @extension.on("write")
    def write():
        flask.g.user = "alice"

    @extension.on("read")
    def read():
        seen.append(flask.g.get("user"))

    alice, bob = extension.test_client(app), extension.test_client(app)
    alice.emit("write")
    bob.emit("read")
    store.down = True
    with pytest.raises(RuntimeError, match="the store is down"):
        alice.emit("write")
    store.down = False
    alice.emit("write")
    bob.emit("read")
    assert seen == [None, None]
    assert not flask.has_app_context()


# Mistakes that newcomers make


def test_a_coroutine_function_is_refused_as_a_handler(app):
    socketio = SocketIO(app)

    async def later():
        pass

    with pytest.raises(ValueError, match="expected a plain function, got a coroutine function"):
        socketio.on("news")(later)


def test_on_without_a_name_says_what_to_write(app):
    socketio = SocketIO(app)
    with pytest.raises(TypeError, match=r"write @socketio\.event"):

        @socketio.on
        def news():
            pass


@pytest.mark.parametrize(
    "act",
    [
        lambda socketio: socketio.on_event("news", print, namespace="admin"),
        lambda socketio: socketio.emit("news", namespace="admin"),
        lambda socketio: socketio.on_namespace(Namespace("admin")),
    ],
    ids=["on", "emit", "class"],
)
def test_a_namespace_without_its_slash_is_warned_of(app, act):
    socketio = SocketIO(app)
    with pytest.warns(UserWarning, match="did you mean '/admin'"):
        act(socketio)


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_out_of_range_is_refused(app, port):
    socketio = SocketIO(app)
    with pytest.raises(ValueError, match="port: expected 0 to 65535"):
        socketio.run(app, port=port, allow_unsafe_werkzeug=True)
