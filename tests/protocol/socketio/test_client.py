import pytest
from doubles import Party, StrictLock

from flask_realtime.protocol.engineio.frame import Frame
from flask_realtime.protocol.socketio.client import CONNECTED, GONE, HELD_LIMIT, LEAVING


@pytest.fixture
def party():
    party = Party()
    party.on("connect")
    party.runtime.hold = True
    return party


@pytest.fixture
def guest(party):
    """One whose connect handler runs."""
    return party.join()


def client_of(guest):
    return guest.session.data.clients["/"]


def test_what_is_sent_while_connecting_waits_for_the_answer(guest):
    client, lock = client_of(guest), StrictLock()
    client.send([Frame("4a"), Frame(b"b")], lock)
    client.send([Frame("4c")], lock)
    assert guest.transport.messages[1:] == []
    client.admit([Frame("4hello")], lock)
    assert guest.transport.messages[1:] == ["4hello", "4a", b"b", "4c"]
    assert client.state is CONNECTED
    client.send([Frame("4d")], lock)
    assert guest.transport.messages[-1] == "4d"


def test_who_was_admitted_meanwhile_gets_it_at_once(guest):
    client, lock = client_of(guest), StrictLock()
    lock.meanwhile = lambda: client.admit([Frame("4hello")], lock)
    client.send([Frame("4a")], lock)
    assert guest.transport.messages[1:] == ["4hello", "4a"]


@pytest.mark.parametrize("state", [LEAVING, GONE])
def test_who_leaves_gets_nothing_more(guest, state):
    client = client_of(guest)
    client.state = state
    client.send([Frame("4a")], StrictLock())
    assert guest.transport.messages[1:] == []


def test_too_much_for_a_client_that_is_still_connecting_ends_it(party, guest):
    other = party.open()
    party.core.emit("x", [b"a" * (HELD_LIMIT // 2)], "/")
    assert not guest.closed
    party.core.emit("x", [b"a" * (HELD_LIMIT // 2 + 100)], "/")
    assert guest.closed and not other.closed
    party.runtime.run_jobs()
    assert party.core.clients["/"] == {}
    assert party.core.rooms["/"].names() == []


def test_what_was_held_may_be_more_than_its_transport_takes():
    party = Party(options={"max_backlog": 1000})
    party.on("connect")
    party.runtime.hold = True
    session = party.engine.prepare({})
    party.engine.on_connect(session)
    party.engine.open_polling(session)
    session.receive("40")
    for _ in range(3):
        party.core.emit("x", [b"a" * 2000], "/")
    party.runtime.run_jobs()
    assert session.closed, "it is a slow client"
    assert party.core.clients["/"] == {}
