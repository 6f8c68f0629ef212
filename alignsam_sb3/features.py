"""FeatureBank: what a frozen model says of each image, computed once and kept on disk."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch as th
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError
from alignsam_sb3.files import cache_folder, removed_on_error, write_json
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters import PromptableSegmenter

logger = logging.getLogger(__name__)

EPISODE_CONSTANTS = {
    "image": "image",
    "sam_image_embeddings": "embeddings",
    "similarity_maps": "similarity_maps",
    "cosine_maps": "cosine_maps",
}
"""Observations that an image decides alone, and what banks call them: buffers store them once per episode, or as a row."""

_DONE, _SKIPPED = 1, 2  # 0: not yet read


class FeatureSource(Protocol):
    """A frozen model, as a bank sees it: some arrays for each image.

    ``kind`` is the word under which its fingerprint stands in a bank's description.
    """

    kind: str

    @property
    def fingerprint(self) -> str:
        """Changes with weights and preprocessing."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of each array, for one image."""

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> Mapping[str, th.Tensor]:
        """The arrays of B images (H_i, W_i, 3) of any sizes, each (B, *shape)."""


class SegmenterSource:
    """What a segmenter says of images: embeddings, and finer features where it has some."""

    kind = "segmenter"

    def __init__(self, segmenter: PromptableSegmenter) -> None:
        self.segmenter = segmenter

    @property
    def fingerprint(self) -> str:
        return self.segmenter.fingerprint

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.segmenter.feature_shapes

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, th.Tensor]:
        return self.segmenter.encode(images)


