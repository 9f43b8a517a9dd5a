"""What the benchmarks share: a light Socket.IO client over WebSocket, a server in a process of its own, and rounds."""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
CONNECTING = 50  # handshakes under way at a time, fewer than any server's listen backlog
HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Failed(Exception):
    """A round that has no figure, and why."""


def frame(text):
    """Return a client's text frame. Its mask is zero, which is allowed and costs the client nothing."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes([0x81, 0x80 | size, 0, 0, 0, 0]) + payload
    if size < 65536:
        return b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + payload
    return b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + payload


class Client(asyncio.Protocol):
    """One Socket.IO client. `on_packet` is called with each packet but the handshake's and pings.

    Attributes:
        ready: Set when the namespace is connected; fails when the connection ends before.
        lost: Whether the connection has ended.
    """

    def __init__(self, on_packet):
        self.ready = asyncio.get_running_loop().create_future()
        self.lost = False
        self.on_packet = on_packet
        self._buffer = bytearray()
        self._upgraded = False

    def connection_made(self, transport):
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        transport.write(HANDSHAKE)

    def connection_lost(self, error):
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(Failed("the connection ended amid the handshake"))

    def send(self, text):
        self.transport.write(frame(text))

    def data_received(self, data):
        buffer = self._buffer
        buffer += data
        if not self._upgraded:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in buffer[:end].split(b"\r\n")[0]:
                self.transport.abort()
                return
            self._upgraded = True
            del buffer[: end + 4]
        start = 0
        while (found := self._frame(buffer, start)) is not None:
            opcode, payload, start = found
            if opcode == 1:
                self._packet(payload.decode())
            elif opcode == 8:
                self.transport.close()
        del buffer[:start]

    @staticmethod
    def _frame(buffer, start):
        """Return ``(opcode, payload, end)`` of the frame at `start`, or None when it isn't whole."""
        if len(buffer) < start + 2:
            return None
        size, head = buffer[start + 1] & 0x7F, start + 2
        if size > 125:
            wide = 2 if size == 126 else 8
            if len(buffer) < head + wide:
                return None
            size, head = int.from_bytes(buffer[head : head + wide], "big"), head + wide
        if len(buffer) < head + size:
            return None
        return buffer[start] & 0x0F, buffer[head : head + size], head + size

    def _packet(self, text):
        if text[0] == "2":
            self.send("3")
        elif text[0] == "0":
            self.send("40")
        elif text.startswith("40"):
            if not self.ready.done():
                self.ready.set_result(None)
        elif text.startswith("44"):
            self.transport.abort()
        else:
            self.on_packet(text)


@contextlib.asynccontextmanager
async def serve(module, *arguments):
    """Run a server in its own process and yield its port; it is stopped afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = _start(module, port, *arguments)
    try:
        await _listening(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(module, port, *arguments):
    return subprocess.Popen([sys.executable, str(SERVER), module, str(port), *arguments], stdout=subprocess.DEVNULL)


async def _listening(port, process):
    for _ in range(300):
        if process.poll() is not None:
            raise Failed(f"the server ended with status {process.returncode}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    raise Failed("the server didn't listen within 30 seconds")


async def connect(port, on_packets, seconds):
    """Connect one client for each function of `on_packets` and return the clients."""
    loop = asyncio.get_running_loop()
    limit = asyncio.Semaphore(CONNECTING)

    async def one(on_packet):
        async with limit:
            _, client = await loop.create_connection(lambda: Client(on_packet), "127.0.0.1", port)
            await client.ready
            return client

    try:
        return await asyncio.wait_for(asyncio.gather(*map(one, on_packets)), seconds)
    except asyncio.TimeoutError:
        raise Failed(f"{len(on_packets)} clients weren't connected within {seconds} seconds") from None
    except OSError as error:
        raise Failed(f"a client couldn't connect: {error}") from error


def lost(clients):
    """Raise Failed when a client is no longer connected."""
    gone = sum(client.lost for client in clients)
    if gone:
        raise Failed(f"{gone} of {len(clients)} clients were lost")


def parser(description, clients):
    """Return a parser with the options that all benchmarks have."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("modules", nargs="*", default=["flask_realtime", "flask_socketio"], help="what to compare")
    result.add_argument("--clients", type=int, default=clients, help="default: %(default)s")
    result.add_argument("--rounds", type=int, default=5, help="rounds per module, interleaved; default: %(default)s")
    result.add_argument("--json", action="store_true", help="print the figures of all rounds as JSON at the end")
    result.add_argument("--save", metavar="FILE", help="write the figures, with versions and machine, for plot.py")
    return result


def version_of(module):
    """Return the version of a module, installed or not."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return getattr(importlib.import_module(module), "__version__", "unknown")


def record(options, unit, figures):
    """Return what a reader of the figures has to know of them, for JSON."""
    return {
        "benchmark": Path(sys.argv[0]).stem,
        "unit": unit,
        "clients": options.clients,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": {module: version_of(module) for module in figures},
        "figures": figures,
    }


def compare(options, unit, measure):
    """Measure all modules in turn, for as many rounds as asked for, and print medians and ratios.

    Args:
        options: What `parser` parsed.
        unit: What a figure counts.
        measure: Coroutine function from a module's name to a figure; raises Failed when there is none.

    Returns:
        Exit status: 1 when a module has a round without a figure.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    modules = list(dict.fromkeys(options.modules))
    figures = {module: [] for module in modules}
    failures = 0
    print(f"{options.clients} clients, {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for number in range(options.rounds):
        # Every other round in the opposite order, so that no module always follows the same one.
        for module in modules if number % 2 == 0 else reversed(modules):
            try:
                figure = asyncio.run(measure(module))
            except Failed as error:
                failures += 1
                print(f"round {number + 1}  {module:20} failed: {error}", flush=True)
            else:
                figures[module].append(figure)
                print(f"round {number + 1}  {module:20} {figure:12,.0f} {unit}", flush=True)
    medians = {module: statistics.median(values) for module, values in figures.items() if values}
    for module in modules:
        if module in medians:
            values = figures[module]
            print(f"median   {module:20} {medians[module]:12,.0f} {unit}  ({min(values):,.0f} to {max(values):,.0f})")
        else:
            print(f"median   {module:20} none, no round succeeded")
    first, *others = modules
    for other in others:
        if first in medians and other in medians:
            print(f"ratio    {first} / {other}: {medians[first] / medians[other]:.2f}")
    if options.json:
        print(json.dumps(figures))
    if options.save:
        Path(options.save).write_text(json.dumps(record(options, unit, figures), indent=2) + "\n")
    return 1 if failures else 0
