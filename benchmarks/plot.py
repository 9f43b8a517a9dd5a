"""Draw what echo.py and broadcast.py have saved as one SVG: a bar for each module's median, a line for its extremes."""

import argparse
import json
import statistics
import sys
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, GAP = 720, 150, 110, 22, 10  # pixels
COLOURS = ("#2b6cb0", "#a0aec0", "#718096", "#cbd5e0")


def bars(record, top):
    """Return the SVG elements of one benchmark, and where the next one may begin."""
    figures = {module: values for module, values in record["figures"].items() if values}
    most = max(max(values) for values in figures.values())
    scale = (WIDTH - LEFT - RIGHT) / most
    title = f"{record['benchmark']}: {record['unit']}, {record['clients']:,} clients"
    elements = [f'<text x="0" y="{top + 14}" class="title">{escape(title)}</text>']
    y = top + 26
    for (module, values), colour in zip(figures.items(), COLOURS, strict=False):
        median, middle = statistics.median(values), y + BAR / 2
        low, high = LEFT + min(values) * scale, LEFT + max(values) * scale
        elements += [
            f'<text x="0" y="{middle + 5}">{escape(module)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{median * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#1a202c" stroke-width="2"/>',
            f'<text x="{high + 8:.1f}" y="{middle + 5}">{median:,.0f}</text>',
        ]
        y += BAR + GAP
    return elements, y + 2 * GAP


def draw(records):
    """Return the whole SVG."""
    top, elements = 0, []
    for record in records:
        more, top = bars(record, top)
        elements += more
    one = records[0]
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    note = f"Python {one['python']}, {one['cores']} cores, {one['system']}; {versions}"
    elements.append(f'<text x="0" y="{top + 12}" class="note">{escape(note)}</text>')
    style = "text{font:14px sans-serif;fill:#1a202c}.title{font-weight:bold}.note{font-size:11px;fill:#4a5568}"
    body = "\n".join(elements)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 20:.0f}" width="{WIDTH}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<style>{style}</style>\n{body}\n</svg>\n'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("saved", nargs="+", type=Path, help="files that --save has written")
    parser.add_argument("--output", "-o", type=Path, required=True, help="the SVG")
    options = parser.parse_args()
    options.output.write_text(draw([json.loads(path.read_text()) for path in options.saved]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
