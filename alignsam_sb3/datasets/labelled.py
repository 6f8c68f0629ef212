"""Images with annotations: what all such data sets share.

To add one, subclass :class:`LabelledImages` with three methods (where the files are, what a label file says, which categories
there are) and name it in ``DATASETS``.
"""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets.archives import as_folder
from alignsam_sb3.datasets.base import ANY_CATEGORY, Sample, indices_by_category
from alignsam_sb3.datasets.finding import images_in, printable
from alignsam_sb3.datasets.image_files import MAX_PIXELS, Source, UnreadableImageError, content_key, file_stamp
from alignsam_sb3.datasets.images import PhotoReader, other_size, stored_pixels
from alignsam_sb3.datasets.labels import read_labels
from alignsam_sb3.datasets.mask_values import AmbiguousMasksError
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask, area_of, plain_name, regions, size_of, stacked, union
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import Folds, in_fold, of_folders
from alignsam_sb3.names import first_of, nearest

logger = logging.getLogger(__name__)

__all__ = ["Annotation", "LabelledImages", "LeftOut", "Record", "images_in", "read_labels", "regions", "stacked"]

_SHAPE = 0.02  # by so much the proportions of a mask may differ from its photo's when it is resized


@dataclass(frozen=True)
class Record:
    """An image file and what its labels are read from.

    :param image_id: unique within the data set
    :param labels: a path, or what was read of a common annotation file
    """

    image_id: str
    image: Path
    labels: Any


