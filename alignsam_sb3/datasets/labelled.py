"""Images with label files beside them: what all such data sets share.

To add one, subclass :class:`LabelledImages` with two methods (where the files are, what a label file says) and name it in
``DATASETS``.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, indices_by_category
from alignsam_sb3.datasets.images import UnreadableImageError, file_stamp, opened_image, read_rgb
from alignsam_sb3.names import nearest

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm")
_FOLDS = ("train", "eval")


@dataclass(frozen=True)
class Record:
    """An image file and what its labels are read from.

    :param image_id: unique within the data set
    :param labels: a path, or what was read of a common annotation file
    """

    image_id: str
    image: Path
    labels: Any


@dataclass(frozen=True)
class Annotation:
    """What is said of one image.

    :param masks: (K, H, W) bool
    :param names: the category of each mask
    :param valid: (H, W) bool, False where the annotation says nothing; None: everywhere valid
    """

    masks: NDArray[np.bool_]
    names: Sequence[str]
    valid: NDArray[np.bool_] | None = None


SPLIT_FOLDERS = {"train": ("train", "training"), "eval": ("val", "validation", "test", "eval")}
"""What folders of training and of evaluation images are usually called, most usual first."""


def stacked(masks: Sequence[NDArray[np.bool_]], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Masks of one size (H, W) as (K, H, W), also where there are none."""
    return np.stack(masks) if masks else np.zeros((0, *size), bool)


