"""A folder of images of which nothing is known: what there is to annotate."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.archives import as_folder
from alignsam_sb3.datasets.base import Sample
from alignsam_sb3.datasets.finding import images_in, printable
from alignsam_sb3.datasets.image_files import content_key, file_stamp
from alignsam_sb3.datasets.images import PhotoReader, stored_pixels
from alignsam_sb3.datasets.labelled import Record
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import Folds, in_fold, of_folders


class UnlabelledImages:
    """Images without masks: every image is offered for every category, and only a reward network can score what is done.

    A sample's masks are none and its ``valid`` is False everywhere: the annotation says nothing of any pixel.

    :param root: a folder of images, or a ``.zip``; its sub-folders count, and ``train`` and ``val`` or ``test`` among them are
        splits
    :param split: ``"train"``, ``"eval"``, or ``"all"``; where the folder has no splits these are made by ``folds``
    :param categories: what to look for
    :param n_train: train on so many images only, drawn by ``seed``
    :param seed: draws the folds
    :param folds: of how many equal parts one is held out for evaluation, where the folder has no splits
    :param fold: which one
    :param part: a split of the folder which is itself divided by ``folds``
    :param orientation: ``"turned"`` or ``"stored"``; by default as viewers show it
    :param scale: what becomes white in photos of more than 8 bits, or [black, white]
    :ivar kept_apart: images that folds keep for the other split
    :raises FileNotFoundError: there is no such folder
    :raises ValueError: it has no images
    """

    labelled = False

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        categories: str | Sequence[str] = ("object",),
        n_train: int | None = None,
        seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        part: str | None = None,
        orientation: str | None = None,
        scale: float | Sequence[float] | None = None,
    ) -> None:
        given, self.split, self.kept_apart = Path(root).expanduser(), split, 0
        if not given.exists():
            raise FileNotFoundError(f"no folder of images at {given}")
        self.root = as_folder(given)
        self.photos, self.skipped = PhotoReader("turned", orientation, scale), Skipped()
        self.categories = (categories,) if isinstance(categories, str) else tuple(categories)
        paths = images_in(self.root, self.skipped)
        names = [path.relative_to(self.root) for path in paths]
        chosen = of_folders(paths, names, part or split, self.root, [*map(printable, names)], self.skipped)
        if chosen is not None:
            paths = [paths[i] for i in chosen]
        if part or chosen is None:
            of_fold = in_fold(paths, split, Folds(folds, fold, seed), self.root) if paths else []
            self.kept_apart, paths = len(paths) - len(of_fold), [paths[i] for i in of_fold]
        if split == "train" and n_train is not None and n_train < len(paths):
            drawn = np.random.default_rng([seed, n_train]).permutation(len(paths))[:n_train]
            paths = [paths[i] for i in sorted(drawn.tolist())]
        self._records = [Record(printable(path.relative_to(self.root)), path, None) for path in paths]
        if not self._records:
            raise ValueError(
                f"no images in {self.root} for split {split!r}: a folder of .jpg, .png or the like is expected. "
                f"Left out: {self.skipped}"
            )

    @property
    def rules(self) -> Counter[str]:
        """Which rules were applied to how many files so far."""
        return self.photos.rules

    @cached_property
    def fingerprint(self) -> str:
        lines = "".join(f"{r.image_id}|{file_stamp(r.image)}\n" for r in self._records)
        digest = hashlib.sha256((self.photos.key + lines).encode("utf-8", "surrogateescape"))
        return f"images-{self.split}-{len(self)}-{digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._records)

    def stored(self, index: int) -> NDArray[Any]:
        """The pixels of one photograph's file, (H, W, 3), see :func:`~alignsam_sb3.datasets.images.stored_pixels`."""
        return stored_pixels(self._records[index].image)

    def content_key(self, index: int) -> bytes:
        """Changes when the bytes of an image's file do."""
        return content_key(self._records[index].image)

    def __getitem__(self, index: int) -> Sample:
        image = self.photos.read(self._records[index].image)
        nothing = np.zeros(image.shape[:2], bool)
        return Sample(self._records[index].image_id, image, nothing[None][:0], np.zeros(0, np.int64), nothing)

    @property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        return (np.arange(len(self)),) * len(self.categories)
