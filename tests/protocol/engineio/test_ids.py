"""Ids of connections and clients are all that keeps others out of them."""

import base64
import itertools

from flask_realtime.protocol.engineio.engine import new_id


def test_ids_are_128_random_bits_without_a_counter():
    numbers = []
    for _ in range(30_000):
        name = new_id()
        octets = base64.urlsafe_b64decode(name + "==")
        assert len(name) == 22 and len(octets) == 16
        numbers.append(int.from_bytes(octets, "big"))
    assert len(set(numbers)) == len(numbers)
    # Each bit, and each bit's change from one to the next, is a coin: nothing counts, nothing stands still.
    for series in (numbers, [one ^ other for one, other in itertools.pairwise(numbers)]):
        for bit in range(128):
            share = sum(number >> bit & 1 for number in series) / len(series)
            assert 0.475 < share < 0.525, f"bit {bit} is set in {share:.3f} of them"
