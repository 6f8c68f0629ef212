"""FeatureBank: what a frozen model says of each image, computed when it is first asked for and kept on disk."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import RLock
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch as th
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.bank_files import DONE, KEY_BYTES, SKIPPED, BankFiles, open_files, read_reasons
from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError
from alignsam_sb3.files import cache_folder, cache_prune, write_bytes, write_json
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

_VERSION = 3  # of the files: raise it whenever they would be read differently
_READERS = 4  # threads that read images
_AHEAD = 8  # batches that are read ahead
_WORTH_A_BAR = 32  # images


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
        """The arrays of B images (H_i, W_i, 3) of any sizes, each ``(B, *shape)``."""


Photo = NDArray[np.uint8]
Arrays = Mapping[str, NDArray[np.float16]]
Describing = Callable[[Iterator[list[Photo]]], Iterator[Arrays]]
"""From batches of images to what :func:`describe_in_half` says of each, in order."""
Reading = Mapping[int, Future[tuple[bytes, Photo]]]
"""By row what tells an image from another one, and the image, as soon as a thread has read them."""


def describe_in_half(source: FeatureSource, images: Sequence[Photo]) -> dict[str, NDArray[np.float16]]:
    """What a model says of B images, as a bank keeps it: each array ``(B, *shape)``.

    :raises FloatingPointError: half precision cannot hold it
    """
    values = {name: array.to(th.float16) for name, array in source.describe(images).items()}
    for name, array in values.items():
        if not th.isfinite(array).all():
            raise FloatingPointError(
                f"the {source.kind} model gave {name} that are NaN, infinite or too large for half precision: a "
                "damaged checkpoint?"
            )
    return {name: array.cpu().numpy() for name, array in values.items()}


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


class UnreadableRow(UnreadableImageError):
    """An image that a bank left out: draw another one.

    :param row: which
    :param reason: what is wrong with it
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"image {row} was skipped: {reason}")
        self.row, self.reason = row, reason


