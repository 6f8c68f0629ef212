"""Maps of where a target is, from a few labelled images and frozen models alone: what rivals of an agent are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch as th
from numpy.typing import NDArray
from torch.nn import functional as F

from alignsam_sb3.arrays import on_device
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.evaluation.episodes import Pair, begun
from alignsam_sb3.session import in_images

Map = Callable[[ClickBatch], th.Tensor]
"""Of N episodes, where the target is: (N, g, g) over the segmenter's frame, within [-1, 1]. It looks at no truth."""

MEAN_SIDE = 64
"""Cells along each axis of a mean mask."""
MOST_CELLS = 100_000
"""Cells from which a head is fitted, at most."""
LEVELS = np.linspace(-1, 1, 201)
"""Thresholds that are tried."""
_DECAY = 1e-3  # of a head's weights, on standardised features


def module_map(episodes: ClickEpisodes) -> th.Tensor:
    """What the policy's recalibration module sees before any click.

    :raises RuntimeError: there is none
    """
    if episodes.recalibration is None:
        raise RuntimeError("these episodes have no recalibration module: attach the policy's")
    seen = dict(episodes.observe())
    seen["sam_pred_mask_prob"] = th.full_like(seen["sam_pred_mask_prob"], 0.5)
    return episodes.recalibration.foreground(seen)


def language_map(batch: ClickBatch) -> th.Tensor:
    """What the language prior sees of the target; 0 in the padding."""
    maps: th.Tensor = batch.observe()["similarity_maps"]
    return maps[th.arange(batch.n), on_device(batch.categories, maps.device)].clamp(min=0)


@dataclass(frozen=True)
class Lessons:
    """What a few labelled images teach of K categories.

    :param names: (K,) of the categories
    :param exemplars: (K, C) mean of the normalised embedding's cells on the labelled objects
    :param masks: (K, 64, 64) mean mask of the images that show a category, squashed to a square
    :param cells: (M, C) cells of embeddings
    :param covered: (M,) the share of each that the target covers
    :param known: (M,) the share of each of which the annotation says something
    :param categories: (M,) the target
    """

    names: tuple[str, ...]
    exemplars: th.Tensor
    masks: NDArray[np.float32]
    cells: th.Tensor
    covered: th.Tensor
    known: th.Tensor
    categories: th.Tensor

    def places(self, batch: ClickBatch) -> th.Tensor:
        """(N,) which of the categories the target of each episode is; a batch may have others, in another order."""
        asked = batch.shared.dataset.categories
        return th.tensor([self.names.index(asked[c]) for c in batch.categories])


