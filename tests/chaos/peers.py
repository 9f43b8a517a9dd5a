"""Clients for the list: joined, and read to their end by a thread that notes what came and when."""

import contextlib
import struct
import threading
import time

from e2e.raw import Polling, WebSocket

LIMIT = 60  # seconds that anything may take on a slow machine


def joined(server, namespace="", **query):
    """Return a WebSocket in the namespace ``/``."""
    peer = WebSocket(server, **query)
    assert peer.receive()[0] == "0"
    peer.send("40" + namespace)
    assert peer.receive().startswith("40")
    return peer


def joined_polling(server, **query):
    """Return a polling session in the namespace ``/``."""
    session = Polling(server, **query)
    session.join()
    return session


class Followed:
    """What comes to a WebSocket until its end.

    Attributes:
        texts: ``[(time, text), ...]``
        code: Of the close frame; None when the connection ended without one.
        told: When the close frame, or the end, came.
    """

    def __init__(self, peer, answer_pings=False):
        self.peer, self.texts, self.code, self.told = peer, [], None, None
        self._answer_pings = answer_pings
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        with contextlib.suppress(OSError):
            while True:
                opcode, payload = self.peer.frame()
                if opcode == 1:
                    self.texts.append((time.monotonic(), payload.decode()))
                    if payload == b"2" and self._answer_pings:
                        self.peer.send("3")
                elif opcode == 8:
                    self.told = time.monotonic()
                    (self.code,) = struct.unpack("!H", payload[:2])
                    self.peer.send(payload[:2], opcode=8)
                elif opcode is None:
                    break
        self.told = self.told or time.monotonic()
        self.peer.abandon(reset=False)

    def end(self):
        """Wait for the end."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the connection isn't ended"
        return self

    def time_of(self, text):
        """Return when a text came."""
        (found,) = [moment for moment, got in self.texts if got == text]
        return found


class FollowedPoll:
    """Polls one after the other, to their end.

    Attributes:
        texts: The packets that came.
        told: When the last answer came.
        gone: Whether the last poll found nobody that knows the session.
    """

    def __init__(self, session):
        self.session, self.texts, self.told, self.gone = session, [], None, False
        self._request = session.get()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self):
        try:
            while "1" not in self.texts:
                answer = self._request.answer()
                if answer.status != 200:
                    break
                self.told = time.monotonic()
                self.texts += answer.text.split("\x1e")
                if "1" not in self.texts:
                    self._request = self.session.get()
        except OSError:
            pass
        self.gone = "1" not in self.texts

    def end(self):
        """Wait for the end."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the session isn't ended"
        return self
