"""Numbers on command lines, checked as they are read."""

import argparse
import math


def positive_int(text: str) -> int:
    """A whole number above zero.

    :raises argparse.ArgumentTypeError: it is none
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text[:60]!r}")
    return value


def positive_float(text: str) -> float:
    """A finite number above zero.

    :raises argparse.ArgumentTypeError: it is none
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text[:60]!r}")
    return value
