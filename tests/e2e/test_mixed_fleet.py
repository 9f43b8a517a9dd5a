"""Servers of ours and of python-socketio's on one Redis channel: what either asks for, the other does."""

import subprocess
import sys
import time

import pytest

from .brokers import started, url_of
from .clients import LIMIT, Client, fence
from .servers import wait_until
from .test_message_queue import DEEP_HEARD, answered

pytest.importorskip("redis", reason="needs redis-py: pip install redis")

pytestmark = [pytest.mark.e2e, pytest.mark.services]

CHANNEL = "mixed"
VALUES = [
    ((None,), []),
    (((),), []),
    ((("one", 2, None),), ["one", 2, None]),
    (([1, [2, []]],), [[1, [2, []]]]),
    ((0,), [0]),
    (("",), [""]),
    (('ünï😀\u2028\u0000 " \\ \',"binary":, "namespace": ',), ['ünï😀\u2028\u0000 " \\ \',"binary":, "namespace": ']),
    (({"ключ": [1.5, {"": None}]},), [{"ключ": [1.5, {"": None}]}]),
    ((b"",), [b""]),
    ((DEEP_HEARD,), [DEEP_HEARD]),
    (((b"\x01", "between", b"\x02"),), [b"\x01", "between", b"\x02"]),
    (("x" * 900_000,), ["x" * 900_000]),
]


class Pair:
    """Two servers of one fleet: the one that is told to do something, and the other."""

    def __init__(self, url, sender, other):
        self.url, self.sender, self.other = url, sender, other


@pytest.fixture(scope="module")
def servers(broker_for, tmp_path_factory):
    url, directory = url_of("redis", broker_for("redis")), tmp_path_factory.mktemp("mixed")
    with started(directory, ("werkzeug", "python-socketio"), message_queue=url, channel=CHANNEL) as (ours, theirs):
        with Client(theirs) as client:  # it subscribes at its first client, some time
            wait_until(lambda: heard_from(ours, client), what="the subscription of the other server")
        yield {"url": url, "ours": ours, "theirs": theirs}


def heard_from(server, client):
    server.do("emit", "are you there")
    client.wait(lambda: client.heard or time.sleep(0.05) is None, "nothing")
    return client.heard


@pytest.fixture(scope="module", params=["ours to theirs", "theirs to ours"])
def pair(request, servers):
    sender, _, other = request.param.split()
    return Pair(servers["url"], servers[sender], servers[other])


@pytest.fixture
def here(pair):
    with Client(pair.sender) as client:
        yield client


@pytest.fixture
def there(pair):
    with Client(pair.other) as client:
        yield client


def test_emits_reach_the_others_clients(pair, here, there):
    with Client(pair.other) as third, Client(pair.other, "/custom") as custom:
        there.ask("join", "red")
        third.ask("join", "blue")
        here.ask("join", "red")
        for number, (options, expected) in enumerate(
            [
                ({}, (here, there, third)),
                ({"to": "red"}, (here, there)),
                ({"room": "blue"}, (third,)),
                ({"to": ["red", "blue"]}, (here, there, third)),
                ({"to": there.sid}, (there,)),
                ({"to": "nobody"}, ()),
                ({"skip_sid": third.sid}, (here, there)),
                ({"to": "red", "skip_sid": [here.sid, there.sid]}, ()),
                ({"namespace": "/custom"}, (custom,)),
            ]
        ):
            pair.sender.do("emit", "news", number, **options)
            heard = fence(pair.sender, here, there, third, custom)
            want = [[["news", number]] if client in expected else [] for client in (here, there, third, custom)]
            assert heard == want, options