def require_folders(what: str, *folders: Path) -> None:
    """Refuse to go on without the folders that a layout has.

    :param what: the layout: "an ADE20K root has images/ and annotations/"
    :raises FileNotFoundError: naming the first that is missing
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: {what}")


def regions(labels: NDArray[np.integer[Any]], names: dict[int, str], ignored: Iterable[int] = ()) -> Annotation:
    """The annotation of a label map (H, W): a mask for each value that has a name; the ignored values are not valid."""
    shown = [int(value) for value in np.unique(labels) if int(value) in names]
    masks = stacked([labels == value for value in shown], labels.shape)
    left_out = np.isin(labels, list(ignored))
    return Annotation(masks, [names[value] for value in shown], ~left_out if left_out.any() else None)


def read_labels(path: Path) -> NDArray[np.int64]:
    """Read a label image (H, W) as stored: palette indices stay indices, 16 bits stay, colours become grey.

    :raises UnreadableImageError: with the path and the reason
    """
    with opened_image(path) as opened:
        stored = opened if opened.mode in ("L", "P", "I", "I;16", "I;16B", "1") else opened.convert("L")
        return np.array(stored).astype(np.int64)


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder and below it, sorted; hidden ones left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(found)


def listed(path: Path) -> list[str]:
    """The first word of each line of a list of names."""
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def in_fold(records: Sequence[Record], split: str, folds: int, fold: int, seed: int) -> list[Record]:
    """Every ``folds``-th record of a seeded order for evaluation, the others for training."""
    if split not in _FOLDS:
        raise ValueError(nearest("split (this folder has no split of its own)", split, _FOLDS))
    if not 2 <= folds <= max(len(records), 2) or not 0 <= fold < folds:
        raise ValueError(
            f"cannot make fold {fold} of {folds} of {len(records)} images: take 2 <= folds <= images, fold < folds"
        )
    order = np.random.default_rng(seed).permutation(len(records))
    held_out = {int(i) for i in order[fold::folds]}
    return [record for i, record in enumerate(records) if (i in held_out) == (split == "eval")]


class LabelledImages(ABC):
    """Base of the data sets that are folders of images and label files.

    All label files are read once when it is opened; images whose labels cannot be used are counted in ``skipped`` (reason
    to file names) and left out. Image files are read when they are asked for.

    :param root: the data set's folder
    :param split: a split that the folder has, or ``"train"`` or ``"eval"``; where it has none these are made by ``folds``
    :param categories: names to keep; by default all that the data set knows
    :param min_area: objects smaller than this fraction of the image are no targets
    :param n_train: train on so many images only, drawn by ``seed``; evaluation keeps all
    :param seed: draws folds and training images
    :param folds: of how many equal parts one is held out for evaluation, where the folder has no splits
    :param fold: which one
    :raises FileNotFoundError: the folder, or what must be in it, is missing
    :raises ValueError: no image is usable, or a category is unknown or never shown
    """

    kind: ClassVar[str]

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        categories: str | Sequence[str] | None = None,
        min_area: float = 0.01,
        n_train: int | None = None,
        seed: int = 0,
        folds: int = 5,
        fold: int = 0,
    ) -> None:
        self.root, self.split, self.min_area = Path(root).expanduser(), split, min_area
        if not self.root.is_dir():
            raise FileNotFoundError(f"no folder at {self.root} for a {self.kind} data set")
        self.skipped: dict[str, list[str]] = {}
        records, given = self._find(split)
        if not given:
            records = in_fold(records, split, folds, fold, seed)
        asked = [categories] if isinstance(categories, str) else categories
        self._names = tuple(self._known() if asked is None else asked)
        for name in self._names:
            if name not in self._known():
                raise ValueError(nearest(f"category of {self.root}", name, self._known()))
        self._records, self._shown = self._scan(records)
        if split == "train" and n_train is not None:
            self._draw(n_train, seed)
        self._check(asked)

    @abstractmethod
    def _find(self, split: str) -> tuple[list[Record], bool]:
        """The records of a split, sorted; or, where the folder has no splits, all of them and False."""

    @abstractmethod
    def _annotate(self, record: Record) -> Annotation:
        """Read what is said of an image."""

    @abstractmethod
    def _known(self) -> Sequence[str]:
        """All categories that the data set knows."""

    def _skip(self, reason: str, name: str) -> None:
        self.skipped.setdefault(reason, []).append(name)

    def _scan(self, records: Sequence[Record]) -> tuple[list[Record], list[set[str]]]:
        """The usable records and what each shows."""
        kept, shown = [], []
        for record in tqdm(records, desc=f"reading labels of {self.root.name}", disable=len(records) < 500, leave=False):
            try:
                names = set(self._usable(self._annotate(record)).names)
            except Exception as error:  # a damaged label file must not stop the others
                self._skip("labels cannot be read", record.image_id)
                logger.debug("%s: %s", record.image_id, error)
                continue
            if not names:
                self._skip("shows no category on enough of the image", record.image_id)
                continue
            kept.append(record)
            shown.append(names)
        if self.skipped:
            said = "; ".join(f"{why}: {len(which)} (first {which[0]})" for why, which in self.skipped.items())
            logger.warning("%s, %s: %d images skipped: %s", self.root, self.split, sum(map(len, self.skipped.values())), said)
        return kept, shown

    def _usable(self, found: Annotation) -> Annotation:
        """Without small objects and unwanted categories."""
        least = max(self.min_area * found.masks.shape[1] * found.masks.shape[2], 1)
        keep = [
            k
            for k, (m, name) in enumerate(zip(found.masks, found.names, strict=True))
            if name in self._names and m.sum() >= least
        ]
        return Annotation(found.masks[keep], [found.names[k] for k in keep], found.valid)

    def _draw(self, count: int, seed: int) -> None:
        if not 1 <= count <= len(self._records):
            raise ValueError(f"n_train is {count}, and {self.root} has {len(self._records)} usable training images")
        chosen = sorted(np.random.default_rng([seed, count]).permutation(len(self._records))[:count].tolist())
        self._records, self._shown = [self._records[i] for i in chosen], [self._shown[i] for i in chosen]

    def _check(self, asked: Sequence[str] | None) -> None:
        found = Counter(name for names in self._shown for name in names)
        empty = [name for name in self._names if not found[name]]
        if not self._records or (asked and empty):
            reasons = {why: len(which) for why, which in self.skipped.items()}
            raise ValueError(
                f"{self.root}, split {self.split!r}: no usable image of {', '.join(empty) or 'anything'} (skipped: "
                f"{reasons or 'none'}). Objects under {self.min_area:.1%} of the image are left out: lower min_area, or run "
                "`python -m alignsam_sb3.datasets describe` to see what is there"
            )

    @property
    def categories(self) -> tuple[str, ...]:
        return self._names

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for record in self._records:
            digest.update(f"{record.image_id}|{file_stamp(record.image)}\n".encode())
        return f"{self.kind}-{self.split}-{len(self)}-{digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        try:
            found = self._usable(self._annotate(record))
        except UnreadableImageError:
            raise
        except Exception as error:
            raise UnreadableImageError(f"{record.image_id}: labels cannot be read: {type(error).__name__}: {error}") from error
        height, width = found.masks.shape[1:]
        image = read_rgb(record.image, (height, width))
        ids = np.array([self._names.index(name) for name in found.names], np.int64)
        return Sample(record.image_id, image, found.masks, ids, found.valid)

    @cached_property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        return indices_by_category(self._shown, self._names)
