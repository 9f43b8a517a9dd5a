"""The Engine.IO face, over polling requests that no server is needed for."""

import json
import logging
import queue
import threading
import weakref

import pytest
from werkzeug.test import Client

from flask_realtime import engineio
from flask_realtime.errors import ConfigurationError, EngineIOError, RealtimeError
from flask_realtime.io import gunicorn

OPEN = "/engine.io/?EIO=4&transport=polling"
LIMIT = 30


class Peer:
    """One polling client."""

    def __init__(self, server, app=None):
        self.http = Client(app or engineio.WSGIApp(server))
        self.answer = self.http.get(OPEN)
        self.sid = json.loads(self.answer.data[1:])["sid"] if self.answer.status_code == 200 else None

    def post(self, text):
        return self.http.post(f"{OPEN}&sid={self.sid}", data=text)

    def poll(self):
        """Return the packets that wait; there must be one."""
        return self.http.get(f"{OPEN}&sid={self.sid}").get_data(as_text=True).split("\x1e")


@pytest.fixture
def server():
    server = engineio.Server()
    yield server
    server.shutdown()


def collect(server, event):
    """Register a handler that puts its arguments into the queue that is returned."""
    got = queue.Queue()
    server.on(event, lambda *args: got.put(args))
    return got


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ("hello", "hello"),
        ('{"a":1}', {"a": 1}),
        ("[1]", [1]),
        ("true", True),
        ("null", None),
        ("-1", -1),
        ("1", "1"),
        ("12.5", "12.5"),
        ("{", "{"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_messages_are_decoded_where_they_are_json(server, sent, got):
    messages = collect(server, "message")
    peer = Peer(server)
    assert peer.post("4" + sent).data == b"ok"
    assert messages.get(timeout=LIMIT) == (peer.sid, got)


def test_bytes_stay_bytes(server):
    messages = collect(server, "message")
    peer = Peer(server)
    peer.post("bMTI=")
    assert messages.get(timeout=LIMIT) == (peer.sid, b"12")


@pytest.mark.parametrize(
    ("data", "packet"),
    [
        ("hello", "4hello"),
        ({"a": [1]}, '4{"a":[1]}'),
        ([1, 2], "4[1,2]"),
        (b"12", "bMTI="),
        (bytearray(b"12"), "bMTI="),
        (memoryview(b"12"), "bMTI="),
        (7, "47"),
        (True, "4True"),
        (None, "4"),
        ("", "4"),
    ],
)
def test_sending(server, data, packet):
    peer = Peer(server)
    server.send(peer.sid, data)
    assert peer.poll() == [packet]


def test_a_lone_surrogate_does_not_stop_what_is_sent(server):
    peer = Peer(server)
    server.send(peer.sid, "a\ud800b")
    server.send(peer.sid, "next")
    first, second = peer.poll()
    assert first.startswith("4a") and second == "4next"


def test_raw_packets(server):
    peer = Peer(server)
    for packet in (engineio.Packet(6), engineio.Packet(4, "x"), engineio.Packet(4, b"12")):
        server.send_packet(peer.sid, packet)
    assert peer.poll() == ["6", "4x", "bMTI="]


def test_sending_to_nobody_is_logged(server, caplog):
    server.send("nobody", "x")
    assert "Cannot send to sid nobody" in caplog.text


@pytest.mark.parametrize("result", [None, True])
def test_a_connect_handler_accepts(server, result):
    connects = []
    server.on("connect", lambda sid, environ: connects.append((sid, environ["QUERY_STRING"])) or result)
    peer = Peer(server)
    assert connects == [(peer.sid, "EIO=4&transport=polling")]


@pytest.mark.parametrize(
    ("result", "body"), [(False, "Unauthorized"), ("go", "go"), ({"a": 1}, {"a": 1}), (0, "Unauthorized"), (1, 1)]
)
def test_a_connect_handler_refuses(server, result, body):
    server.on("connect", lambda sid, environ: result)
    disconnects = collect(server, "disconnect")
    answer = Peer(server).answer
    assert (answer.status_code, answer.json) == (401, body)
    assert disconnects.empty() and server.engine.sessions == {}


def test_a_connect_handler_that_fails_refuses(server, caplog):
    server.on("connect", lambda sid, environ: 1 / 0)
    answer = Peer(server).answer
    assert (answer.status_code, answer.json) == (401, "Unauthorized")
    assert "ZeroDivisionError" in caplog.text and b"Zero" not in answer.data


def test_a_connect_handler_may_disconnect(server):
    server.on("connect", lambda sid, environ: server.disconnect(sid))
    assert Peer(server).answer.status_code == 401


@pytest.mark.parametrize("handler", [lambda sid, reason, got: got.put((sid, reason)), None])
def test_disconnect_handlers_get_the_reason_or_not(server, handler):
    got = queue.Queue()
    if handler is None:
        server.on("disconnect", lambda sid: got.put((sid, "server disconnect")))
    else:
        server.on("disconnect", lambda sid, reason: handler(sid, reason, got))
    peer = Peer(server)
    server.disconnect(peer.sid)
    server.disconnect(peer.sid)
    assert got.get(timeout=LIMIT) == (peer.sid, server.reason.SERVER_DISCONNECT)


def test_disconnect_without_a_sid_means_all(server):
    got = collect(server, "disconnect")
    peers = {Peer(server).sid, Peer(server).sid}
    server.disconnect()
    assert {got.get(timeout=LIMIT)[0] for _ in peers} == peers


def test_a_handler_that_fails_is_logged(server, caplog):
    reached = collect(server, "disconnect")
    server.on("message", lambda sid, data: 1 / 0)
    peer = Peer(server)
    peer.post("4x\x1e1")
    assert reached.get(timeout=LIMIT)[1] == "client disconnect"
    server.shutdown()
    assert "the message handler failed" in caplog.text


def test_sessions(server):
    peer = Peer(server)
    server.get_session(peer.sid)["a"] = 1
    assert server.get_session(peer.sid) == {"a": 1}
    server.save_session(peer.sid, {"b": 2})
    with server.session(peer.sid) as session:
        session["c"] = 3
    assert server.get_session(peer.sid) == {"b": 2, "c": 3}
    for call in (server.get_session, server.transport, lambda sid: server.save_session(sid, {})):
        with pytest.raises(KeyError):
            call("nobody")


def test_transport(server):
    assert server.transport(Peer(server).sid) == "polling"


def test_handlers_are_registered_both_ways(server):
    @server.on("message")
    def handler(sid, data):
        pass

    assert server.handlers["message"] is handler
    with pytest.raises(ValueError, match="Invalid event"):
        server.on("event")


def test_helpers(server):
    server.start_background_task(lambda: None).join(LIMIT)
    server.sleep(0)
    assert server.create_event().is_set() is False
    with pytest.raises(server.get_queue_empty_exception()):
        server.create_queue(maxsize=1).get_nowait()
    assert len(server.generate_id()) == 22


def test_session_ids_begin_with_the_prefix():
    server = engineio.Server(sid_prefix="host-1_a.b", cookie="io")
    try:
        peers = [Peer(server) for _ in range(3)]
        for peer in peers:
            assert peer.sid.startswith("host-1_a.b") and len(peer.sid) == len("host-1_a.b") + 22
            assert peer.answer.headers["Set-Cookie"].startswith(f"io={peer.sid}; ")
            assert peer.post("4hello").data == b"ok"
        assert len({peer.sid for peer in peers}) == 3
        assert server.generate_id().startswith(server.sid_prefix)
    finally:
        server.shutdown()


@pytest.mark.parametrize("mode", ["asgi", "", 5])
def test_other_modes_are_refused(mode):
    with pytest.raises(ConfigurationError, match="Invalid async_mode"):
        engineio.Server(mode)


def test_unknown_options_are_warned_about():
    with pytest.warns(UserWarning, match="did you mean 'ping_timeout'"):
        engineio.Server(ping_timout=5)


def test_loggers():
    own = logging.getLogger("own")
    assert engineio.choose_logger(own, "x") is own
    assert engineio.choose_logger(False, "flask_realtime.t1").level == logging.NOTSET
    assert engineio.choose_logger(True, "flask_realtime.t2").level == logging.INFO
    logging.getLogger("flask_realtime.t3").setLevel(logging.ERROR)
    assert engineio.choose_logger(True, "flask_realtime.t3").level == logging.ERROR
    alone = logging.getLogger("flask_realtime.t4")
    alone.propagate = False
    engineio.choose_logger(True, "flask_realtime.t4")
    engineio.choose_logger(True, "flask_realtime.t4")
    assert len(alone.handlers) == 1


def test_errors_are_one_tree():
    for name in ("ContentTooLongError", "UnknownPacketError", "QueueEmpty", "SocketIsClosedError"):
        assert issubclass(getattr(engineio.exceptions, name), EngineIOError)
    assert issubclass(EngineIOError, RealtimeError)


def test_an_application_behind(server, tmp_path):
    (tmp_path / "a.txt").write_text("static")

    def other(environ, start_response):
        start_response("200 OK", [])
        return [b"other"]

    http = Client(engineio.WSGIApp(server, other, {"/files": str(tmp_path)}, "rt/io/"))
    assert http.get("/rt/io/?EIO=4&transport=polling").status_code == 200
    with http.get("/files/a.txt") as response:
        assert response.data == b"static"
    assert http.get("/engine.io/").data == b"other"
    assert Client(engineio.Middleware(server)).get("/x").status_code == 404


def test_shutdown_warns_of_handlers_that_still_run(caplog):
    server = engineio.Server(shutdown_timeout=0.01)
    free, started = server.create_event(), server.create_event()
    server.on("message", lambda sid, data: (started.set(), free.wait(LIMIT)))
    Peer(server).post("4x")
    assert started.wait(LIMIT)
    server.shutdown()
    server.shutdown()
    free.set()
    assert "some handlers still ran" in caplog.text


def test_the_end_of_the_process_ends_running_servers_only():
    server = engineio.Server()
    engineio._shutdown(weakref.ref(server))
    assert not server.gateway.stopping
    Peer(server).post("4x")
    engineio._shutdown(weakref.ref(server))
    assert server.gateway.stopping
    engineio._shutdown(lambda: None)


class Working:
    """A client whose handler runs until it is freed, then answers."""

    def __init__(self, server):
        self.free, self.started = threading.Event(), threading.Event()
        self.server, self.got = server, []
        server.on("message", self.work)
        self.peer = Peer(server)
        self.peer.post("4x")
        assert self.started.wait(LIMIT)

    def work(self, sid, data):
        self.got.append(data)
        self.started.set()
        assert self.free.wait(LIMIT)
        self.server.send(sid, "done")


def test_shutdown_lets_a_handler_answer_before_its_client_is_told():
    server = engineio.Server()
    working, idle = Working(server), Peer(server)
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    while idle.sid in server.engine.sessions:
        assert stopping.is_alive()
    assert list(server.engine.sessions) == [working.peer.sid]
    assert Client(engineio.WSGIApp(server)).get("/engine.io/?EIO=4&transport=polling").status_code == 503
    working.peer.post("4too late")
    working.free.set()
    stopping.join(LIMIT)
    assert working.peer.poll() == ["4done"]
    assert working.peer.poll() == ["1"]
    assert idle.poll() == ["1"]
    assert working.got == ["x"]


def test_shutdown_may_be_hurried():
    server = engineio.Server(shutdown_timeout=2 * LIMIT)
    working = Working(server)
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    while not server.gateway.stopping:
        assert stopping.is_alive()
    while working.peer.sid in server.engine.sessions:
        server.hurry()
    stopping.join(LIMIT)
    working.free.set()
    assert not stopping.is_alive()


def test_shutdown_in_a_handler_returns_at_once():
    server = engineio.Server()
    reached = collect(server, "disconnect")
    server.on("message", lambda sid, data: server.shutdown())
    Peer(server).post("4x")
    assert reached.get(timeout=LIMIT)[1] == "server disconnect"


def test_a_server_may_begin_again():
    server = engineio.Server()
    Peer(server)
    server.shutdown()
    server.begin()
    reached = collect(server, "message")
    Peer(server).post("4x")
    assert reached.get(timeout=LIMIT)[1] == "x"
    server.shutdown()


def test_outside_of_gunicorn_there_is_no_worker_and_no_master():
    assert gunicorn.worker() is None
    assert engineio.Server().master is None
