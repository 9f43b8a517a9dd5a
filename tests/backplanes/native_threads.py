"""native_threads.py LIBRARY URL CHANNEL: use a backplane as the bus does, each call in a native thread, and tell.

LIBRARY is ``none``, ``gevent`` or ``eventlet``; the process is patched with it. Two backplanes hear what one publishes
in three bursts, with pauses in which nothing of it runs.
"""

import sys

LIBRARY, URL, CHANNEL = sys.argv[1:]
if LIBRARY == "gevent":
    from gevent import monkey

    monkey.patch_all()
    import gevent

    # What loops are made of is imported with the first one. Several threads doing that at a time wait for each other's
    # import, for which they need a loop.
    gevent.get_hub()
    start = monkey.get_original("_thread", "start_new_thread")
elif LIBRARY == "eventlet":
    import eventlet

    eventlet.monkey_patch()
    start = eventlet.patcher.original("_thread").start_new_thread
else:
    from _thread import start_new_thread as start

import json  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from _queue import Empty, SimpleQueue  # noqa: E402

from flask_realtime import backplanes  # noqa: E402

BURST, LIMIT = 500, 60

planes = [backplanes.open(URL, CHANNEL) for _ in range(2)]
heard = [[], []]
errors = []
subscribed, done, ended = SimpleQueue(), SimpleQueue(), SimpleQueue()


def listen(number):
    expected = [b"%d" % each for each in range(3 * BURST)]
    first = True
    try:
        for data in planes[number].listen():
            if first:
                subscribed.put(number)
                first = False
            if data is not None:
                heard[number].append(data)
                if heard[number] == expected:
                    done.put(number)
    except backplanes.BackplaneError as error:
        if "was closed" not in str(error):
            errors.append(str(error))
    except BaseException:
        errors.append(traceback.format_exc())
    ended.put(number)


def publish():
    try:
        for _ in range(2):
            subscribed.get(timeout=LIMIT)
        for burst in range(3):
            planes[0].publish([b"%d" % number for number in range(burst * BURST, (burst + 1) * BURST)])
            try:
                SimpleQueue().get(timeout=2)  # blocks the thread, and with it the loop that it has when patched
            except Empty:
                pass
    except BaseException:
        errors.append(traceback.format_exc())
    done.put("published")


def wait(queue, count):
    """Wait in the main thread, in a way that lets its greenlets run; return the longest time that it was held up."""
    longest, last, end = 0.0, time.monotonic(), time.monotonic() + LIMIT
    while count and time.monotonic() < end and not errors:
        try:
            queue.get_nowait()
            count -= 1
        except Empty:
            time.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


start(listen, (0,))
start(listen, (1,))
start(publish, ())
held_up = wait(done, 3)
for plane in planes:
    plane.close()
closing = time.monotonic()
held_up = max(held_up, wait(ended, 2))
print(
    json.dumps(
        {
            "heard": [len(each) for each in heard],
            "errors": errors,
            "held_up": held_up,
            "closing": time.monotonic() - closing,
        }
    )
)
