"""Pictures of the Mandelbrot set, computed point by point: work that keeps a processor busy for seconds."""

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Points on the edge of the set, where each magnification shows something new.
PLACES = {
    "The whole set": complex(-0.65, 0),
    "Seahorse valley": complex(-0.77568377, 0.13646737),
    "Lightning": complex(0, 1),
    "Pinwheel": complex(-0.10109636384562, 0.95628651080914),
}
SIZES = {"small": (480, 300), "large": (960, 600)}  # pixels
DEEPEST = 16  # the highest power of ten to magnify by; where the numbers end depends on the place
WIDTH = 3.6  # of the whole picture, before it is magnified
FAR = 16.0  # a point that has come this far away never comes back
AT_ONCE = 60  # points that are computed without a pause: some milliseconds


class Problem(ValueError):
    """What was asked for can't be done; the text is for the person who asked."""


@dataclass(frozen=True)
class Order:
    """One picture to make.

    Attributes:
        place: A key of ``PLACES``.
        depth: Which power of ten to magnify by, from 0 to ``DEEPEST``.
        size: A key of ``SIZES``.
    """

    place: str
    depth: int
    size: str

    @classmethod
    def read(cls, data: Any) -> "Order":
        """Read what a page has sent.

        Raises:
            Problem: When it is no order.
        """
        fields = data if isinstance(data, dict) else {}
        place, depth, size = (fields.get(name) for name in ("place", "depth", "size"))
        if not isinstance(place, str) or place not in PLACES:
            raise Problem("There is no such place.")
        if not isinstance(size, str) or size not in SIZES:
            raise Problem("There is no such size.")
        if type(depth) is not int or not 0 <= depth <= DEEPEST:
            raise Problem(f"Magnify by a power of ten between 0 and {DEEPEST}.")
        return cls(place, depth, size)

    def write(self) -> dict[str, Any]:
        """Return it as ``read`` takes it, ready for JSON."""
        return asdict(self)


def render(order: Order, report: Callable[[int], None]) -> bytes:
    """Compute a picture.

    Args:
        order: What to show.
        report: Called after every ``AT_ONCE`` points with the percentage that is done. What it raises ends the work.

    Returns:
        A PNG.

    Raises:
        Problem: When neighbouring points can't be told apart any more.
    """
    width, height = SIZES[order.size]
    step = WIDTH / width / 10**order.depth
    centre = PLACES[order.place]
    columns = [centre.real + (number - width / 2) * step for number in range(width)]
    lines = [centre.imag - (number - height / 2) * step for number in range(height)]
    if len(set(columns)) < width or len(set(lines)) < height:
        raise Problem("That is too deep: neighbouring points have become the same number. Magnify less.")
    steps = 300 + 100 * order.depth
    rows = []
    for number, y in enumerate(lines):
        row = b""
        for first in range(0, width, AT_ONCE):
            row += bytes(shade(complex(x, y), steps) for x in columns[first : first + AT_ONCE])
            report(100 * (number * width + len(row)) // (width * height))
        rows.append(row)
    return png(width, height, rows)


def shade(point: complex, steps: int) -> int:
    """Return the colour of a point: 0 when it belongs to the set, else 1 to 255 by how soon that showed."""
    z = 0j
    for step in range(steps):
        z = z * z + point
        if abs(z) > FAR:
            smooth = step + 1 - math.log2(math.log(abs(z)))
            return 1 + int(32 * math.sqrt(max(smooth, 0))) % 255
    return 0


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    """Pack rows of colour numbers into a PNG with a palette.

    Source: PNG, third edition, 5 and 11.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"PLTE", palette()) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def palette() -> bytes:
    """Return 256 colours: night for the set itself, and a circle from dusk over sand to the sea for the others."""
    dusk, sky, sand, light, sea, moss = "0c1c2a", "26496b", "d98c6a", "f6d9a4", "6fd0bc", "0f6b5f"
    stops = [tuple(bytes.fromhex(colour)) for colour in (dusk, sky, sand, light, sea, moss, dusk)]
    colours = [(10, 16, 20)]
    for number in range(255):
        part, rest = divmod(number * (len(stops) - 1), 255)
        before, after = stops[part], stops[part + 1]
        colours.append(tuple(round(a + (b - a) * rest / 255) for a, b in zip(before, after, strict=True)))
    return b"".join(bytes(colour) for colour in colours)
