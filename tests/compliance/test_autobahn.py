"""Autobahn's fuzzing client against an echo server on our WebSocket stack.

``AUTOBAHN=full`` takes twice as many cases with compression, each of which sends 1,000 messages.
"""

import os

import pytest
from fuzzing_client import find_python2, run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}

# Pattern of cases: how many there are, so that an empty report can't pass.
PLAIN = {"1.*": 16, "2.*": 11, "3.*": 7, "4.*": 10, "5.*": 20, "6.*": 145, "7.*": 37, "9.*": 34, "10.*": 1}
# Small messages of each kind, large ones, and large ones in many fragments.
FULL = os.environ.get("AUTOBAHN") == "full"
DEFLATE = {f"12.{family}.{case}": 1 for family in range(1, 6) for case in ((1, 4, 11) if FULL else (4, 11))}
DEFLATE |= {f"13.{family}.{case}": 1 for family in range(1, 8) for case in ((1, 4, 11) if FULL else (11,))}

EXCLUDED = [
    # 4 MiB in 1,025 to 65,537 fragments: more than the stack takes for one message, so that it can't be made to hold
    # many tiny pieces.
    *(f"9.{family}.{case}" for family in (3, 4) for case in (1, 2, 3, 4)),
    # 1,000 round trips each, which measure and check nothing that family 1 doesn't.
    "9.7.*",
    "9.8.*",
]

EXCEPTIONS = {
    "7.1.5": "a close frame amid a fragmented message is answered with 1002, not 1000: the message was cut off",
}


def verdicts(entries):
    """Return what is wrong, as a list of texts."""
    return [
        f"{case}: {entry['behavior']}, closing: {entry['behaviorClose']}"
        for case, entry in sorted(entries.items())
        if not {entry["behavior"], entry["behaviorClose"]} <= GOOD and case not in EXCEPTIONS
    ]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(find_python2(), tmp_path_factory.mktemp("autobahn"), PLAIN, EXCLUDED)


@pytest.mark.parametrize(("pattern", "count"), PLAIN.items())
def test_family_without_compression(plain, pattern, count):
    entries = {case: entry for case, entry in plain.items() if case.startswith(pattern.rstrip("*"))}
    assert len(entries) == count
    assert verdicts(entries) == []


def test_compression(tmp_path):
    entries = run(find_python2(), tmp_path, DEFLATE, deflate=True)
    assert set(entries) == set(DEFLATE)
    assert verdicts(entries) == []


def test_compression_is_off_unless_asked_for(tmp_path):
    (entry,) = run(find_python2(), tmp_path, ["12.1.1"]).values()
    assert entry["behavior"] == "UNIMPLEMENTED"


@pytest.mark.parametrize("case", EXCEPTIONS)
def test_exceptions_are_still_needed(plain, case):
    assert not {plain[case]["behavior"], plain[case]["behaviorClose"]} <= GOOD
