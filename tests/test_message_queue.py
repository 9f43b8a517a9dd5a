"""Several servers on one message queue, and those who only emit, as programs see them."""

import itertools
import json
import threading
import time

import flask
import pytest
from local_queue import LIMIT, LocalManager

import flask_realtime
from flask_realtime import SocketIO, managers, socketio
from flask_realtime.errors import BackplaneError, ClusterTimeoutError, ConfigurationError
from flask_realtime.health import health_blueprint

channels = itertools.count()


class Site:
    """One server with its application, on a channel."""

    def __init__(self, channel, **options):
        form = options.pop("form", json.dumps)
        secret = options.pop("secret", None)
        self.app = flask.Flask(__name__)
        self.manager = LocalManager(channel, form=form, secret=secret)
        self.socketio = SocketIO(self.app, client_manager=self.manager, async_mode="threading", **options)
        self.socketio.on_event("sid", lambda: flask.request.sid)
        self.socketio.on_event("join", flask_realtime.join_room)

    def client(self, *rooms):
        client = self.socketio.test_client(self.app)
        client.sid = client.emit("sid", callback=True)
        for room in rooms:
            client.emit("join", room)
        return client


@pytest.fixture
def sites():
    """Return a function that makes servers on one channel, which know each other when they are returned."""
    channel, made = f"channel {next(channels)}", []

    def sites(number=2, **options):
        made.extend(Site(channel, **options) for _ in range(number))
        for site in made:
            site.socketio.serving.begin()
        wait(lambda: all(site.socketio.stats()["queue"]["members"] == len(made) - 1 for site in made))
        return made

    yield sites
    for site in made:
        site.socketio.serving.shutdown()


