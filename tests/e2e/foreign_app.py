"""A server of python-socketio's that shares a message queue with ours, for the tests of mixed fleets.

Run as ``python foreign_app.py --port N``; ``message_queue`` and ``channel`` come in ``E2E_OPTIONS``. It does what it is
told as contract_app does, as far as python-socketio can.
"""

import argparse
import ast
import json
import os
import signal
import sys

import socketio
from flask import Flask, request
from werkzeug.serving import run_simple

options = json.loads(os.environ["E2E_OPTIONS"])
manager = socketio.RedisManager(options["message_queue"], channel=options["channel"])
server = socketio.Server(async_mode="threading", client_manager=manager, namespaces="*")
app = Flask(__name__)
app.wsgi_app = socketio.WSGIApp(server, app.wsgi_app)
answers = []  # with what callbacks were called: [name, *values]


@server.on("join", namespace="*")
def join(namespace, sid, room):
    server.enter_room(sid, room, namespace)


@app.route("/")
def index():
    return "ready"


@app.route("/do/<method>", methods=["POST"])
def do(method):
    args, kwargs = ast.literal_eval(request.get_data(as_text=True))
    if "callback" in kwargs:
        name = kwargs["callback"]
        kwargs["callback"] = lambda *values: answers.append([name, *values])
    try:
        result = list(answers) if method == "answers" else getattr(server, method)(*args, **kwargs)
    except Exception as error:
        return repr((type(error).__name__, str(error), None))
    return repr((None, result, None))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    run_simple("127.0.0.1", parser.parse_args().port, app, threaded=True)
