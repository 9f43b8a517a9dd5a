import flask
import pytest

from flask_realtime import SocketIO, call, close_room, disconnect, emit, join_room, leave_room, rooms, send


@pytest.fixture
def extension():
    app = flask.Flask("site_under_test")
    extension = SocketIO(app)
    extension.app = app
    return extension


def in_handler(extension, function, count=1):
    """Run a function as the handler of an event of the first of several clients; return its result and the clients."""
    extension.on_event("go", function)
    clients = [extension.test_client(extension.app) for _ in range(count)]
    return clients[0].emit("go", callback=True), clients


def names(client):
    return [event["name"] for event in client.get_received()]


@pytest.mark.parametrize(
    ("options", "reached"),
    [
        ({}, "a"),
        ({"broadcast": True}, "ab"),
        ({"broadcast": True, "include_self": False}, "b"),
        ({"to": []}, ""),
        ({"to": "nobody"}, ""),
        ({"room": "nobody", "broadcast": True}, ""),
    ],
)
@pytest.mark.parametrize("function", [emit, send])
def test_whom_a_handler_reaches(extension, function, options, reached):
    _, (a, b) = in_handler(extension, lambda: function("x", **options), 2)
    assert "".join(name for name, client in (("a", a), ("b", b)) if names(client)) == reached


def test_rooms_of_the_current_client(extension):
    def handler():
        join_room("a")
        join_room("b")
        leave_room("b")
        join_room("c")
        close_room("c")
        return [rooms()]

    result, (client,) = in_handler(extension, handler)
    assert result == [[client.sids["/"], "a"]] or result == [client.sids["/"], "a"]


def test_disconnect_of_the_current_client(extension):
    _, (client,) = in_handler(extension, lambda: disconnect(silent=True))
    assert not client.is_connected()


def test_call_of_another_client(extension):
    other = extension.test_client(extension.app)
    other.answer("ask", lambda question: question + "!")
    result, _ = in_handler(extension, lambda: call("ask", "q", to=other.sids["/"], timeout=1))
    assert result == "q!"


@pytest.mark.parametrize("function", [emit, send, call])
def test_unknown_arguments_are_warned_about(extension, function):
    def handler():
        with pytest.warns(UserWarning, match="doesn't know the argument 'brodcast'"):
            function("x", to="nobody", brodcast=True) if function is not call else function("x", to="n", brodcast=1)

    if function is call:
        with pytest.raises(TimeoutError):
            in_handler(extension, handler)
    else:
        in_handler(extension, handler)


def test_in_a_route_the_target_is_named(extension):
    @extension.app.route("/tell")
    def tell():
        emit("told", namespace="/", broadcast=True)
        return ""

    client = extension.test_client(extension.app)
    extension.app.test_client().get("/tell")
    assert names(client) == ["told"]


def test_without_a_context_nothing_is_sent(extension):
    with pytest.raises(RuntimeError):
        emit("x")
