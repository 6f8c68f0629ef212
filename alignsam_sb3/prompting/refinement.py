"""Operations on a mask's probability map, and numbers that describe it: what an agent that refines masks does and sees.

All operations take and give probabilities (H, W), so that they can follow each other in any order; the mask is where the map
is above one half. Radii are fractions of the image's short side.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]
SMALL, LARGE = 0.008, 0.025  # radii
_SHIFT = 0.8  # of the logits, for another threshold
_FEW = 0.02  # of the mask: parts smaller than this are dropped


def _ball(shape: tuple[int, ...], radius: float) -> NDArray[np.uint8]:
    r = max(round(radius * min(shape)), 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)), np.uint8)


def shift_threshold(p: Map, by: float) -> Map:
    """Add to the logits: above 0 the mask grows, as with a lower threshold."""
    clipped = p.clip(1e-4, 1 - 1e-4)
    return np.asarray(1 / (1 + (1 - clipped) / clipped * np.exp(-by)), np.float32)


def morph(p: Map, how: int, radius: float) -> Map:
    """Erode, dilate, open or close (OpenCV's ``MORPH_`` constants): on a map the same as on every mask cut from it."""
    return np.asarray(cv2.morphologyEx(p, how, _ball(p.shape, radius)), np.float32)


def fill_holes(p: Map) -> Map:
    """Take what the mask encloses, at the certainty of one half and a little."""
    solid = (p > 0.5).astype(np.uint8)
    padded = np.pad(1 - solid, 1, constant_values=1)
    _, parts = cv2.connectedComponents(padded, connectivity=4)
    outside = (parts == parts[0, 0])[1:-1, 1:-1]
    return np.where((solid == 0) & ~outside, np.maximum(p, np.float32(0.6)), p)


def _without(p: Map, keep: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> Map:
    """Only the connected parts whose areas (in order of their number) are to be kept."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats((p > 0.5).astype(np.uint8), connectivity=8)
    if count < 3:
        return p
    kept = np.concatenate([[True], keep(stats[1:, cv2.CC_STAT_AREA].astype(np.int64))])
    return np.where(kept[parts], p, np.minimum(p, np.float32(0.4)))


def drop_small(p: Map) -> Map:
    """Without parts under a fiftieth of the mask."""
    return _without(p, lambda areas: areas >= _FEW * areas.sum())


def keep_largest(p: Map) -> Map:
    """The largest connected part alone."""
    return _without(p, lambda areas: np.arange(len(areas)) == areas.argmax())


def smooth(p: Map) -> Map:
    """A Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(p, (0, 0), max(SMALL * min(p.shape), 0.8)), np.float32)


OPERATIONS: dict[str, Callable[[Map], Map]] = {
    "threshold down": partial(shift_threshold, by=_SHIFT),
    "threshold up": partial(shift_threshold, by=-_SHIFT),
    **{
        f"{name} {size}": partial(morph, how=how, radius=radius)
        for name, how in (
            ("open", cv2.MORPH_OPEN),
            ("close", cv2.MORPH_CLOSE),
            ("dilate", cv2.MORPH_DILATE),
            ("erode", cv2.MORPH_ERODE),
        )
        for size, radius in (("small", SMALL), ("large", LARGE))
    },
    "fill holes": fill_holes,
    "drop small parts": drop_small,
    "keep largest part": keep_largest,
    "smooth": smooth,
}
"""What can be done, by name."""

N_DESCRIBED = 10
"""Numbers that :func:`describe` gives."""


def mean_colour(image: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean RGB in [0, 1] of some pixels (H, W) bool; mid-grey of none."""
    if not where.any():
        return np.full(3, 0.5)
    return np.array(cv2.mean(image, where.astype(np.uint8))[:3]) / 255


def describe(p: Map, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Numbers of the order of one about a mask: (10,).

    Of its shape: area, length of the outline, number of parts, share of the largest part, holes. Of the probabilities: their
    mean inside and outside, and the share of undecided pixels. Of the image: how far the mean colour inside is from that of
    the rest, and how strong edges are under the outline.

    :param image: (H, W, 3) uint8
    """
    mask = p > 0.5
    solid = mask.astype(np.uint8)
    area = max(int(solid.sum()), 1)
    outline = mask & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    count, _, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    largest = stats[1:, cv2.CC_STAT_AREA].max() if count > 1 else 0
    holes = int(((fill_holes(p) > 0.5) & ~mask).sum())
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    apart = np.linalg.norm(mean_colour(image, mask) - mean_colour(image, ~mask))
    values = (
        mask.mean(),
        np.log1p(outline.sum()) / 10,
        np.log1p(count - 1) / 3,
        largest / area,
        min(holes / area, 1),
        p[mask].mean() if mask.any() else 0.5,
        p[~mask].mean() if not mask.all() else 0.5,
        (np.abs(p - 0.5) < 0.3).mean(),
        apart,
        edges[outline].mean() if outline.any() else 0.0,
    )
    return np.array(values, np.float32)
