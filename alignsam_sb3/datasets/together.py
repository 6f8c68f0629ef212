"""Several data sets as one: what a policy was trained on, and what people corrected since."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.base import ANY_CATEGORY, Sample, SegmentationDataset
from alignsam_sb3.datasets.seen import Hashes, SeenImages, image_hashes

logger = logging.getLogger(__name__)


class Together:
    """The images of several data sets, one set after the other. Categories of one name are one category.

    :param parts: the data sets
    :param held_out: images that are for evaluation in any of them: these are left out, and counted in a warning
    :param categories: names to keep; by default all that any of them has
    """

    def __init__(
        self, parts: Sequence[SegmentationDataset], held_out: SeenImages | None = None, categories: Sequence[str] = ()
    ) -> None:
        self.parts = tuple(parts)
        self.labelled = all(getattr(part, "labelled", True) for part in parts)
        self._names = tuple(categories) or tuple(dict.fromkeys(name for part in parts for name in part.categories))
        self._places = [self._place(part) for part in parts]
        usable = [self._usable(part, held_out) for part in parts]
        self._rows = [(k, int(i)) for k, mine in enumerate(usable) for i in np.flatnonzero(mine)]
        self._numbers = {row: number for number, row in enumerate(self._rows)}
        left_out = sum(int((~mine).sum()) for mine in usable)
        if left_out:
            logger.warning("%d images are left out of training: they are for evaluation in one of the data sets", left_out)

    def _place(self, part: SegmentationDataset) -> NDArray[np.int64]:
        """For each category of a part its place in the whole, -1 for none."""
        return np.array([self._names.index(name) if name in self._names else -1 for name in part.categories], np.int64)

    def _usable(self, part: SegmentationDataset, held_out: SeenImages | None) -> NDArray[np.bool_]:
        return np.ones(len(part), bool) if not held_out else ~held_out.contains(image_hashes(part))

    @property
    def categories(self) -> tuple[str, ...]:
        return self._names

    @cached_property
    def fingerprint(self) -> str:
        named = repr([[part.fingerprint for part in self.parts], self._rows, self._names])
        return f"together-{len(self)}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        k, row = self._rows[index]
        sample, place = self.parts[k][row], self._places[k]
        ids = place[sample.category_ids]
        left_out = {
            key if key == ANY_CATEGORY else int(place[key]): mask
            for key, mask in sample.left_out.items()
            if key == ANY_CATEGORY or place[key] >= 0
        }
        name = f"{k}:{sample.image_id}" if k else sample.image_id  # one name may be in several of them
        return Sample(name, sample.image, sample.masks[ids >= 0], ids[ids >= 0], sample.valid, left_out)

    def stored(self, index: int) -> NDArray[Any]:
        """The pixels of an image's file, (H, W, 3), or of the image where it has no file."""
        k, row = self._rows[index]
        read = getattr(self.parts[k], "stored", None)
        return read(row) if read is not None else self.parts[k][row].image

    def content_key(self, index: int) -> bytes:
        """Changes when the bytes of an image's file do; of an image that has no file it says nothing."""
        k, row = self._rows[index]
        key = getattr(self.parts[k], "content_key", None)
        return b"" if key is None else bytes(key(row))

    @cached_property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        return tuple(np.array(sorted(self._showing(c)), np.int64) for c in range(len(self._names)))

    def _showing(self, category: int) -> Iterator[int]:
        for k, (part, place) in enumerate(zip(self.parts, self._places, strict=True)):
            for mine in np.flatnonzero(place == category):
                rows = part.images_by_category[mine]
                yield from (self._numbers[k, int(row)] for row in rows if (k, int(row)) in self._numbers)


def held_out_in(parts: Sequence[SegmentationDataset]) -> SeenImages:
    """The images of data sets that are for evaluation."""
    hashes: list[Hashes] = [image_hashes(part) for part in parts]
    return SeenImages(np.concatenate(hashes)) if hashes else SeenImages()
