"""What all environments of a process share: one data set, one segmenter, one bank."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError, load_dataset
from alignsam_sb3.features import FeatureBank, build_bank
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter


@dataclass(frozen=True)
class Shared:
    """A data set with the frozen model that answers prompts on it, and that model's embeddings.

    :param images_by_category: the usable images of each category
    """

    dataset: SegmentationDataset
    segmenter: PromptableSegmenter
    bank: FeatureBank
    images_by_category: tuple[NDArray[np.int64], ...]


def share(dataset: SegmentationDataset, segmenter: PromptableSegmenter, on_error: str = "raise") -> Shared:
    """Build (or open) the bank and leave out the images that cannot be read.

    :raises UnreadableImageError: a category has no readable image
    """
    bank = build_bank(dataset, segmenter, on_error=on_error)
    kept = tuple(images[bank.usable[images]] for images in dataset.images_by_category)
    for name, images, before in zip(dataset.categories, kept, dataset.images_by_category, strict=True):
        if len(before) and not len(images):
            raise UnreadableImageError(f"category {name!r}: none of its images can be read; see {bank.folder / 'bank.json'}")
    return Shared(dataset, segmenter, bank, kept)


def share_by_name(
    dataset: str, split: str, dataset_kwargs: Mapping[str, Any] | None, segmenter: str, device: str, on_error: str
) -> Shared:
    """The same for spec strings; equal arguments give one object per process."""
    return _share_by_name(dataset, split, json.dumps(dict(dataset_kwargs or {}), sort_keys=True), segmenter, device, on_error)


@lru_cache(maxsize=8)
def _share_by_name(dataset: str, split: str, options: str, segmenter: str, device: str, on_error: str) -> Shared:
    return share(load_dataset(dataset, split, **json.loads(options)), load_segmenter(segmenter, device), on_error)
