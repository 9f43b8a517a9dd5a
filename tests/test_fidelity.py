"""What programs written for the field's packages rely on, beyond what the trap tests have."""

import flask
import pytest
from flask.testing import FlaskClient

from flask_realtime import ConnectionRefusedError, Namespace, SocketIO, emit, engineio, socketio


@pytest.fixture
def app():
    app = flask.Flask(__name__)
    app.config["SECRET_KEY"] = "only for tests"

    @app.get("/remember")
    def remember():
        flask.session["user"] = "ada"
        return "done"

    return app


# The test client.


def leave(client):
    client.disconnect()


def be_sent_away(client):
    client.emit("away")


@pytest.mark.parametrize("go", [leave, be_sent_away])
def test_test_client_must_be_connected_to_emit(app, go):
    sio = SocketIO(app)
    sio.on_event("away", lambda: sio.server.disconnect(flask.request.sid))
    client = sio.test_client(app)
    go(client)
    assert not client.is_connected()
    with pytest.raises(RuntimeError, match="not connected"):
        client.emit("anything")
    with pytest.raises(RuntimeError, match="not connected"):
        client.send("anything")


def test_test_client_must_have_joined_a_namespace_to_emit_there(app):
    sio = SocketIO(app)
    client = sio.test_client(app)
    with pytest.raises(RuntimeError, match="not connected"):
        client.emit("anything", namespace="/elsewhere")
    assert client.is_connected()


def test_result_that_cannot_be_sent_fails_the_test(app):
    sio = SocketIO(app)
    sio.on_event("report", lambda: {"value": object()})
    client = sio.test_client(app)
    with pytest.raises(TypeError):
        client.emit("report", callback=True)
    client.emit("report")  # nobody asks for the result, so nothing fails


def test_test_client_ignores_an_unknown_argument_with_a_warning(app):
    sio = SocketIO(app)
    sio.on_event("say", lambda text: emit("said", text))
    client = sio.test_client(app)
    with pytest.warns(UserWarning, match="broadcast"):
        client.emit("say", "hello", broadcast=True)
    assert client.get_received() == [{"name": "said", "args": ["hello"], "namespace": "/"}]


def test_test_client_has_no_headers_of_its_own(app):
    sio = SocketIO(app)
    seen = []
    sio.on_event("connect", lambda: seen.append(dict(flask.request.headers)))
    sio.test_client(app, headers={"X-Token": "t"})
    (headers,) = seen
    assert headers["X-Token"] == "t"
    assert "User-Agent" not in headers


def test_test_client_leaves_the_context_that_a_flask_client_keeps(app):
    sio = SocketIO(app)
    seen = []
    sio.on_event("connect", lambda: seen.append(flask.session.get("user")))
    with app.test_client() as http:
        http.get("/remember")
        sio.test_client(app, flask_test_client=http)
        assert seen == ["ada"]
        assert flask.request.path == "/remember"
        assert flask.session["user"] == "ada"


def test_test_client_makes_no_request_with_the_flask_client(app):
    opened = []

    class Counting(FlaskClient):
        def open(self, *args, **kwargs):
            opened.append(args)
            return super().open(*args, **kwargs)

    app.test_client_class = Counting
    sio = SocketIO(app)
    assert sio.test_client(app, flask_test_client=app.test_client()).is_connected()
    assert opened == []


def test_test_client_behind_a_layer_that_answers_by_itself(app):
    sio = SocketIO(app)

    def closed_today(environ, start_response):
        start_response("503 Service Unavailable", [("Content-Length", "0")])
        return [b""]

    app.wsgi_app = closed_today
    assert sio.test_client(app).is_connected()


# Error handlers of classes.


def test_class_with_a_method_error_handles_its_errors(app):
    sio = SocketIO(app)
    seen = []

    class Shop(Namespace):
        def on_buy(self, article):
            raise LookupError(article)

        def error(self, error):
            seen.append((error.args, flask.request.event))
            return "sold out"

    sio.on_namespace(Shop("/shop"))
    client = sio.test_client(app, namespace="/shop")
    assert client.emit("buy", "hat", namespace="/shop", callback=True) == "sold out"
    assert seen == [(("hat",), {"message": "buy", "args": ("hat",)})]


