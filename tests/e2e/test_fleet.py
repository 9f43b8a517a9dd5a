"""Three processes behind nginx on one Redis, with 200 clients of the official kind.

``FLEET_ROUNDS`` is how often the rolling restart goes round.
"""

import collections
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time

import pytest

from .brokers import meet, record
from .clients import LIMIT
from .proxies import NGINX_CRASH, Nginx, cluster, kill
from .servers import HERE, Server, wait_until
from .test_message_queue import NUMBERED
from .test_nginx import PREFIXES, REALIP

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.timeout(600)]

CLIENTS = 200
TICKS, RATE = 400, 100  # events while a process is killed, and how many a second
ROUNDS = int(os.environ.get("FLEET_ROUNDS", "1"))
PACED = NUMBERED.replace(", number)", ", number)\n    time.sleep(0.01)").replace("import sys", "import sys, time")


class Crowd:
    """A process of Node with many clients."""

    def __init__(self, url):
        if not shutil.which("node") or not (HERE / "node_modules" / "socket.io-client").is_dir():
            pytest.skip("needs Node and its packages: run `npm install` in tests/e2e")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(["node", str(HERE / "fleet.mjs"), url], cwd=HERE, text=True, **pipes)

    def tell(self, *command):
        """Return the answer to a command of fleet.mjs."""
        late = threading.Timer(120, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or '{"error": "no answer"}')
        finally:
            late.cancel()
        assert "error" not in answer, answer
        return answer["answer"]

    def until(self, server):
        """Let a server say to everybody that this is all, and return what each client reports."""
        mark = f"{time.monotonic_ns()}"
        server.do("emit", "mark", mark)
        return self.tell("mark", mark)

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Fleet:
    """Servers, and the crowd that comes to them through nginx."""

    def __init__(self, directory, servers, crowd, queue):
        self.directory, self.servers, self.crowd, self.queue = directory, servers, crowd, queue

    def all_there(self):
        """Wait until every client is at a process, and knows it."""
        wait_until(lambda: set().union(*self.sids()).issuperset(self.crowd.tell("connected")), 100, "all clients")

    def outside(self, program, count):
        """Begin to run a program that emits."""
        command = [sys.executable, "-c", program, self.queue["message_queue"], self.queue["channel"], str(count)]
        return subprocess.Popen(command, env=dict(os.environ))

    def homes(self, reports):
        """Return the number of the server that each client is at."""
        at = {sid: number for number, sids in enumerate(self.sids()) for sid in sids}
        return [at[report["sids"][-1]] for report in reports]

    def sids(self):
        return [set(server.get_json("/sids")) if server.process.poll() is None else set() for server in self.servers]


@pytest.fixture(scope="module")
def fleet(broker_for, tmp_path_factory):
    directory = tmp_path_factory.mktemp("fleet")
    queue = {"message_queue": broker_for("redis").url, "channel": "fleet"}
    with cluster("gevent", directory, 3, **queue) as servers, contextlib.ExitStack() as stack:
        ports = [server.port for server in servers]
        proxy = Nginx(directory, ports, "ip-hash.conf", extra=REALIP, alarm=NGINX_CRASH)
        stack.callback(proxy.stop)
        crowd = Crowd(proxy.url)
        stack.callback(crowd.stop)
        crowd.tell("open", CLIENTS, 100)
        meet(servers)
        yield Fleet(directory, servers, crowd, queue)


def test_clients_are_spread_over_the_processes(fleet):
    counts = [len(sids) for sids in fleet.sids()]
    assert sum(counts) == CLIENTS
    assert min(counts) > CLIENTS / 10
    assert [server.do("count") for server in fleet.servers] == [CLIENTS] * 3


def test_a_broadcast_reaches_each_client_once(fleet):
    for server in fleet.servers:
        for number in range(5):
            server.do("emit", "news", {"number": number, "text": "ü😀"})
        for report in fleet.crowd.until(server):
            assert report["heard"] == [["news", {"number": number, "text": "ü😀"}] for number in range(5)]


def test_a_broadcast_from_outside_reaches_each_client_once(fleet):
    assert fleet.outside(NUMBERED, 20).wait(LIMIT) == 0
    fleet.crowd.tell("heard", 20)
    for report in fleet.crowd.until(fleet.servers[0]):
        assert report["heard"] == [["outside", number] for number in range(20)]


def test_a_room_spans_the_processes(fleet):
    for server in fleet.servers:
        server.do("emit", "news", 1, to="polling")
        server.do("emit", "news", 2, to=["polling", "websocket"])
        for report in fleet.crowd.until(server):
            assert report["heard"] == ([["news", 1]] if report["transport"] == "polling" else []) + [["news", 2]]


def ticks(report, event):
    return [values[0] for name, *values in report["heard"] if name == event]


