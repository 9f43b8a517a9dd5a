"""A message queue within this process, through the methods that a class of a program's own overrides."""

import json
import queue
import threading

from flask_realtime.socketio import PubSubManager

LIMIT = 30


class LocalManager(PubSubManager):
    """Hands each message to all managers of the same channel.

    Args:
        channel: The channel.
        form: Turns the message, a dict, into what `_listen` yields.
    """

    name = "local"
    _channels = {}

    def __init__(self, channel, write_only=False, form=json.dumps, **options):
        super().__init__(channel, write_only, **options)
        self._form = form
        self._interrupted = threading.Event()

    def interrupt(self):
        """End the subscription; the process listens anew."""
        self._interrupted.set()

    def _publish(self, data):
        json.dumps(data)
        for waiting in self._channels.get(self.channel, ()):
            waiting.put(data)

    def _listen(self):
        mine = queue.SimpleQueue()
        self._channels.setdefault(self.channel, []).append(mine)
        try:
            while not self._interrupted.is_set():
                try:
                    data = mine.get(timeout=0.05)
                except queue.Empty:
                    yield None
                else:
                    yield self._form(data)
        finally:
            self._interrupted.clear()
            self._channels[self.channel].remove(mine)
