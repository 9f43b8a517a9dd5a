"""The program that the end-to-end contract runs against; it uses nothing but the public API.

Run as ``python contract_app.py --port N [--cert FILE --key FILE]``, or hand ``contract_app:app`` to a WSGI server.
The constructor options of ``SocketIO`` come as a JSON object in the environment variable ``E2E_OPTIONS``.

Clients name themselves with ``?who=...`` in the handshake query; ``/journal/<who>`` tells what happened to them.
"""

import os

if os.environ.get("E2E_PATCH") == "gevent":
    import gevent.monkey

    gevent.monkey.patch_all()
elif os.environ.get("E2E_PATCH") == "eventlet":
    import eventlet

    eventlet.monkey_patch()

import argparse
import ast
import atexit
import collections
import faulthandler
import gc
import importlib
import json
import signal
import sys
import threading
import time

from flask import Flask, current_app, g, jsonify, request, send_file, session

from flask_realtime import (
    ConnectionRefusedError,
    Namespace,
    SocketIO,
    call,
    close_room,
    disconnect,
    emit,
    join_room,
    leave_room,
    rooms,
    send,
)
from flask_realtime.health import health_blueprint

faulthandler.register(signal.SIGRTMIN)  # for the tests to see where a server hangs

FILE = __file__
COUNTED_PACKAGES = ("flask_realtime", "websockets", "simple_websocket")

app = Flask(__name__)
app.config["SECRET_KEY"] = "only for tests"
socketio = SocketIO(app, **json.loads(os.environ.get("E2E_OPTIONS", "{}")))

journal = collections.defaultdict(list)  # who -> [[namespace, event, detail], ...]
numbers = collections.defaultdict(list)  # sid -> what "numbered" brought, in order of arrival
connected = set()  # (namespace, sid) between connect and disconnect
auths = {}  # (namespace, sid) -> auth
tally = collections.Counter()  # event -> how often it was noted
gathering, barriers = threading.Lock(), {}  # of "/together"
held, free = [], threading.Event()  # what "hold" was called with; what it waits for
answers = []  # with what callbacks of "/do" were called, and what has been pumped: [name, *values]


def note(event, detail=None):
    """Count an event of the current client, and write it into the journal if it has a name."""
    tally[event] += 1
    if request.args.get("who"):
        journal[request.args["who"]].append([request.namespace, event, detail])


def enter(auth):
    """Admit or refuse the current client, as its auth asks for."""
    if isinstance(auth, dict):
        if "refuse" in auth:
            note("refused")
            raise ConnectionRefusedError(*auth["refuse"])
        if auth.get("reject"):
            note("refused")
            return False
        if auth.get("crash"):
            note("crashed")
            raise KeyError("the connect handler was told to fail")
    note("connect")
    connected.add((request.namespace, request.sid))
    auths[request.namespace, request.sid] = auth
    return None


def leave(reason):
    """Record the end of the current client."""
    note("disconnect", reason)
    if "tell" in request.args:  # what happens at the end of the process can be asked of nobody
        sys.stdout.write(f"left: {request.args['who']} {reason}\n")
    connected.discard((request.namespace, request.sid))
    auths.pop((request.namespace, request.sid), None)
    numbers.pop(request.sid, None)


# Plain functions, the same on two namespaces.

for path in ("/", "/custom"):
    socketio.on("connect", namespace=path)(lambda auth: enter(auth))
    socketio.on("disconnect", namespace=path)(lambda reason: leave(reason))


def on(event):
    """Register a handler on both namespaces of plain functions."""

    def register(handler):
        for path in ("/", "/custom"):
            socketio.on_event(event, handler, namespace=path)
        return handler

    return register


@on("whoami")
def whoami():
    return {
        "sid": request.sid,
        "namespace": request.namespace,
        "auth": auths[request.namespace, request.sid],
        "rooms": rooms(),
        "query": request.args.to_dict(),
        "header": request.headers.get("X-Contract"),
        "event": request.event["message"],
    }


@on("sync")
def sync():
    return "synced"


@on("echo")
def echo(*args):
    return list(args)


@on("echo_event")
def echo_event(*args):
    emit("echoed", args)


@on("bounce")
def bounce(*args):
    send(args[0])
    send(args[0], json=True)


@on("message")
def message(data):
    return ["message", data]


@on("json")
def json_event(data):
    return ["json", data]


# Acknowledgements.


@on("ack_none")
def ack_none():
    return None


@on("ack_one")
def ack_one():
    return "one"


@on("ack_several")
def ack_several():
    return 1, "two", {"three": [3]}, b"\x04"


