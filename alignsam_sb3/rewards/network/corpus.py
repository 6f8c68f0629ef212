"""Masks of every quality for images whose truth is known: what the reward network learns from and is measured on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch as th
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import Click, oracle_click
from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError
from alignsam_sb3.features import FeatureBank
from alignsam_sb3.files import removed_on_error
from alignsam_sb3.frame import Frame
from alignsam_sb3.rewards.network.damage import damaged, softened
from alignsam_sb3.rewards.network.frame import photo_in_frame, resized
from alignsam_sb3.rewards.network.model import METRICS
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts
from alignsam_sb3.session import ClickSessions

CORPUS_VERSION = 3
FOUND = "found.npz"
"""File of masks that a policy found, as ``scripts/studies/collect_masks.py`` writes it."""
CLICKERS = ("oracle", "random", "wrong", "mixed")
TURNS = 3
_ROWS = 16  # images whose prompts are decoded in one call
Mask = NDArray[np.bool_]


@dataclass
class Corpus:
    """K masks for each of N (image, category) pairs, all at s x s cells of the segmenter's frame.

    :param images: (N,) index of the image in its data set
    :param categories: (N,) index of the category in its data set
    :param sizes: (N, 2) height and width of the image in pixels
    :param photos: (N, 3, s, s) uint8
    :param truths: (N, s, s) uint8, share of each cell that the object covers, times 255
    :param inside: (N, s, s) uint8, 255 in the image, 0 in its padding and where the annotation says nothing
    :param masks: (N, K, s, s) uint8, probability times 255
    :param targets: (N, K, 5) float32, the true metrics of each mask cut at one half, in the image's own resolution
    :param segmenter_iou: (N, K) float32, IoU as the segmenter predicts it; NaN for masks that are not its own
    """

    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    sizes: NDArray[np.int64]
    photos: NDArray[np.uint8]
    truths: NDArray[np.uint8]
    inside: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    targets: NDArray[np.float32]
    segmenter_iou: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def save(self, path: Path, key: str) -> None:
        """Write all arrays atomically, with what they were made from."""
        part = path.with_suffix(".part")
        with removed_on_error(part):
            with part.open("wb") as file:
                np.savez(file, key=np.array(key), **{f.name: getattr(self, f.name) for f in fields(self)})
            part.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> "Corpus | None":
        """What :meth:`save` wrote; None where there is nothing, or something made from other images or models."""
        if not path.is_file():
            return None
        with np.load(path) as stored:
            if str(stored["key"]) != key:
                return None
            return cls(**{f.name: stored[f.name] for f in fields(cls)})

    def join(self, other: "Corpus") -> "Corpus":
        """Both, one after the other; the one with fewer masks for each pair repeats its own."""
        count = max(self.masks.shape[1], other.masks.shape[1])
        widened = [corpus._widened(count) for corpus in (self, other)]
        return stack(widened)

    def _widened(self, count: int) -> "Corpus":
        turn = np.arange(count) % self.masks.shape[1]
        per_mask = {name: getattr(self, name)[:, turn] for name in ("masks", "targets", "segmenter_iou")}
        return Corpus(**{f.name: per_mask.get(f.name, getattr(self, f.name)) for f in fields(self)})


def true_metrics(mask: Mask, truth: Mask, valid: Mask | None) -> list[float]:
    """The metrics of a mask (H, W), in the order of :data:`METRICS`."""
    return [getattr(metrics, name)(mask, truth, valid) for name in METRICS]


def build_corpus(
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    bank: FeatureBank,
    count: int,
    seed: int,
    frame: Frame,
    usable: NDArray[np.bool_] | None = None,
) -> Corpus:
    """Collect masks for ``count`` pairs of an image and a category that it shows, with a progress bar.

    Half of a pair's masks are the segmenter's answers to right and wrong clicks, half are the truth, damaged. Images that
    cannot be read are left out.

    :param usable: (N,) the images to take; by default all that the bank holds
    """
    usable = bank.usable if usable is None else usable
    rng = np.random.default_rng([seed, CORPUS_VERSION])
    shown = [(int(i), c) for c, images in enumerate(dataset.images_by_category) for i in images if usable[i]]
    pairs = [shown[k] for k in rng.permutation(len(shown))[:count]]
    parts: list[Corpus] = []
    bar = tqdm(total=len(pairs), desc="masks of every quality", disable=len(pairs) < 64)
    for rows in _readable(dataset, pairs):
        answered = _answers(segmenter, bank, rows, rng)
        parts += [_collect(row, found, rng, frame) for row, found in zip(rows, answered, strict=True)]
        bar.update(len(rows))
    bar.close()
    if not parts:
        raise ValueError(f"none of the {len(pairs)} images of {dataset.fingerprint} can be read: nothing to learn from")
    return stack(parts)


@dataclass(frozen=True)
class _Row:
    index: int
    category: int
    sample: Sample
    truth: Mask
    valid: Mask | None


def _readable(dataset: SegmentationDataset, pairs: Sequence[tuple[int, int]]) -> Iterator[list[_Row]]:
    """The pairs that can be read, ``_ROWS`` at a time."""
    rows = []
    for index, category in pairs:
        try:
            sample = dataset[index]
        except UnreadableImageError:
            continue
        rows.append(_Row(index, category, sample, sample.target(category), sample.valid_for(category)))
        if len(rows) == _ROWS:
            yield rows
            rows = []
    if rows:
        yield rows


Found = tuple[NDArray[np.float32], Mask, float]
"""A probability in the frame (s, s), the mask in the image (H, W), and the IoU that the segmenter predicts."""


def _answers(
    segmenter: PromptableSegmenter, bank: FeatureBank, rows: list[_Row], rng: np.random.Generator
) -> list[list[Found]]:
    """For each pair the segmenter's answers to the clickers' clicks, after each turn, and the oracle's other candidates."""
    found: list[list[Found]] = [[] for _ in rows]
    everyone = np.arange(len(rows))
    features = {name: th.from_numpy(x) for name, x in bank.rows([row.index for row in rows]).items()}
    sizes = np.array([row.sample.size for row in rows], np.int64)
    for clicker in CLICKERS:
        sessions = ClickSessions(segmenter, len(rows))
        sessions.start(everyone, features, sizes)
        masks: list[Mask | None] = [None] * len(rows)
        for turn in range(TURNS):
            shown = enumerate(zip(rows, masks, strict=True))
            clicks = [[_click(clicker, row, mask, sessions.clicks(i), rng)] for i, (row, mask) in shown]
            if clicker == "oracle" and turn == 0:
                for answers, others in zip(found, _candidates(segmenter, features, clicks, sizes), strict=True):
                    answers += others
            sessions.click_each(everyone, clicks)
            drawn = sessions.masks()
            probabilities = sessions.probabilities.cpu().numpy()
            for answers, probability, mask, iou in zip(found, probabilities, drawn, sessions.iou.tolist(), strict=True):
                answers.append((probability, mask, iou))
            masks = list(drawn)
    return found


