"""Metrics of one mask against one truth, all in [0, 1] (papers print some as percent).

Masks are bool (H, W); pixels where ``valid`` is False count neither way. The F- and E-measures also take probabilities (H, W):
their curves have one value for each of 256 thresholds k / 255, from all of the image to what is certain.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Probability = NDArray[np.floating] | Mask
Curve = NDArray[np.float64]
BETA2 = 0.3
_EPS = float(np.spacing(1))


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


def ber(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Balanced error rate 1 - (TP / P + TN / N) / 2, of shadow detection; a class that is absent counts as found."""
    tp, fp, fn, size = _counts(predicted, truth, valid)
    positive, negative = tp + fn, size - tp - fn
    found = tp / positive if positive else 1.0
    spared = (negative - fp) / negative if negative else 1.0
    return 1 - (found + spared) / 2


def _cumulated(predicted: Probability, truth: Mask, valid: Mask | None) -> tuple[Curve, Curve, int, int]:
    """At each of 256 thresholds how many pixels are rightly and wrongly taken; object's pixels and all pixels."""
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in size")
    if valid is not None:
        predicted, truth = predicted[valid], truth[valid]
    if predicted.size and not (np.isfinite(predicted).all() and predicted.min() >= 0 and predicted.max() <= 1):
        raise ValueError(
            f"probabilities lie in [0, 1], got {float(predicted.min()):.3g} to {float(predicted.max()):.3g}: "
            "give logits through a sigmoid first"
        )
    level = (predicted * 255).astype(np.uint8)
    counts = [np.bincount(level[part], minlength=256)[::-1].cumsum()[::-1] for part in (truth, ~truth)]
    return counts[0].astype(float), counts[1].astype(float), int(np.count_nonzero(truth)), truth.size


def f_beta_curve(predicted: Probability, truth: Mask, valid: Mask | None = None, beta2: float = BETA2) -> Curve:
    """F-measure (1 + b) P R / (b P + R) at 256 thresholds (Achanta et al., CVPR 2009, section 4.2).

    As in :func:`precision` and :func:`recall`, 1 where nothing was taken and nothing was there.

    :param beta2: weight b of precision; the field's 0.3 by default
    :return: (256,)
    """
    hit, false, wanted, _ = _cumulated(predicted, truth, valid)
    taken = hit + false
    right = np.where(taken > 0, hit / np.maximum(taken, 1), float(wanted == 0))
    found = hit / wanted if wanted else np.ones(256)
    weighed = beta2 * right + found
    return np.asarray(np.where(weighed > 0, (1 + beta2) * right * found / np.maximum(weighed, _EPS), 0.0))


def f_beta(predicted: Mask, truth: Mask, valid: Mask | None = None, beta2: float = BETA2) -> float:
    """F-measure of a mask; see :func:`f_beta_curve`."""
    return float(f_beta_curve(predicted, truth, valid, beta2)[255])


def e_measure_curve(predicted: Probability, truth: Mask, valid: Mask | None = None) -> Curve:
    """Enhanced-alignment measure at 256 thresholds (Fan et al., IJCAI 2018, arXiv 1805.10421, section 3), (256,)."""
    hit, false, wanted, size = _cumulated(predicted, truth, valid)
    taken = hit + false
    if not 0 < wanted < size:
        right = taken if wanted else size - taken
        return np.asarray(right / max(size, 1))
    total = np.zeros(256)
    parts = ((1, 1, hit), (0, 1, false), (1, 0, wanted - hit), (0, 0, size - wanted - false))
    for there, said, count in parts:
        a, b = there - wanted / size, said - taken / size
        total += (2 * a * b / (a**2 + b**2 + _EPS) + 1) ** 2 / 4 * count
    return np.asarray(total / size)


def e_measure(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Enhanced-alignment measure of a mask; see :func:`e_measure_curve`."""
    return float(e_measure_curve(predicted, truth, valid)[255])


def noc(ious: Sequence[float], threshold: float, cap: int = 20) -> int:
    """Clicks until an IoU is reached, ``cap`` where it is not (RITM, arXiv 2102.06583, section 5).

    :param ious: after each click
    """
    reached = np.flatnonzero(np.asarray(ious)[:cap] >= threshold)
    return int(reached[0]) + 1 if len(reached) else cap


METRICS: dict[str, Callable[[Mask, Mask, Mask | None], float]] = {
    "dice": dice,
    "iou": iou,
    "precision": precision,
    "recall": recall,
    "mae": mae,
    "ber": ber,
    "f_beta": f_beta,
    "e_measure": e_measure,
}
