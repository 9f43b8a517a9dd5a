"""The layers of the package: what knows the protocols never waits, imports go down only, and only the face knows Flask.

The rules are read from the source text with ``ast``, so that an import inside a function or under ``if TYPE_CHECKING:``
counts like any other.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = "flask_realtime"
ROOT = Path(__file__).resolve().parent.parent

# Module or package -> (floor, unit). A unit may import itself and what is on a lower floor; the longest name wins.
FLOORS = {
    "flask_realtime.typing": (0, "ports"),
    "flask_realtime.errors": (0, "ports"),
    "flask_realtime.protocol": (0, "protocol"),  # its own __init__.py; the packages in it are on floors 1 to 3
    "flask_realtime.protocol.counters": (0, "ports"),
    "flask_realtime.protocol.http": (1, "protocol/http"),
    "flask_realtime.protocol.websocket": (1, "protocol/websocket"),
    "flask_realtime.backplanes": (1, "backplanes"),
    "flask_realtime.protocol.engineio": (2, "protocol/engineio"),
    "flask_realtime.protocol.socketio": (3, "protocol/socketio"),
    "flask_realtime.io": (4, "io"),
    "flask_realtime": (5, "face"),
    "flask_realtime.extension": (5, "face"),
    "flask_realtime.context": (5, "face"),
    "flask_realtime.functions": (5, "face"),
    "flask_realtime.namespace": (5, "face"),
    "flask_realtime.run": (5, "face"),
    "flask_realtime.testing": (5, "face"),
    "flask_realtime.cli": (5, "face"),
    "flask_realtime.socketio": (5, "face"),
    "flask_realtime.engineio": (5, "face"),
    "flask_realtime.managers": (5, "face"),
    "flask_realtime.metrics": (5, "face"),
    "flask_realtime.health": (5, "face"),
}

# What is on floor 5 but must work for users who have no Flask application.
WITHOUT_FLASK = {
    *("flask_realtime.socketio", "flask_realtime.engineio", "flask_realtime.managers", "flask_realtime.metrics"),
}

# What waits, or tells the time. The networked parts of websockets are named too: only its sans-I/O part may be used.
WAITING = (
    *("asyncio", "threading", "_thread", "multiprocessing", "subprocess", "concurrent", "queue", "sched", "signal"),
    *("socket", "_socket", "socketserver", "select", "selectors", "ssl", "http.client", "http.server"),
    *("urllib.request", "time", "gevent", "eventlet", "greenlet", "trio", "anyio"),
    *("websockets.asyncio", "websockets.sync", "websockets.legacy", "websockets.trio"),
)


def floor_of(module):
    """Return ``(floor, unit)`` of a module, or None when the table doesn't place it."""
    name = module
    while name:
        # The package itself is placed by its exact name only: a new module must be put on a floor by hand.
        if name in FLOORS and (name != PACKAGE or module == PACKAGE):
            return FLOORS[name]
        name = name.rpartition(".")[0]
    return None


def within(module, *packages):
    """Tell whether a module is one of the packages or inside one of them."""
    return any(module == package or module.startswith(package + ".") for package in packages)


def base_of(node, module, is_package):
    """Return the absolute name of what a ``from ... import`` imports from."""
    if not node.level:
        return node.module
    parts = module.split(".")
    # One dot is the package that the module is in, which for an __init__.py is itself.
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, node.module] if node.module else parts)


def imports(tree, module, is_package):
    """Yield ``(line, absolute name)`` of everything that is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = base_of(node, module, is_package)
            for alias in node.names:
                name = f"{base}.{alias.name}" if base else alias.name
                # "from package import x" is about a module where there is one of that name, else about the package.
                yield node.lineno, base if base == PACKAGE and floor_of(name) is None else name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in ("__import__", "import_module") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def waits(tree):
    """Yield ``(line, construct)`` of everything that only a coroutine can do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef):
            yield node.lineno, "async def"
        elif isinstance(node, ast.Await):
            yield node.lineno, "await"
        elif isinstance(node, ast.AsyncFor):
            yield node.lineno, "async for"
        elif isinstance(node, ast.AsyncWith):
            yield node.lineno, "async with"
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield node.target.lineno, "async for"


