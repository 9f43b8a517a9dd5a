"""Finds a Python 2.7 for the Autobahn test suite, installs the suite for it, and runs its fuzzing client."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "0.8.2"  # the last one whose client can be installed and started; it needs Python 2.7
CACHE = Path(__file__).resolve().parents[2] / ".make" / "autobahn"
ECHO = Path(__file__).with_name("echo.py")


@functools.cache
def find_python2():
    """Return the path of a Python 2.7 that runs and has pip, or None."""
    candidates = [shutil.which("python2.7")]
    pyenv = shutil.which("pyenv")
    roots = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"]
    if pyenv:
        roots.insert(0, subprocess.run([pyenv, "root"], check=False, capture_output=True, text=True).stdout.strip())
    for root in filter(None, roots):
        candidates += sorted(Path(root).glob("versions/2.7*/bin/python2.7"), reverse=True)
    return next((str(path) for path in candidates if path and _runs(path)), None)


def _runs(python):
    """Tell whether this program is what its name says: pyenv leaves a `python2.7` on the PATH that only fails."""
    try:
        code = "import pip, ssl, sys; sys.exit(sys.version_info[:2] != (2, 7))"
        return subprocess.run([python, "-c", code], check=False, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install(python):
    """Install the suite into the cache, unless it is there, and return its folder."""
    target = CACHE / VERSION
    if target.exists():
        return target
    fresh = CACHE / f"{VERSION}.{os.getpid()}"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--target", str(fresh)]
    done = subprocess.run(
        [*pip, f"autobahntestsuite=={VERSION}"], check=False, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(f"can't install autobahntestsuite for {python}:\n{done.stderr[-4000:]}")
    (fresh / "zope" / "__init__.py").touch()  # pip's --target leaves out what makes `zope` a package for Python 2.7
    fresh.rename(target)
    return target


def run(python, folder, cases, exclude=(), deflate=False, seconds=300):
    """Run cases against the echo server.

    Args:
        python: What `find_python2` returned.
        folder: An empty folder for the reports.
        cases: Patterns such as ``"1.*"``.
        exclude: Patterns of cases to leave out.
        deflate: Whether the server accepts permessage-deflate.
        seconds: How long the client may take.

    Returns:
        dict of case number to its entry in the client's ``index.json``.
    """
    suite = install(python)
    command = [sys.executable, str(ECHO), "0"] + (["--deflate"] if deflate else [])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline().rpartition(":")[2])
            spec = {
                "outdir": str(folder / "reports"),
                "servers": [{"agent": "echo", "url": f"ws://127.0.0.1:{port}"}],
                "cases": list(cases),
                "exclude-cases": list(exclude),
                "exclude-agent-cases": {},
            }
            (folder / "spec.json").write_text(json.dumps(spec))
            client = [python, str(suite / "bin" / "wstest"), "-m", "fuzzingclient", "-s", str(folder / "spec.json")]
            environ = {**os.environ, "PYTHONPATH": str(suite)}
            done = subprocess.run(
                client, env=environ, cwd=folder, check=False, capture_output=True, text=True, timeout=seconds
            )
        finally:
            server.terminate()
    if done.returncode:
        raise RuntimeError(f"the fuzzing client failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return json.loads((folder / "reports" / "index.json").read_text())["echo"]