def wait(condition):
    """Wait until ``condition()`` is true; return its value."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        assert time.monotonic() < end, condition()
        time.sleep(0.002)
    return value


def received(client, number=1):
    """Return the arguments of the next events of a client."""
    events = []
    wait(lambda: len(events.extend(client.get_received()) or events) >= number)
    return [event["args"] for event in events]


def test_a_program_is_told_when_it_may_have_missed_something(sites):
    _, two = sites()
    told = []

    @two.socketio.on_queue_gap
    def gap(missing):
        told.append((missing, flask.current_app.name))

    assert gap is two.socketio.queue_gap_handler
    two.manager.interrupt()
    assert wait(lambda: told) == [(0, __name__)]
    with pytest.raises(ValueError, match="callable"):
        two.socketio.on_queue_gap(None)


def test_who_is_told_of_gaps_may_be_given_before_the_application():
    extension, app, told = SocketIO(), flask.Flask(__name__), []
    extension.on_queue_gap(told.append)
    manager = LocalManager(f"channel {next(channels)}")
    extension.init_app(app, client_manager=manager, async_mode="threading")
    wait(manager.begin)
    manager.interrupt()
    assert wait(lambda: told) == [0]
    extension.serving.shutdown()


def published(site):
    return site.socketio.stats()["queue"]["published"]


@pytest.mark.parametrize("form", [json.dumps, lambda data: json.dumps(data).encode(), lambda data: data])
def test_a_manager_of_a_programs_own(sites, form):
    one, two = sites(form=form)
    here, there = one.client(), two.client()
    one.socketio.emit("x", {"a": [b"\xff", "é"]}, 2)
    assert received(here) == received(there) == [[{"a": [b"\xff", "é"]}, 2]]


def test_send_and_the_functions_of_handlers_reach_everybody(sites):
    one, two = sites()
    here, there = one.client("r"), two.client("r")
    one.socketio.send("all")
    one.socketio.send({"a": 1}, json=True, to="r")
    one.socketio.on_event("tell", lambda text: flask_realtime.emit("told", text, broadcast=True, include_self=False))
    here.emit("tell", "others")
    assert received(there, 3) == ["all", {"a": 1}, ["others"]]
    assert received(here, 2) == ["all", {"a": 1}]


def test_clients_of_other_processes_are_moved_and_put_out(sites):
    one, two = sites()
    here, there = one.client(), two.client()
    one.socketio.enter_room(there.sid, "r")
    wait(lambda: "r" in two.socketio.rooms(there.sid))
    one.socketio.on_event("move", lambda sid: flask_realtime.leave_room("r", sid))
    here.emit("move", there.sid)
    wait(lambda: "r" not in two.socketio.rooms(there.sid))
    two.socketio.enter_room(there.sid, "s")
    one.socketio.close_room("s")
    wait(lambda: "s" not in two.socketio.rooms(there.sid))
    one.socketio.disconnect(there.sid)
    wait(lambda: not there.is_connected())
    assert here.is_connected()


def test_questions_to_all_processes(sites):
    one, two = sites()
    here, there = one.client("r"), two.client("r", "s")
    assert sorted(one.socketio.rooms(there.sid)) == sorted([there.sid, "r", "s"])
    assert sorted(one.socketio.rooms(here.sid)) == sorted([here.sid, "r"])
    assert one.socketio.rooms("nobody") == []
    assert sorted(one.socketio.participants("r")) == sorted([here.sid, there.sid])
    assert one.socketio.participants(["s"]) == [there.sid]
    assert (one.socketio.count(), two.socketio.count("r"), one.socketio.count("t")) == (2, 2, 0)
    one.socketio.on_event("rooms", lambda sid: flask_realtime.rooms(sid))
    assert sorted(here.emit("rooms", there.sid, callback=True)) == sorted([there.sid, "r", "s"])


def test_a_process_that_does_not_answer_is_named(sites, monkeypatch):
    one, two = sites()
    two.client()
    monkeypatch.setattr(two.manager._cluster, "receive", lambda data: None)
    with pytest.raises(ClusterTimeoutError, match=r"1 of 1 other processes didn't answer within 0\.05 s") as raised:
        one.socketio.count(timeout=0.05)
    assert raised.value.missing == [two.manager.host_id]
    assert raised.value.results == [0]
    assert isinstance(raised.value, TimeoutError)


def test_call_and_callbacks_of_clients_elsewhere(sites):
    one, two = sites()
    there = two.client()
    told = []
    one.socketio.emit("x", to=there.sid, callback=lambda *args: told.append(args))
    with pytest.raises(TimeoutError, match="no answer"):
        one.socketio.call("x", to="nobody", timeout=0.05)
    with pytest.raises(TimeoutError, match="there is no client"):
        one.socketio.call("x", to=there.sid, ignore_queue=True)


def test_what_is_for_clients_of_this_process_does_not_cross_the_queue(sites):
    one, two = sites()
    here, there = one.client(), two.client()
    before = published(one)
    one.socketio.emit("x", to=here.sid)
    one.socketio.emit("x", ignore_queue=True)
    one.socketio.send("y", ignore_queue=True)
    assert received(here, 3)
    one.socketio.flush()
    assert published(one) == before
    one.socketio.emit("z")
    assert received(there) == [[]]


def test_an_extension_without_application_only_emits(sites):
    one, two = sites()
    clients = [one.client("r"), two.client("r")]
    outside = SocketIO(client_manager=LocalManager(one.manager.channel, write_only=True))
    outside.init_app(None)
    outside.emit("x", 1, [b"2"], to="r")
    outside.send("text")
    assert [received(client, 2) for client in clients] == [[[1, [b"2"]], "text"]] * 2
    outside.enter_room(clients[1].sid, "s")
    outside.emit("x", to="s")
    assert received(clients[1]) == [[]]
    outside.leave_room(clients[1].sid, "s")
    outside.close_room("r")
    outside.emit("x", to="s")
    outside.emit("x", to="r")
    outside.disconnect(clients[0].sid)
    wait(lambda: not clients[0].is_connected())
    assert outside.flush()
    assert clients[1].get_received() == []
    for call in (lambda: outside.emit("x", callback=print), lambda: outside.call("x", to=clients[1].sid)):
        with pytest.raises(RuntimeError, match="only emits"):
            call()


def test_a_manager_alone_emits(sites):
    (one,) = sites(1)
    client = one.client("r")
    outside = LocalManager(one.manager.channel, write_only=True)
    outside.emit("x", {"a": 1}, room="r")
    outside.emit("x", (1, 2), namespace="/", to="r", skip_sid="nobody")
    assert received(client, 2) == [[{"a": 1}], [1, 2]]
    assert outside.flush()
    outside.disconnect(client.sid, "/")
    wait(lambda: not client.is_connected())
    with pytest.raises(RuntimeError, match="belongs to no server"):
        socketio.Manager().get_namespaces()


def test_what_only_flask_can_turn_into_json_is_sent_alike(sites):
    import datetime

    one, two = sites()
    here, there = one.client(), two.client()
    day = datetime.date(2026, 1, 2)
    one.socketio.emit("x", day)
    assert received(here) == received(there) == [["Fri, 02 Jan 2026 00:00:00 GMT"]]


def test_a_secret(sites):
    one, two = sites(secret="s")
    there = two.client()
    LocalManager(one.manager.channel, write_only=True).emit("x", "forged")
    for garbage in (5, "x", [], {"a": 1}):
        two.manager._publish(garbage)
    LocalManager(one.manager.channel, write_only=True, secret="t").emit("x", "forged")
    LocalManager(one.manager.channel, write_only=True, secret="s").emit("x", "signed")
    assert received(there) == [["signed"]]
    wait(lambda: two.socketio.stats()["queue"]["refused"] == 6)


@pytest.mark.parametrize("signed", [False, True])
def test_a_class_of_ones_own_says_that_nothing_has_come(signed):
    told = iter([None, {"signed": "x"}, None])
    messages = list(managers._Custom(print, lambda: told, "own://", signed).listen())
    assert messages == [None, None, b"x" if signed else b'{"signed":"x"}', None]  # the first one: it listens


def test_a_server_that_stops_says_so_and_may_begin_again(sites):
    one, two = sites()
    one.socketio.serving.shutdown()
    wait(lambda: two.socketio.stats()["queue"]["members"] == 0)
    assert one.socketio.stats()["queue"]["connected"] is False
    one.socketio.serving.eio.begin()
    one.socketio.serving.begin()
    wait(lambda: two.socketio.stats()["queue"]["members"] == 1)


def test_the_numbers(sites):
    one, two = sites()
    client = two.client()
    one.socketio.emit("x", to="nobody")
    one.socketio.emit("x")
    assert received(client)
    stats = two.socketio.stats()["queue"]
    assert {name: stats[name] for name in ("connected", "members", "unwanted", "lost", "refused")} == {
        **{"connected": True, "members": 1, "unwanted": 1, "lost": 0, "refused": 0}
    }
    json.dumps(stats)


class Unreachable(LocalManager):
    down_at = True

    def _listen(self):
        raise BackplaneError("can't reach the broker at local://")

    def _publish(self, data):
        raise BackplaneError("can't reach the broker at local://")


def test_a_broker_that_is_away_does_not_keep_clients_out(monkeypatch, caplog):
    monkeypatch.setattr("flask_realtime.socketio.SUBSCRIBING", 0.05)
    app = flask.Flask(__name__)
    extension = SocketIO(app, client_manager=Unreachable("away"), async_mode="threading")
    app.register_blueprint(health_blueprint(extension))
    client = extension.test_client(app)
    extension.emit("x")
    assert received(client) == [[]]
    wait(lambda: "can't reach the broker at local://; will try again" in caplog.text)
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json) == (503, {"status": "failed", "failed": ["message_queue"]})
    assert extension.stats()["queue"]["connected"] is False
    extension.serving.shutdown()


def test_clients_wait_until_the_process_is_subscribed():
    free = threading.Event()

    class Slow(LocalManager):
        def _open(self):
            plane = super()._open()
            listen = plane.listen

            def late():
                free.wait(LIMIT)
                yield from listen()

            plane.listen = late
            return plane

    app = flask.Flask(__name__)
    extension = SocketIO(app, client_manager=Slow("slow"), async_mode="threading")
    clients = []
    thread = threading.Thread(target=lambda: clients.append(extension.test_client(app)))
    thread.start()
    assert not extension.stats()["queue"]["connected"]
    assert clients == []
    free.set()
    thread.join(LIMIT)
    assert extension.stats()["queue"]["connected"]
    extension.serving.shutdown()


def test_what_can_not_be(caplog):
    app = flask.Flask(__name__)
    with pytest.raises(ConfigurationError, match="got both"):
        SocketIO(app, message_queue="redis://", client_manager=LocalManager("x"))
    with pytest.raises(ConfigurationError, match="got neither"):
        SocketIO().init_app(None)
    with pytest.raises(ConfigurationError, match="client_manager"):
        socketio.Server(client_manager=object())
    with pytest.raises(RuntimeError, match="init_app"):
        SocketIO().emit("x")
    manager = socketio.PubSubManager("x")
    with pytest.raises(NotImplementedError, match="_publish"):
        manager._publish({})
    with pytest.raises(NotImplementedError, match="_listen"):
        manager._listen()
    assert SocketIO(app).flush()
