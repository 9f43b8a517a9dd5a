"""Traps T1 to T8: construction and configuration."""

import json
import linecache
import subprocess
import sys
import warnings

import flask
import pytest

import flask_realtime
from flask_realtime import Namespace, engineio, errors, socketio

from .wire import refusal


def application():
    app = flask.Flask(__name__)
    app.config.update(SECRET_KEY="for tests", TESTING=True)
    return app


@pytest.fixture
def shut_down():
    """Return a list: the servers that a test puts there are shut down at its end."""
    servers = []
    yield servers
    for server in servers:
        server.shutdown()


# T1: a message queue, handlers and init_app.


def test_t01_no_message_queue_keeps_handlers_of_before_init_app(shut_down):
    extension = flask_realtime.SocketIO(message_queue=None, channel="events")
    assert extension.server is None
    extension.on("early")(lambda: "early")
    app = application()
    extension.init_app(app)
    shut_down.append(extension.server)
    assert extension.test_client(app).emit("early", callback=True) == "early"


def test_t01_queue_of_the_constructor_keeps_handlers_and_channel_until_init_app(shut_down):
    pytest.importorskip("redis", reason="needs flask_realtime[redis]")
    extension = flask_realtime.SocketIO(message_queue="redis://127.0.0.1:6379/0", channel="events")
    extension.on("early")(lambda: "early")
    assert extension.server is None
    app = application()
    extension.init_app(app)
    shut_down.append(extension.server)
    manager = extension.server.manager
    assert (type(manager), manager.url, manager.channel) == (
        *(socketio.RedisManager, "redis://127.0.0.1:6379/0", "events"),
    )
    assert not manager.write_only
    extension.init_app(app, message_queue=None)
    shut_down.append(extension.server)
    assert extension.test_client(app).emit("early", callback=True) == "early"


def test_t01_emit_of_an_extension_without_application_or_queue_says_what_is_missing():
    extension = flask_realtime.SocketIO()
    with pytest.raises(RuntimeError, match="init_app"):
        extension.emit("news")


# T2: the channel's name.


def test_t02_channel_is_accepted_without_a_queue(program):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program(channel="events")


def test_t02_channel_of_the_extension_is_not_that_of_the_managers():
    pytest.importorskip("redis", reason="needs flask_realtime[redis]")
    _, extension = None, flask_realtime.SocketIO(application(), message_queue="redis://")
    assert extension.server.manager.channel == "flask-socketio"
    assert socketio.RedisManager("redis://").channel == "socketio"


# T3: init_app twice.


def test_t03_handlers_of_all_times_are_on_the_second_server(shut_down):
    extension = flask_realtime.SocketIO()
    extension.on("before")(lambda: "before")
    extension.init_app(application())
    shut_down.append(extension.server)

    class Between(Namespace):
        def on_between(self):
            return "between, class"

    extension.on("between")(lambda: "between")
    extension.on_namespace(Between("/class"))
    app = application()
    extension.init_app(app)
    shut_down.append(extension.server)
    extension.on("after")(lambda: "after")
    client = extension.test_client(app)
    for event in ("before", "between", "after"):
        assert client.emit(event, callback=True) == event
    client.connect("/class")
    assert client.emit("between", callback=True, namespace="/class") == "between, class"


def test_t03_options_of_the_constructor_hold_for_both_servers(shut_down):
    extension = flask_realtime.SocketIO(ping_interval=7, ping_timeout=3)
    for options, interval in (({}, 7), ({"ping_interval": 8}, 8)):
        extension.init_app(application(), **options)
        shut_down.append(extension.server)
        assert extension.server.eio.options.ping_interval == interval
        assert extension.server.eio.options.ping_timeout == 3


# T4: the asynchronous mode.