def test_class_with_a_method_error_still_refuses_who_could_not_be_checked(app):
    sio = SocketIO(app)

    class Shop(Namespace):
        def on_connect(self):
            raise LookupError("no such customer")

        def error(self, error):
            return "handled"

    sio.on_namespace(Shop("/shop"))
    client = sio.test_client(app, namespace="/shop")
    assert not client.is_connected("/shop")
    assert client.refusals["/shop"] == {"message": "Connection rejected by server"}


def test_class_with_a_method_error_refuses_with_the_text_of_the_handler(app):
    sio = SocketIO(app)

    class Shop(Namespace):
        def on_connect(self):
            raise ConnectionRefusedError("closed on Sundays")

        def error(self, error):
            return "handled"

    sio.on_namespace(Shop("/shop"))
    client = sio.test_client(app, namespace="/shop")
    assert client.refusals["/shop"] == {"message": "closed on Sundays"}


# Attributes and options.


def opens_the_session_anew(app, sio):
    """Whether each event opens Flask's session from the handshake's cookies, so that an earlier write isn't there."""
    sio.on_event("write", lambda: flask.session.update(seen="yes"))
    sio.on_event("read", lambda: flask.session.get("seen"))
    client = sio.test_client(app)
    client.emit("write")
    return client.emit("read", callback=True) == []


def test_manage_session_can_be_set_after_init(app):
    sio = SocketIO(app)
    sio.manage_session = False
    assert opens_the_session_anew(app, sio)
    sio.manage_session = True
    assert not opens_the_session_anew(app, sio)


def test_manage_session_can_be_set_before_init(app):
    sio = SocketIO()
    sio.manage_session = False
    sio.init_app(app)
    assert sio.manage_session is False
    assert opens_the_session_anew(app, sio)


@pytest.mark.parametrize("option", ["logger", "engineio_logger"])
@pytest.mark.parametrize("value", [None, 0, "", 1, "yes"])
def test_logger_may_be_anything_that_is_true_or_false(app, option, value):
    SocketIO(app, **{option: value})


def test_options_are_attributes_of_the_floor_below(app):
    given = {
        "ping_interval": 7,
        "ping_timeout": 3,
        "max_http_buffer_size": 5000,
        "allow_upgrades": False,
        "http_compression": False,
        "compression_threshold": 99,
        "cookie": "io",
        "cors_allowed_origins": "*",
        "cors_credentials": False,
    }
    sio = SocketIO(app, **given)
    assert {name: getattr(sio.server.eio, name) for name in given} == given


def test_options_of_the_engineio_server_have_their_places():
    server = engineio.Server("threading", 7, 3, 5000, False)
    options = server.options
    assert (options.ping_interval, options.ping_timeout) == (7, 3)
    assert (options.max_http_buffer_size, options.allow_upgrades) == (5000, False)


def test_names_that_are_not_in_this_release_are_not_there():
    for name in ("Client", "AsyncServer", "ASGIApp", "SimpleClient"):
        assert not hasattr(socketio, name), name


def test_refusal_keeps_its_arguments():
    assert ConnectionRefusedError("full", 1, 2).args == ("full", 1, 2)


def test_class_that_dispatches_by_itself_gets_the_auth_in_any_case(app):
    sio = SocketIO(app)
    seen = []

    class Own(Namespace):
        def trigger_event(self, event, *args):
            if event == "connect":
                sid, environ, auth = args
                seen.append((sid == flask.request.sid, environ["REQUEST_METHOD"], auth))
            return None

    sio.on_namespace(Own("/own"))
    assert sio.test_client(app, namespace="/own").is_connected("/own")
    assert sio.test_client(app, namespace="/own", auth={"a": 1}).is_connected("/own")
    assert seen == [(True, "GET", None), (True, "GET", {"a": 1})]
