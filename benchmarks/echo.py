"""Events acknowledged per second, with many clients that each wait for one acknowledgement at a time."""

import asyncio
import sys
import time

from harness import Failed, compare, connect, lost, parser, serve

CLOCK = """
What the clock covers: the time in which all clients, connected and warm, each send an event, wait for its
acknowledgement, and send the next. A figure is the acknowledgements received in that time, divided by it. Connecting,
the warm-up and stopping are not in it. All clients share one process beside the server's, so with few cores the
clients' own work (the same for each module) is in the figure too.
"""


async def measure(module, options):
    text = "x" * options.size
    event = f'421["echo","{text}"]'
    expected = f'431["{text}"]'
    count, wrong = 0, 0
    clients = []

    def acknowledged(number):
        def on_packet(packet):
            nonlocal count, wrong
            count += 1
            wrong += packet != expected
            clients[number].send(event)

        return on_packet

    async with serve(module) as port:
        clients += await connect(port, [acknowledged(number) for number in range(options.clients)], 60)
        for client in clients:
            client.send(event)
        await asyncio.sleep(options.warm_up)
        before, start = count, time.perf_counter()
        await asyncio.sleep(options.seconds)
        after, stop = count, time.perf_counter()
        lost(clients)
        if wrong or after == before:
            raise Failed(f"{wrong} wrong packets, {after - before} acknowledgements")
        for client in clients:
            client.transport.abort()
    return (after - before) / (stop - start)


def main():
    options_parser = parser(__doc__ + CLOCK, clients=100)
    options_parser.add_argument("--seconds", type=float, default=3, help="measured per round; default: %(default)s")
    options_parser.add_argument("--warm-up", type=float, default=1, help="seconds before; default: %(default)s")
    options_parser.add_argument("--size", type=int, default=20, help="bytes in an event; default: %(default)s")
    options = options_parser.parse_args()
    return compare(options, "acks/s", lambda module: measure(module, options))


if __name__ == "__main__":
    sys.exit(main())