@pytest.mark.parametrize("under_flask_run", [False, True])
def test_t04_installed_packages_do_not_choose_the_mode(program, tmp_path, monkeypatch, under_flask_run):
    for name in ("eventlet", "gevent"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported only because it is installed')")
    monkeypatch.syspath_prepend(tmp_path)
    if under_flask_run:
        monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    _, extension = program()
    assert extension.async_mode == extension.server.async_mode == extension.server.eio.async_mode == "threading"


@pytest.mark.parametrize("mode", ["asgi", "thread", ""])
def test_t04_mode_that_does_not_exist_is_refused(mode):
    with pytest.raises(ValueError, match=r"expected one of 'eventlet', 'gevent_uwsgi', 'gevent', 'threading'.* got"):
        flask_realtime.SocketIO(application(), async_mode=mode)


@pytest.mark.parametrize("mode", ["eventlet", "gevent"])
def test_t04_mode_whose_package_is_missing_is_refused(monkeypatch, mode):
    monkeypatch.setitem(sys.modules, mode, None)
    monkeypatch.delitem(sys.modules, f"flask_realtime.io.{mode}", raising=False)
    with pytest.raises(ValueError, match=rf"async_mode='{mode}'.*pip install 'flask_realtime\[{mode}\]'"):
        flask_realtime.SocketIO(application(), async_mode=mode)


@pytest.mark.parametrize(("mode", "module"), [("eventlet", "eventlet.patcher"), ("gevent", "gevent.monkey")])
def test_t04_the_library_that_has_patched_the_process_is_chosen(mode, module):
    patch = "monkey_patch" if mode == "eventlet" else "patch_all"
    source = f"""
import warnings
warnings.simplefilter("ignore")  # eventlet's own, about itself
import {mode}
from {mode if mode == "eventlet" else module} import {patch} as patch
patch()
import flask, flask_realtime, logging
logging.basicConfig(level=logging.INFO)
print(flask_realtime.SocketIO(flask.Flask("app")).async_mode)
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == mode + "\n"
    assert ran.stderr.count(f"async_mode is '{mode}': the process is patched by {mode}") == 1


# T5: json and serializer.


class Tagged:
    """A JSON module whose texts can be told from others."""

    def __init__(self, tag):
        self._tag = tag

    def dumps(self, data, **options):
        if isinstance(data, list):
            data = [*data, self._tag]
        return json.dumps(data, **options)

    def loads(self, text):
        data = json.loads(text)
        return [*data, f"read by {self._tag}"] if isinstance(data, list) else data


def test_t05_each_server_keeps_its_own_json(program, serve, enter):
    peers = {}
    for tag in ("one", "two", None):
        app, extension = program(json=None if tag is None else Tagged(tag))
        extension.on("echo")(lambda *args: args)
        peers[tag] = enter(serve(app, extension))
    for tag in ("one", "two"):
        assert peers[tag].ask("echo", 1) == [1, f"read by {tag}", tag]
    assert peers[None].ask("echo", 1) == [1]


def test_t05_each_plain_server_keeps_its_own_json(serve, enter):
    for tag in ("one", "two"):
        server = socketio.Server(json=Tagged(tag))
        server.on("echo", lambda sid, *args: args)
        assert enter(serve(server)).ask("echo") == [f"read by {tag}", tag]


@pytest.mark.parametrize("name", ["pickle", "cbor", "unheard-of"])
def test_t05_serializer_that_is_not_there_is_refused(name):
    with pytest.raises(ValueError, match="serializer"):
        flask_realtime.SocketIO(application(), serializer=name)
    with pytest.raises(ValueError, match="serializer"):
        socketio.Server(serializer=name)


# T6: misspelt options.


@pytest.mark.parametrize(
    "make",
    [
        lambda: flask_realtime.SocketIO(application(), ping_timout=5),
        lambda: flask_realtime.SocketIO().init_app(application(), ping_timout=5),
        lambda: socketio.Server(ping_timout=5),
        lambda: engineio.Server(ping_timout=5),
    ],
    ids=["SocketIO", "init_app", "socketio.Server", "engineio.Server"],
)
def test_t06_misspelt_option_is_warned_of_with_the_right_name(make):
    with pytest.warns(UserWarning, match="ping_timeout") as warned:
        make()
    assert len(warned) == 1
    assert "ping_timout" in str(warned[0].message)
    blamed = linecache.getline(warned[0].filename, warned[0].lineno)
    assert "ping_timout=5" in blamed, f"the warning points at {warned[0].filename}:{warned[0].lineno}: {blamed}"


def test_t06_misspelt_option_does_not_disturb_the_others(program):
    with pytest.warns(UserWarning, match="cors_alowed_origins"):
        _, extension = program(cors_alowed_origins="*", ping_interval=7)
    assert extension.server.eio.options.ping_interval == 7
    assert extension.server.eio.options.cors_allowed_origins is None


# T7: namespaces.


def test_t07_namespaces_replace_the_default(program, serve, dial):
    app, extension = program(namespaces=["/only"])
    site = serve(app, extension)
    assert refusal(dial(site).connect("/")) == {"message": "Invalid namespace"}
    dial(site).join("/only")


def test_t07_namespaces_with_handlers_are_accepted_beside_the_default(program, serve, dial):
    app, extension = program()
    extension.on("news", namespace="/with")(lambda: None)
    peer = dial(serve(app, extension))
    peer.join("/")
    peer.join("/with")
    assert refusal(peer.connect("/without"), "/without") == {"message": "Invalid namespace"}


def test_t07_handlers_for_all_namespaces_open_none(program, serve, dial):
    app, extension = program()
    extension.on("news", namespace="*")(lambda: None)
    assert refusal(dial(serve(app, extension)).connect("/far"), "/far") == {"message": "Invalid namespace"}


@pytest.mark.parametrize("namespaces", ["*", ["*"], ["/", "*"]])
def test_t07_star_accepts_any_namespace(program, serve, dial, namespaces):
    app, extension = program(namespaces=namespaces)
    extension.on("news", namespace="*")(lambda: flask.request.namespace)
    peer = dial(serve(app, extension))
    peer.join("/far")
    assert peer.ask("news", namespace="/far") == ["/far"]


# T8: the kinds of queue.


@pytest.mark.parametrize(
    ("url", "name", "package"),
    [
        ("redis://127.0.0.1:6379/0", "RedisManager", "redis"),
        ("rediss://127.0.0.1:6379/0", "RedisManager", "redis"),
        ("redis+sentinel://127.0.0.1:26379/0/mymaster", "RedisManager", "redis"),
        ("redis+streams://127.0.0.1:6379/0", "RedisManager", "redis"),
        ("valkey://127.0.0.1:6379/0", "RedisManager", "redis"),
        ("valkeys://127.0.0.1:6379/0", "RedisManager", "redis"),
        ("unix:///run/redis.sock", "RedisManager", "redis"),
        ("kafka://127.0.0.1:9092", "KafkaManager", "kafka"),
        (["kafka://127.0.0.1:9092", "kafka://127.0.0.1:9093"], "KafkaManager", "kafka"),
        ("zmq+tcp://127.0.0.1:5555+5556", "ZmqManager", "zmq"),
        ("amqp://guest@127.0.0.1//", "KombuManager", "kombu"),
        ("memory://", "KombuManager", "kombu"),
    ],
)
def test_t08_every_queue_has_its_manager(url, name, package):
    pytest.importorskip(package, reason=f"needs flask_realtime[{package}]")
    extension = flask_realtime.SocketIO(application(), message_queue=url)
    assert type(extension.server.manager) is getattr(socketio, name)
    assert not extension.server.manager.down


@pytest.mark.parametrize("url", ["gopher://127.0.0.1", "localhost", ""])
def test_t08_unknown_queue_is_refused_with_a_clear_error(url):
    if not url:
        assert type(flask_realtime.SocketIO(application(), message_queue=url).server.manager) is socketio.Manager
        return
    with pytest.raises(errors.ConfigurationError, match="redis"):
        flask_realtime.SocketIO(application(), message_queue=url)


@pytest.mark.parametrize(("url", "package"), [("redis://", "redis"), ("amqp://", "kombu"), ("kafka://a", "kafka")])
def test_t08_missing_package_is_named(monkeypatch, url, package):
    for module in [name for name in sys.modules if name.startswith("flask_realtime.backplanes.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.ConfigurationError, match=r"pip install 'flask_realtime\[" + package):
        flask_realtime.SocketIO(application(), message_queue=url)


def test_t08_client_manager_is_refused_with_a_clear_error():
    with pytest.raises(errors.ConfigurationError, match="client_manager"):
        flask_realtime.SocketIO(application(), client_manager=object())
    with pytest.raises(errors.ConfigurationError, match="client_manager"):
        socketio.Server(client_manager=object())
