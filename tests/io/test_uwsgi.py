"""What uWSGI's module shows is played by a double; the real one is held up to the contract end to end."""

import logging
import os
import signal
import socket
import sys
import types

import pytest

from flask_realtime import SocketIO
from flask_realtime.errors import ConfigurationError
from flask_realtime.io import runtimes, uwsgi, wsgi
from flask_realtime.io.hub import Hub

ENVIRON = {"uwsgi.version": b"2.0.31"}


@pytest.fixture
def process(monkeypatch):
    """Return a function that makes this process one of uWSGI's: ``process(**what its module holds)``."""

    def make(**content):
        module = types.ModuleType("uwsgi")
        shown = {"opt": {}, "loop": None, "has_threads": 1, "numproc": 1, "connection_fd": None}
        vars(module).update({**shown, "worker_id": lambda: 0, **content})
        monkeypatch.setitem(sys.modules, "uwsgi", module)
        return module

    return make


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_module_that_only_has_the_name_is_not_uwsgi(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", types.ModuleType("uwsgi"))
    assert uwsgi.module() is None and uwsgi.worker(list) is None and uwsgi.borrow() is None


def test_gevent_uwsgi_elsewhere_is_refused_with_the_remedy(process):
    with pytest.raises(ConfigurationError, match="uwsgi --gevent 1000 --http-socket"):
        runtimes.choose("gevent_uwsgi", False, 1, 1)
    process()
    with pytest.raises(ConfigurationError, match="only inside of uWSGI with gevent"):
        runtimes.choose("gevent_uwsgi", False, 1, 1)


def test_uwsgi_without_threads_is_refused_with_the_remedy(process):
    process(has_threads=0)
    with pytest.raises(ConfigurationError, match="--enable-threads"):
        runtimes.choose(None, False, 1, 1)


def test_uwsgi_with_threads_is_threading(process):
    process()
    assert runtimes.choose(None, False, 1, 1).name == "threading"


def test_uwsgi_with_gevent_is_gevent_uwsgi(process, caplog):
    pytest.importorskip("gevent")
    caplog.set_level(logging.INFO)
    process(loop=b"gevent")
    assert runtimes.choose(None, False, 1, 1).name == "gevent_uwsgi"
    assert "async_mode is 'gevent_uwsgi': the process is uWSGI's, with gevent" in caplog.text
    assert runtimes.choose("gevent_uwsgi", False, 1, 1).name == "gevent_uwsgi"
    assert runtimes.choose("gevent", False, 1, 1).name == "gevent"


@pytest.mark.parametrize(
    ("mode", "expected"), [("gevent_uwsgi", None), ("gevent", None), ("threading", "gevent_uwsgi")]
)
def test_gevent_in_uwsgi_may_need_another_mode(process, mode, expected):
    assert runtimes.wanted(ENVIRON, mode) is None
    process(loop="gevent")
    assert runtimes.wanted(ENVIRON, mode) == expected


@pytest.mark.parametrize(("worker", "times"), [(0, 1), (1, 1), (2, 0)])
def test_several_processes_are_told_of_once(process, caplog, worker, times):
    process(numproc=4, worker_id=lambda: worker)
    runtimes.choose("threading", False, 1, 1)
    assert caplog.text.count("uWSGI runs 4 processes") == times


def test_a_socket_is_borrowed_and_left_to_uwsgi(process, pair):
    ours, theirs = pair
    process(connection_fd=ours.fileno)
    borrowed = wsgi.find_socket(ENVIRON)
    assert borrowed.fileno() == ours.fileno()
    del borrowed
    ours.send(b"still open")
    assert theirs.recv(100) == b"still open"


@pytest.mark.parametrize("option", ["https-socket", "http11-socket", "fastcgi-socket", "suwsgi-socket"])
def test_a_socket_that_speaks_more_than_http_is_not_taken(process, pair, option):
    process(connection_fd=pair[0].fileno, opt={option: b"127.0.0.1:1"})
    assert wsgi.find_socket(ENVIRON) is None


def test_a_socket_of_another_protocol_is_not_taken(process, pair):
    process(connection_fd=pair[0].fileno, opt={"protocol": b"fastcgi"})
    assert wsgi.find_socket(ENVIRON) is None


def test_a_taken_socket_outlives_that_of_uwsgi(process, pair):
    ours, theirs = pair
    process(connection_fd=ours.fileno)
    taken = uwsgi.Taken(uwsgi.borrow(), Hub())
    with taken.sock:
        ours.close()
        assert taken.finish("200 OK", None) == []
        assert not taken.sock.getblocking()
        taken.sock.send(b"here")
        assert theirs.recv(100) == b"here"


def test_the_environ_is_kept_from_uwsgi_and_chunks_are_read(process):
    chunks = iter([b"ab", b"c", b""])
    process(chunked_read=lambda: next(chunks))
    theirs = {**ENVIRON, "HTTP_TRANSFER_ENCODING": "chunked"}
    environ, _ = uwsgi.adapt(theirs, None)
    theirs.clear()
    assert environ["wsgi.input_terminated"] is True
    assert [environ["wsgi.input"].read(100) for _ in range(3)] == [b"ab", b"c", b""]


def test_answers_say_that_the_connection_is_closed():
    begun = []
    _, start = uwsgi.adapt(ENVIRON, lambda *args: begun.append(args))
    start("200 OK", [("A", "b")])
    start("400 Bad Request", [("Connection", "close")])
    assert begun == [
        ("200 OK", [("A", "b"), ("Connection", "close")]),
        ("400 Bad Request", [("Connection", "close")]),
    ]


def test_a_worker_with_gevent_ends_what_is_ours_and_then_the_programs(process):
    pytest.importorskip("gevent")
    ended = []
    module = process(loop="gevent", atexit=lambda: ended.append("the program's"))
    worker = uwsgi.worker(lambda: ended.append("ours"))
    module.atexit()
    assert ended == ["ours", "the program's"]
    assert worker.alive and not worker.restarts and worker.take_back is None


def test_stop_is_for_the_master(process, monkeypatch):
    sent = []
    monkeypatch.setattr(os, "kill", lambda *args: sent.append(args))
    process(masterpid=lambda: 12)
    uwsgi.Worker.shutdown()
    process(masterpid=lambda: 0)
    uwsgi.Worker.shutdown()
    assert sent == [(12, signal.SIGINT), (os.getpid(), signal.SIGINT)]


def test_run_is_ignored_inside_of_uwsgi(process, app, caplog):
    extension = SocketIO(app)
    process()
    extension.run(app)
    assert "socketio.run() is ignored under uWSGI" in caplog.text


@pytest.fixture
def app():
    flask = pytest.importorskip("flask")
    return flask.Flask("site_under_test")


def test_what_uwsgi_could_not_read_is_refused(app):
    begun = []
    SocketIO(app)
    assert list(app.wsgi_app(dict(ENVIRON), lambda *args: begun.append(args))) == []
    assert begun[0][0] == "400 Bad Request"
