"""A thread with a green library's loop, in which a runtime lives. The tests are in other threads."""

import importlib
import threading
import warnings

import pytest

from flask_realtime.io.green import Greens

LIMIT = 30
LIBRARIES = ["gevent", "eventlet"]


def kernel_of(library):
    """Return the kernel's class; skip the test where the library isn't installed."""
    pytest.importorskip(library, reason=f"needs flask_realtime[{library}]", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet's own, about itself
        module = importlib.import_module(f"flask_realtime.io.{library}")
    return getattr(module, library.title())


class Home:
    """A thread with the green library's loop, in which a runtime lives."""

    def __init__(self, kernel, **options):
        self.runtime = Greens(kernel(), **options)
        self.kernel = self.runtime._kernel
        self._work, self._ended = [], False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(LIMIT)

    def _run(self):
        self.runtime.hub.start()
        self.runtime.hub.call_soon(self._ready.set)
        while not self._ended:
            self.kernel.sleep(0.002)

    def do(self, function, *args):
        """Call a function in a greenlet of that thread, and return what it returns."""
        answer, ended = [], threading.Event()

        def run():
            try:
                answer.append((function(*args), None))
            except BaseException as error:
                answer.append((None, error))
            ended.set()

        self.runtime.spawn(run)
        assert ended.wait(LIMIT)
        result, error = answer[0]
        if error is not None:
            raise error
        return result

    def close(self):
        if self.runtime.hub.running:  # else the test has stopped it
            assert self.do(self.runtime.stop, LIMIT)
        self._ended = True
        self._thread.join(LIMIT)
