"""Metrics of one mask against one truth, all in [0, 1] (papers print some as percent).

Masks are bool (H, W) or 0 and 1, arrays or tensors. Pixels where ``valid`` is False count neither way. MAE and the F- and
E-measures also take probabilities (H, W). Their curves have one value for each of 256 thresholds k / 255, from all of the
image to what is certain.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.arrays import ArrayLike, as_array, as_mask

Mask = ArrayLike
Probability = ArrayLike
Curve = NDArray[np.float64]
BETA2 = 0.3
NOC_IOUS = (0.8, 0.85, 0.9, 0.95)
"""What clicks are counted up to, unless something else is said."""
_EPS = float(np.spacing(1))


def _counts(predicted: Mask, truth: Mask, valid: Mask | None) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives and all counted pixels."""
    said, there = _judged(as_mask(predicted), truth, valid)
    hit = int(np.count_nonzero(said & there))
    return hit, int(np.count_nonzero(said)) - hit, int(np.count_nonzero(there)) - hit, there.size


def _judged(predicted: NDArray[Any], truth: Mask, valid: Mask | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The prediction and the truth where they are judged."""
    there = as_mask(truth)
    if predicted.shape != there.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {there.shape} differ in size")
    if valid is None:
        return predicted, there
    where = as_mask(valid)
    return predicted[where], there[where]


def dice(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """2 TP / (2 TP + FP + FN); 1 where both are empty."""
    return _dice(*_counts(predicted, truth, valid))


def _dice(tp: int, fp: int, fn: int, size: int) -> float:
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0


def iou(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FP + FN); 1 where both are empty."""
    return _iou(*_counts(predicted, truth, valid))


def _iou(tp: int, fp: int, fn: int, size: int) -> float:
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def precision(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FP); 1 where nothing was taken and nothing was there, 0 where nothing was taken and something was."""
    return _precision(*_counts(predicted, truth, valid))


def _precision(tp: int, fp: int, fn: int, size: int) -> float:
    return tp / (tp + fp) if tp + fp else float(fn == 0)


def recall(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """TP / (TP + FN); 1 where there was nothing to find."""
    return _recall(*_counts(predicted, truth, valid))


def _recall(tp: int, fp: int, fn: int, size: int) -> float:
    return tp / (tp + fn) if tp + fn else 1.0


def mae(predicted: Probability, truth: Mask, valid: Mask | None = None) -> float:
    """Mean absolute error of probabilities; of a mask it is the share of wrong pixels."""
    said, there = _probabilities(predicted, truth, valid)
    return float(np.abs(said - there).mean()) if said.size else 0.0


def boundary_f(predicted: Mask, truth: Mask, valid: Mask | None = None, tolerance: float = 0.008) -> float:
    """F-measure of outlines that may lie a little beside each other (contour accuracy F of DAVIS, as its code of 2017 counts).

    1 where neither mask has an outline, 0 where only one has.

    :param tolerance: how far, as a fraction of the image's diagonal, rounded up to whole pixels
    """
    said, there = as_mask(predicted), as_mask(truth)
    _judged(said, there, None)  # refuses masks of different sizes
    known = True if valid is None else as_mask(valid)
    lines = [_outline(mask & known) for mask in (said, there)]
    if not lines[0].any() or not lines[1].any():
        return float(lines[0].any() == lines[1].any())
    disc = _disc(int(np.ceil(tolerance * np.hypot(*there.shape))))
    near = [cv2.dilate(line.astype(np.uint8), disc).astype(bool) for line in lines]
    right = float((lines[0] & near[1]).sum() / lines[0].sum())
    found = float((lines[1] & near[0]).sum() / lines[1].sum())
    return 2 * right * found / (right + found) if right + found else 0.0


def _disc(reach: int) -> NDArray[np.uint8]:
    """All pixels no farther than so many from the middle one."""
    steps = np.arange(-reach, reach + 1)
    return np.asarray(steps[:, None] ** 2 + steps**2 <= reach**2, np.uint8)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a mask and its right, lower or lower right neighbour differ; beyond the image there is no neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here, right, below, across = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((here ^ right) | (here ^ below) | (here ^ across))


def ber(predicted: Mask, truth: Mask, valid: Mask | None = None) -> float:
    """Balanced error rate 1 - (TP / P + TN / N) / 2, of shadow detection; a class that is absent counts as found."""
    return _ber(*_counts(predicted, truth, valid))


def _ber(tp: int, fp: int, fn: int, size: int) -> float:
    positive, negative = tp + fn, size - tp - fn
    found = tp / positive if positive else 1.0
    spared = (negative - fp) / negative if negative else 1.0
    return 1 - (found + spared) / 2


def _cumulated(predicted: Probability, truth: Mask, valid: Mask | None) -> tuple[Curve, Curve, int, int]:
    """At each of 256 thresholds how many pixels are rightly and wrongly taken; object's pixels and all pixels."""
    said, there = _probabilities(predicted, truth, valid)
    level = (said * 255).astype(np.uint8)
    counts = [np.bincount(level[part], minlength=256)[::-1].cumsum()[::-1] for part in (there, ~there)]
    return counts[0].astype(float), counts[1].astype(float), int(np.count_nonzero(there)), there.size


def _probabilities(predicted: Probability, truth: Mask, valid: Mask | None) -> tuple[Curve, NDArray[np.bool_]]:
    """The probabilities and the truth where they are judged.

    :raises ValueError: they are no probabilities
    """
    said, there = _judged(as_array(predicted).astype(np.float64), truth, valid)
    if said.size and not (np.isfinite(said).all() and said.min() >= 0 and said.max() <= 1):
        raise ValueError(
            f"probabilities lie in [0, 1], got {said.min():.3g} to {said.max():.3g}: give logits through a sigmoid first"
        )
    return said, there


def adaptive(predicted: Probability, truth: Mask, valid: Mask | None = None) -> NDArray[np.bool_]:
    """What is at least twice as likely as the mean of the image (at most 1): the mask of the "adaptive" F- and E-measure.

    :return: (H, W) bool
    """
    said, _ = _probabilities(predicted, truth, valid)
    threshold = min(2 * said.mean(), 1.0) if said.size else 1.0
    return np.asarray(as_array(predicted).astype(np.float64) >= threshold)


def f_beta_curve(predicted: Probability, truth: Mask, valid: Mask | None = None, beta2: float = BETA2) -> Curve:
    """F-measure (1 + b) P R / (b P + R) at 256 thresholds (Achanta et al., CVPR 2009, section 4.2).

    As in :func:`precision` and :func:`recall`, 1 where nothing was taken and nothing was there.

    :param beta2: weight b of precision; the field's 0.3 by default
    :return: (256,)
    """
    hit, false, wanted, _ = _cumulated(predicted, truth, valid)
    return _f_beta(hit, false, wanted, beta2)


def _f_beta(hit: Curve, false: Curve, wanted: int, beta2: float) -> Curve:
    """The same of what is rightly and wrongly taken at some thresholds, (T,) each."""
    taken = hit + false
    right = np.where(taken > 0, hit / np.maximum(taken, 1), float(wanted == 0))
    found = hit / wanted if wanted else np.ones(len(hit))
    weighed = beta2 * right + found
    return np.asarray(np.where(weighed > 0, (1 + beta2) * right * found / np.maximum(weighed, _EPS), 0.0))


def f_beta(predicted: Mask, truth: Mask, valid: Mask | None = None, beta2: float = BETA2) -> float:
    """F-measure of a mask; see :func:`f_beta_curve`."""
    return float(f_beta_curve(predicted, truth, valid, beta2)[255])


def e_measure_curve(predicted: Probability, truth: Mask, valid: Mask | None = None) -> Curve:
    """Enhanced-alignment measure at 256 thresholds (Fan et al., IJCAI 2018, arXiv 1805.10421, section 3), (256,)."""
    return _e_measure(*_cumulated(predicted, truth, valid))


def _e_measure(hit: Curve, false: Curve, wanted: int, size: int) -> Curve:
    """The same of what is rightly and wrongly taken at some thresholds, (T,) each."""
    taken = hit + false
    if not 0 < wanted < size:
        right = taken if wanted else size - taken
        return np.asarray(right / max(size, 1))
    total = np.zeros(len(hit))
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


def named(what: str, thresholds: Sequence[float], values: Iterable[Any]) -> dict[str, Any]:
    """A value for each threshold, as ``{"NoC@80": ..., "NoC@90": ...}``."""
    return {f"{what}@{threshold * 100:.0f}": value for threshold, value in zip(thresholds, values, strict=True)}


def clicks_needed(ious: Sequence[Sequence[float]], cap: int = 20) -> dict[str, float]:
    """What :class:`~alignsam_sb3.metrics.NoC` says of some images; NaN of none.

    :param ious: of each image after each click
    """
    needed = np.array([[noc(image, threshold, cap) for threshold in NOC_IOUS] for image in ious], float)
    needed = needed.reshape(len(ious), len(NOC_IOUS))
    mean = needed.mean(0) if len(needed) else np.full(len(NOC_IOUS), np.nan)
    return named("NoC", NOC_IOUS, mean.tolist()) | named("failed", NOC_IOUS, np.sum(needed == cap, 0, float).tolist())


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
"""Metrics that an evaluation reports, by name: functions of a mask, the truth and, where given, the pixels that count."""


def of_mask(predicted: Mask, truth: Mask, valid: Mask | None = None) -> dict[str, float]:
    """All :data:`METRICS` of a mask. Its pixels are counted once, so this is several times as fast as one after the other."""
    tp, fp, fn, size = counts = _counts(predicted, truth, valid)
    hit, false = np.array([tp], float), np.array([fp], float)
    simple = (("dice", _dice), ("iou", _iou), ("precision", _precision), ("recall", _recall))
    return {name: formula(*counts) for name, formula in simple} | {
        "mae": (fp + fn) / size if size else 0.0,
        "ber": _ber(*counts),
        "f_beta": float(_f_beta(hit, false, tp + fn, BETA2)[0]),
        "e_measure": float(_e_measure(hit, false, tp + fn, size)[0]),
    }
