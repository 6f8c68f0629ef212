"""The predictor of the tests of ``annotate``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "annotate")]  # standin.py, fakes.py