def problems(source, module, is_package=False):
    """Return what a module does against the rules, one line of text each.

    Args:
        source: The text of the module.
        module: Its absolute name; for an ``__init__.py`` that of the package.
        is_package: Whether it is an ``__init__.py``.
    """
    place = floor_of(module)
    if place is None:
        return [f"{module}: has no floor; put it into FLOORS"]
    floor, unit = place
    tree = ast.parse(source)
    found = []
    if within(module, "flask_realtime.protocol"):
        found += [(line, f"{construct} in protocol/") for line, construct in waits(tree)]
    for line, name in imports(tree, module, is_package):
        if within(name, *WAITING) and within(module, "flask_realtime.protocol"):
            found.append((line, f"imports {name} in protocol/"))
        if within(name, "flask") and (floor < 5 or module in WITHOUT_FLASK):
            found.append((line, f"imports {name}; only the Flask face may"))
        if not within(name, PACKAGE):
            continue
        target = floor_of(name)
        if target is None:
            found.append((line, f"imports {name}, which has no floor"))
        elif within(name, "flask_realtime.protocol") and unit == "backplanes":
            found.append((line, f"imports {name}; a backplane knows no protocol"))
        elif target[0] > floor:
            found.append((line, f"imports {name}: up from floor {floor} to {target[0]}"))
        elif target[0] == floor and target[1] != unit:
            found.append((line, f"imports {name}: another package on floor {floor}"))
    return [f"{module}:{line}: {text}" for line, text in sorted(found)]


def modules(root):
    """Yield ``(path, absolute name, is_package)`` of each module of the package."""
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def test_every_module_keeps_to_its_floor():
    found = []
    count = 0
    for path, module, is_package in modules(ROOT):
        found += problems(path.read_text(encoding="utf-8"), module, is_package)
        count += 1
    assert count, f"no modules in {ROOT / PACKAGE}"
    assert not found, "\n".join(found)


# The checker itself: that it finds each thing that is forbidden, and nothing else.

CODEC = "flask_realtime.protocol.engineio.packets"


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("async def f(): pass", "async def"),
        ("class A:\n    async def f(self): pass", "async def"),
        ("def f():\n    await g()", "await"),
        ("async def f():\n    async with g(): pass", "async with"),
        ("async def f():\n    async for x in g(): pass", "async for"),
        ("def f(y):\n    return (x async for x in y)", "async for"),
    ],
)
def test_coroutines_are_found_in_protocol(source, construct):
    assert any(f"{construct} in protocol/" in line for line in problems(source, CODEC))
    assert not problems(source, "flask_realtime.io.asgi")


@pytest.mark.parametrize(
    "name",
    ["asyncio", "threading", "socket", "select", "selectors", "queue", "ssl", "time", "gevent", "eventlet"]
    + ["concurrent", "asyncio.events", "concurrent.futures", "gevent.queue", "websockets.asyncio.server"],
)
@pytest.mark.parametrize(
    "source",
    [
        "import {}",
        "import json, {} as other",
        "from {} import anything",
        "from {} import *",
        "def f():\n    import {}",
        "try:\n    import {}\nexcept ImportError:\n    pass",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}",
        "__import__('{}')",
        "import importlib\nimportlib.import_module('{}')",
    ],
)
def test_what_waits_is_found_in_protocol_however_it_is_imported(source, name):
    source = source.format(name)
    for module in (CODEC, "flask_realtime.protocol.websocket.frames", "flask_realtime.protocol.socketio.server"):
        assert len(problems(source, module)) == 1
    assert problems(source, "flask_realtime.protocol", is_package=True)
    assert not problems(source, "flask_realtime.io.hub")
    assert not problems(source, "flask_realtime.backplanes.redis")


def test_a_module_imported_from_its_package_is_found():
    assert problems("from concurrent import futures", CODEC)
    assert problems("from websockets import sync", CODEC)


