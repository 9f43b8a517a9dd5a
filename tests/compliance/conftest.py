"""Makes the modules beside the tests importable, and leaves Autobahn out where nothing can run it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def _find_python2():
    from fuzzing_client import find_python2

    return find_python2()


PYTHON2 = _find_python2()

# Not a skip: test_websocket_cases.py asks the same questions everywhere.
collect_ignore = [] if PYTHON2 else ["test_autobahn.py"]


def pytest_terminal_summary(terminalreporter):
    if PYTHON2 is None:
        terminalreporter.write_line(
            "Autobahn did not run: no Python 2.7 found. test_websocket_cases.py stands in for it."
        )
