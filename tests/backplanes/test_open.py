"""URLs: which backplane they mean, and what may be shown of them. No broker is needed."""

import subprocess
import sys

import pytest

from flask_realtime import backplanes
from flask_realtime.backplanes.urls import split
from flask_realtime.errors import ConfigurationError


@pytest.mark.parametrize(
    "url,shown",
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("redis://user@host", "redis://user@host"),
        ("redis://user:se@c/r:et@host", "redis://user:***@host"),
        ("redis+sentinel://user:secret@a:1,b:2/0/name", "redis+sentinel://user:***@a:1,b:2/0/name"),
        ("unix://user:secret@/run/redis.sock?db=1", "unix://user:***@/run/redis.sock?db=1"),
        ("redis://host?username=u&password=secret&db=1", "redis://host?username=u&password=***&db=1"),
        ("rediss://host?ssl_keyfile_password=secret", "rediss://host?ssl_keyfile_password=***"),
        ("amqp://u:secret@a//;amqp://u:secret@b//", "amqp://u:***@a//;amqp://u:***@b//"),
        (["kafka://u:secret@a:1", "kafka://b:2"], "kafka://u:***@a:1,kafka://b:2"),
        ("user:secret@host", "user:***@host"),
        ("", ""),
    ],
)
def test_passwords_are_masked(url, shown):
    assert backplanes.masked(url) == shown


def test_urls_are_taken_apart_and_put_together():
    parts = split("redis+cluster://u:p@a:1,[::1]:2,c/0?x=%2F")
    assert parts.scheme == "redis+cluster"
    assert parts.hosts == [("a", 1), ("::1", 2), ("c", None)]
    assert parts.rebuilt("redis", "a:1") == "redis://u:p@a:1/0?x=%2F"
    with pytest.raises(ConfigurationError, match="host:port"):
        split("redis://a:b:c")


@pytest.mark.parametrize(
    "url,name",
    [
        *((f"{scheme}://localhost", "Redis") for scheme in ("redis", "rediss", "valkey", "valkeys", "redis+cluster")),
        ("unix:///run/redis.sock", "Redis"),
        ("redis+sentinel://a:1,b:2/0/name", "Redis"),
        ("valkey+sentinel://u:p@a:1/0/name", "Redis"),
        ("redis+streams://localhost?maxlen=5", "Streams"),
        ("unix+streams:///run/redis.sock", "Streams"),
        ("amqp://guest:guest@localhost//", "Kombu"),
        ("amqps://localhost", "Kombu"),
        ("memory://", "Kombu"),
        ("kafka://localhost", "Kafka"),
        ("kafka://a:1,b:2", "Kafka"),
        (["kafka://a:1", "kafka://b:2"], "Kafka"),
        ("zmq+tcp://localhost:5555+5556", "Zmq"),
    ],
)
def test_the_scheme_decides(url, name):
    module = {"Redis": "redis", "Streams": "redis", "Kombu": "kombu", "Kafka": "kafka", "Zmq": "zmq"}[name]
    pytest.importorskip(module)
    plane = backplanes.open(url, "channel")
    assert type(plane).__name__ == name
    assert plane.url == backplanes.masked(url)
    plane.close()


@pytest.mark.parametrize(
    "url,message",
    [
        ("localhost:6379", "expected a URL"),
        ("nonsense://localhost", r"no backplane.*nonsense://.*redis\+streams"),
        ([], "expected a URL"),
    ],
)
def test_what_is_no_backplane_is_told(url, message):
    with pytest.raises(ConfigurationError, match=message):
        backplanes.open(url, "channel")


@pytest.mark.parametrize(
    "driver,url,options,message",
    [
        ("redis", "redis://localhost", {"redis_options": {"nonsense": 1}}, "nonsense"),
        ("redis", "redis://localhost", {"kafka_options": {}}, "kafka_options"),
        ("redis", "redis+sentinel://localhost:26379/0", {}, "expected a service"),
        ("redis", "redis+streams://localhost?maxlen=many", {}, "maxlen"),
        ("redis", "redis://localhost?socket_timeout=soon", {}, "socket_timeout"),
        ("kombu", "amqp://localhost", {"redis_options": {}}, "redis_options"),
        ("kafka", "kafka://user:pw@localhost", {}, "kafka_options"),
        ("kafka", "kafka://localhost", {"kafka_options": {"nonsense": 1}}, "nonsense"),
        ("zmq", "zmq+tcp://localhost:5555", {}, "port1"),
    ],
)
def test_wrong_options_are_told_at_once(driver, url, options, message):
    pytest.importorskip(driver)
    with pytest.raises(ConfigurationError, match=message) as raised:
        backplanes.open(url, "channel", **options)
    assert "pw@" not in str(raised.value)


@pytest.mark.parametrize(
    "url,driver,extra",
    [
        ("redis://localhost", "redis", "redis"),
        ("redis+streams://localhost", "redis", "redis"),
        ("amqp://localhost", "kombu", "kombu"),
        ("sqs://localhost", "kombu", "kombu"),
        ("kafka://localhost", "kafka", "kafka"),
        ("zmq+tcp://localhost:1+2", "zmq", "zmq"),
    ],
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(url, driver, extra):
    program = f"""
import sys
sys.modules[{driver!r}] = None
from flask_realtime import backplanes
try:
    backplanes.open({url!r}, "channel")
except backplanes.ConfigurationError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert f"pip install 'flask_realtime[{extra}]'" in run.stdout, run.stderr


def test_no_driver_is_imported_before_it_is_asked_for():
    program = """
import sys
import flask_realtime.backplanes
print([name for name in ("redis", "kombu", "amqp", "kafka", "zmq") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]"
