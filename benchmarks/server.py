"""The server that is measured: python server.py MODULE PORT [MESSAGE_QUEUE]

MODULE is imported and must have Flask-SocketIO's interface; it serves in threads mode.
"""

import importlib
import logging
import sys
import time

from flask import Flask


def main():
    module, port = importlib.import_module(sys.argv[1]), int(sys.argv[2])
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Flask(__name__)
    queue = {"message_queue": sys.argv[3]} if len(sys.argv) > 3 else {}
    socketio = module.SocketIO(app, async_mode="threading", cors_allowed_origins="*", **queue)

    @socketio.on("echo")
    def echo(data):
        return data

    @socketio.on("cast")
    def cast(count, size):
        text = "x" * size
        for number in range(count):
            socketio.emit("tick", [number, text])

    @socketio.on("join")
    def join(rooms):
        for room in rooms:
            module.join_room(room)
        return True

    @socketio.on("cpu")
    def cpu():
        return time.process_time()

    socketio.run(app, host="127.0.0.1", port=port, allow_unsafe_werkzeug=True)


if __name__ == "__main__":
    main()
