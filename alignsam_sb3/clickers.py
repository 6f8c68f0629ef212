"""Simulated people: where somebody who knows the truth would click next."""

import cv2
import numpy as np
from numpy.typing import NDArray

Click = tuple[tuple[int, int], int]
"""((x, y) in pixels of the original image, label): 1 foreground, 0 background."""


def _depths(region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each pixel to the region's border (image borders count), 0 outside."""
    depths = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(depths, np.float32)


def _deepest(region: NDArray[np.bool_]) -> tuple[float, tuple[int, int]]:
    """Distance to the region's border (image borders count) of its innermost pixel, and that pixel (x, y)."""
    distance = _depths(region)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(distance[y, x]), (int(x), int(y))


def centre_click(truth: NDArray[np.bool_]) -> Click:
    """One click at the innermost pixel of the object; of the ground where there is no object.

    :param truth: (H, W) bool
    """
    shown = bool(truth.any())
    return _deepest(truth if shown else ~truth)[1], int(shown)


def error_depths(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How deep each pixel lies in what is missed and in what is wrongly taken: distances to the region's border, 0 outside.

    :param truth: (H, W) bool
    :param predicted: (H, W) bool, None before the first click
    """
    if predicted is None:
        return _depths(truth), np.zeros(truth.shape, np.float32)
    return _depths(truth & ~predicted), _depths(predicted & ~truth)


def oracle_click(truth: NDArray[np.bool_], predicted: NDArray[np.bool_] | None) -> Click:
    """The greedy oracle: the innermost pixel of what is missed or of what is wrongly taken, whichever lies deeper.

    This is the clicker of the interactive segmentation literature (RITM, arXiv 2102.06583, section 4).

    :param truth: (H, W) bool
    :param predicted: (H, W) bool, None before the first click
    """
    if predicted is None:
        return centre_click(truth)
    missed, taken = _deepest(truth & ~predicted), _deepest(predicted & ~truth)
    depth, place = max(missed, taken, key=lambda found: found[0])
    if depth == 0:  # nothing is wrong: confirm the object
        return centre_click(truth)
    return place, int(missed[0] >= taken[0])