def test_clients_of_a_process_that_died_come_back_and_the_others_notice_nothing(fleet):
    # One of the servers is gone after this test.
    crowd, (killed, emitter, other) = fleet.crowd, fleet.servers
    before = crowd.until(killed)
    homes = fleet.homes(before)
    emitter.do("pump", "tick", 0, TICKS, RATE)
    outside = fleet.outside(PACED, TICKS)
    crowd.tell("heard", TICKS // 4)
    kill(killed)
    assert outside.wait(LIMIT) == 0
    wait_until(lambda: ["pumped", "tick"] in emitter.do("answers"), what="the last event")
    fleet.all_there()
    reports = crowd.until(emitter)
    other.do("emit", "news", "after")
    assert all(report["heard"] == [["news", "after"]] for report in crowd.until(other))

    assert 0 < homes.count(0) < CLIENTS / 2
    for home, earlier, report in zip(homes, before, reports, strict=True):
        for event in ("tick", "outside"):
            numbers = ticks(report, event)
            if home == 0:
                assert report["disconnects"] == earlier["disconnects"] + 1
                assert numbers == sorted(set(numbers))
            else:
                assert report["disconnects"] == earlier["disconnects"]
                assert numbers == list(range(TICKS))


@pytest.fixture
def rolling(broker_for, tmp_path):
    """Processes to which clients keep by their ids, and clients that wait a second before they connect again."""
    queue = {"message_queue": broker_for("redis").url, "channel": "rolling"}
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(cluster("gevent", tmp_path, 3, sid_prefix=PREFIXES.__getitem__, **queue))
        proxy = Nginx(tmp_path, [server.port for server in servers], "sticky.conf", alarm=NGINX_CRASH)
        stack.callback(proxy.stop)
        crowd = Crowd(proxy.url)
        stack.callback(crowd.stop)
        crowd.tell("open", 150, 1000)
        fleet = Fleet(tmp_path, servers, crowd, queue)
        outside = stack.enter_context(fleet.outside(PACED, 100_000))
        stack.callback(outside.kill)
        yield fleet
        assert outside.poll() is None


def amiss(handled, said):
    """Tell two long lists apart, without all that they have in common."""
    handled, said = collections.Counter(handled), collections.Counter(said)
    return {"missing": [*(said - handled)], "more than once or never said": [*(handled - said)]}


@pytest.mark.alone
def test_a_rolling_restart_costs_each_client_one_reconnect(rolling, tmp_path):
    crowd, queue = rolling.crowd, rolling.queue
    marks = tmp_path / "marks"
    crowd.tell("talk", str(marks), 1000 * len(crowd.tell("connected")) // RATE)
    before, spreads, missed = crowd.until(rolling.servers[2]), [], []
    for number in itertools.islice(itertools.cycle(range(3)), 2 * ROUNDS):
        own = [home == number for home in rolling.homes(before)]
        port = rolling.servers[number].port
        rolling.servers[number].stop()
        options = {"trusted_proxies": 1, "sid_prefix": PREFIXES[number]}
        rolling.servers[number] = Server("gevent", rolling.directory, port=port, **options, **queue)
        rolling.all_there()
        after = crowd.until(rolling.servers[number - 1])
        for mine, earlier, later in zip(own, before, after, strict=True):
            numbers = ticks(later, "outside")
            assert later["disconnects"] - earlier["disconnects"] == mine
            assert [pair for pair in itertools.pairwise(numbers) if pair[0] >= pair[1]] == []
            # Nothing is missing but what was emitted while it was on its way.
            gaps = [two - one - 1 for one, two in itertools.pairwise(numbers) if two > one + 1]
            assert len(gaps) <= mine
            missed += gaps
        back = [later["connects"][-1] / 1000 for mine, later in zip(own, after, strict=True) if mine]
        if back:  # nobody may have come to a process since its own restart
            spreads.append([len(back), round(max(back) - min(back), 2)])
        before = after
    assert min(seconds for _, seconds in spreads[:2]) > 1  # later there may be few at a process
    # What the clients emitted was handled once, and acknowledged.
    acknowledged = crowd.tell("hush")
    handled = sorted(tuple(map(int, line.split())) for line in marks.read_text().splitlines())
    said = [(who, number) for who, numbers in enumerate(acknowledged) for number in range(len(numbers))]
    assert amiss(handled, said) == {"missing": [], "more than once or never said": []}
    assert all(numbers == sorted(numbers) for numbers in acknowledged)
    record(
        "rolling restart",
        {
            "clients of each restart, and the seconds within which they were back": spreads,
            "events that a client missed, of 100 a second: median, most": [statistics.median(missed), max(missed)],
            "events of the clients, each handled once": len(handled),
        },
    )
