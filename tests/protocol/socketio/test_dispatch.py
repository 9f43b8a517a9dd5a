import functools

import pytest

from flask_realtime.protocol.socketio.dispatch import Handler, Handlers, accepts, fit


class Target:
    def trigger_event(self, event, *args):
        pass


def named(name):
    def function():
        pass

    function.__name__ = name
    return function


def test_the_order_of_the_search():
    handlers = Handlers()
    target, any_target = Target(), Target()
    layers = [
        ("/", "x", named("exact")),
        ("/", "*", named("any event")),
        ("*", "x", named("any namespace")),
        ("*", "*", named("any")),
    ]
    expected = [(False, False), (True, False), (False, True), (True, True)]
    handlers.add_target(any_target, "*")
    assert handlers.find("x", "/").target is any_target
    assert handlers.find("x", "/").any_namespace
    handlers.add_target(target, "/")
    assert handlers.find("x", "/") == Handler(target.trigger_event, target, False, False)
    for (namespace, event, function), (any_event, any_namespace) in reversed(list(zip(layers, expected, strict=True))):
        handlers.add(event, function, namespace)
        for _ in range(2):  # searched, then remembered
            found = handlers.find("x", "/")
            assert found._replace(habit=None) == Handler(function, None, any_event, any_namespace)


@pytest.mark.parametrize("event", ["connect", "disconnect"])
def test_catch_alls_never_get_connect_and_disconnect(event):
    handlers = Handlers()
    handlers.add("*", named("any"), "/")
    handlers.add("*", named("any"), "*")
    assert handlers.find(event, "/") is None
    function = named(event)
    handlers.add(event, function, "*")
    assert handlers.find(event, "/") == Handler(function, None, False, True)


def test_nothing_is_found_where_nothing_is():
    handlers = Handlers()
    handlers.add("x", named("x"), "/")
    assert handlers.find("y", "/") is None
    assert handlers.find("x", "/other") is None
    assert handlers.find(7, "/") is None


def test_a_later_handler_replaces_an_earlier_one():
    handlers = Handlers()
    first, second = named("first"), named("second")
    handlers.add("x", first, "/")
    assert handlers.find("x", "/").call is first
    handlers.add("x", second, "/")
    assert handlers.find("x", "/").call is second


def test_names_from_clients_are_not_remembered():
    handlers = Handlers()
    handlers.add("*", named("any"), "/")
    handlers.add_target(Target(), "/t")
    for i in range(100):
        handlers.find(f"event {i}", "/")
        handlers.find(f"event {i}", "/t")
        handlers.find(f"event {i}", "/none")
    assert handlers.found == {}


def test_known_namespaces():
    handlers = Handlers()
    handlers.add("x", named("x"), "/a")
    handlers.add_target(Target(), "/b")
    assert handlers.knows("/a") and handlers.knows("/b") and not handlers.knows("/c")


def test_a_handler_can_be_called():
    with pytest.raises(ValueError, match="expected something to call"):
        Handlers().add("x", "not a function", "/")


class Unhashable:
    __hash__ = None

    def __call__(self, a):
        pass


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        (lambda: None, {0}),
        (lambda a: None, {1}),
        (lambda a, b=1: None, {1, 2}),
        (lambda *args: None, {0, 1, 2, 3}),
        (lambda a, *, b: None, set()),
        (functools.partial(lambda a, b: None, 1), {1}),
        (Target().trigger_event, {1, 2, 3}),
        (Unhashable(), {1}),
        (max, {0, 1, 2, 3}),  # it shows no signature
        (type, {0, 1, 2, 3}),
    ],
)
def test_accepts(function, counts):
    assert {count for count in range(4) if accepts(function, count)} == counts


@pytest.mark.parametrize(
    ("function", "least", "expected"),
    [
        (lambda a, b, c: None, 0, (1, 2, 3)),
        (lambda a, b: None, 0, (1, 2)),
        (lambda: None, 0, ()),
        (lambda: None, 1, (1, 2, 3)),
        (lambda a: None, 1, (1,)),
        (lambda a, b, c, d: None, 0, (1, 2, 3)),
    ],
)
def test_fit_drops_what_an_older_handler_does_not_take(function, least, expected):
    assert fit(function, (1, 2, 3), least) == expected