@on("ack_list")
def ack_list():
    return [1, "two"]


@on("ask")
def ask(*question):
    """Ask the client with a callback and report what came back."""
    emit("question", question, callback=lambda *answer: emit("answered", list(answer)))


def told(answer):
    """Return the answer of a call and whether it was several values."""
    return ("tuple", list(answer)) if isinstance(answer, tuple) else ("value", answer)


@on("ask_call")
def ask_call(timeout, *question):
    """Ask the client with the context's ``call`` and acknowledge with what came back."""
    try:
        answer = call("question", question, timeout=timeout)
    except Exception as error:
        return "failed", type(error).__name__
    return told(answer)


@on("ask_socketio_call")
def ask_socketio_call(timeout, *question):
    """The same with ``SocketIO.call``."""
    return told(socketio.call("question", question, to=request.sid, namespace=request.namespace, timeout=timeout))


# What belongs to one client.


@on("mine")
def mine(value):
    """Keep a value in all that is a client's own, and tell what was there before."""
    before = [session.get("value"), getattr(g, "value", None)]
    session["value"] = g.value = value
    return [request.args["who"], request.sid, *before, session["value"], g.value]


# Binary.


@on("make_binary")
def make_binary(size):
    return bytes(n % 256 for n in range(256)) * (size // 256) + bytes(size % 256)


@on("make_text")
def make_text(size):
    return "x" * size


@on("make_tuples")
def make_tuples():
    """Bytes inside tuples inside other things; on the wire a tuple is an array."""
    return {"inside": (1, (b"\x01", {"deeper": (b"\x02",)}))}


@on("measure")
def measure(data):
    return type(data).__name__, len(data)


# Rooms.


@on("join")
def join(room):
    join_room(room)


@on("leave")
def leave_event(room):
    leave_room(room)


@on("close_room")
def close(room):
    close_room(room)


@on("cast")
def cast(data, options):
    emit("news", data, **options)


# Order, load.


@on("numbered")
def numbered(number, *rest):
    numbers[request.sid].append(number)


@on("numbers")
def numbers_event():
    return numbers[request.sid]


@on("stream")
def stream(total):
    """Send 0, 1, 2, ... in the background, every 25th with an attachment."""
    sid, namespace = request.sid, request.namespace

    def pump():
        for number in range(total):
            data = (number, bytes([number % 256])) if number % 25 == 0 else number
            socketio.emit("tick", data, to=sid, namespace=namespace)
            if number % 10 == 0:
                socketio.sleep(0.001)

    socketio.start_background_task(pump)


@on("flood")
def flood(first, count, size):
    """Broadcast ``count`` numbered messages of ``size`` characters to everybody."""
    text = "x" * size
    for number in range(first, first + count):
        emit("flooded", (number, text), broadcast=True)


# Endings.


@on("work")
def work(gate):
    """Say so when it begins, and take until a file is there, a minute at most."""
    emit("working")
    for _ in range(6000):
        if os.path.exists(gate):
            break
        socketio.sleep(0.01)
    return "worked"


@on("mark")
def mark(path, who, number):
    """Leave a trace that outlives the process."""
    with open(path, "a") as file:
        file.write(f"{who} {number}\n")
    return number


@on("hold")
def hold(number, *rest):
    """Wait until GET /release."""
    held.append(number)
    free.wait()
    return number


def recurse(depth):
    return recurse(depth + 1) + 1


CIRCLE = []
CIRCLE.append(CIRCLE)
FAULTS = {
    "raises": lambda: {}["the handler was told to fail"],
    "exits": lambda: sys.exit("the handler was told to fail"),
    "interrupts": lambda: signal.default_int_handler(signal.SIGINT, None),
    "recurses": lambda: recurse(0),
    "returns no data": object,
    "returns a generator": lambda: (number for number in range(3)),
    "returns a circle": lambda: CIRCLE,
}


@on("fault")
def fault(which):
    return FAULTS[which]()


@on("kick")
def kick():
    disconnect()


@on("close_engine")
def close_engine(engine_sid):
    socketio.server.eio.disconnect(engine_sid)


# A namespace with a catch-all handler.


@socketio.on("connect", namespace="/any")
def any_connect():
    return None


@socketio.on("*", namespace="/any")
def catch_all(event, *args):
    emit("caught", (event, list(args)))
    return event, len(args)


# A class-based namespace.


class Classy(Namespace):
    def on_connect(self, auth):
        enter(auth)

    def on_disconnect(self, reason):
        leave(reason)

    def on_echo(self, *args):
        return list(args)

    def on_shout(self, text):
        self.emit("shouted", text.upper())


socketio.on_namespace(Classy("/class"))


# Routes.


@app.route("/")
def index():
    return "ready"


@app.route("/journal/<who>")
def journal_of(who):
    return jsonify(journal.get(who, []))


@app.route("/emit")
def emit_from_route():
    """Emit from a plain HTTP request: no Socket.IO context."""
    socketio.emit("from_route", request.args["data"], to=request.args.get("to"))
    return "emitted"


@app.route("/emit_later")
def emit_from_task():
    """Emit from a background task: no Flask context at all."""
    data, sid = request.args["data"], request.args.get("to")
    socketio.start_background_task(lambda: socketio.emit("from_task", data, to=sid))
    return "started"


@app.route("/stats")
def stats():
    """Tell the server's own numbers, and what the process holds at this moment."""
    numbers_of_server = socketio.stats()
    gc.collect()
    kinds = collections.Counter()
    for item in gc.get_objects():
        kind = type(item)
        if isinstance(kind.__module__, str) and kind.__module__.split(".")[0] in COUNTED_PACKAGES:
            kinds[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return jsonify(
        threads=len(os.listdir("/proc/self/task")),
        descriptors=len(os.listdir("/proc/self/fd")),
        connected=len(connected),
        sessions=len(socketio.server.environ),
        objects=kinds,
        tally=tally,
        held=len(held),
        **numbers_of_server,
    )


@app.route("/release")
def release():
    """Let all that "hold" holds go on, and return with what it was called."""
    free.set()
    return jsonify(held)


@app.route("/hold_again")
def hold_again():
    free.clear()
    held.clear()
    return "held"


@app.route("/sids")
def sids():
    return jsonify([sid for _, sid in connected])


@app.route("/file")
def file():
    """A file as Flask sends files."""
    return send_file(FILE, mimetype="application/octet-stream")


@app.route("/process")
def process():
    return jsonify(os.getpid())


@app.route("/together/<int:count>")
def together(count):
    """Answer when so many ask for it at a time."""
    with gathering:
        barrier = barriers.setdefault(count, threading.Barrier(count))
    barrier.wait(30)
    return "all here"


@app.route("/stop")
def stop():
    socketio.stop()
    return "stopping"


@app.route("/shut")
def shut():
    """Stop serving Socket.IO, but not these pages."""
    socketio.server.shutdown()
    return "shut"


# What another process is told to do, see Server.do.


@socketio.on_queue_gap
def gap(missing):
    answers.append(["gap", missing, current_app.name])


def pump(event, first, count, rate):
    """Emit numbered events to everybody, so many a second."""
    began = time.monotonic()
    for number in range(first, first + count):
        early = (number - first) / rate - (time.monotonic() - began)
        if early > 0.005:  # in small heaps, a pause for each would be too short to be kept
            socketio.sleep(early)
        socketio.emit(event, number)
    answers.append(["pumped", event])


OWN = {
    "answers": lambda: list(answers),
    "stats": lambda: socketio.stats(),
    "pump": lambda *args: socketio.start_background_task(pump, *args) and None,
}


@app.route("/do/<method>", methods=["POST"])
def do(method):
    """Call a method of `SocketIO`, or one of `OWN`. Arguments and result are Python's literals."""
    args, kwargs = ast.literal_eval(request.get_data(as_text=True))
    if "callback" in kwargs:
        name = kwargs["callback"]
        kwargs["callback"] = lambda *values: answers.append([name, *values])
    try:
        result = (OWN.get(method) or getattr(socketio, method))(*args, **kwargs)
    except Exception as error:
        return repr((type(error).__name__, str(error), getattr(error, "results", None)))
    return repr((None, result, None))


app.register_blueprint(health_blueprint(socketio, metrics=True))


if "uwsgi" in sys.modules:  # which with gevent calls nothing of atexit, where coverage data gets written
    sys.modules["uwsgi"].atexit = atexit._run_exitfuncs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--handler", help="of gevent's server, as module:class")
    arguments = parser.parse_args()
    # An orderly end of the interpreter: what is written at exit (coverage data, for one) gets written.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    extra = {"certfile": arguments.cert, "keyfile": arguments.key} if arguments.cert else {}
    if arguments.handler:
        module, _, name = arguments.handler.partition(":")
        extra["handler_class"] = getattr(importlib.import_module(module), name)
    socketio.run(app, host="127.0.0.1", port=arguments.port, allow_unsafe_werkzeug=True, **extra)


if __name__ == "__main__":
    main()
