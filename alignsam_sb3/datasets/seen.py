"""Which images were seen in training, so that none of them is evaluated on: by their pixels, not by their names.

>>> from alignsam_sb3.datasets import load_dataset
>>> train, held_out = (load_dataset("toy:saliency", split, n_images=2) for split in ("train", "eval"))
>>> seen = SeenImages(image_hashes(train))
>>> seen_in(held_out, seen).tolist(), seen_in(train, seen).tolist()
([False, False], [True, True])
>>> SeenImages.from_json(seen.to_json()) == seen
True
"""

import base64
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, SegmentationDataset
from alignsam_sb3.datasets.image_files import UnreadableImageError, turned
from alignsam_sb3.files import cache_folder, removed_on_error

logger = logging.getLogger(__name__)

Hashes = NDArray[np.uint64]
KIND = "blake2b-64-as-stored-any-way-up"
UNREADABLE = np.uint64(0)  # the hash of no image


def image_hash(image: NDArray[Any]) -> int:
    """64 bits of an image's pixels (H, W, 3) as stored.

    They are equal for copies under any name and in any lossless format. They are also equal however a copy is turned or
    mirrored, since EXIF tags may turn one photo two ways.
    """
    return min(_digest(turned(image, orientation)) for orientation in _upright(image))


def hash_in(dataset: SegmentationDataset, index: int, read: Sample | None = None) -> int:
    """The hash of one image of a data set: of its file, where it has one, so that no option of reading changes it.

    :param read: the image, where it was read already: used if there is no file
    :raises UnreadableImageError: with the path and the reason
    """
    stored = getattr(dataset, "stored", None)
    return image_hash(stored(index) if stored is not None else (read or dataset[index]).image)


def _digest(image: NDArray[Any]) -> int:
    digest = hashlib.blake2b(f"{image.shape}|".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest(), "little") or 1


def _upright(image: NDArray[Any]) -> list[int]:
    """The orientations, of all eight, that bring the least sums of quarters to the front: one, unless there is a symmetry."""
    image = np.ascontiguousarray(image).view(f"u{image.dtype.itemsize}")  # sums of floats depend on their order
    height, width = image.shape[0] // 2, image.shape[1] // 2
    columns = [image[:, :width], image[:, image.shape[1] - width :]]
    quarters = [[part[:height].sum(), part[image.shape[0] - height :].sum()] for part in columns]
    ranks = [turned(np.array(quarters).T, orientation).ravel().tolist() for orientation in range(1, 9)]
    return [orientation for orientation, rank in enumerate(ranks, start=1) if rank == min(ranks)]


class SeenImages:
    """A set of images, as sorted hashes: 8 bytes each.

    :param hashes: of :func:`hash_in` or :func:`image_hashes`
    """

    def __init__(self, hashes: Iterable[int] | Hashes = ()) -> None:
        given = hashes if isinstance(hashes, np.ndarray) else np.fromiter(hashes, np.uint64)
        self.hashes: Hashes = np.unique(given[given != UNREADABLE]).astype(np.uint64)

    def __len__(self) -> int:
        return len(self.hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeenImages) and np.array_equal(self.hashes, other.hashes)

    def __hash__(self) -> int:
        return hash(self.hashes.tobytes())

    def __contains__(self, image: int) -> bool:
        return bool(self.contains(np.array([image], np.uint64))[0])

    def add(self, hashes: Iterable[int] | Hashes) -> "SeenImages":
        """These images and others."""
        return SeenImages(np.concatenate([self.hashes, SeenImages(hashes).hashes]))

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """(N,) whether each hash is among these; an unreadable image never is."""
        if not len(self.hashes):
            return np.zeros(len(hashes), bool)
        place = np.searchsorted(self.hashes, hashes).clip(0, len(self.hashes) - 1)
        found: NDArray[np.bool_] = self.hashes[place] == hashes
        return found

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads: text of 11 bytes an image."""
        return {"kind": KIND, "count": len(self), "hashes": base64.b64encode(self.hashes.astype("<u8").tobytes()).decode()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SeenImages":
        """Read what :meth:`to_json` wrote.

        :raises ValueError: it is something else, or was cut short
        """
        try:
            if content["kind"] != KIND:
                raise ValueError(f"hashes of kind {content['kind']!r}, expected {KIND!r}: train or fit again to write them")
            found = cls(np.frombuffer(base64.b64decode(content["hashes"], validate=True), "<u8"))
            if len(found) != content["count"]:
                raise ValueError(f"{len(found)} hashes where {content['count']} are stated")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no list of seen images ({error})") from error
        return found


def image_hashes(dataset: SegmentationDataset) -> Hashes:
    """The hash of each image of a data set, (N,) uint64, 0 where it cannot be read.

    Photographs are decoded once: the hashes are kept in the cache under the data set's fingerprint, which changes whenever one
    of its files does.
    """
    key = hashlib.sha256(f"{KIND}|{dataset.fingerprint}".encode("utf-8", "backslashreplace")).hexdigest()[:32]
    path = cache_folder() / "hashes" / f"{key}.npy"
    try:
        known: Hashes = np.load(path, allow_pickle=False)
        if known.dtype == np.uint64 and known.shape == (len(dataset),):
            return known
        logger.warning("%s has other hashes than expected: they are made again", path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s cannot be read and is made again: %s", path, error)
    bar = tqdm(range(len(dataset)), desc="hashing images", disable=len(dataset) < 500, leave=False)
    hashes = np.array([_hash_of(dataset, index) for index in bar], np.uint64)
    _keep(path, hashes)
    return hashes


def seen_in(dataset: SegmentationDataset, seen: SeenImages) -> NDArray[np.bool_]:
    """(N,) which images of a data set are among those seen."""
    return seen.contains(image_hashes(dataset)) if len(seen) else np.zeros(len(dataset), bool)


def _hash_of(dataset: SegmentationDataset, index: int) -> int:
    try:
        return hash_in(dataset, index)
    except UnreadableImageError:
        return int(UNREADABLE)


def _keep(path: Path, hashes: Hashes) -> None:
    """Write the hashes, whole or not at all; a cache that cannot be written costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with removed_on_error(Path(name)), os.fdopen(handle, "wb") as opened:
            np.save(opened, hashes)
        Path(name).replace(path)
    except OSError as error:
        logger.warning("hashes of images are not kept in %s: %s", path.parent, error)
