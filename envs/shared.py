"""What all environments of a process share: one data set, one segmenter, one CLIP, and what these say of the images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError, load_dataset
from alignsam_sb3.features import FeatureBank, SegmenterSource, build_bank
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics import ClipSurgery, LanguagePrior, load_clip


@dataclass(frozen=True)
class Shared:
    """A data set with the frozen models that answer prompts and texts on it, and what they say of its images.

    :param bank: the segmenter's embeddings
    :param images_by_category: the usable images of each category
    :param language: similarity maps and scores of the categories' texts, where there is a language prior
    """

    dataset: SegmentationDataset
    segmenter: PromptableSegmenter
    bank: FeatureBank
    images_by_category: tuple[NDArray[np.int64], ...]
    language: FeatureBank | None = None
    texts: tuple[str, ...] = ()


def share(
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    on_error: str = "raise",
    clip: ClipSurgery | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Shared:
    """Build (or open) the banks and leave out the images that cannot be read.

    :param clip: the language prior, if there is to be one
    :param prompts: what to ask the prior for a category, where its name does not say it
    :raises UnreadableImageError: a category has no readable image
    :raises ValueError: ``prompts`` names a category that the data set lacks
    """
    bank = build_bank(dataset, SegmenterSource(segmenter), on_error=on_error)
    for name in prompts or {}:
        if name not in dataset.categories:
            raise ValueError(nearest("category in prompts", name, dataset.categories))
    usable, language = bank.usable, None
    texts: tuple[str, ...] = ()
    if clip is not None:
        texts = tuple((prompts or {}).get(name, name) for name in dataset.categories)
        clip.check_words(texts)
        language = build_bank(dataset, LanguagePrior(clip, texts), on_error=on_error)
        usable = usable & language.usable
    kept = tuple(images[usable[images]] for images in dataset.images_by_category)
    for name, images, before in zip(dataset.categories, kept, dataset.images_by_category, strict=True):
        if len(before) and not len(images):
            raise UnreadableImageError(f"category {name!r}: none of its images can be read; see {bank.folder / 'bank.json'}")
    return Shared(dataset, segmenter, bank, kept, language, texts)


def share_by_name(
    dataset: str,
    split: str,
    dataset_kwargs: Mapping[str, Any] | None,
    segmenter: str,
    device: str,
    on_error: str,
    clip: str | None = None,
    prompts: Mapping[str, str] | None = None,
) -> Shared:
    """The same for spec strings; equal arguments give one object per process."""
    options = json.dumps([dict(dataset_kwargs or {}), dict(prompts or {})], sort_keys=True)
    return _share_by_name(dataset, split, options, segmenter, device, on_error, clip)


@lru_cache(maxsize=8)
def _share_by_name(
    dataset: str, split: str, options: str, segmenter: str, device: str, on_error: str, clip: str | None
) -> Shared:
    kwargs, prompts = json.loads(options)
    data, model = load_dataset(dataset, split, **kwargs), load_segmenter(segmenter, device)
    return share(data, model, on_error, None if clip is None else load_clip(clip, device), prompts)