def _candidates(
    segmenter: PromptableSegmenter, features: dict[str, th.Tensor], clicks: list[list[Click]], sizes: NDArray[np.int64]
) -> list[list[Found]]:
    """The segmenter's candidates for first clicks but the one that it prefers."""
    places = [[place for place, _ in made] for made in clicks]
    labels = [[label for _, label in made] for made in clicks]
    answer = segmenter.decode(features, Prompts.of(places, labels, [(int(h), int(w)) for h, w in sizes]))
    out: list[list[Found]] = []
    for logits, ious, (height, width) in zip(answer.logits, answer.iou, sizes, strict=True):
        others = [k for k in range(len(ious)) if k != int(ious.argmax())]
        full = segmenter.postprocess(logits, (int(height), int(width))) > 0
        out.append([(logits[k].sigmoid().cpu().numpy(), full[k].cpu().numpy(), float(ious[k])) for k in others])
    return out


def _click(clicker: str, row: _Row, mask: Mask | None, made: list[Click], rng: np.random.Generator) -> Click:
    if clicker == "oracle" or (clicker == "mixed" and rng.random() < 0.5):
        judged = mask if row.valid is None or mask is None else mask & row.valid
        return oracle_click(row.truth, judged, [place for place, _ in made])
    height, width = row.sample.size
    if clicker == "wrong":  # a positive click on what is not wanted: another object, where there is one
        others = row.sample.masks.any(0) & ~row.truth if len(row.sample.masks) else np.zeros_like(row.truth)
        places = np.flatnonzero(others if others.any() and rng.random() < 0.7 else ~row.truth)
        if len(places):
            y, x = divmod(int(rng.choice(places)), width)
            return (x, y), 1
    return (int(rng.integers(width)), int(rng.integers(height))), int(rng.integers(2))


