"""Metrics of masks: functions of one image, and (in :mod:`alignsam_sb3.metrics.aggregates`) classes that add images up.

The classes are imported when one is first used: torchmetrics takes a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignsam_sb3.metrics.functional import (
    METRICS,
    Mask,
    Probability,
    adaptive,
    ber,
    boundary_f,
    clicks_needed,
    dice,
    e_measure,
    e_measure_curve,
    f_beta,
    f_beta_curve,
    iou,
    mae,
    noc,
    of_mask,
    precision,
    recall,
)

if TYPE_CHECKING:
    from alignsam_sb3.metrics.aggregates import BalancedErrorRate, EMeasure, FMeasure, ImageMean, MeanIoU, NoC

__all__ = [
    "METRICS",
    "BalancedErrorRate",
    "EMeasure",
    "FMeasure",
    "ImageMean",
    "Mask",
    "MeanIoU",
    "NoC",
    "Probability",
    "adaptive",
    "ber",
    "boundary_f",
    "clicks_needed",
    "dice",
    "e_measure",
    "e_measure_curve",
    "f_beta",
    "f_beta_curve",
    "iou",
    "mae",
    "noc",
    "of_mask",
    "precision",
    "recall",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 (one of the classes)
    if name in __all__:
        return getattr(import_module("alignsam_sb3.metrics.aggregates"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
