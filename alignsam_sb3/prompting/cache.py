"""PredictionCache: what a text segmenter answers to each of some texts on each image, asked once and kept on disk."""

import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pycocotools import mask as rle
from tqdm import tqdm

from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError
from alignsam_sb3.files import cache_folder, parse_json
from alignsam_sb3.prompting.text import TextAnswer, TextSegmenter

logger = logging.getLogger(__name__)

LEVELS = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""A probability is kept as the masks above these; one half among them, so that the mask itself is kept exactly."""
_BETWEEN = np.array([0.0, *((a + b) / 2 for a, b in pairwise(LEVELS)), 1.0], np.float32)


class PredictionCache:
    """Answers of a frozen text segmenter, images x texts, as run lengths.

    :param records: for each image what :func:`_record` made, None where it could not be read
    """

    def __init__(self, texts: tuple[str, ...], records: list[dict[str, Any] | None]) -> None:
        self.texts, self._records = texts, records

    def __len__(self) -> int:
        return len(self._records)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) False for images that could not be read."""
        return np.array([record is not None for record in self._records], bool)

    def __getitem__(self, key: tuple[int, int]) -> TextAnswer:
        """The answer on image i to text p: ``table[i, p]``."""
        record = self._records[key[0]]
        if record is None:
            raise IndexError(f"image {key[0]} could not be read when the answers were collected")
        answer = record["answers"][key[1]]
        if answer["levels"] is None:
            return TextAnswer(np.zeros(record["size"], np.float32), found=False)
        above = np.zeros(record["size"], np.int64)
        for counts in answer["levels"]:
            above += rle.decode({"size": record["size"], "counts": counts})
        return TextAnswer(_BETWEEN[above])


def _record(image: NDArray[np.uint8], answers: Sequence[TextAnswer]) -> dict[str, Any]:
    """An image's answers as JSON."""
    kept = []
    for answer in answers:
        masks = [np.asfortranarray(answer.probability > level).astype(np.uint8, order="F") for level in LEVELS]
        levels = [rle.encode(mask)["counts"].decode() for mask in masks] if answer.found else None
        kept.append({"levels": levels})
    return {"size": list(image.shape[:2]), "answers": kept}


def build_cache(
    dataset: SegmentationDataset,
    segmenter: TextSegmenter,
    texts: Sequence[str],
    indices: Sequence[int] | None = None,
    folder: Path | None = None,
) -> PredictionCache:
    """Ask every text on every image, with a progress bar; go on where an interrupted run stopped; open what is there.

    One line of JSON for each image is appended to ``answers.jsonl``, with a checksum. A line that an interruption cut,
    or that is damaged, is asked again.

    :param indices: images to ask; by default all
    :param folder: where the table lies; by default a folder of the cache named after data set, segmenter and texts
    """
    if not texts:
        raise ValueError("a table of answers needs at least one text")
    key = [dataset.fingerprint, segmenter.fingerprint, list(texts), list(LEVELS)]
    folder = folder or cache_folder() / "answers" / sha256(json.dumps(key).encode()).hexdigest()[:24]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "answers.jsonl"
    with FileLock(folder / "lock"):
        known = _read_lines(path, key)
        todo = [i for i in (range(len(dataset)) if indices is None else indices) if i not in known]
        with path.open("a") as lines:
            if not known and path.stat().st_size == 0:
                lines.write(json.dumps({"key": key}) + "\n")
            for i in tqdm(todo, desc="asking the text segmenter", disable=len(todo) < 16):
                try:
                    image = dataset[i].image
                except UnreadableImageError as error:
                    logger.warning("image %d is left out: %s", i, error)
                    known[i] = None
                else:
                    answers = segmenter.segment(image, texts)
                    known[i] = _record(image, answers)
                    if any(answer.failed for answer in answers):  # not kept: asked again the next time
                        continue
                lines.write(json.dumps({"index": i, "record": known[i], "checksum": _checksum(i, known[i])}) + "\n")
                lines.flush()
    return PredictionCache(tuple(texts), [known.get(i) for i in range(len(dataset))])


def _checksum(index: int, record: dict[str, Any] | None) -> int:
    return crc32(json.dumps([index, record], sort_keys=True).encode())


def _read_lines(path: Path, key: list[Any]) -> dict[int, dict[str, Any] | None]:
    """The answers that a file holds; it is cut back to its whole lines, and emptied if it belongs to something else."""
    if not path.is_file():
        return {}
    known: dict[int, dict[str, Any] | None] = {}
    whole = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):
                break
            try:
                entry = parse_json(line)
            except ValueError:
                entry = None
            if not number and (not isinstance(entry, dict) or entry.get("key") != key):
                break
            whole += len(line)
            if isinstance(entry, dict) and entry.keys() == {"index", "record", "checksum"}:
                i, record = entry["index"], entry["record"]
                if entry["checksum"] == _checksum(i, record):
                    known[i] = record
                    continue
            if number:
                logger.warning("line %d of %s is damaged: its image is asked again", number + 1, path)
    with path.open("r+b") as lines:
        lines.truncate(whole)
    return known