class FeatureBank:
    """What one model says of a data set's images, in half precision; each image is described when it is first asked for.

    Banks lie in files that processes share. What is on disk has checksums, which are looked at when a row is first read: a
    damaged row is described again, with a line in the log. Where the data set offers ``content_key(index) -> bytes``, a row of
    which the image has changed is described again, too. A folder that cannot be written is used as far as it goes, and what it
    lacks is kept in memory.

    :param dataset: the images
    :param source: the model
    :param folder: where the bank lies
    :param batch_size: images that are described in one call
    :param on_error: ``"raise"`` names the images that cannot be read; ``"skip"`` leaves them out
    :raises ValueError: the folder holds a bank of other images or of another model
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        source: FeatureSource,
        folder: Path,
        batch_size: int = 16,
        on_error: str = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(nearest("on_error", on_error, ("raise", "skip")))
        self.folder, self.fingerprint, self.on_error = folder, source.fingerprint, on_error
        self._dataset, self._source, self._batch_size = dataset, source, batch_size
        self._shapes, self._count = dict(source.shapes), len(dataset)
        self._key_of: Callable[[int], bytes] | None = getattr(dataset, "content_key", None)
        self._files = open_files(folder, _identity(dataset, source), self._shapes, self._count)
        self._memory: dict[int, dict[str, NDArray[np.float16]]] = {}
        self._skipped: set[int] = set()  # beside those of which the files say so
        self._checked = np.zeros(self._count, bool)
        self._busy = RLock()

    def __len__(self) -> int:
        return self._count

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array, for one image."""
        return dict(self._shapes)

    @property
    def writable(self) -> bool:
        """Whether what is described stays when the process ends."""
        return self._written is not None

    @property
    def _written(self) -> BankFiles | None:
        """The files, where they can be written."""
        return self._files if self._files is not None and self._files.writable else None

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) False for the images that are known to be unreadable; of one that nobody asked for nothing is known."""
        skipped = np.zeros(self._count, bool) if self._files is None else self._files.records()["state"] == SKIPPED
        skipped[list(self._skipped)] = True
        return np.asarray(~skipped)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.float32]]:
        """The arrays of one image."""
        return {name: values[0].astype(np.float32) for name, values in self.rows([index]).items()}

    def ensure(
        self, rows: Sequence[int] | NDArray[np.int64], progress: bool = False, describing: Describing | None = None
    ) -> None:
        """Describe those of some images that are not yet described.

        :param progress: show a bar, with images per second
        :param describing: describes the batches elsewhere; by default the source does, here
        :raises UnreadableImageError: images cannot be read and ``on_error`` is ``"raise"``
        :raises OSError: the disk is full
        """
        with self._busy:
            missing = self._missing(sorted({self._place(row) for row in rows}))
            if missing:
                self._describe(missing, progress, describing)

    def rows(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[str, NDArray[np.float16]]:
        """The arrays of some images, each ``(B, *shape)``; what is missing is described first.

        :raises UnreadableRow: one of them cannot be read and ``on_error`` is ``"skip"``
        """
        places = [self._place(row) for row in rows]
        with self._busy:
            self.ensure(places)
            found = {name: np.empty((len(places), *shape), np.float16) for name, shape in self._shapes.items()}
            for k, row in enumerate(places):
                self._load(row, {name: values[k] for name, values in found.items()})
        return found

    def _place(self, row: int) -> int:
        if not -self._count <= row < self._count:
            raise IndexError(f"there is no image {row}: the bank in {self.folder} has {self._count}")
        return int(row) % self._count

    def _missing(self, rows: list[int]) -> list[int]:
        """Rows that are neither described nor, where that is allowed, skipped."""
        asked = [row for row in rows if not self._checked[row] and row not in self._memory]
        if self.on_error == "skip":
            asked = [row for row in asked if row not in self._skipped]
        if self._files is None or not asked:
            return asked
        fine = (DONE, SKIPPED) if self.on_error == "skip" else (DONE,)
        return [row for row, state in zip(asked, self._files.records(asked)["state"], strict=True) if state not in fine]

    def _load(self, row: int, into: dict[str, NDArray[np.float16]]) -> None:
        """Read a row; once in a process look whether it is whole and its image the same."""
        for _ in range(2):
            if row in self._memory:
                for name, values in into.items():
                    values[...] = self._memory[row][name]
                return
            if row in self._skipped or self._files is None:
                raise UnreadableRow(row, self._reason(row))
            wrong = self._wrong(self._files, row, into)
            if not wrong:
                return
            logger.warning("image %d of the bank in %s is described again: %s", row, self.folder, wrong)
            self._checked[row] = False
            if (files := self._written) is not None:
                files.forget([row])
            self._describe([row])
        raise OSError(f"{self.folder} does not hold what is written to it: point ALIGNSAM_CACHE to another disk")

    def _wrong(self, files: BankFiles, row: int, into: dict[str, NDArray[np.float16]]) -> str:
        """Read a row; what is the matter with it, if anything is."""
        checksum = files.read(row, into)
        if self._checked[row] and checksum >= 0:
            return ""
        record = files.records([row])[0]
        if record["state"] == SKIPPED:
            raise UnreadableRow(row, self._reason(row))
        if record["state"] != DONE or checksum != record["checksum"]:
            return "what is on disk is damaged"
        if self._key_of is not None and record["key"].tobytes() != _short(self._key_of(row)):
            return "the image has changed"
        self._checked[row] = True
        return ""

    def _reason(self, row: int) -> str:
        return read_reasons(self.folder).get(row, "it cannot be read")

    def _describe(self, rows: list[int], progress: bool = False, describing: Describing | None = None) -> None:
        """Describe rows in batches; what other processes are describing is left to them."""
        describing = describing or partial(map, partial(describe_in_half, self._source))
        errors: dict[int, str] = {}
        few, waiting = not progress or len(rows) < _WORTH_A_BAR, rows
        done, readers = self._count - len(rows), ThreadPoolExecutor(_READERS)
        bar = tqdm(total=self._count, initial=done, desc=f"{self._source.kind} bank", unit="image", disable=few)
        try:
            while waiting:
                sent: deque[tuple[list[int], list[bytes]]] = deque()
                for values in describing(self._batches(waiting, readers, sent, errors)):
                    described, keys = sent.popleft()
                    self._keep(described, values, keys)
                    bar.update(len(described))
                left = [row for row in self._missing(waiting) if row not in errors]
                if len(left) == len(waiting):
                    time.sleep(0.02)  # others describe them
                waiting = left
                bar.update(self._count - len(waiting) - bar.n)
        finally:
            readers.shutdown(cancel_futures=True)
            self._release(waiting)
            bar.close()
        if errors and self.on_error == "raise":
            raise UnreadableImageError(_told(errors, self._count, self.folder))

    def _batches(
        self,
        rows: list[int],
        readers: ThreadPoolExecutor,
        sent: deque[tuple[list[int], list[bytes]]],
        errors: dict[int, str],
    ) -> Iterator[list[Photo]]:
        """Images of those rows that nobody else describes, read ahead by threads.

        :param sent: takes the rows and keys of each batch
        :param errors: takes what cannot be read
        """
        ahead: deque[Reading] = deque()
        for start in range(0, len(rows) + _AHEAD * self._batch_size, self._batch_size):  # the last ones are empty
            mine = self._claim(rows[start : start + self._batch_size])
            ahead.append({row: readers.submit(self._read, row) for row in mine})
            if len(ahead) <= _AHEAD:
                continue
            read = self._readable(ahead.popleft(), errors)
            if read:
                sent.append((list(read), [key for key, _ in read.values()]))
                yield [image for _, image in read.values()]

    def _claim(self, rows: list[int]) -> list[int]:
        """Those of some rows that are left for this process to describe."""
        files = self._written
        if files is None:
            return rows
        mine = files.claim(rows)
        left = self._missing(mine)
        files.release([row for row in mine if row not in left])
        return left

    def _release(self, rows: list[int]) -> None:
        if (files := self._written) is not None:
            files.release(rows)

    def _read(self, row: int) -> tuple[bytes, Photo]:
        """What tells an image from another one, and the image."""
        key = b"" if self._key_of is None else _short(self._key_of(row))
        return key, self._dataset[row].image

    def _readable(self, reading: Reading, errors: dict[int, str]) -> dict[int, tuple[bytes, Photo]]:
        """What could be read of some rows; what could not is noted."""
        read: dict[int, tuple[bytes, Photo]] = {}
        for row, future in reading.items():
            try:
                read[row] = future.result()
            except (UnreadableImageError, ValueError) as error:
                errors[row] = str(error)
        unread = [row for row in reading if row in errors]
        if unread and self.on_error == "skip":
            self._skip(unread, errors)
        self._release(unread)
        return read

    def _keep(self, rows: list[int], values: Arrays, keys: list[bytes]) -> None:
        """Write rows down, or hold them in memory where nothing can be written."""
        files = self._written
        if files is None:
            self._memory.update({row: {name: array[k] for name, array in values.items()} for k, row in enumerate(rows)})
            return
        try:
            files.write(rows, values, keys)
            files.release(rows)
        except OSError as error:
            size = sum(array.nbytes for array in values.values()) // len(rows) * self._count
            raise OSError(
                error.errno,
                f"the bank in {self.folder}, {size / 1e9:.2f} GB when it is whole, cannot be written ({error.strerror}): free "
                "some space (alignsam cache prune), or point ALIGNSAM_CACHE to a larger disk",
            ) from error

    def _skip(self, rows: list[int], errors: Mapping[int, str]) -> None:
        """Note rows that cannot be read, for this process and for those that come."""
        self._skipped.update(rows)
        if (files := self._written) is not None:
            files.note(rows, [SKIPPED] * len(rows), [b""] * len(rows), [0] * len(rows))
            reasons = read_reasons(self.folder) | {row: errors[row] for row in rows}
            write_json(self.folder / "skipped.json", {str(row): reason for row, reason in reasons.items()})


_opened: "WeakSet[FeatureBank]" = WeakSet()


def open_bank(
    dataset: SegmentationDataset,
    source: FeatureSource,
    folder: Path | None = None,
    batch_size: int = 16,
    on_error: str = "raise",
) -> FeatureBank:
    """Open what is known of a data set's images, or begin it; nothing is described before it is asked for.

    :param folder: where the bank lies; by default a folder of the cache named after both fingerprints
    :param on_error: ``"raise"`` names the images that cannot be read, ``"skip"`` leaves them out
    """
    if folder is None:
        named = json.dumps(_identity(dataset, source), sort_keys=True)
        folder = cache_folder() / "banks" / sha256(named.encode()).hexdigest()[:24]
    fresh = not folder.is_dir()
    bank = FeatureBank(dataset, source, folder, batch_size, on_error)
    _opened.add(bank)
    if fresh:
        cache_prune(keep=[opened.folder for opened in _opened])
    return bank


def build_bank(
    dataset: SegmentationDataset,
    source: FeatureSource,
    folder: Path | None = None,
    batch_size: int = 16,
    on_error: str = "raise",
) -> FeatureBank:
    """Open a bank and describe every image, with a progress bar; go on where an interrupted build stopped.

    :param folder: where the bank lies; by default a folder of the cache named after both fingerprints
    :param on_error: ``"raise"`` names all images that cannot be read, ``"skip"`` leaves them out and says how many
    :raises UnreadableImageError: images cannot be read and ``on_error`` is ``"raise"``
    """
    bank = open_bank(dataset, source, folder, batch_size, on_error)
    bank.ensure(range(len(bank)), progress=True)
    skipped = int((~bank.usable).sum())
    if skipped:
        logger.warning("%d of %d images are skipped: they could not be read", skipped, len(bank))
    return bank


def _identity(dataset: SegmentationDataset, source: FeatureSource) -> dict[str, Any]:
    shapes = {name: list(shape) for name, shape in source.shapes.items()}
    told = {"dataset": dataset.fingerprint, source.kind: source.fingerprint, "images": len(dataset), "arrays": shapes}
    return {**told, "version": _VERSION}


def _short(key: bytes) -> bytes:
    return sha256(key).digest()[:KEY_BYTES]


def _told(errors: Mapping[int, str], count: int, folder: Path) -> str:
    """All images that cannot be used, the first ten here and all of them in a file."""
    listed, lines = folder / "errors.txt", list(errors.values())
    more = ""
    if len(lines) > 10:
        more = f"\n  ... all {len(lines)} are in {listed}"
        write_bytes(listed, ("\n".join(lines) + "\n").encode())
    shown = "\n  ".join(lines[:10])
    return f"{len(lines)} of {count} images cannot be used:\n  {shown}{more}\nRepair or drop them, or pass on_error='skip'"