def test_names_that_only_begin_alike_are_allowed():
    source = "import timeit, queues\nfrom . import time\nfrom .socket import x\nimport websockets.server"
    assert not problems(source, CODEC)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("flask_realtime.errors", "flask_realtime.protocol.websocket"),
        ("flask_realtime.typing", "flask_realtime.io.hub"),
        ("flask_realtime.protocol.websocket.frames", "flask_realtime.protocol.engineio"),
        ("flask_realtime.protocol.engineio.session", "flask_realtime.protocol.socketio.packets"),
        ("flask_realtime.protocol.socketio.server", "flask_realtime.io.threads"),
        ("flask_realtime.backplanes.redis", "flask_realtime.protocol.engineio"),
        ("flask_realtime.backplanes.redis", "flask_realtime.io"),
        ("flask_realtime.io.wsgi", "flask_realtime.extension"),
        ("flask_realtime.io.wsgi", "flask_realtime.socketio"),
    ],
)
def test_an_import_goes_down_but_not_up(module, name):
    for source in (f"import {name}", f"from {name} import x", f"def f():\n    from {name} import x"):
        assert len(problems(source, module)) == 1
    assert not problems(f"from {module} import x", "flask_realtime.extension")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("flask_realtime.protocol.engineio.session", "from ..socketio import packets"),
        ("flask_realtime.protocol.engineio.session", "from .. import socketio"),
        ("flask_realtime.protocol.engineio.session", "from ...io.hub import Hub"),
        ("flask_realtime.protocol.engineio.session", "from ... import extension"),
        ("flask_realtime.errors", "from . import io"),
        ("flask_realtime.errors", "from .io import hub"),
        ("flask_realtime.io.hub", "from ..extension import SocketIO"),
    ],
)
def test_relative_imports_are_resolved(module, source):
    assert len(problems(source, module)) == 1


def test_relative_imports_of_a_package_start_at_itself():
    assert not problems("from . import packets\nfrom .session import Session", "flask_realtime.protocol.engineio", True)
    assert problems("from ..socketio import x", "flask_realtime.protocol.engineio", True)
    assert not problems("from .extension import SocketIO\nfrom . import errors", "flask_realtime", True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("flask_realtime.errors", "from . import typing"),
        ("flask_realtime.protocol.engineio.session", "from ...errors import ProtocolError\nfrom ... import typing"),
        ("flask_realtime.protocol.engineio.session", "from .packets import encode\nfrom ..websocket import frames"),
        ("flask_realtime.protocol.socketio.server", "from flask_realtime.protocol.engineio import packets"),
        ("flask_realtime.backplanes.redis", "from ..errors import BackplaneError\nfrom . import urls"),
        ("flask_realtime.io.wsgi", "from ..protocol.socketio.server import Server\nfrom .. import backplanes"),
        ("flask_realtime.socketio", "from .io import wsgi\nfrom .engineio import Server\nfrom . import errors"),
        ("flask_realtime.extension", "from . import functions\nfrom .context import request\nimport flask_realtime"),
    ],
)
def test_what_lies_below_or_beside_in_the_package_is_allowed(module, source):
    assert problems(source, module) == []


@pytest.mark.parametrize("name", ["flask_realtime.protocol", "flask_realtime.protocol.websocket.frames"])
def test_backplanes_know_no_protocol(name):
    assert "knows no protocol" in problems(f"import {name}", "flask_realtime.backplanes.redis")[0]


def test_packages_on_one_floor_do_not_know_each_other():
    for source in ("import flask_realtime.backplanes", "from ... import backplanes"):
        assert "another package" in problems(source, "flask_realtime.protocol.websocket.frames")[0]
    assert problems("from .. import protocol", "flask_realtime.backplanes.redis")


@pytest.mark.parametrize(
    "source",
    ["import flask_realtime", "from flask_realtime import emit", "from flask_realtime import *", "from .. import emit"],
)
def test_the_top_of_the_package_is_not_imported_from_below(source):
    assert "up from floor 4 to 5" in problems(source, "flask_realtime.io.hub")[0]


@pytest.mark.parametrize("source", ["import flask", "from flask import request", "import flask.json.provider"])
def test_only_the_face_imports_flask(source):
    below = ("errors", "protocol.engineio.session", "backplanes.redis", "io.wsgi")
    for name in (*below, "socketio", "engineio", "managers", "metrics"):
        assert len(problems(source, f"flask_realtime.{name}")) == 1
    for name in ("extension", "context", "functions", "namespace", "run", "testing", "health", "cli"):
        assert not problems(source, f"flask_realtime.{name}")
    assert not problems(source, "flask_realtime", is_package=True)
    assert not problems("import flask_login", "flask_realtime.io.wsgi")


def test_a_new_module_needs_a_floor():
    assert "has no floor" in problems("", "flask_realtime.helpers")[0]
    assert "has no floor" in problems("from .helpers import x", "flask_realtime.extension")[0]


def test_modules_are_found_at_any_depth(tmp_path):
    package = tmp_path / PACKAGE / "protocol" / "engineio"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "session.py").touch()
    (tmp_path / PACKAGE / "__init__.py").touch()
    assert [(name, is_package) for _, name, is_package in modules(tmp_path)] == [
        ("flask_realtime", True),
        ("flask_realtime.protocol.engineio", True),
        ("flask_realtime.protocol.engineio.session", False),
    ]
