"""Metrics of masks: functions of one image, and (in :mod:`alignsam_sb3.metrics.aggregates`) classes that add images up."""

from alignsam_sb3.metrics.aggregates import BalancedErrorRate, EMeasure, FMeasure, ImageMean, MeanIoU, NoC
from alignsam_sb3.metrics.functional import (
    METRICS,
    Mask,
    Probability,
    ber,
    boundary_f,
    dice,
    e_measure,
    e_measure_curve,
    f_beta,
    f_beta_curve,
    iou,
    mae,
    noc,
    precision,
    recall,
)

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
    "ber",
    "boundary_f",
    "dice",
    "e_measure",
    "e_measure_curve",
    "f_beta",
    "f_beta_curve",
    "iou",
    "mae",
    "noc",
    "precision",
    "recall",
]
