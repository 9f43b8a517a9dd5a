"""What a message costs a process that has nobody in its room, when several processes share a message queue."""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile

from harness import Failed, compare, connect, lost, parser, serve

CLOCK = """
Three servers share one Redis, and each has a third of the rooms. Another process emits to the rooms of the first server
only. The clock is the CPU time of the second server, all its threads together, from before the first message until the
server has said, through the same queue, that it has seen the last. A figure is that time divided by the messages.
"""

PROCESSES, ROOMS, MEMBERS = 3, 1000, 10

EMITTER = """
import importlib, sys, time
socketio = importlib.import_module(sys.argv[1]).SocketIO(message_queue=sys.argv[2])
count, size, rate, start = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), time.monotonic()
rooms = [f"room {number}" for number in range(0, int(sys.argv[6]), int(sys.argv[7]))]
for number in range(count):
    if rate:
        time.sleep(max(0, start + number / rate - time.monotonic()))
    socketio.emit("tick", {"number": number, "text": "x" * size}, to=rooms[number % len(rooms)])
for number in range(1, int(sys.argv[7])):
    socketio.emit("last", to=f"room {number}")
"""


@contextlib.contextmanager
def redis():
    """Run a Redis that keeps nothing, and yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("unwanted.py needs redis-server (Debian: apt-get install redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


class Member:
    """What the clients of one server say and hear."""

    def __init__(self):
        self.answers, self.last = asyncio.Queue(), asyncio.Event()

    def on_packet(self, packet):
        if packet.startswith("43"):
            self.answers.put_nowait(json.loads(packet[packet.index("[") :])[0])
        elif packet.startswith('42["last"'):
            self.last.set()

    async def ask(self, client, *event):
        client.send("420" + json.dumps(event))
        return await asyncio.wait_for(self.answers.get(), 30)


async def measure(module, url, options):
    members = [Member() for _ in range(PROCESSES)]
    async with contextlib.AsyncExitStack() as stack:
        groups = []
        for number, member in enumerate(members):
            port = await stack.enter_async_context(serve(module, url))
            clients = await connect(port, [member.on_packet] * MEMBERS, 60)
            for index, client in enumerate(clients):
                await member.ask(client, "join", [f"room {r}" for r in range(number, ROOMS, PROCESSES)][index::MEMBERS])
            groups.append(clients)
        before = await members[1].ask(groups[1][0], "cpu")
        arguments = [module, url, options.count, options.size, options.rate, ROOMS, PROCESSES]
        emitter = await asyncio.create_subprocess_exec(sys.executable, "-c", EMITTER, *map(str, arguments))
        try:
            await asyncio.wait_for(members[1].last.wait(), options.limit)
        except asyncio.TimeoutError:
            raise Failed(f"not all had arrived after {options.limit} seconds") from None
        finally:
            await emitter.wait()
        figure = (await members[1].ask(groups[1][0], "cpu") - before) / options.count * 1e6
        for clients in groups:
            lost(clients)
            for client in clients:
                client.transport.abort()
    return figure


def main():
    options_parser = parser(__doc__ + CLOCK, clients=PROCESSES * MEMBERS)
    options_parser.add_argument("--count", type=int, default=20_000, help="messages per round; default: %(default)s")
    options_parser.add_argument("--size", type=int, default=64, help="bytes in a message; default: %(default)s")
    options_parser.add_argument(
        "--rate", type=float, default=0, help="messages per second; 0, the default, for as many as there can be"
    )
    options_parser.add_argument(
        "--limit", type=float, default=60, help="seconds a round may take; default: %(default)s"
    )
    options = options_parser.parse_args()
    with redis() as url:
        return compare(options, "µs CPU/message", lambda module: measure(module, url, options))


if __name__ == "__main__":
    sys.exit(main())
