"""The package itself: what is loaded when."""

import subprocess
import sys

import pytest

import flask_realtime


def loaded_by(code):
    """Return which packages a program has loaded in the end."""
    text = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("name", flask_realtime.__all__)
def test_each_name_is_there(name):
    assert getattr(flask_realtime, name) is not None
    assert name in dir(flask_realtime)


def test_modules_are_attributes():
    assert flask_realtime.testing.SocketIOTestClient is flask_realtime.SocketIOTestClient


@pytest.mark.parametrize("name", ["nothing", "_nothing", "__wrapped__"])
def test_other_names_are_errors(name):
    with pytest.raises(AttributeError, match=f"module 'flask_realtime' has no attribute '{name}'"):
        getattr(flask_realtime, name)


def test_a_worker_class_is_found_without_flask():
    """The worker patches the standard library, and what was loaded before would not be patched."""
    pytest.importorskip("gunicorn", reason="needs flask_realtime[gunicorn]")
    loaded = loaded_by("from flask_realtime.io.gunicorn import EventletWorker")
    assert "eventlet" in loaded
    assert not {"flask", "werkzeug", "websockets"} & set(loaded)


def test_no_green_library_is_loaded_without_need():
    loaded = loaded_by("import flask, flask_realtime; flask_realtime.SocketIO(flask.Flask('app'))")
    assert not {"gevent", "eventlet", "gunicorn", "uwsgi"} & set(loaded)