def _collect(row: _Row, answers: list[Found], rng: np.random.Generator, frame: Frame) -> Corpus:
    """All masks of one pair with their true metrics: the answers, and as many damaged truths."""
    spoiled = damaged(row.truth, row.sample.masks, len(answers), rng)
    cells = [softened(frame.cells(mask, frame.side), rng) for mask in spoiled]
    return corpus_of(row.index, row.category, row.sample, answers, frame, list(zip(cells, spoiled, strict=True)))


def corpus_of(
    index: int,
    category: int,
    sample: Sample,
    answers: Sequence[Found],
    frame: Frame,
    others: Sequence[tuple[NDArray[np.uint8], Mask]] = (),
) -> Corpus:
    """The corpus of one pair.

    :param answers: masks of the segmenter
    :param others: further masks, as they are seen (s, s) and as they are (H, W)
    """
    truth, valid = sample.target(category), sample.valid_for(category)
    side = frame.side
    seen = [resized(prob, side) for prob, _, _ in answers] + [cells for cells, _ in others]
    whole = [mask for _, mask, _ in answers] + [mask for _, mask in others]
    said = [iou for *_, iou in answers] + [np.nan] * len(others)
    return Corpus(
        np.array([index]),
        np.array([category]),
        np.array([sample.size]),
        photo_in_frame(sample.image, frame)[None],
        frame.cells(truth, side)[None],
        frame.cells(np.ones(truth.shape) if valid is None else valid, side)[None],
        np.stack(seen)[None],
        np.array([[true_metrics(mask, truth, valid) for mask in whole]], np.float32),
        np.array([said], np.float32),
    )


def stack(parts: Sequence[Corpus]) -> Corpus:
    """One corpus of several with equally many masks for each pair."""
    return Corpus(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Corpus)})


def require_truth(dataset: SegmentationDataset) -> None:
    """Refuse a data set without masks.

    :raises ValueError: it has none
    """
    if not getattr(dataset, "labelled", True):
        raise ValueError(
            f"{dataset.fingerprint} has no masks to compare with: give the images that have some, as in mask_folder:ROOT"
        )


def truth_stamp(dataset: SegmentationDataset) -> str:
    """Changes with what the annotation says of 64 images spread over the data set, whose fingerprint is of images alone."""
    digest = sha256()
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), 64)).astype(int):
        try:
            sample = dataset[int(index)]
        except UnreadableImageError:
            continue
        for part in (sample.masks, sample.category_ids, sample.valid):
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def found_key(dataset: SegmentationDataset, segmenter: PromptableSegmenter) -> str:
    """What masks that a policy found belong to."""
    said = [dataset.fingerprint, truth_stamp(dataset), ",".join(dataset.categories), segmenter.fingerprint, CORPUS_VERSION]
    return "|".join(map(str, said))


def corpus_key(found: str, count: int, seed: int, side: int) -> str:
    """Changes with images, annotations (see :func:`truth_stamp`), segmenter and how many masks are asked for.

    :param found: from :func:`found_key`
    """
    return sha256(json.dumps([found, count, seed, side]).encode()).hexdigest()[:24]
