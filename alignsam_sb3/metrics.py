"""Mask metrics. Masks are bool (H, W); pixels where ``valid`` is False count neither way."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def _counts(predicted: Mask, truth: Mask, valid: Mask | None) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives and all counted pixels."""
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted mask {predicted.shape} and truth {truth.shape} differ in size")
    if valid is not None:
        predicted, truth = predicted[valid], truth[valid]
    hit = int(np.count_nonzero(predicted & truth))
    return hit, int(np.count_nonzero(predicted)) - hit, int(np.count_nonzero(truth)) - hit, truth.size


def dice(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """2 TP / (2 TP + FP + FN); 1 where both are empty."""
    tp, fp, fn, _ = _counts(predicted, truth, valid)
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


def iou(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FP + FN); 1 where both are empty."""
    tp, fp, fn, _ = _counts(predicted, truth, valid)
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def precision(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FP); 1 where nothing was taken and nothing was there, 0 where nothing was taken and something was."""
    tp, fp, fn, _ = _counts(predicted, truth, valid)
    return tp / (tp + fp) if tp + fp else float(fn == 0)


def recall(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FN); 1 where there was nothing to find."""
    tp, _, fn, _ = _counts(predicted, truth, valid)
    return tp / (tp + fn) if tp + fn else 1.0


def mae(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Mean absolute error of the binary mask: the share of wrong pixels."""
    _, fp, fn, size = _counts(predicted, truth, valid)
    return (fp + fn) / max(size, 1)


def boundary_f(predicted: Mask, truth: Mask, valid: Mask | None = None, tolerance: float = 0.008) -> float:
    """F-measure of outlines that may lie a little beside each other (DAVIS 2016, section 3: contour accuracy F).

    1 where neither mask has an outline, 0 where only one has.

    :param tolerance: how far, as a fraction of the image's diagonal, rounded up to whole pixels
    """
    _counts(predicted, truth, valid)  # refuses masks of different sizes
    reach = int(np.ceil(tolerance * np.hypot(*truth.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    lines = [_outline(m if valid is None else m & valid) for m in (predicted, truth)]
    near = [cv2.dilate(line, disc).astype(bool) for line in lines]
    ours, theirs = (line.astype(bool) for line in lines)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    right = float((ours & near[1]).sum() / ours.sum())
    found = float((theirs & near[0]).sum() / theirs.sum())
    return 2 * right * found / (right + found) if right + found else 0.0


def _outline(mask: Mask) -> NDArray[np.uint8]:
    """The pixels of a mask that touch its outside; the image's border is no outside."""
    solid = mask.astype(np.uint8)
    return np.asarray(solid - cv2.erode(solid, np.ones((3, 3), np.uint8)), np.uint8)


METRICS: dict[str, Callable[[Mask, Mask, Mask | None], float]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "mae": mae,
}
