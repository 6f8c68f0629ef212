"""What all bad inputs share.

``REFUSED``: an error that explains. ``SKIPPED``: it is read, and what could not be is counted with a reason. ``RIGHT``: it is
read, as it should be. An input may have several: which one depends on what its format can notice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

REFUSED, SKIPPED, RIGHT = "refused", "skipped", "right"
ANY = (REFUSED, SKIPPED)


@dataclass(frozen=True)
class Input:
    """One bad input.

    :param run: makes it in a folder and reads it; returns what was skipped, if anything
    """

    what: str
    run: Callable[[Path], object]
    expected: tuple[str, ...]


SIZE = (24, 32)  # height, width


def photo(path, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **options)
    return path


def mask(path, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, np.uint8)
    pixels[4:16, 4:20] = value
    Image.fromarray(pixels).save(path)
    return path


def described(spec, **options):
    """Read all of a data set; what it skipped."""
    from alignsam_sb3.datasets import load_dataset
    from alignsam_sb3.datasets.describe import describe

    return describe(load_dataset(spec, "all", **options), None).skipped
