"""What all environments of a process share: one data set, one segmenter, one CLIP, and what these say of the images."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.scenes import Scenes, judging_side
from alignsam_sb3.envs.spaces import picture_side
from numpy.typing import NDArray

from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError, draw_absent, load_dataset
from alignsam_sb3.datasets.seen import Hashes, hash_in
from alignsam_sb3.device_bank import DeviceBank
from alignsam_sb3.features import FeatureBank, SegmenterSource, open_bank
from alignsam_sb3.frame import CellGrid
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics import ClipSurgery, LanguagePrior, load_clip
from alignsam_sb3.task import Task

_TRIES = 100  # to find an image that lacks something
_SAMPLES = 64  # images kept as they were read
os.register_at_fork(after_in_child=lambda: th.set_num_threads(1))  # a forked child that waited for its parent's threads hung


@dataclass
class Shared:
    """A data set with the frozen models that answer prompts and texts on it, and what they say of its images.

    :param bank: the segmenter's features
    :param images_by_category: the usable images of each category
    :param language: similarity maps and scores of the categories' texts, where there is a language prior
    :param place: where the banks are kept, see :class:`~alignsam_sb3.task.Task`
    :param opened: a call that opens the same in another process; copies within a process are the same object
    """

    dataset: SegmentationDataset
    segmenter: PromptableSegmenter
    bank: FeatureBank
    images_by_category: tuple[NDArray[np.int64], ...]
    language: FeatureBank | None = None
    texts: tuple[str, ...] = ()
    place: str = "auto"
    unreadable: set[int] = field(default_factory=set)
    opened: tuple[Callable[..., "Shared"], tuple[Any, ...]] | None = None
    _hashes: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame, (_, *grid) = self.segmenter.frame, self.segmenter.embedding_shape
        self.sample = lru_cache(maxsize=_SAMPLES)(self._read)
        self.scenes = lru_cache(maxsize=4)(self._scenes)
        self.device_bank = DeviceBank(
            self.bank,
            self.language,
            frame,
            (grid[0], grid[1]),
            picture_side(self.segmenter),
            lambda row: self.sample(row).image,
            self.segmenter.device,
            self.place,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        assert self.opened is not None, "open_shared() says how"
        return self.opened

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        return self

    @property
    def models(self) -> dict[str, str]:
        """Fingerprints of the frozen models, by role; empty where there is none."""
        heard = "" if self.language is None else self.language.fingerprint.rsplit("-", 1)[0]  # without that of the texts
        return {"segmenter": self.segmenter.fingerprint, "clip": heard}

    def _scenes(self, patches: int) -> Scenes:
        """Images and targets for a click grid of so many cells along each axis."""
        side = judging_side(self.segmenter.mask_side)
        return Scenes(self.sample, CellGrid(self.segmenter.frame, patches), side)

    @property
    def drawn(self) -> Hashes:
        """Hashes of the images that any episode has shown so far."""
        return np.array(sorted(self._hashes.values()), np.uint64)

    def _read(self, index: int) -> Sample:
        sample = self.dataset[index]
        if index not in self._hashes:
            self._hashes[index] = hash_in(self.dataset, index, sample)
        return sample

    @property
    def labelled(self) -> bool:
        """Whether the data set has ground truth."""
        return bool(getattr(self.dataset, "labelled", True))

    def draw_absent(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a target and an image of which the annotation says that it does not show it.

        :return: (image index, category id)
        :raises ValueError: no such image is found
        """
        for _ in range(_TRIES):
            row, category = draw_absent(self.images_by_category, rng)
            try:
                sample = self.sample(row)
            except UnreadableImageError:
                return row, category  # whoever reads it next knows what to do
            if sample.labelled and not sample.target(category).any() and sample.valid_for(category) is None:
                return row, category
        raise ValueError(
            f"absent > 0 needs images of which it is known what they lack: {_TRIES} were drawn, and each has parts of which "
            "the annotation says nothing"
        )

    def fill(self) -> None:
        """Describe all images now, with a progress bar, rather than each when it is first drawn.

        :raises UnreadableImageError: images cannot be read, and are not to be skipped
        """
        for bank in (self.bank, self.language):
            if bank is not None:
                bank.ensure(range(len(bank)), progress=True)

    def readable(self) -> bool:
        """Whether any image is left that was not found unreadable."""
        return any(int(i) not in self.unreadable for rows in self.images_by_category for i in rows)


def open_shared(task: Task) -> Shared:
    """Data set and models of a task, with their banks; equal spec strings give one object per process.

    :raises TypeError: some of data set and models are given as spec strings and others as objects
    """
    if isinstance(task.dataset, str) and isinstance(task.segmenter, str) and not isinstance(task.clip, ClipSurgery):
        options = json.dumps([dict(task.dataset_kwargs), dict(task.prompts)], sort_keys=True)
        names = (task.dataset, task.split, options, task.segmenter, task.device, task.on_error, task.clip, task.bank)
        return _open_by_name(*names)
    if isinstance(task.dataset, str) or isinstance(task.segmenter, str):
        raise TypeError("give both dataset and segmenter as spec strings (then clip, too), or both as objects")
    clip = load_clip(task.clip, task.device) if isinstance(task.clip, str) else task.clip
    return share(task.dataset, task.segmenter, task.on_error, clip, task.prompts, task.bank)


@lru_cache(maxsize=8)
def _open_by_name(
    dataset: str, split: str, options: str, segmenter: str, device: str, on_error: str, clip: str | None, place: str
) -> Shared:
    kwargs, prompts = json.loads(options)
    data, model = load_dataset(dataset, split, **kwargs), load_segmenter(segmenter, device)
    shared = share(data, model, on_error, None if clip is None else load_clip(clip, device), prompts, place)
    shared.opened = _open_by_name, (dataset, split, options, segmenter, device, on_error, clip, place)
    return shared


def share(
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    on_error: str = "raise",
    clip: ClipSurgery | None = None,
    prompts: Mapping[str, str] | None = None,
    place: str = "auto",
) -> Shared:
    """Open the banks, which describe an image when it is first drawn, and leave out what is known to be unreadable.

    :param clip: the language prior, if there is to be one
    :param prompts: what to ask the prior for a category, where its name does not say it
    :raises UnreadableImageError: a category has no readable image
    :raises ValueError: ``prompts`` names a category that the data set lacks
    """
    bank = open_bank(dataset, SegmenterSource(segmenter), on_error=on_error)
    for name in prompts or {}:
        if name not in dataset.categories:
            raise ValueError(nearest("category in prompts", name, dataset.categories))
    usable, language = bank.usable, None
    texts: tuple[str, ...] = ()
    if clip is not None:
        texts = tuple((prompts or {}).get(name, name) for name in dataset.categories)
        clip.check_words(texts)
        language = open_bank(dataset, LanguagePrior(clip, texts), on_error=on_error)
        usable = usable & language.usable
    kept = tuple(images[usable[images]] for images in dataset.images_by_category)
    for name, images, before in zip(dataset.categories, kept, dataset.images_by_category, strict=True):
        if len(before) and not len(images):
            said = bank.folder / "skipped.json"
            raise UnreadableImageError(f"category {name!r}: none of its images can be read; {said} says why")
    opened = share, (dataset, segmenter, on_error, clip, prompts, place)
    return Shared(dataset, segmenter, bank, kept, language, texts, place, opened=opened)


def described(shared: Shared, index: int, category: int) -> dict[str, Any]:
    """How much the prior sees a category in an image at all, for ``info``."""
    if shared.language is None:
        return {}
    return {"clip_score": float(shared.language.rows([index])["scores"][0, category])}
