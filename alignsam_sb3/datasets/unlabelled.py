"""A folder of images of which nothing is known: what there is to annotate."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.base import Sample
from alignsam_sb3.datasets.images import file_stamp, read_rgb
from alignsam_sb3.datasets.labelled import SPLIT_FOLDERS, Record, images_in, in_fold


class UnlabelledImages:
    """Images without masks: every image is offered for every category, and only a reward network can score what is done.

    A sample's masks are none and its ``valid`` is False everywhere: the annotation says nothing of any pixel.

    :param root: a folder of images; its sub-folders count, and ``train`` and ``val`` or ``test`` among them are splits
    :param split: ``"train"`` or ``"eval"``; where the folder has no splits these are made by ``folds``
    :param categories: what to look for
    :param seed: draws the folds
    :param folds: of how many equal parts one is held out for evaluation, where the folder has no splits
    :param fold: which one
    :raises FileNotFoundError: there is no such folder
    :raises ValueError: it has no images
    """

    labelled = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        categories: str | Sequence[str] = ("object",),
        seed: int = 0,
        folds: int = 5,
        fold: int = 0,
    ) -> None:
        self.root, self.split = Path(root).expanduser(), split
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder of images at {self.root}")
        self.categories = (categories,) if isinstance(categories, str) else tuple(categories)
        inside = [self.root / name for name in SPLIT_FOLDERS.get(split, (split,)) if (self.root / name).is_dir()]
        others = [name for names in SPLIT_FOLDERS.values() for name in names if (self.root / name).is_dir()]
        if others and not inside:
            raise FileNotFoundError(
                f"{self.root} has a folder {others[0]}/ but none for split {split!r}: folds across it would mix training and "
                f"evaluation. Make one, or name {self.root / others[0]} itself"
            )
        found = images_in(inside[0] if inside else self.root)
        records = [Record(str(path.relative_to(self.root)), path, None) for path in found]
        self._records = records if inside else in_fold(records, split, folds, fold, seed)
        if not self._records:
            raise ValueError(f"no images in {self.root} for split {split!r}: a folder of .jpg, .png or the like is expected")

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256("".join(f"{r.image_id}|{file_stamp(r.image)}\n" for r in self._records).encode())
        return f"images-{self.split}-{len(self)}-{digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        image = read_rgb(self._records[index].image)
        nothing = np.zeros(image.shape[:2], bool)
        return Sample(self._records[index].image_id, image, nothing[None][:0], np.zeros(0, np.int64), nothing)

    @property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        return (np.arange(len(self)),) * len(self.categories)
