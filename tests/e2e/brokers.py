"""The backplanes of the end-to-end tests: which broker each has, and its URL; and what is measured at them.

``BROKER_FIGURES`` may name a file that gets the figures of outages and restarts as JSON.
"""

import contextlib
import json
import logging
import os
from pathlib import Path

import services

from .servers import Server, wait_until

BROKERS = {
    "redis": services.Redis,
    "persistent-redis": lambda folder: services.Redis(folder, persistent=True),
    "rabbitmq": services.RabbitMQ,
    "kafka": services.Kafka,
    "zmq": services.ZmqProxy,
}

# Backplane -> key of BROKERS.
BACKPLANES = {
    "redis": "redis",
    "streams": "persistent-redis",
    "amqp": "rabbitmq",
    "kafka": "kafka",
    "zmq": "zmq",
}


def url_of(backplane, broker):
    """Return the URL of a backplane at its running broker."""
    return broker.url.replace("redis:", "redis+streams:") if backplane == "streams" else broker.url


@contextlib.contextmanager
def started(directory, kinds, **options):
    """Run a server of each kind; yield them as a list. The other arguments are those of `Server`."""
    with contextlib.ExitStack() as stack:
        servers = []
        for kind in kinds:
            servers.append(Server(kind, directory, **options))
            stack.callback(servers[-1].stop)
        yield servers


def queue(server):
    """Return what a server says about its message queue."""
    return server.do("stats")["queue"]


def meet(servers):
    """Wait until all servers, each of which has or had a client, know of each other."""
    for server in servers:
        wait_until(lambda server=server: queue(server)["members"] == len(servers) - 1, what="the other processes")


def record(name, figures):
    """Log the figures of a test, and write them to the file that is wanted."""
    logging.getLogger(__name__).warning("%s: %s", name, json.dumps(figures, indent=2))
    if os.environ.get("BROKER_FIGURES"):
        path = Path(os.environ["BROKER_FIGURES"])
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, name: figures}, indent=2) + "\n")