def require_folders(what: str, *folders: Path) -> None:
    """Refuse to go on without the folders that a layout has.

    :param what: the layout: "an ADE20K root has images/ and annotations/"
    :raises FileNotFoundError: naming the first that is missing
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: {what}")


def listed(path: Path) -> list[str]:
    """The first word of each line of a list of names."""
    lines = path.read_text("utf-8-sig").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


class LabelledImages(ABC):
    """Base of the data sets that are folders of images and annotations.

    All annotations are read once when it is opened. Images whose labels cannot be used are left out. Objects that are no
    targets are ignored: too small, too many, crowds, shapes without an area. They count neither as object nor as background.
    Both are counted in ``skipped``, with the reason. Image files are read when they are asked for; ``rules`` counts how.

    :param root: the data set's folder, or a ``.zip`` of it
    :param split: a split that the folder has, ``"train"`` or ``"eval"`` (where it has none these are made by ``folds``), or
        ``"all"``
    :param categories: names to keep; by default all that the data set knows
    :param min_area: objects smaller than this fraction of the image are no targets
    :param max_instances: at most this many objects of a category are targets in an image, the largest; None: all
    :param n_train: train on so many images only, drawn by ``seed``; evaluation keeps all
    :param seed: draws folds and training images
    :param folds: of how many equal parts one is held out for evaluation, where the folder has no splits; five by default
    :param fold: which one
    :param part: a split of the folder which is itself divided by ``folds``
    :param orientation: ``"turned"`` or ``"stored"``: how photos with an EXIF orientation fit their labels; by default as the
        kind's tools do it (:class:`~alignsam_sb3.datasets.images.PhotoReader`)
    :param scale: what becomes white in photos of more than 8 bits, or [black, white]; by default as the reader's rule says
    :param resize_masks: bring masks of another size to that of their photo; by default such a pair is an error
    :ivar kept_apart: images that folds keep for the other split
    :raises FileNotFoundError: the folder, or what must be in it, is missing
    :raises ValueError: no image is usable, or a category is unknown or never shown
    """

    kind: ClassVar[str]
    orientation_rule: ClassVar[str] = "turned"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        categories: str | Sequence[str] | None = None,
        min_area: float = 0.01,
        max_instances: int | None = None,
        n_train: int | None = None,
        seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        part: str | None = None,
        orientation: str | None = None,
        scale: float | Sequence[float] | None = None,
        resize_masks: bool = False,
    ) -> None:
        self.split, self.min_area, self.max_instances = split, min_area, max_instances
        self._resize, self.kept_apart = resize_masks, 0
        self.skipped, self._seen_rules, self._scanned = Skipped(), Counter[str](), False
        self.photos = PhotoReader(self.orientation_rule, orientation, scale)
        self.root = self._place(Path(root).expanduser())
        records, given = self._find(part or split)
        self._found = len(records)
        if part or not given:
            images = [record.image for record in records]
            chosen = in_fold(images, split, Folds(folds, fold, seed), self.root) if records else []
            self.kept_apart, records = len(records) - len(chosen), [records[i] for i in chosen]
        asked = [categories] if isinstance(categories, str) else categories
        known = dict.fromkeys(map(plain_name, self._known()))
        self._names = tuple(known if asked is None else dict.fromkeys(map(plain_name, asked)))
        for name in self._names:
            if name not in known:
                raise ValueError(nearest(f"category of {self.root}", name, known))
        self._records, self._shown = self._scan(records)
        self._scanned = True
        if split == "train" and n_train is not None:
            self._draw(n_train, seed)
        self._check(asked)

    def _place(self, root: Path) -> Path:
        """The folder that is read."""
        if not root.exists():
            raise FileNotFoundError(f"no folder at {root} for a {self.kind} data set")
        return as_folder(root)

    @abstractmethod
    def _find(self, split: str) -> tuple[list[Record], bool]:
        """The records of a split, sorted; or, where the folder has no splits, all of them and False."""

    @abstractmethod
    def _annotate(self, record: Record) -> Annotation:
        """Read what is said of an image."""

    @abstractmethod
    def _known(self) -> Sequence[str]:
        """All categories that the data set knows."""

    def _source(self, record: Record) -> Source:
        """What the photo is read from."""
        return record.image

    def _of_split(self, records: list[Record], names: Sequence[PurePath], split: str) -> tuple[list[Record], bool]:
        """What :meth:`_find` gives where folders' names may say which split an image belongs to.

        :param names: for each record the path that is looked at
        """
        images, ids = [record.image for record in records], [record.image_id for record in records]
        chosen = of_folders(images, names, split, self.root, ids, self.skipped)
        return (records, False) if chosen is None else ([records[i] for i in chosen], True)

    def _skip(self, reason: str, name: str) -> None:
        self.skipped.add(reason, name)

    def _note(self, rule: str) -> None:
        """Count that a rule was applied to one more label file, while all are read for the first time."""
        if not self._scanned:
            self._seen_rules[rule] += 1

    def _scan(self, records: Sequence[Record]) -> tuple[list[Record], list[set[str]]]:
        """The usable records and what each shows."""
        kept, shown = [], []
        for record in tqdm(records, desc=f"reading labels of {self.root.name}", disable=len(records) < 500, leave=False):
            try:
                found = self._usable(self._annotate(record))
            except AmbiguousMasksError as error:
                self._skip(f"images: {error}", record.image_id)
                continue
            except Exception as error:  # a damaged label file must not stop the others
                self._skip("images: labels cannot be read", f"{record.image_id}: {_short(error, self.root)}")
                continue
            for thing in found.left_out:
                self._skip(f"objects: {thing.reason}", record.image_id)
            names = set(found.names)
            if not names:
                self._skip("images: show no category on enough of the image", record.image_id)
                continue
            kept.append(record)
            shown.append(names)
        if self.skipped:
            images = sum(len(names) for reason, names in self.skipped.items() if not reason.startswith("objects"))
            log = logger.warning if images else logger.info
            log("%s, %s: %d images skipped. Left out: %s", self.root, self.split, images, self.skipped)
        return kept, shown

    def _usable(self, found: Annotation) -> Annotation:
        """Without objects that are no targets: these are left out, and unwanted categories forgotten."""
        height, width = found.shape
        found = _plainly_named(found)
        least = max(self.min_area * height * width, 1)
        kept: list[tuple[int, int, str, Mask]] = []
        left_out = [thing for thing in found.left_out if thing.name is None or thing.name in self._names]
        for k, (mask, name) in enumerate(zip(found.masks, found.names, strict=True)):
            area = area_of(mask)
            if name in self._names and area >= least:
                kept.append((k, area, name, mask))
            elif name in self._names:
                left_out.append(LeftOut(name, mask, f"smaller than {self.min_area:.2%} of the image" if area else "empty"))
        if self.max_instances is not None:
            taken = Counter[str]()
            beyond = set()
            for k, _, name, mask in sorted(kept, key=lambda thing: (-thing[1], thing[0])):
                taken[name] += 1
                if taken[name] > self.max_instances:
                    beyond.add(k)
                    left_out.append(LeftOut(name, mask, f"more than max_instances={self.max_instances}"))
            kept = [thing for thing in kept if thing[0] not in beyond]
        return Annotation([t[3] for t in kept], [t[2] for t in kept], found.valid, left_out, (height, width))

    def _draw(self, count: int, seed: int) -> None:
        if not 1 <= count <= len(self._records):
            raise ValueError(f"n_train is {count}, and {self.root} has {len(self._records)} usable training images")
        chosen = sorted(np.random.default_rng([seed, count]).permutation(len(self._records))[:count].tolist())
        self._records, self._shown = [self._records[i] for i in chosen], [self._shown[i] for i in chosen]

    def _check(self, asked: Sequence[str] | None) -> None:
        found = Counter(name for names in self._shown for name in names)
        empty = [name for name in self._names if not found[name]]
        if not self._records or (asked and empty):
            raise ValueError(
                f"{self.root}, split {self.split!r}: no usable image of {first_of(empty) or 'anything'}: of {self._found} "
                f"images found {len(self._records)} are usable. Left out: {self.skipped}. Objects under {self.min_area:.1%} "
                "of the image are no targets: lower min_area. `python -m alignsam_sb3.datasets describe` says what is there"
            )

    @property
    def categories(self) -> tuple[str, ...]:
        return self._names

    @property
    def rules(self) -> Counter[str]:
        """Which rules were applied to how many files so far: orientation, depth, mask values, file names."""
        return self._seen_rules + self.photos.rules

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.photos.key.encode())
        for record in self._records:
            line = f"{record.image_id}|{file_stamp(record.image)}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return f"{self.kind}-{self.split}-{len(self)}-{digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._records)

    def stored(self, index: int) -> NDArray[Any]:
        """The pixels of one photograph's file, (H, W, 3), see :func:`~alignsam_sb3.datasets.images.stored_pixels`."""
        return stored_pixels(self._source(self._records[index]))

    def content_key(self, index: int) -> bytes:
        """Changes when the bytes of a photograph do."""
        try:
            return content_key(self._source(self._records[index]))
        except (OSError, ValueError, KeyError, TypeError):  # of a damaged file that holds it; reading it says so
            return b""

    def __getitem__(self, index: int) -> Sample:
        record = self._records[index]
        try:
            found = self._usable(self._annotate(record))
        except UnreadableImageError:
            raise
        except Exception as error:
            raise UnreadableImageError(f"{record.image_id}: labels cannot be read: {type(error).__name__}: {error}") from error
        source = self._source(record)
        image = self.photos.read(source, found.shape)
        size = (image.shape[0], image.shape[1])
        if size != found.shape:
            if not self._resize:
                raise UnreadableImageError(other_size(source, size, found.shape))
            self._seen_rules["masks resized to their photo"] += 1
            found = resized(found, size, source)
        ids = np.array([self._names.index(name) for name in found.names], np.int64)
        masks = stacked(found.masks, size)
        return Sample(record.image_id, image, masks, ids, found.valid, self._unjudged(found, size))

    def _unjudged(self, found: Annotation, size: tuple[int, int]) -> dict[int, NDArray[np.bool_]]:
        """Where things are that are left out, by category."""
        masks: dict[int, list[Mask]] = {}
        for thing in found.left_out:
            if thing.mask is not None and size_of(thing.mask) == size:
                key = ANY_CATEGORY if thing.name is None else self._names.index(thing.name)
                masks.setdefault(key, []).append(thing.mask)
        unions = {key: union(some, size) for key, some in masks.items()}
        return {key: mask for key, mask in unions.items() if mask.any()}

    @cached_property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        return indices_by_category(self._shown, self._names)


