"""What a set-up is told, from what its process shows. Processes that are patched are processes of their own."""

import importlib.util
import logging
import os
import subprocess
import sys
from typing import NamedTuple

import pytest

from flask_realtime.io import mistakes


class Worker(NamedTuple):
    """What is known of a gunicorn worker."""

    name: str = "gthread"
    mode: str = "threading"
    count: int = 1
    single: bool = False
    tls: bool = False


SOUND = {"SERVER_SOFTWARE": "gunicorn/27.0", "wsgi.multiprocess": False}


def first(mode="threading", worker=None, environ=SOUND):
    return list(mistakes.at_first_request(mode, worker, environ))


@pytest.fixture(autouse=True)
def nothing_was_told(monkeypatch):
    monkeypatch.setattr(mistakes, "_told", set())
    monkeypatch.setattr(mistakes, "WAITING", ())  # the tests' own process has some of them


@pytest.mark.parametrize(
    ("mode", "worker"),
    [
        ("threading", None),
        ("threading", Worker()),
        ("gevent", Worker("gevent", "gevent")),
        ("eventlet", Worker("eventlet", "eventlet")),
        ("threading", Worker(None, None)),
    ],
)
def test_a_sound_set_up_is_told_nothing(mode, worker):
    assert first(mode, worker) == []


def test_several_workers(monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    (told,) = first(worker=Worker(count=4))
    assert told.startswith("gunicorn runs 4 workers, each of which") and "use -w 1, or" in told
    assert "nginx/ip-hash.conf, nginx/sticky.conf" in told
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert first(worker=Worker(count=4))[0].startswith("gunicorn runs 4 workers (WEB_CONCURRENCY), ")
    assert first(worker=Worker(count=3))[0].startswith("gunicorn runs 3 workers, ")


def test_one_request_at_a_time():
    (plain,) = first(worker=Worker("sync", single=True))
    assert "clients that wait don't count" in plain and "--timeout" in plain
    (tls,) = first(worker=Worker("sync", single=True, tls=True))
    assert "nobody else is served" in tls
    (one,) = first(worker=Worker("gthread", single=True))
    assert "--timeout" not in one
    assert all(text.endswith("Use --threads 100 or -k gevent") for text in (plain, tls, one))


@pytest.mark.parametrize(
    ("mode", "worker", "told"),
    [
        ("gevent", Worker(), "gunicorn's gthread worker uses threads, but async_mode is 'gevent'"),
        ("eventlet", Worker("sync"), "gunicorn's sync worker uses threads, but async_mode is 'eventlet'"),
        ("threading", Worker("gevent", "gevent"), "gunicorn's gevent worker belongs to gevent, but async_mode is"),
        ("eventlet", Worker("gevent", "gevent"), "gunicorn's gevent worker belongs to gevent, but async_mode is"),
    ],
)
def test_a_worker_of_another_mode_is_told_before_there_is_a_request(mode, worker, told):
    (text,) = mistakes.at_start(mode, worker)
    assert text.startswith(told)


def test_a_server_of_another_mode():
    (text,) = first("threading", environ={"SERVER_SOFTWARE": "gevent/26.9 Python/3.11"})
    assert text.startswith("this server belongs to gevent, but async_mode is 'threading'")
    (text,) = first("gevent", environ={"werkzeug.socket": None})
    assert text.startswith("this server uses threads, but async_mode is 'gevent'")


def test_one_mistake_is_told_once_where_both_show_it():
    environ = {"SERVER_SOFTWARE": "gevent/26.9 Python/3.11"}
    assert len(first("threading", Worker("gevent", "gevent"), environ)) == 1


def test_why_a_session_id_is_unknown():
    assert "gunicorn runs 2 workers" in mistakes.why_unknown(Worker(count=2), {"wsgi.multiprocess": True})
    assert "this server has several processes" in mistakes.why_unknown(None, {"wsgi.multiprocess": True})
    for worker in (None, Worker()):
        assert mistakes.why_unknown(worker, SOUND).startswith("it was here before a restart, or ")


def test_each_is_told_once_in_a_process(caplog, monkeypatch):
    for _ in range(2):
        mistakes.tell(["100% wrong", "another"])
    assert caplog.record_tuples == [("flask_realtime", logging.WARNING, text) for text in ("100% wrong", "another")]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    mistakes.tell(["100% wrong"])
    assert len(caplog.messages) == 3


PATCH = {
    "none": "",
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "both": "import eventlet; eventlet.monkey_patch(); from gevent import monkey; monkey.patch_socket()",
}


def process(patch, mode, more="", environ="{}"):
    """Return what a process that is patched so is told."""
    program = f"{PATCH[patch]}\n{more}\nfrom flask_realtime.io import mistakes\n"
    program += f"told = mistakes.at_first_request({mode!r}, None, {environ})\n"
    program += "import os\nprint(*told, sep='\\n', end='', flush=True)\n"
    program += "os._exit(0)\n"  # two libraries that have patched one process seldom let it end
    for library in ("gevent", "eventlet"):
        if (library in (patch, mode) or patch == "both") and importlib.util.find_spec(library) is None:
            pytest.skip(f"needs flask_realtime[{library}]")
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("mode", ["gevent", "eventlet"])
def test_what_waits_in_a_process_that_is_not_patched(mode):
    assert process(mode, mode, "import requests") == []
    assert process("none", mode) == []
    (told,) = process("none", mode, "import requests")
    assert told.startswith(f"async_mode is {mode!r}, but {mode} hasn't patched this process, so all clients wait")
    assert "requests" in told and f"`{mistakes.PATCHING[mode]}`" in told
    assert process("none", "threading", "import requests") == []


def test_a_process_that_two_libraries_have_patched():
    (told,) = process("both", "eventlet")
    assert told.startswith("this process is patched by eventlet and by gevent")


def test_a_process_that_the_other_library_has_patched():
    (told,) = process("gevent", "eventlet")
    assert told.startswith("async_mode is 'eventlet', but this process is patched by gevent")
    assert process("gevent", "threading") == []


@pytest.mark.parametrize("mode", ["threading", "eventlet"])
def test_werkzeug_in_a_process_that_eventlet_has_patched(mode):
    (told,) = process("eventlet", mode, environ="{'werkzeug.socket': None}")
    assert told.startswith("Werkzeug can't serve Socket.IO in a process that eventlet has patched")
    assert process("gevent", "gevent", environ="{'werkzeug.socket': None}") == []
