"""A Socket.IO client over a bare WebSocket: what it hears stays in order, and it answers what it is asked."""

import json
import re
import socket
import threading
import time
import uuid

from .raw import WebSocket

LIMIT = 30  # seconds for whatever should happen

PACKET = re.compile(r"(\d)(?:(\d+)-)?(?:(/[^,]*),)?(\d+)?(.*)", re.DOTALL)
EVENT, ACK = 2, 3
BINARY = 3  # what a packet's type with attachments is more than without


class Client:
    """A client in one namespace, with a thread that reads.

    Args:
        server: A running server, or what stands before it.
        namespace: Which.
        headers: Lines for the handshake.

    Attributes:
        who: Its name in the server's journal.
        sid: What the server calls it.
        heard: Events that nobody has taken yet: ``[name, *values]``.
        answers: Event name -> function that returns what an event is acknowledged with, a list.
        ended: Whether the server has put it out, or the connection has ended.
    """

    def __init__(self, server, namespace="/", headers=()):
        self.namespace = namespace
        self.who = uuid.uuid4().hex
        self.heard, self.answers, self.ended = [], {}, False
        self._acknowledged, self._number = {}, 0
        self._changed, self._sending = threading.Condition(), threading.Lock()
        self._packet, self._attachments, self._missing = None, [], 0
        self._wire = WebSocket(server, headers=headers, who=self.who)
        self._wire.receive()
        self._wire.send("40" if namespace == "/" else f"40{namespace},")
        answer = PACKET.fullmatch(self._wire.receive()[1:])
        assert answer[1] == "0", answer[0]
        self.sid = json.loads(answer[5])["sid"]
        self._wire.socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self):
        """End the connection."""
        try:
            self._wire.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(LIMIT)
        self._wire.abandon(reset=False)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    # Hearing.

    def next(self):
        """Return the next event."""
        self.wait(lambda: self.heard, "an event")
        return self.heard.pop(0)

    def until(self, *event):
        """Return all that comes before an event, and drop that one."""
        event, place = list(event), 0

        def found():
            nonlocal place
            while place < len(self.heard) and self.heard[place] != event:
                place += 1
            return place < len(self.heard)

        self.wait(found, event)
        with self._changed:
            before, self.heard[: place + 1] = self.heard[:place], []
        return before

    def wait(self, condition, what, limit=LIMIT):
        """Wait until something is true of what was heard."""
        with self._changed:
            reached = self._changed.wait_for(lambda: condition() or self.ended, limit)
        assert reached and condition(), f"waited in vain for {what}; ended: {self.ended}, heard {self.heard[-5:]}"

    def wait_for_end(self):
        """Wait until the server has put it out."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended, LIMIT), "the server did not put the client out"

    # Saying.

    def ask(self, event, *values):
        """Emit an event and return what it is acknowledged with, a list."""
        with self._sending:
            number = self._number = self._number + 1
        self._send(EVENT, number, [event, *values])
        self.wait(lambda: number in self._acknowledged, f"the acknowledgement of {event}")
        return self._acknowledged.pop(number)

    def _send(self, kind, number, values):
        attachments = []
        text = json.dumps(_taken_out(values, attachments))
        head = f"{kind + BINARY}{len(attachments)}-" if attachments else str(kind)
        space = "" if self.namespace == "/" else self.namespace + ","
        with self._sending:
            self._wire.send(f"4{head}{space}{'' if number is None else number}{text}")
            for attachment in attachments:
                self._wire.send(attachment, opcode=2)

    # Reading.

    def _read(self):
        try:
            while True:
                opcode, payload = self._wire.frame()
                if opcode in (None, 8):
                    break
                if opcode == 2:
                    self._attachments.append(payload)
                elif payload == b"2":
                    with self._sending:
                        self._wire.send("3")
                elif payload[:1] == b"4":
                    self._packet = PACKET.fullmatch(payload[1:].decode())
                    self._attachments, self._missing = [], int(self._packet[2] or 0)
                if self._packet is not None and len(self._attachments) == self._missing:
                    packet, self._packet = self._packet, None
                    self._take(int(packet[1]), packet[4] and int(packet[4]), packet[5])
        except OSError:
            pass
        finally:
            self._end()

    def _take(self, kind, number, text):
        if kind == 1:
            self._end()
            return
        values = _put_back(json.loads(text), self._attachments)
        with self._changed:
            if kind in (ACK, ACK + BINARY):
                self._acknowledged[number] = values
            else:
                self.heard.append(values)
            self._changed.notify_all()
        if kind in (EVENT, EVENT + BINARY) and number is not None and values[0] in self.answers:
            self._send(ACK, number, self.answers[values[0]](*values[1:]))

    def _end(self):
        with self._changed:
            self.ended = True
            self._changed.notify_all()


def _taken_out(value, attachments):
    """Return a value with placeholders for what is binary."""
    if isinstance(value, bytes):
        attachments.append(value)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, (list, tuple)):
        return [_taken_out(item, attachments) for item in value]
    if isinstance(value, dict):
        return {key: _taken_out(item, attachments) for key, item in value.items()}
    return value


def _put_back(value, attachments):
    """Return a value with what is binary in the place of placeholders."""
    if isinstance(value, list):
        return [_put_back(item, attachments) for item in value]
    if isinstance(value, dict):
        if value.get("_placeholder"):
            return attachments[value["num"]]
        return {key: _put_back(item, attachments) for key, item in value.items()}
    return value


def fence(sender, *clients):
    """Let a server say to everybody that this is all, and return what each client heard before.

    What one process emits arrives in order, so whatever it emitted before has arrived by then, or never will. What
    another process said so to a client that has gone since may come to those who came after it, and doesn't count.
    """
    mark = f"{time.monotonic_ns()}"
    for namespace in {client.namespace for client in clients}:
        sender.do("emit", "fence", mark, namespace=namespace)
    return [[told for told in client.until("fence", mark) if told[0] != "fence"] for client in clients]