def _plainly_named(found: Annotation) -> Annotation:
    """Names as they are compared, see :func:`~alignsam_sb3.datasets.regions.plain_name`."""
    left_out = [t if t.name is None else replace(t, name=plain_name(t.name)) for t in found.left_out]
    return replace(found, names=[*map(plain_name, found.names)], left_out=left_out)


def resized(found: Annotation, size: tuple[int, int], source: Source) -> Annotation:
    """An annotation brought to the size (H, W) of its photo, nearest pixel.

    :raises UnreadableImageError: the proportions differ, so that the two are hardly a pair
    """
    if found.shape[0] * found.shape[1] > MAX_PIXELS:
        raise UnreadableImageError(other_size(source, size, found.shape))
    if abs(found.shape[1] * size[0] / (found.shape[0] * size[1]) - 1) > _SHAPE and abs(found.shape[0] - size[0]) > 2:
        raise UnreadableImageError(other_size(source, size, found.shape) + ": their proportions differ too")

    def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)).astype(bool)

    masks = [grown(mask) for mask in stacked(found.masks, found.shape)]
    left_out = [
        thing if thing.mask is None else replace(thing, mask=grown(stacked([thing.mask], found.shape)[0]))
        for thing in found.left_out
    ]
    valid = None if found.valid is None else grown(found.valid)
    return Annotation(masks, found.names, valid, left_out, size)


def _short(error: Exception, root: Path) -> str:
    said = str(error).replace(f"{root}/", "")
    return printable(said if isinstance(error, UnreadableImageError) else f"{type(error).__name__}: {said}")[:200]
