"""FeatureBank: what the frozen segmenter says of each image, computed once and kept on disk."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError
from alignsam_sb3.files import removed_on_error, write_json
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters import PromptableSegmenter

logger = logging.getLogger(__name__)

EPISODE_CONSTANTS = ("image", "target_category", "sam_image_embeddings")
"""Observations that change only with a reset; environments hand them out, and buffers store them, once per episode."""

_DONE, _SKIPPED = 1, 2  # 0: not yet read


def cache_folder() -> Path:
    """Where banks are kept: ``ALIGNSAM_CACHE``, else ``~/.cache/alignsam_sb3``."""
    return Path(os.environ.get("ALIGNSAM_CACHE", Path.home() / ".cache" / "alignsam_sb3"))


class FeatureBank:
    """SAM embeddings of a data set's images, memory-mapped in half precision.

    :param folder: a finished bank, as :func:`build_bank` leaves it
    :param dataset: the images it must belong to
    :param segmenter: the model it must belong to
    :raises FileNotFoundError: there is no finished bank
    :raises ValueError: it was built for other images or by another model
    """

    def __init__(self, folder: Path, dataset: SegmentationDataset, segmenter: PromptableSegmenter) -> None:
        described = folder / "bank.json"
        if not described.is_file():
            raise FileNotFoundError(f"no finished bank in {folder}: build it with alignsam_sb3.features.build_bank")
        found: dict[str, Any] = json.loads(described.read_text())
        for key, value in _identity(dataset, segmenter).items():
            if found.get(key) != value:
                raise ValueError(
                    f"the bank in {folder} was built for {key} {found.get(key)!r}, not {value!r}: "
                    "its embeddings would be wrong. Give another folder or delete this one, and build again"
                )
        self.folder = folder
        self._embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
        self._state = np.load(folder / "state.npy")

    def __len__(self) -> int:
        return len(self._state)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) False for the images that could not be read and were skipped."""
        return np.asarray(self._state == _DONE)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Embedding (C, h, w) of one image."""
        if self._state[index] != _DONE:
            raise IndexError(f"image {index} was skipped when the bank in {self.folder} was built")
        return np.asarray(self._embeddings[index], np.float32)


def build_bank(
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    folder: Path | None = None,
    batch_size: int = 16,
    on_error: str = "raise",
) -> FeatureBank:
    """Embed every image, with a progress bar; go on where an interrupted build stopped; open what is already there.

    :param folder: where the bank lies; by default a folder of the cache named after both fingerprints
    :param on_error: ``"raise"`` names all images that cannot be read, ``"skip"`` leaves them out and says how many
    :raises UnreadableImageError: images cannot be read and ``on_error`` is ``"raise"``
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(nearest("on_error", on_error, ("raise", "skip")))
    identity = _identity(dataset, segmenter)
    if folder is None:
        folder = cache_folder() / "banks" / sha256(json.dumps(identity).encode()).hexdigest()[:24]
    if not (folder / "bank.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):  # another process may be building the same bank
            if not (folder / "bank.json").is_file():
                _build(dataset, segmenter, folder, identity, batch_size, on_error)
    bank = FeatureBank(folder, dataset, segmenter)
    skipped = int((~bank.usable).sum())
    if skipped and on_error == "raise":
        raise UnreadableImageError(
            f"the bank in {folder} lacks {skipped} images that could not be read, and on_error='raise': "
            "repair them and delete that folder, or pass on_error='skip'"
        )
    if skipped:
        logger.warning("%d of %d images are skipped: they could not be read", skipped, len(bank))
    return bank


def _identity(dataset: SegmentationDataset, segmenter: PromptableSegmenter) -> dict[str, str]:
    return {"dataset": dataset.fingerprint, "segmenter": segmenter.fingerprint}


def _build(
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    folder: Path,
    identity: dict[str, str],
    batch_size: int,
    on_error: str,
) -> None:
    with _open_unfinished(folder, (len(dataset), *segmenter.embedding_shape), identity) as (embeddings, state):
        errors: list[str] = []
        todo = [i for i in range(len(dataset)) if state[i] != _DONE]
        bar = tqdm(total=len(dataset), initial=len(dataset) - len(todo), desc="encoding images", disable=len(todo) < 32)
        for start in range(0, len(todo), batch_size):
            rows, samples = _read(dataset, todo[start : start + batch_size], errors, state)
            if samples:
                encoded = segmenter.encode([s.image for s in samples]).cpu().numpy()
                if not np.isfinite(encoded).all():
                    raise FloatingPointError("the segmenter gave NaN or infinite embeddings: its checkpoint is damaged")
                embeddings[rows] = encoded
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
    folder: Path, shape: tuple[int, ...], identity: dict[str, str]
) -> Iterator[tuple[NDArray[np.float16], NDArray[np.uint8]]]:
    """The arrays being filled; what an interrupted build left is kept if it belongs to the same images and model."""
    note, wanted = folder / "unfinished.json", {**identity, "shape": list(shape)}
    fresh = not note.is_file() or json.loads(note.read_text()) != wanted
    paths = folder / "embeddings.npy.part", folder / "state.npy.part"
    if fresh or not all(p.is_file() for p in paths):
        embeddings = open_memmap(paths[0], "w+", np.float16, shape)
        _reserve(paths[0])
        state = open_memmap(paths[1], "w+", np.uint8, shape[:1])
        write_json(note, wanted)
    else:
        embeddings, state = (open_memmap(p, "r+") for p in paths)
    try:
        yield embeddings, state
    finally:
        embeddings.flush()
        state.flush()


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
