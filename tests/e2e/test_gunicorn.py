"""gunicorn otherwise than the contract starts it: preloaded, with TLS, with the eventlet worker that it once had."""

import contextlib
import os
import re

import pytest

from .player import TRANSPORTS
from .raw import Polling
from .servers import ALARM, HERE, MORE_KINDS, Kind, Server, certificate, gunicorn, wait_until
from .test_wire import joined, websocket

pytestmark = pytest.mark.e2e

# The last gunicorn with an eventlet worker of its own; "make" puts it there.
GUNICORN_25 = HERE.parents[1] / ".make" / "gunicorn-25"
SCENARIOS = ("connect_with_auth", "echo", "binary", "rooms", "large", "order", "many_clients")


def with_tls(*options):
    def command(port, directory):
        cert, key = certificate(directory)
        return [*gunicorn(*options)(port, directory), "--certfile", str(cert), "--keyfile", str(key)]

    return command


def old(port, directory):
    if not GUNICORN_25.is_dir():
        pytest.skip("needs gunicorn 25: run `make gunicorn-25`")
    command = [word for word in gunicorn("-k", "eventlet")(port, directory) if word != "--no-control-socket"]
    return ["env", f"PYTHONPATH={GUNICORN_25}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", *command]


EVENTLET = ("-k", "flask_realtime.io.gunicorn.EventletWorker")
OTHERS = {
    "gunicorn-preload": Kind(gunicorn("--threads", "8", "--preload"), {}, pooled=True),
    "gunicorn-gevent-preload": Kind(gunicorn("-k", "gevent", "--preload"), {}, patch="gevent"),
    "gunicorn-eventlet-preload": Kind(gunicorn(*EVENTLET, "--preload"), {}, patch="eventlet"),
    "gunicorn-gevent-tls": Kind(with_tls("-k", "gevent"), {}, tls=True),
    "gunicorn-eventlet-tls": Kind(with_tls(*EVENTLET), {}, tls=True),
    "gunicorn-eventlet-entry-point": Kind(gunicorn("-k", "egg:flask_realtime#eventlet"), {}),
    "gunicorn-25-eventlet": Kind(old, {}),
}
MORE_KINDS.update(OTHERS)


@pytest.fixture(scope="module", params=list(OTHERS))
def other(request, tmp_path_factory):
    # gevent's own server tells of each TLS handshake that a client breaks off.
    alarm = re.compile("flask_realtime") if request.param == "gunicorn-gevent-tls" else ALARM
    server = Server(request.param, tmp_path_factory.mktemp("gunicorn"), alarm=alarm)
    yield server
    server.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_javascript_client(play, other, scenario, transport):
    play(other, scenario, transport)


def test_a_file(other):
    assert other.get("/file") == (HERE / "contract_app.py").read_bytes()


@pytest.mark.parametrize("other", [name for name in OTHERS if name.endswith("preload")], indirect=True)
def test_nothing_starts_before_the_fork(other):
    """The master holds no thread, selector or socket pair of ours; the application is loaded in it all the same."""
    with websocket(other) as peer:
        joined(peer)
        master = other.process.pid
        assert other.get_json("/process") != master
        held = [os.readlink(f"/proc/{master}/fd/{number}") for number in os.listdir(f"/proc/{master}/fd")]
        listeners = [name for name in held if name.startswith("socket:")]
        assert len(listeners) == 1, held
        assert len(os.listdir(f"/proc/{master}/task")) == 1


@pytest.fixture
def logged(directory):
    """Return a function that starts a kind with an access log, and the path of that."""
    servers = []

    def start(name, *options):
        path = directory / f"access-{name}.log"
        command = gunicorn(*options, "--access-logfile", path)
        MORE_KINDS["gunicorn-logged"] = Kind(command, {}, pooled="-k" not in options)
        servers.append(Server("gunicorn-logged", directory))
        return servers[-1], path

    yield start
    MORE_KINDS.pop("gunicorn-logged", None)
    for server in servers:
        server.stop()


@pytest.mark.parametrize(
    ("name", "options"),
    [("gthread", ("--threads", "8")), ("gevent", ("-k", "gevent")), ("eventlet", EVENTLET)],
)
def test_the_access_log_has_what_left_the_worker(logged, name, options):
    server, path = logged(name, *options)
    session = Polling(server)
    session.join()
    waiting = session.get()
    session.send('42["echo",1]')  # answered by way of the poll that waits, if it does already
    session.send('421["sync"]')
    assert waiting.answer().status == 200
    with websocket(server) as peer:
        joined(peer)
        wait_until(lambda: '" 101 ' in path.read_text(), what="the entry of the WebSocket")
    lines = path.read_text().splitlines()
    assert len([line for line in lines if "transport=polling" in line and '" 200 ' in line]) >= 3, lines


def test_requests_are_counted_right_while_connections_leave(directory):
    """A worker that counted connections that have left would take no more of them at its limit."""
    MORE_KINDS["gunicorn-few"] = Kind(
        gunicorn("--threads", "2", "--worker-connections", "4", "--keep-alive", "1"), {}, pooled=True
    )
    server = Server("gunicorn-few", directory)
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                joined(stack.enter_context(websocket(server)))
            assert server.get("/") == b"ready"
    finally:
        server.stop()
        MORE_KINDS.pop("gunicorn-few")


def test_the_old_worker_is_there():
    """What is tested as gunicorn 25 is just that."""
    if not GUNICORN_25.is_dir():
        pytest.skip("needs gunicorn 25: run `make gunicorn-25`")
    assert (GUNICORN_25 / "gunicorn" / "workers" / "geventlet.py").exists()