@pytest.mark.parametrize("values, expected", VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_values_arrive_as_they_were_given(pair, here, there, values, expected):
    pair.sender.do("emit", "news", *values)
    assert fence(pair.sender, here, there) == [[["news", *expected]]] * 2


def test_a_lone_null_is_no_argument_there(servers):
    # python-socketio can't tell it from nothing, in what it sends and in what it gets.
    with Client(servers["ours"]) as ours, Client(servers["theirs"]) as theirs:
        servers["ours"].do("emit", "news", (None,))
        assert fence(servers["ours"], ours, theirs) == [[["news", None]], [["news"]]]
        servers["theirs"].do("emit", "news", (None,))
        assert fence(servers["theirs"], ours, theirs) == [[["news"]], [["news"]]]


def test_events_arrive_in_order(pair, there):
    for number in range(300):
        pair.sender.do("emit", "news", number)
    assert fence(pair.sender, there) == [[["news", number] for number in range(300)]]


def test_callbacks(pair, there):
    for number, answer in enumerate(([], ["one"], [1, "two", {"three": [3]}])):
        there.answers["question"] = lambda asked, answer=answer: answer
        name = f"callback {number} {time.monotonic_ns()}"
        pair.sender.do("emit", "question", b"?", to=there.sid, callback=name)
        assert answered(pair.sender, name, 1) == [[name, *answer]]
        result = None if not answer else answer[0] if len(answer) == 1 else tuple(answer)
        assert pair.sender.do("call", "question", "?", to=there.sid, timeout=LIMIT) == result


def test_rooms_of_the_others_clients(pair, here, there):
    def heard():
        pair.other.do("emit", "news", 1, to="club")
        return [len(events) for events in fence(pair.other, here, there)]

    pair.sender.do("enter_room", there.sid, "club")
    fence(pair.sender, here, there)
    assert heard() == [0, 1]
    pair.sender.do("enter_room", here.sid, "club")
    pair.sender.do("leave_room", there.sid, "club")
    fence(pair.sender, here, there)
    assert heard() == [1, 0]
    pair.other.do("enter_room", there.sid, "club")
    pair.sender.do("close_room", "club")
    fence(pair.sender, here, there)
    assert heard() == [0, 0]


def test_the_others_clients_are_put_out(pair, here, there):
    pair.sender.do("disconnect", there.sid)
    there.wait_for_end()
    assert fence(pair.sender, here) == [[]]


THEIRS = """
import sys, socketio
manager = socketio.RedisManager(sys.argv[1], channel=sys.argv[2], write_only=True)
manager.emit("news", {"text": "ü😀", "binary": [b"1"]})
manager.emit("news", "for one", room=sys.argv[3])
manager.emit("news", "for others", skip_sid=sys.argv[3])
manager.enter_room(sys.argv[3], "/", "room")
manager.emit("news", ("for", "a room"), room="room")
manager.close_room("room", "/")
manager.emit("news", "not heard", room="room")
manager.emit("last", None)
"""

OURS = """
import sys
from flask_realtime import SocketIO
from flask_realtime.socketio import RedisManager

socketio = SocketIO(message_queue=sys.argv[1], channel=sys.argv[2])
socketio.emit("news", {"text": "ü😀", "binary": [b"1"]})
socketio.emit("news", "for one", to=sys.argv[3])
socketio.emit("news", "for others", skip_sid=sys.argv[3])
socketio.flush()
manager = RedisManager(sys.argv[1], channel=sys.argv[2], write_only=True)
manager.enter_room(sys.argv[3], "/", "room")
manager.emit("news", ("for", "a room"), room="room")
manager.close_room("room", "/")
manager.emit("news", "not heard", room="room")
manager.emit("last", None)
"""


@pytest.mark.parametrize("program, name", [(THEIRS, "ours"), (OURS, "theirs"), (OURS, "ours")])
def test_an_external_process_reaches_the_others_clients(servers, program, name):
    with Client(servers[name]) as one, Client(servers[name]) as other:
        command = [sys.executable, "-c", program, servers["url"], CHANNEL, one.sid]
        subprocess.run(command, check=True, timeout=LIMIT)
        first = ["news", {"text": "ü😀", "binary": [b"1"]}]
        assert one.until("last") == [first, ["news", "for one"], ["news", "for", "a room"]]
        assert other.until("last") == [first, ["news", "for others"]]


def test_what_theirs_does_not_know_harms_it_not(servers):
    with Client(servers["ours"]) as ours, Client(servers["theirs"]) as theirs:
        assert servers["ours"].do("count", timeout=1) == 1  # it is no member: it never says that it is there
        assert servers["ours"].do("rooms", theirs.sid, timeout=1) == []
        servers["ours"].do("emit", "news", 1)
        assert fence(servers["ours"], ours, theirs) == [[["news", 1]]] * 2
