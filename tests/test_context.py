"""The context around a handler is Flask's, whichever way it was entered: the short one, or Flask's own."""

import flask
import pytest
from flask import appcontext_popped, appcontext_pushed, copy_current_request_context, g, request, url_for
from flask.globals import _cv_app, _cv_request

from flask_realtime import SocketIO


@pytest.fixture(params=["nobody listens", "a teardown function", "a signal at the beginning", "a signal at the end"])
def app(request):
    app = flask.Flask("site_under_test")
    app.secret_key = "only for tests"
    app.add_url_rule("/page/<int:number>", "page", str)
    app.told = told = []
    if request.param == "a teardown function":
        app.teardown_request(told.append)
        app.teardown_appcontext(told.append)

    def listener(sender, **extra):
        told.append(sender)

    if request.param == "a signal at the beginning":
        appcontext_pushed.connect(listener, app)
    elif request.param == "a signal at the end":
        appcontext_popped.connect(listener, app)
    yield app
    appcontext_pushed.disconnect(listener, app)
    appcontext_popped.disconnect(listener, app)


@pytest.fixture(params=[True, False])
def extension(app, request):
    return SocketIO(app, manage_session=request.param)


def ask(client, event, *args):
    return client.emit(event, *args, callback=True)


def test_every_event_finds_flask_in_its_place(app, extension):
    seen = []

    @extension.on("look")
    def look(number):
        assert flask.current_app == app
        assert request.path == "/socket.io/" and request.args["who"] == "me"
        assert request.event == {"message": "look", "args": (number,)}
        assert not hasattr(g, "number") and not hasattr(request, "mine")
        assert url_for("page", number=3) == "/page/3"
        assert request.url_rule is None and request.view_args is None and request.endpoint is None
        g.number = request.mine = number
        flask.after_this_request(lambda response: response)
        seen.append((request.sid, request.namespace, request._get_current_object()))
        return flask.session.setdefault("first", number)

    client = extension.test_client(app, query_string="?who=me")
    answers = [ask(client, "look", number) for number in range(4)]
    assert answers == ([0] * 4 if extension.manage_session else [0, 1, 2, 3])
    assert len({sid for sid, _, _ in seen}) == 1 and {namespace for _, namespace, _ in seen} == {"/"}
    assert len({id(each) for _, _, each in seen}) == 4


def test_nothing_stays_behind(app, extension):
    @extension.on("look")
    def look(fail):
        if fail:
            raise ValueError("wanted")

    @extension.on_error_default
    def failed(error):
        return "failed"

    client = extension.test_client(app)
    assert [ask(client, "look", fail) for fail in (False, True, False)] == [[], "failed", []]

    assert (_cv_app.get(None), _cv_request.get(None)) == (None, None)  # the test client runs handlers in this thread


def test_who_listens_is_told_of_each_event_once(app, extension):
    extension.on_event("look", lambda: None)
    client = extension.test_client(app)
    ask(client, "look")
    del app.told[:]
    for _ in range(3):
        ask(client, "look")
    assert len(app.told) in (0, 3, 6)
    assert bool(app.told) == bool(
        app.teardown_request_funcs
        or appcontext_pushed.has_receivers_for(app)
        or appcontext_popped.has_receivers_for(app)
    )


def test_a_context_can_be_copied_to_a_thread_and_used_twice(app, extension):
    @extension.on("look")
    def look():
        sid = request.sid
        flask.session["colour"] = "red"

        @copy_current_request_context
        def beside():
            return request.sid == sid and flask.session.get("colour") == "red" and flask.current_app == app

        results = []
        thread = extension.start_background_task(lambda: results.append(beside()))
        thread.join()
        streamed = "".join(flask.stream_with_context(part for part in (request.namespace, "x")))
        return [*results, streamed, request.sid == sid]

    client = extension.test_client(app)
    for _ in range(2):
        assert ask(client, "look") == [True, "/x", True]


def test_an_application_may_have_its_own_teardown_and_request_class():
    ended = []

    class Request(flask.Request):
        @property
        def shouted(self):
            return self.args["who"].upper()

    class Application(flask.Flask):
        request_class = Request

        def do_teardown_appcontext(self, *args):
            ended.append("application")
            super().do_teardown_appcontext(*args)

    app = Application("site_under_test")
    app.secret_key = "only for tests"
    extension = SocketIO(app)
    extension.on_event("look", lambda: request.shouted)
    client = extension.test_client(app, query_string="?who=me")
    del ended[:]
    assert [ask(client, "look") for _ in range(3)] == ["ME"] * 3
    assert ended == ["application"] * 3
