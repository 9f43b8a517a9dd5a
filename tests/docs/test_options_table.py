"""The documentation's table of options is that of the code: names, defaults, owners, and a unit for each number."""

import ast
import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from flask_realtime import SocketIO, engineio, socketio
from flask_realtime.protocol.engineio.options import NAMES, Options

PAGE = Path(__file__).parents[2] / "docs" / "options.md"

# Taken out of the keyword arguments by SocketIO itself.
EXTENSION = {
    "manage_session": True,
    "path": "socket.io",
    "resource": "socket.io",
    "message_queue": None,
    "channel": "flask-socketio",
    "message_queue_secret": None,
}


def table():
    """Return the page's rows by option: unit, default, meaning, owners."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        match = re.match(r"\| `(\w+)` \|(.*)\|$", line)
        if match:
            unit, default, meaning, owners = [cell.strip() for cell in match[2].split(" | ")]
            assert match[1] not in rows, f"{match[1]} stands there twice"
            rows[match[1]] = (unit, ast.literal_eval(default.strip("`")), meaning, set(owners.split(", ")))
    return rows


def parameters(server):
    """Return the public keyword arguments of a constructor with their defaults."""
    found = inspect.signature(server.__init__).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in found
        if parameter.default is not parameter.empty and not parameter.name.startswith("_")
    }


def code():
    """Return the options by owner, with their defaults."""
    own = {field.name: field.default for field in fields(Options) if field.name in NAMES}
    return {
        "SocketIO": EXTENSION,
        "Socket.IO": parameters(socketio.Server),
        "Engine.IO": {**parameters(engineio.Server), **own},
    }


def test_the_table_names_every_option_and_no_other():
    named = {owner: {name for name, row in table().items() if owner in row[3]} for owner in code()}
    assert named == {owner: set(options) for owner, options in code().items()}


def test_the_defaults_are_those_of_the_code():
    rows = table()
    for options in code().values():
        for name, default in options.items():
            shown = rows[name][1]
            assert (shown, type(shown)) == (default, type(default)), name


def test_every_number_has_a_unit_and_every_option_a_meaning():
    for name, (unit, default, meaning, _) in table().items():
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        assert (unit != "–") == (number or name == "max_connections"), name
        assert meaning, name


@pytest.mark.parametrize("name", sorted(table()))
def test_every_option_of_the_table_is_known(name):
    import flask

    default = table()[name][1]
    SocketIO(flask.Flask(__name__), **{name: default})  # an unknown one would warn, and warnings are errors
