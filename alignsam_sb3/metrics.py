"""Mask metrics. Masks are bool (H, W); pixels where ``valid`` is False count neither way."""

from collections.abc import Callable

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


METRICS: dict[str, Callable[[Mask, Mask, Mask | None], float]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "mae": mae,
}
