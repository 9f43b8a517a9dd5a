"""Messages delivered per second when a handler emits to everybody."""

import asyncio
import sys
import time

from harness import Failed, compare, connect, lost, parser, serve

CLOCK = """
What the clock covers: from the moment one client asks for the broadcasts until the last client has received the last of
them. A figure is clients times broadcasts, divided by that time. Connecting, one broadcast as a warm-up, and stopping
are not in it. All clients share one process beside the server's, so with few cores the clients' own work (the same for
each module) is in the figure too.
"""


async def measure(module, options):
    received = 0
    awaited = 0
    done = asyncio.Event()

    def on_packet(packet):
        nonlocal received
        if packet.startswith('42["tick"'):
            received += 1
            if received == awaited:
                done.set()

    async def cast(count):
        nonlocal received, awaited
        received, awaited = 0, count * options.clients
        done.clear()
        start = time.perf_counter()
        clients[0].send(f'42["cast",{count},{options.size}]')
        try:
            await asyncio.wait_for(done.wait(), options.limit)
        except asyncio.TimeoutError:
            lost(clients)
            raise Failed(f"{received} of {awaited} deliveries within {options.limit} seconds") from None
        return awaited / (time.perf_counter() - start)

    async with serve(module) as port:
        clients = await connect(port, [on_packet] * options.clients, 120)
        await cast(1)
        figure = await cast(options.count)
        lost(clients)
        for client in clients:
            client.transport.abort()
    return figure


def main():
    options_parser = parser(__doc__ + CLOCK, clients=1000)
    options_parser.add_argument("--count", type=int, default=50, help="broadcasts per round; default: %(default)s")
    options_parser.add_argument("--size", type=int, default=20, help="bytes in a message; default: %(default)s")
    options_parser.add_argument(
        "--limit", type=float, default=60, help="seconds a round may take; default: %(default)s"
    )
    options = options_parser.parse_args()
    return compare(options, "deliveries/s", lambda module: measure(module, options))


if __name__ == "__main__":
    sys.exit(main())
