"""The benchmarks run, save what they saw, and draw it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).parent.parent / "benchmarks"
SHORT = {"echo": ["--seconds", "0.3", "--warm-up", "0.1"], "broadcast": ["--count", "5"]}


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, HERE / f"{program}.py", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.timeout(240)
def test_the_benchmarks_and_their_plot(tmp_path):
    saved = []
    for program, short in SHORT.items():
        saved.append(tmp_path / f"{program}.json")
        printed = run(program, "flask_realtime", "--clients", 5, "--rounds", 2, *short, "--save", saved[-1])
        assert "median   flask_realtime" in printed
        record = json.loads(saved[-1].read_text())
        assert len(record["figures"]["flask_realtime"]) == 2 and min(record["figures"]["flask_realtime"]) > 0
        assert record["benchmark"] == program and record["clients"] == 5
    run("plot", *saved, "-o", tmp_path / "result.svg")
    drawn = ElementTree.parse(tmp_path / "result.svg")
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("flask_realtime") == 2 and any(text.startswith("echo: ") for text in texts)


@pytest.mark.services
def test_the_benchmark_of_message_queues():
    if not shutil.which("redis-server"):
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    pytest.importorskip("redis", reason="needs flask_realtime[redis]")
    printed = run("unwanted", "flask_realtime", "--rounds", 1, "--count", 300, "--rate", 1000)
    assert "median   flask_realtime" in printed and "µs CPU/message" in printed
