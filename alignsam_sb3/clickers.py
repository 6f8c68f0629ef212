"""Simulated people: where somebody who knows the truth would click next."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.arrays import ArrayLike, as_mask

Click = tuple[tuple[int, int], int]
"""((x, y) in pixels of the original image, label): 1 foreground, 0 background."""
Pixels = Sequence[tuple[int, int]]
"""Pixels (x, y)."""


def _depths(region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to the region's border (image borders count), exactly; 0 outside."""
    padded = np.pad(region, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1], np.float32)


def _deepest(depths: NDArray[np.float32], clicked: Pixels) -> tuple[float, tuple[int, int]]:
    """The largest of the depths but those of pixels that were clicked, and the first pixel (x, y) of that depth."""
    for x, y in clicked:
        depths[y, x] = 0
    row, column = divmod(int(depths.argmax()), depths.shape[1])
    return float(depths[row, column]), (column, row)


def centre_click(truth: ArrayLike, clicked: Pixels = ()) -> Click:
    """One click at the innermost pixel of the object; of the ground where there is no object.

    :param truth: (H, W) bool
    :param clicked: pixels that are clicked already, which are not clicked again
    """
    there = as_mask(truth)
    shown = bool(there.any())
    return _deepest(_depths(there if shown else ~there), clicked)[1], int(shown)


def error_depths(truth: ArrayLike, predicted: ArrayLike | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How deep each pixel lies in what is missed and in what is wrongly taken: distances to the region's border, 0 outside.

    :param truth: (H, W) bool
    :param predicted: (H, W) bool, None before the first click
    """
    there = as_mask(truth)
    taken = np.zeros(there.shape, bool) if predicted is None else as_mask(predicted)
    return _depths(there & ~taken), _depths(taken & ~there)


def oracle_click(truth: ArrayLike, predicted: ArrayLike | None, clicked: Pixels = ()) -> Click:
    """The greedy oracle: the innermost pixel of what is missed or of what is wrongly taken, whichever lies deeper.

    This is the clicker of the interactive segmentation literature, as RITM's code has it (arXiv 2102.06583, section 5).
    Distances are exact, and no pixel is clicked twice. Of two errors equally deep, the wrongly taken one is corrected. RITM's
    evaluation ends where nothing is wrong; here the click then confirms the object.

    :param truth: (H, W) bool; leave out of both masks what the annotation says nothing of
    :param predicted: (H, W) bool, None before the first click
    :param clicked: pixels (x, y) that are clicked already
    """
    missed, taken = (_deepest(depths, clicked) for depths in error_depths(truth, predicted))
    if missed[0] == taken[0] == 0:
        return centre_click(truth, clicked)
    return (missed[1], 1) if missed[0] > taken[0] else (taken[1], 0)
