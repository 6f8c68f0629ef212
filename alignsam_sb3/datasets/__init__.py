"""Images and instance masks.

A data set is named by one string: ``toy:semantic``, ``coco:ROOT``, ``mask_folder:ROOT`` or, with a split of its own,
``voc:ROOT:trainval``; several are joined by ``+``. :data:`DATASETS` holds the kinds;
``python -m alignsam_sb3.datasets describe SPEC`` says what one holds.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from alignsam_sb3.datasets.ade20k import Ade20k, Ade20kFull
from alignsam_sb3.datasets.base import Sample, SegmentationDataset, draw_absent, draw_episode
from alignsam_sb3.datasets.cityscapes import Cityscapes
from alignsam_sb3.datasets.coco import CocoDataset
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.labelled import LabelledImages
from alignsam_sb3.datasets.labelme import LabelMe
from alignsam_sb3.datasets.mask_folder import MaskFolder
from alignsam_sb3.datasets.oxford_pets import OxfordPets
from alignsam_sb3.datasets.polygons import PolygonList
from alignsam_sb3.datasets.together import Together, held_out_in
from alignsam_sb3.datasets.toy import ToyScenes
from alignsam_sb3.datasets.unlabelled import UnlabelledImages
from alignsam_sb3.datasets.voc import Voc
from alignsam_sb3.datasets.yolo import YoloSegmentation
from alignsam_sb3.names import nearest

DATASETS: dict[str, Callable[..., SegmentationDataset]] = {
    "toy": ToyScenes,
    "coco": CocoDataset,
    "mask_folder": MaskFolder,
    "polygons": PolygonList,
    "voc": Voc,
    "ade20k": Ade20k,
    "ade20k_full": Ade20kFull,
    "cityscapes": Cityscapes,
    "oxford_pets": OxfordPets,
    "labelme": LabelMe,
    "yolo": YoloSegmentation,
    "images": UnlabelledImages,
}


def load_dataset(spec: str, split: str = "train", **kwargs: Any) -> SegmentationDataset:  # noqa: ANN401
    """Open the data set that a spec string names.

    :param spec: ``KIND:WHERE`` or ``KIND:WHERE:SPLIT``; a split in the spec goes before ``split``, and ``folds`` divide it.
        ``KIND:WHERE+KIND:WHERE`` are both together
    :param split: ``"train"``, ``"eval"``, or ``"all"`` for everything
    :param kwargs: options of that kind of data set; one that differs between splits is ``{"train": ..., "eval": ...}``
    :raises ValueError: there is no such kind, or it has no such option

    >>> load_dataset("toy:saliency", "eval", n_images=3).fingerprint
    'toy-saliency-eval-3-0-128-0.01-v2'
    """
    parts = parts_of(spec)
    if len(parts) > 1:
        return _together(parts, split, kwargs)
    kind, where, own_split = _read_spec(spec)
    options = _options_of(kind)
    for name in kwargs:
        if name not in options:
            raise ValueError(nearest(f"option of a {kind} data set", name, options))
    kwargs = {name: of_split(value, split) for name, value in kwargs.items()}
    if own_split and "part" in options and kwargs.keys() & {"folds", "fold"}:
        return DATASETS[kind](where, split, part=own_split, **kwargs)
    return DATASETS[kind](where, own_split or split, **kwargs)


def require(spec: str) -> None:
    """Refuse a data set whose kind is unknown, or that is not there, without reading it.

    :param spec: as :func:`load_dataset` takes it
    :raises ValueError: there is no such kind, or no such task of toy scenes
    :raises FileNotFoundError: nothing is at its place
    """
    for kind, where, _ in map(_read_spec, parts_of(spec)):
        if kind == "toy":
            ToyScenes(where)  # draws nothing yet
        elif not any(Path(place).expanduser().exists() for place in (where, where.partition("@")[0])):
            raise FileNotFoundError(f"nothing at {where} for a {kind} data set")


def _read_spec(spec: str) -> tuple[str, str, str]:
    """Kind, place and split of its own (or nothing) of one data set.

    :raises ValueError: there is no such kind
    """
    kind, _, where = spec.partition(":")
    if kind not in DATASETS:
        raise ValueError(
            nearest("kind of data set", kind, DATASETS) + ". Write KIND:WHERE, as in toy:saliency or coco:/data/coco"
        )
    own_split = ""
    if ":" in where and not Path(where.partition("@")[0]).expanduser().exists():
        where, _, own_split = where.rpartition(":")
    return kind, where, own_split


def parts_of(spec: str) -> list[str]:
    """The specs that are joined by ``+`` in one.

    >>> parts_of("coco:a+b+toy:blur")
    ['coco:a+b', 'toy:blur']
    """
    return re.split(rf"\+(?=(?:{'|'.join(map(re.escape, DATASETS))}):)", spec)


def _together(specs: Sequence[str], split: str, kwargs: Mapping[str, Any]) -> Together:
    """Several data sets as one. Each takes the options that it has; the categories asked for are the first one's to know."""
    categories: Any = of_split(kwargs.get("categories") or (), split)
    options = [_options_of(spec.partition(":")[0]) for spec in specs]
    for name in kwargs:
        if not any(name in known for known in options):
            raise ValueError(nearest(f"option of {' + '.join(specs)}", name, sorted({n for known in options for n in known})))

    def opened(k: int, split: str) -> SegmentationDataset:
        mine = {name: value for name, value in kwargs.items() if name in options[k] and (name != "categories" or k == 0)}
        return load_dataset(specs[k], split, **mine)

    held_out = []
    for k in range(len(specs) if split == "train" else 0):
        try:
            held_out.append(opened(k, "eval"))
        except (FileNotFoundError, ValueError):  # it has nothing for evaluation
            continue
    parts = [opened(k, split) for k in range(len(specs))]
    names = [categories] if isinstance(categories, str) else list(categories)
    return Together(parts, held_out_in(held_out), names)


def of_split(value: object, split: str) -> object:
    """An option that differs between splits, written ``{"train": ..., "eval": ...}``, for one of them."""
    if isinstance(value, Mapping) and set(value) == {"train", "eval"} and split in value:
        return value[split]
    return value


def _options_of(kind: str) -> list[str]:
    """Names of the options that a kind of data set takes, those of its base class included."""
    taken = list(signature(DATASETS[kind]).parameters)
    if "options" in taken:
        taken += signature(LabelledImages).parameters
    return [name for name in dict.fromkeys(taken) if name not in ("root", "task", "split", "options")]


__all__ = [
    "DATASETS",
    "CocoDataset",
    "LabelledImages",
    "Sample",
    "SegmentationDataset",
    "Together",
    "ToyScenes",
    "UnlabelledImages",
    "UnreadableImageError",
    "draw_absent",
    "draw_episode",
    "load_dataset",
    "of_split",
    "parts_of",
    "require",
]