def learn(batch: ClickBatch, pairs: Sequence[Pair], seed: int = 0) -> Lessons:
    """Read labelled images once.

    :param pairs: images with a category that each of them shows
    """
    rng, names = np.random.default_rng(seed), batch.shared.dataset.categories
    channels, height, width = batch.segmenter.embedding_shape
    each, count = max(min(height * width, MOST_CELLS // max(len(pairs), 1)), 1), len(names)
    exemplars = th.zeros(count, channels)
    masks, shown = np.zeros((count, MEAN_SIDE, MEAN_SIDE), np.float32), np.zeros(count)
    cells, truths, categories = [], [], []
    for n in map(len, begun(batch, pairs)):
        embeddings = batch.sessions.features["embeddings"][:n].cpu().flatten(2).transpose(1, 2)  # (n, cells, C)
        truth = th.from_numpy(np.stack(batch.truth_on_grid()[:n])).flatten(2)  # (n, 2, cells)
        for k, category in enumerate(batch.categories[:n].tolist()):
            exemplars[category] += truth[k, 0] @ F.normalize(embeddings[k], dim=-1)
            chosen = th.from_numpy(rng.choice(embeddings.shape[1], each, replace=False))
            cells.append(embeddings[k, chosen])
            truths.append(truth[k][:, chosen])
            categories.append(th.full((each,), category))
            target = batch.sample(k).target(category).astype(np.float32)
            masks[category] += cv2.resize(target, (MEAN_SIDE, MEAN_SIDE), interpolation=cv2.INTER_AREA)
            shown[category] += 1
    covered, known = th.cat(truths, dim=1)
    masks /= np.maximum(shown, 1)[:, None, None]
    return Lessons(tuple(names), F.normalize(exemplars, dim=-1), masks, th.cat(cells), covered, known, th.cat(categories))


def exemplar_map(lessons: Lessons) -> Map:
    """Cosine of each cell's embedding with the mean one of the labelled objects (as PerSAM, arXiv 2305.03048)."""

    def where(batch: ClickBatch) -> th.Tensor:
        embeddings = batch.sessions.features["embeddings"]
        wanted = lessons.exemplars[lessons.places(batch)].to(embeddings.device)
        return th.einsum("nchw,nc->nhw", F.normalize(embeddings, dim=1), wanted)

    return where


def mean_mask_map(lessons: Lessons) -> Map:
    """The mean mask of the labelled images, resized to each image: nobody looks at the image."""

    def where(batch: ClickBatch) -> th.Tensor:
        frame, grid, places = batch.segmenter.frame, (MEAN_SIDE, MEAN_SIDE), lessons.places(batch).tolist()
        means = [frame.from_squashed(lessons.masks[c][None], batch.size(i), grid)[0] for i, c in enumerate(places)]
        return th.from_numpy(np.stack(means)).clamp(min=0)

    return where


def head_map(lessons: Lessons) -> Map:
    """A linear layer on each cell of the embedding, fitted to the labelled cells by logistic regression."""
    mean, deviation = lessons.cells.mean(0), lessons.cells.std(0).clamp(min=1e-4)
    weights, bias = _regression((lessons.cells - mean) / deviation, lessons)
    weights, bias = weights / deviation, bias - weights @ (mean / deviation)

    def where(batch: ClickBatch) -> th.Tensor:
        embeddings = batch.sessions.features["embeddings"]
        at = lessons.places(batch)
        logits = th.einsum("nchw,nc->nhw", embeddings, weights[at].to(embeddings.device))
        return (logits + bias[at].to(embeddings.device)[:, None, None]).sigmoid()

    return where


def _regression(cells: th.Tensor, lessons: Lessons) -> tuple[th.Tensor, th.Tensor]:
    """Weights (K, C) and biases (K,)."""
    count, at = len(lessons.exemplars), lessons.categories
    weights, bias = th.zeros(count, cells.shape[1], requires_grad=True), th.zeros(count, requires_grad=True)
    wanted = (lessons.covered / lessons.known.clamp(min=1e-6)).clamp(max=1)
    optimizer = th.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> th.Tensor:
        optimizer.zero_grad()
        logits = (cells @ weights.T + bias).gather(1, at[:, None])[:, 0]
        cross = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * lessons.known
        value = cross.sum() / lessons.known.sum().clamp(min=1) + _DECAY * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()


def best_thresholds(maps: Mapping[str, Map], batch: ClickBatch, pairs: Sequence[Pair]) -> dict[str, float]:
    """For each map the threshold with which it, as a mask, has the highest mean Dice on labelled images."""
    sums = {name: np.zeros(len(LEVELS)) for name in maps}
    for n in map(len, begun(batch, pairs)):
        asked = [(batch.sample(k), int(batch.categories[k])) for k in range(n)]
        truths = [(sample.target(category), sample.valid_for(category)) for sample, category in asked]
        for name, where in maps.items():
            drawn = in_images(batch.segmenter, where(batch)[:n], batch.sessions.sizes[:n])
            for one, (truth, valid) in zip(drawn, truths, strict=True):
                sums[name] += _dice_of_levels(one.cpu().numpy(), truth, valid)
    return {name: float(LEVELS[total.argmax()]) for name, total in sums.items()}


def _dice_of_levels(
    values: NDArray[np.float32], truth: NDArray[np.bool_], valid: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Dice of ``values >= level`` for each of :data:`LEVELS`."""
    if valid is not None:
        values, truth = values[valid], truth[valid]
    level = np.maximum(np.searchsorted(LEVELS, values, side="right") - 1, 0)  # the highest that a pixel reaches
    wanted = level[truth]
    taken, hit = _at_least(level.ravel()), _at_least(wanted)
    dice: NDArray[np.float64] = 2 * hit / np.maximum(taken + len(wanted), 1)
    return dice


def _at_least(level: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many reach each level."""
    return np.bincount(level, minlength=len(LEVELS))[::-1].cumsum()[::-1]
