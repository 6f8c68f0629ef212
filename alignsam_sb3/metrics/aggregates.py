"""Metrics of data sets, as torchmetrics: ``update`` with each image, then ``compute``; the twins of the functions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from torchmetrics import Metric

from alignsam_sb3.metrics.functional import (
    BETA2,
    METRICS,
    NOC_IOUS,
    Curve,
    Mask,
    Probability,
    _counts,
    adaptive,
    boundary_f,
    e_measure_curve,
    f_beta_curve,
    named,
    noc,
)
from alignsam_sb3.names import nearest

_OF_IMAGES = {**METRICS, "boundary_f": boundary_f}


class _Sums(Metric):
    """A metric of sums over images."""

    def _track(self, name: str, *shape: int) -> None:
        self.add_state(name, th.zeros(shape, dtype=th.float64), dist_reduce_fx="sum")

    def _add(self, name: str, values: float | NDArray[Any] | list[int]) -> None:
        setattr(self, name, getattr(self, name) + th.as_tensor(values, dtype=th.float64, device=self.device))


class ImageMean(_Sums):
    """Mean over images of a metric of masks.

    :param metric: name of a function: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``, ``"mae"``, ``"ber"``,
        ``"f_beta"``, ``"e_measure"``, ``"boundary_f"``
    :raises ValueError: there is no such metric
    """

    total: th.Tensor
    images: th.Tensor

    def __init__(self, metric: str) -> None:
        super().__init__()
        if metric not in _OF_IMAGES:
            raise ValueError(nearest("metric of masks", metric, _OF_IMAGES))
        self.metric = metric
        self._track("total")
        self._track("images")

    def update(self, predicted: Mask, truth: Mask, valid: Mask | None = None) -> None:
        self._add("total", _OF_IMAGES[self.metric](predicted, truth, valid))
        self._add("images", 1)

    def compute(self) -> th.Tensor:
        return self.total / self.images


class MeanIoU(_Sums):
    """mIoU as PASCAL VOC counts it: IoU of all pixels of a category over the data set, then the mean of the categories.

    :param n_categories: how many there are; those never predicted nor there are left out
    """

    hits: th.Tensor
    unions: th.Tensor

    def __init__(self, n_categories: int) -> None:
        super().__init__()
        self._track("hits", n_categories)
        self._track("unions", n_categories)

    def update(self, predicted: Mask, truth: Mask, category: int = 0, valid: Mask | None = None) -> None:
        tp, fp, fn, _ = _counts(predicted, truth, valid)
        place = np.arange(len(self.hits)) == category
        self._add("hits", tp * place)
        self._add("unions", (tp + fp + fn) * place)

    def compute(self) -> th.Tensor:
        seen = self.unions > 0
        return (self.hits[seen] / self.unions[seen]).mean()


class BalancedErrorRate(_Sums):
    """BER over all pixels of a data set, as shadow detection reports it (times 100).

    ``ImageMean("ber")`` is the mean over images instead. A class that is absent counts as found.
    """

    counts: th.Tensor

    def __init__(self) -> None:
        super().__init__()
        self._track("counts", 4)

    def update(self, predicted: Mask, truth: Mask, valid: Mask | None = None) -> None:
        tp, fp, fn, size = _counts(predicted, truth, valid)
        self._add("counts", [tp, tp + fn, size - tp - fn - fp, size - tp - fn])

    def compute(self) -> th.Tensor:
        found, positive, spared, negative = self.counts
        one = th.ones((), dtype=th.float64)
        rates = [part / whole if whole > 0 else one for part, whole in ((found, positive), (spared, negative))]
        return 1 - (rates[0] + rates[1]) / 2


class _Curves(_Sums):
    """Mean over images of a curve over thresholds: its maximum, its mean, and the mean at each image's adaptive threshold."""

    curve: th.Tensor
    adaptive: th.Tensor
    images: th.Tensor

    def __init__(self) -> None:
        super().__init__()
        self._track("curve", 256)
        self._track("adaptive")
        self._track("images")

    def _curve(self, predicted: Probability, truth: Mask, valid: Mask | None) -> Curve:
        raise NotImplementedError

    def update(self, predicted: Probability, truth: Mask, valid: Mask | None = None) -> None:
        self._add("curve", self._curve(predicted, truth, valid))
        self._add("adaptive", float(self._curve(adaptive(predicted, truth, valid), truth, valid)[255]))
        self._add("images", 1)

    def compute(self) -> dict[str, th.Tensor]:
        curve = self.curve / self.images
        return {"max": curve.max(), "mean": curve.mean(), "adaptive": self.adaptive / self.images}


class FMeasure(_Curves):
    """F-measure of probabilities: ``max``, ``mean`` and ``adaptive`` (threshold: twice the image's mean).

    :param beta2: weight of precision
    """

    def __init__(self, beta2: float = BETA2) -> None:
        super().__init__()
        self.beta2 = beta2

    def _curve(self, predicted: Probability, truth: Mask, valid: Mask | None) -> Curve:
        return f_beta_curve(predicted, truth, valid, self.beta2)


class EMeasure(_Curves):
    """Enhanced-alignment measure of probabilities: ``max``, ``mean`` and ``adaptive``."""

    def _curve(self, predicted: Probability, truth: Mask, valid: Mask | None) -> Curve:
        return e_measure_curve(predicted, truth, valid)


class NoC(_Sums):
    """Mean number of clicks to reach an IoU, for each of several; failures count as the cap.

    ``failed@90`` is how many images did not get below the cap. As in RITM's code an image that gets there with the very last
    click counts among them, too, though its clicks are the same.

    :param thresholds: of IoU
    :param cap: clicks, at most
    """

    clicks: th.Tensor
    failed: th.Tensor
    images: th.Tensor

    def __init__(self, thresholds: Sequence[float] = NOC_IOUS, cap: int = 20) -> None:
        super().__init__()
        self.thresholds, self.cap = tuple(thresholds), cap
        self._track("clicks", len(self.thresholds))
        self._track("failed", len(self.thresholds))
        self._track("images")

    def update(self, ious: Sequence[float]) -> None:
        """Add an image.

        :param ious: after each click
        """
        needed = np.array([noc(ious, threshold, self.cap) for threshold in self.thresholds])
        self._add("clicks", needed)
        self._add("failed", needed == self.cap)
        self._add("images", 1)

    def compute(self) -> dict[str, th.Tensor]:
        mean = named("NoC", self.thresholds, self.clicks / self.images)
        return mean | named("failed", self.thresholds, self.failed)
