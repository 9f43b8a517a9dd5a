import pytest

from flask_realtime.io.runtimes import wanted


@pytest.mark.parametrize(
    ("environ", "mode", "expected"),
    [
        ({"SERVER_SOFTWARE": "gevent/26.9 Python/3.11"}, "gevent", None),
        ({"SERVER_SOFTWARE": "gevent/26.9 Python/3.11"}, "threading", "gevent"),
        ({"eventlet.input": None}, "eventlet", None),
        ({"eventlet.input": None}, "threading", "eventlet"),
        ({"SERVER_SOFTWARE": "Werkzeug/3.1"}, "threading", None),
        ({"werkzeug.socket": None}, "threading", None),
        ({"werkzeug.socket": None}, "gevent", "threading"),
        ({"werkzeug.socket": None}, "eventlet", "threading"),
        ({}, "threading", None),
    ],
)
def test_a_server_may_need_another_mode(environ, mode, expected):
    assert wanted(environ, mode) == expected
