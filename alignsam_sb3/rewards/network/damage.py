"""Truth, spoiled in many ways: masks of every quality without a segmenter."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def softened(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The same mask as something less sure would give it: blurred, or paler, on both sides of one half; a third stays hard."""
    if rng.random() < 1 / 3:
        return mask
    soft = mask.astype(np.float32) / 255
    blurred = cv2.GaussianBlur(soft, (0, 0), float(rng.uniform(0.5, 1.2)))
    agreeing = np.where(soft > 0.5, np.maximum(blurred, 0.51), np.minimum(blurred, 0.49))
    paler = 0.5 + (agreeing - 0.5) * rng.uniform(0.5, 1.0)
    return np.asarray((paler * 255).round(), np.uint8)


def _ball(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    radius = max(round(side * rng.uniform(0.01, 0.06)), 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def _blot(truth: Mask, rng: np.random.Generator) -> Mask:
    """A disc or box at a random place, up to a third of the image wide."""
    height, width = truth.shape
    radius = max(int(min(height, width) * rng.uniform(0.03, 0.17)), 1)
    y, x = np.ogrid[:height, :width]
    dy, dx = np.abs(y - rng.integers(height)), np.abs(x - rng.integers(width))
    return np.asarray(np.maximum(dy, dx) <= radius if rng.random() < 0.5 else np.hypot(dy, dx) <= radius)


def _shifted(truth: Mask, rng: np.random.Generator) -> Mask:
    height, width = truth.shape
    shift = [round(side * rng.normal(0, 0.06)) for side in (height, width)]
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float32)
    return np.asarray(cv2.warpAffine(truth.astype(np.uint8), move, (width, height)), bool)


def _dropped(truth: Mask, rng: np.random.Generator) -> Mask:
    """Without one connected part, or without one half where there is one part only."""
    count, parts = cv2.connectedComponents(truth.astype(np.uint8))
    if count > 2:
        return np.asarray(truth & (parts != int(rng.integers(1, count))))
    return _halved(truth, rng)


def _halved(truth: Mask, rng: np.random.Generator) -> Mask:
    """What lies on one side of a line through the mask."""
    y, x = np.nonzero(truth)
    if not len(y):
        return truth
    pick, angle = int(rng.integers(len(y))), rng.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[: truth.shape[0], : truth.shape[1]]
    return np.asarray(truth & ((rows - y[pick]) * np.sin(angle) + (columns - x[pick]) * np.cos(angle) > 0))


def damaged(truth: Mask, objects: NDArray[np.bool_], count: int, rng: np.random.Generator) -> list[Mask]:
    """The truth, spoiled in ``count`` ways, among them not at all, nothing and everything.

    :param objects: (M, H, W) all annotated objects: one may be taken instead of the truth, or with it
    """
    solid = truth.astype(np.uint8)
    side = min(truth.shape)
    other = objects[rng.integers(len(objects))] if len(objects) else ~truth
    ways: tuple[Callable[[], Mask], ...] = (
        lambda: np.asarray(cv2.erode(solid, _ball(side, rng)), bool),
        lambda: np.asarray(cv2.dilate(solid, _ball(side, rng)), bool),
        lambda: _shifted(truth, rng),
        lambda: _dropped(truth, rng),
        lambda: _halved(truth, rng),
        lambda: truth | _blot(truth, rng),
        lambda: truth & ~_blot(truth, rng),
        lambda: truth | other,
        lambda: np.asarray(cv2.dilate(_halved(truth, rng).astype(np.uint8), _ball(side, rng)), bool),
        lambda: _blot(truth, rng),
    )
    spoiled = [truth, np.zeros_like(truth), np.ones_like(truth)]
    picks = [int(k) for _ in range(count // len(ways) + 1) for k in rng.permutation(len(ways))]
    return [*spoiled, *(ways[k]() for k in picks)][:count]
