"""Makes the modules beside the tests importable, and the doubles of the protocol tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "protocol")]
