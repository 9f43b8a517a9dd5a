"""The backplanes of the end-to-end tests: which broker each has, and its URL."""

import services

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
