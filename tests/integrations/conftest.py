"""The predictor of the tests of ``annotate``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "annotate"))  # fakes.py
