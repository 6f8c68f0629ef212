"""Filling the banks of a task before it is trained: in this process, or on many machines."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from alignsam_sb3.actors import Actors
from alignsam_sb3.envs.shared import Shared, open_shared
from alignsam_sb3.features import Arrays, FeatureSource, Photo, SegmenterSource, describe_in_half
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import LanguagePrior, load_clip
from alignsam_sb3.task import Task


def fill(task: Task, address: str | None = None) -> Shared:
    """Describe all images of a task, with a progress bar; what an earlier call left is gone on with.

    :param task: with segmenter and language prior by name, where Ray is to share the work: each machine loads them
        itself, and one that is named by a path must be on all of them
    :param address: of a Ray cluster, see :class:`~alignsam_sb3.actors.Actors`; None for this process alone
    :raises OSError: the cache cannot be written
    :raises UnreadableImageError: images cannot be read, and are not to be skipped
    :raises RuntimeError: a machine cannot describe images, or has other weights
    """
    shared = open_shared(task)
    if not shared.bank.writable:
        folder = shared.bank.folder
        raise OSError(f"{folder} cannot be written, so nothing would be kept: point ALIGNSAM_CACHE elsewhere")
    if address is None:
        shared.fill()
        return shared
    if not isinstance(task.segmenter, str) or not isinstance(task.clip, str | None):
        raise TypeError("machines load the models themselves: give segmenter and clip as spec strings")
    with Actors(partial(_Models, task.segmenter, task.clip), address) as actors:
        for bank, texts in ((shared.bank, None), (shared.language, shared.texts)):
            if bank is not None:
                bank.ensure(range(len(bank)), True, partial(_elsewhere, actors, bank.fingerprint, texts))
    return shared


@dataclass(frozen=True)
class Asked:
    """Images to describe.

    :param fingerprint: of the model that the bank is of
    :param texts: what CLIP is asked for in them; None asks the segmenter
    """

    fingerprint: str
    texts: tuple[str, ...] | None
    images: list[Photo]


def _elsewhere(
    actors: Actors[Asked, Arrays], fingerprint: str, texts: tuple[str, ...] | None, batches: Iterator[list[Photo]]
) -> Iterator[Arrays]:
    return actors(Asked(fingerprint, texts, images) for images in batches)


class _Models:
    """The frozen models of an actor."""

    def __init__(self, segmenter: str, clip: str | None, device: str) -> None:
        self._segmenter, self._clip, self._device = segmenter, clip, device

    def __call__(self, asked: Asked) -> Arrays:
        source = self._source(asked.texts)
        if source.fingerprint != asked.fingerprint:
            raise ValueError(
                f"the bank is of {asked.fingerprint}, and here is {source.fingerprint}: all machines need the same "
                "weights and the same version of alignsam_sb3"
            )
        return describe_in_half(source, asked.images)

    def _source(self, texts: tuple[str, ...] | None) -> FeatureSource:
        if texts is None or self._clip is None:
            return SegmenterSource(load_segmenter(self._segmenter, self._device))
        return LanguagePrior(load_clip(self._clip, self._device), texts)
