"""Images and instance masks: toy scenes, COCO.

A data set is named by one string everywhere: ``toy:saliency``, ``toy:semantic``, ``coco:ROOT`` or ``coco:ROOT:SPLIT``.
"""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from alignsam_sb3.datasets.base import Sample, SegmentationDataset, draw_episode
from alignsam_sb3.datasets.coco import CocoDataset
from alignsam_sb3.datasets.images import UnreadableImageError
from alignsam_sb3.datasets.toy import ToyScenes
from alignsam_sb3.names import nearest

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {"toy": ToyScenes, "coco": CocoDataset}


def load_dataset(spec: str, split: str = "train", **kwargs: Any) -> SegmentationDataset:  # noqa: ANN401
    """Open the data set that a spec string names.

    :param spec: ``KIND:WHERE`` or ``KIND:WHERE:SPLIT``; a split in the spec goes before ``split``
    :param split: ``"train"`` or ``"eval"``
    :param kwargs: options of that kind of data set
    :raises ValueError: there is no such kind, or it has no such option

    >>> load_dataset("toy:saliency", "eval", n_images=3).fingerprint
    'toy-saliency-eval-3-0-128-0.01-v1'
    """
    kind, _, where = spec.partition(":")
    if kind not in DATASETS:
        raise ValueError(
            nearest("kind of data set", kind, DATASETS) + ". Write KIND:WHERE, as in toy:saliency or coco:/data/coco"
        )
    own_split = ""
    if ":" in where and not Path(where).expanduser().is_dir():
        where, _, own_split = where.rpartition(":")
    options = [name for name in signature(DATASETS[kind]).parameters if name not in ("root", "task", "split")]
    for name in kwargs:
        if name not in options:
            raise ValueError(nearest(f"option of a {kind} data set", name, options))
    return DATASETS[kind](where, own_split or split, **kwargs)


__all__ = [
    "DATASETS",
    "CocoDataset",
    "Sample",
    "SegmentationDataset",
    "ToyScenes",
    "UnreadableImageError",
    "draw_episode",
    "load_dataset",
]
