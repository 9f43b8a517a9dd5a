import flask
import pytest

from flask_realtime import ConnectionRefusedError, SocketIO, emit, send


@pytest.fixture(params=["default", "msgpack"])
def extension(request):
    app = flask.Flask("site_under_test")
    app.secret_key = "secret"
    extension = SocketIO(app, serializer=request.param)
    extension.app = app

    @extension.on("connect")
    def connect(auth):
        extension.seen = flask.request.args.to_dict(), flask.request.headers.get("X-Token"), auth
        if auth == {"bad": True}:
            raise ConnectionRefusedError("bad", {"code": 7})

    @extension.on("echo")
    def echo(*args):
        emit("echoed", args)
        return args

    @extension.on("message")
    @extension.on("json")
    def message(data=None):
        send(data, json=isinstance(data, dict))
        return data

    @extension.on("fail")
    def fail():
        raise ZeroDivisionError("in the handler")

    @extension.on("echo", namespace="/a")
    def echo_a():
        emit("here")

    return extension


@pytest.fixture
def client(extension):
    return extension.test_client(extension.app)


def test_events_have_been_handled_when_emit_returns(client):
    client.emit("echo", 1, b"2", {"a": [None]})
    assert client.get_received() == [{"name": "echoed", "args": [1, b"2", {"a": [None]}], "namespace": "/"}]
    assert client.get_received() == []


@pytest.mark.parametrize(("args", "result"), [((), []), ((1,), 1), ((1, 2), [1, 2]), (([1],), [1])])
def test_acknowledgements(client, args, result):
    assert client.emit("echo", *args, callback=True) == result
    assert client.emit("unknown", *args, callback=True) is None


def test_send(client):
    assert client.send("text", callback=True) == "text"
    client.send({"a": 1}, json=True)
    assert [(event["name"], event["args"]) for event in client.get_received()] == [
        ("message", "text"),
        ("json", {"a": 1}),
    ]


def test_what_a_handler_raises_is_raised(client):
    with pytest.raises(ZeroDivisionError):
        client.emit("fail")
    assert client.send("next", callback=True) == "next"


def test_namespaces(client):
    assert client.is_connected() and not client.is_connected("/a")
    with pytest.raises(RuntimeError):
        client.get_received("/a")
    client.connect("/a")
    client.emit("echo", namespace="/a")
    assert [event["name"] for event in client.get_received("/a")] == ["here"]
    assert client.sids["/"] != client.sids["/a"]
    client.disconnect("/a")
    assert client.is_connected() and not client.is_connected("/a")
    with pytest.raises(RuntimeError, match="not connected"):
        client.disconnect("/a")


def test_the_handshake(extension):
    client = extension.test_client(
        extension.app, query_string="?a=1", headers={"X-Token": "t"}, auth={"ok": True}
    )
    assert extension.seen == ({"a": "1"}, "t", {"ok": True})
    client.disconnect()
    client.connect(query_string="b=2")
    assert extension.seen == ({"b": "2"}, None, None)
    client.connect("/a", headers={"X-Token": "later"})
    assert client.is_connected("/a") and client.is_connected()


def test_a_refusal(extension):
    client = extension.test_client(extension.app, auth={"bad": True})
    assert not client.is_connected()
    assert client.refusals == {"/": {"message": "bad", "data": {"code": 7}}}
    client.connect()
    assert client.is_connected() and client.refusals == {}


def test_the_end_of_the_connection(extension, client):
    gone = []
    extension.on_event("disconnect", lambda reason: gone.append(reason))
    client.connect("/a")
    client.close()
    assert gone == ["client disconnect"]
    assert not client.is_connected() and not client.is_connected("/a")
    client.connect()
    assert client.is_connected()


def test_disconnects_by_the_server(extension, client):
    extension.server.disconnect(client.sids["/"])
    assert not client.is_connected()


def test_the_server_may_ask(extension, client):
    client.answer("ask", lambda question: (question, "yes"))
    assert extension.call("ask", "sure?", to=client.sids["/"], timeout=1) == ("sure?", "yes")
    client.answer("ask", lambda *args: None)
    assert extension.call("ask", to=client.sids["/"], timeout=1) is None
    with pytest.raises(TimeoutError):
        extension.call("unanswered", to=client.sids["/"], timeout=0.01)


def test_several_clients(extension, client):
    other = extension.test_client(extension.app)
    extension.emit("all", 1)
    extension.send("text", to=other.sids["/"])
    assert [event["name"] for event in client.get_received()] == ["all"]
    assert [event["name"] for event in other.get_received()] == ["all", "message"]
    assert client.eio_sid != other.eio_sid


def test_the_cookies_of_a_flask_client(extension):
    @extension.app.route("/login")
    def login():
        flask.session["user"] = "ann"
        return ""

    @extension.on("who")
    def who():
        return flask.session.get("user")

    browser = extension.app.test_client()
    browser.get("/login")
    assert extension.test_client(extension.app, flask_test_client=browser).emit("who", callback=True) == "ann"
    assert extension.test_client(extension.app).emit("who", callback=True) == []