class FeatureBank:
    """What one model says of a data set's images, memory-mapped in half precision.

    :param folder: a finished bank, as :func:`build_bank` leaves it
    :param dataset: the images it must belong to
    :param source: the model it must belong to
    :raises FileNotFoundError: there is no finished bank
    :raises ValueError: it was built for other images or by another model
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset, source: FeatureSource) -> None:
        described = folder / "bank.json"
        if not described.is_file():
            raise FileNotFoundError(f"no finished bank in {folder}: build it with alignsam_sb3.features.build_bank")
        found: dict[str, Any] = json.loads(described.read_text())
        for key, value in _identity(dataset, source).items():
            if found.get(key) != value:
                raise ValueError(
                    f"the bank in {folder} was built for {key} {found.get(key)!r}, not {value!r}: "
                    "what it holds would be wrong. Give another folder or delete this one, and build again"
                )
        self.folder, self.fingerprint = folder, source.fingerprint
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in source.shapes}
        self._state = np.load(folder / "state.npy")

    def __len__(self) -> int:
        return len(self._state)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) False for the images that could not be read and were skipped."""
        return np.asarray(self._state == _DONE)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array, for one image."""
        return {name: array.shape[1:] for name, array in self._arrays.items()}

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, NDArray[np.float16]]:
        """The arrays of some images, each (B, ...), as they are kept."""
        for row in rows:
            if self._state[row] != _DONE:
                raise IndexError(f"image {row} was skipped when the bank in {self.folder} was built")
        return {name: np.asarray(array[rows]) for name, array in self._arrays.items()}

    def __getitem__(self, index: int) -> dict[str, NDArray[np.float32]]:
        """The arrays of one image."""
        if self._state[index] != _DONE:
            raise IndexError(f"image {index} was skipped when the bank in {self.folder} was built")
        return {name: np.asarray(array[index], np.float32) for name, array in self._arrays.items()}


def build_bank(
    dataset: SegmentationDataset,
    source: FeatureSource,
    folder: Path | None = None,
    batch_size: int = 16,
    on_error: str = "raise",
) -> FeatureBank:
    """Describe every image, with a progress bar; go on where an interrupted build stopped; open what is already there.

    :param folder: where the bank lies; by default a folder of the cache named after both fingerprints
    :param on_error: ``"raise"`` names all images that cannot be read, ``"skip"`` leaves them out and says how many
    :raises UnreadableImageError: images cannot be read and ``on_error`` is ``"raise"``
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(nearest("on_error", on_error, ("raise", "skip")))
    identity = _identity(dataset, source)
    if folder is None:
        folder = cache_folder() / "banks" / sha256(json.dumps(identity).encode()).hexdigest()[:24]
    if not (folder / "bank.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # another process may be building the same bank
            if not (folder / "bank.json").is_file():
                _build(dataset, source, folder, identity, batch_size, on_error)
    bank = FeatureBank(folder, dataset, source)
    skipped = int((~bank.usable).sum())
    if skipped and on_error == "raise":
        raise UnreadableImageError(
            f"the bank in {folder} lacks {skipped} images that could not be read, and on_error='raise': "
            "repair them and delete that folder, or pass on_error='skip'"
        )
    if skipped:
        logger.warning("%d of %d images are skipped: they could not be read", skipped, len(bank))
    return bank


def _identity(dataset: SegmentationDataset, source: FeatureSource) -> dict[str, str]:
    return {"dataset": dataset.fingerprint, source.kind: source.fingerprint}


def _build(
    dataset: SegmentationDataset,
    source: FeatureSource,
    folder: Path,
    identity: dict[str, str],
    batch_size: int,
    on_error: str,
) -> None:
    with _open_unfinished(folder, len(dataset), source.shapes, identity) as (arrays, state):
        errors: list[str] = []
        todo = [i for i in range(len(dataset)) if state[i] != _DONE]
        bar = tqdm(total=len(dataset), initial=len(dataset) - len(todo), desc=f"{source.kind} bank", disable=len(todo) < 32)
        for start in range(0, len(todo), batch_size):
            rows, samples = _read(dataset, todo[start : start + batch_size], errors, state)
            if samples:
                for name, values in source.describe([s.image for s in samples]).items():
                    if not th.isfinite(values).all():
                        raise FloatingPointError(f"the {source.kind} model gave NaN or infinite {name}: a damaged checkpoint?")
                    arrays[name][rows] = values.cpu().numpy()
                state[rows] = _DONE
            bar.update(min(batch_size, len(todo) - start))
        bar.close()
    if errors and on_error == "raise":
        listed = folder / "errors.txt"
        listed.write_text("\n".join(errors) + "\n")
        shown = "\n  ".join(errors[:10]) + (f"\n  ... all {len(errors)} are in {listed}" if len(errors) > 10 else "")
        raise UnreadableImageError(
            f"{len(errors)} of {len(dataset)} images cannot be used:\n  {shown}\nRepair or drop them, or pass on_error='skip'"
        )
    for part in folder.glob("*.part"):
        part.replace(part.with_suffix(""))
    write_json(folder / "bank.json", {**identity, "images": len(dataset), "skipped": errors})


def _read(
    dataset: SegmentationDataset, indices: list[int], errors: list[str], state: NDArray[np.uint8]
) -> tuple[list[int], list[Sample]]:
    """Read a batch; what cannot be read is noted and marked."""
    rows, samples = [], []
    for index in indices:
        try:
            samples.append(dataset[index])
            rows.append(index)
        except (UnreadableImageError, ValueError) as error:
            errors.append(str(error))
            state[index] = _SKIPPED
    return rows, samples


@contextmanager
def _open_unfinished(
    folder: Path, count: int, shapes: Mapping[str, tuple[int, ...]], identity: dict[str, str]
) -> Iterator[tuple[dict[str, NDArray[np.float16]], NDArray[np.uint8]]]:
    """The arrays being filled; what an interrupted build left is kept if it belongs to the same images and model."""
    note, wanted = folder / "unfinished.json", {**identity, "shapes": {n: [count, *s] for n, s in shapes.items()}}
    fresh = not note.is_file() or json.loads(note.read_text()) != wanted
    paths = {name: folder / f"{name}.npy.part" for name in (*shapes, "state")}
    if fresh or not all(p.is_file() for p in paths.values()):
        arrays: dict[str, NDArray[np.float16]] = {}
        for name, shape in shapes.items():
            arrays[name] = open_memmap(paths[name], "w+", np.float16, (count, *shape))
            _reserve(paths[name])
        state = open_memmap(paths["state"], "w+", np.uint8, (count,))
        write_json(note, wanted)
    else:
        arrays = {name: open_memmap(paths[name], "r+") for name in shapes}
        state = open_memmap(paths["state"], "r+")
    try:
        yield arrays, state
    finally:
        for array in (*arrays.values(), state):
            array.flush()  # type: ignore[attr-defined]


def _reserve(path: Path) -> None:
    """Take the disk space now: writing to a mapped file on a full disk would kill the process."""
    size = path.stat().st_size
    try:
        with removed_on_error(path), path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(
            f"the bank needs {size / 1e9:.2f} GB in {path.parent}, which cannot be had ({error}): "
            "free some space, or point ALIGNSAM_CACHE to a larger disk"
        ) from error
