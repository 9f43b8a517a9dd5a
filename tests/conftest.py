import os
import signal

import pytest
from hypothesis import settings

# How long an example takes says something about the machine and what else it does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Where this says CI, pytest shows every difference between two long lists; it computes for minutes.
os.environ.pop("CI", None)

# What a shell starts in the background ignores Ctrl-C, and hands that on to the programs that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def nobody_polls_after_the_end():
    """Let the servers of this process wait for their clients no longer than those would take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flask_realtime.engineio.BETWEEN_POLLS", 0.02)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--numprocesses``, what uses the same servers runs in the same process: a kind of server, else a file.

    Of the files that have one list for all message queues, it is what uses the same queue.
    """
    from e2e.brokers import BACKPLANES
    from e2e.servers import KINDS
    from xdist.scheduler import LoadScopeScheduling

    kinds = sorted(KINDS, key=len, reverse=True)

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, name = nodeid.partition("::")
            parameters = name.partition("[")[2].rstrip("]") + "-"
            if path.endswith(("e2e/test_message_queue.py", "e2e/test_broker_faults.py")):
                return f"{path}::{next((queue for queue in BACKPLANES if parameters.startswith(queue)), '')}"
            kind = next((kind for kind in kinds if parameters.startswith(kind + "-")), None)
            return path if kind is None or path.endswith("test_gunicorn.py") else kind

    return ByServer(config, log)


def pytest_sessionfinish():
    """Keep what coverage has counted in a process of ``--numprocesses``, which ends without a farewell."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    try:
        from coverage import Coverage
    except ImportError:  # not needed to run tests
        return
    counted = Coverage.current()
    if counted is not None:
        counted.stop()
        counted.save()
