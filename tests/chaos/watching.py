"""What a server's process holds, seen from outside."""

import contextlib
import os
import threading


def memory(pid):
    """Return the resident memory in KB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def threads(pid):
    """Return the number of threads."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid):
    """Return the number of open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Most:
    """The most of something while a block runs."""

    def __init__(self, figure, pid):
        self.value = figure(pid)
        self._figure, self._pid, self._end = figure, pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self._end.wait(0.02):
            with contextlib.suppress(OSError):
                self.value = max(self.value, self._figure(self._pid))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._end.set()
        self._thread.join()
