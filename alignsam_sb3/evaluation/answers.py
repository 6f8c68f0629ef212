"""Which mask is handed out after each turn: the last one, the best-scored one so far, or one that another method makes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.clickers import Click
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.evaluation.maps import Map
from alignsam_sb3.session import ClickSessions, in_images

Mask = NDArray[np.bool_]
Masks = Sequence[Mask]
"""A mask (H, W) of each of N episodes."""
Answer = Callable[[ClickBatch, Masks, int], Masks]
"""Given N episodes, their masks and the number of turns played before, the masks that are handed out. A mask that stays the
same is the same array."""
Score = Callable[[ClickBatch, th.Tensor], NDArray[np.float64]]
"""Given N episodes and their logits before the last click, (N, s, s), how good each mask is held to be, (N,)."""

LONGEST = 256
"""GrabCut sees images of at most this long side: larger ones take it seconds."""
TOUCH, REACH = 0.02, 0.15
"""Radii in long sides: around each click what surely is like it, and around the first positive one what may be the object."""
ROUNDS = 5


def last(batch: ClickBatch, masks: Masks, turn: int) -> Masks:
    """The mask after the last click."""
    return masks


def by_network(batch: ClickBatch, before: th.Tensor) -> NDArray[np.float64]:
    """The reward network's score."""
    return batch.scores.copy()


def by_segmenter(episodes: ClickEpisodes, before: th.Tensor) -> NDArray[np.float64]:
    """The IoU that the segmenter predicts."""
    return episodes.sessions.iou.double().cpu().numpy()


def by_agreement(episodes: ClickEpisodes, before: th.Tensor) -> NDArray[np.float64]:
    """IoU with the mask before the last click: what a click hardly changed is settled."""
    one, other = episodes.sessions.logits > 0, before > 0
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return (both.double() / either.clamp(min=1)).cpu().numpy()


class Best:
    """Finds the best-scored state after each click so far of N sessions; of equals the later one.

    ``before`` (N, s, s) are their logits before the last click, for what is to score them.
    """

    def __init__(self, sessions: ClickSessions) -> None:
        self.before = th.zeros_like(sessions.logits)
        self._highest, self._counts = np.full(len(sessions), -np.inf), np.full(len(sessions), -1)

    def found(self, sessions: ClickSessions, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(N,) whether what is there after this turn is the best so far; a turn without a click changes nothing.

        :param scores: (N,) of what is there
        """
        moved = sessions.counts != self._counts
        better: NDArray[np.bool_] = moved & (scores >= self._highest)
        self._highest[better], self._counts = scores[better], sessions.counts.copy()
        self.before = th.where(on_device(moved, self.before.device)[:, None, None], sessions.logits, self.before)
        return better


def best_by(score: Score) -> Answer:
    """The best-scored of the masks after each click so far: see :class:`Best`.

    It is played from turn 0 on, one group of episodes after the other.
    """
    best: Best | None = None
    kept: list[Mask] = []

    def answer(batch: ClickBatch, masks: Masks, turn: int) -> Masks:
        nonlocal best, kept
        if turn == 0 or best is None:
            best, kept = Best(batch.sessions), list(masks)
        found = best.found(batch.sessions, score(batch, best.before))
        kept = [new if better else old for better, new, old in zip(found, masks, kept, strict=True)]
        return kept

    return answer


def kept_rules(batch: ClickBatch) -> dict[str, Score]:
    """By which scores the best of an agent's masks can be handed out instead of the last one."""
    rules: dict[str, Score] = {} if batch.scorer is None else {"best score": by_network}
    return rules | {"best IoU": by_segmenter, "steadiest": by_agreement}


def once(draw: Callable[[ClickBatch], Masks]) -> Answer:
    """Masks that need no clicks: drawn when an episode begins."""
    drawn: Masks = []

    def answer(batch: ClickBatch, masks: Masks, turn: int) -> Masks:
        nonlocal drawn
        if turn == 0:
            drawn = draw(batch)
        return drawn

    return answer


def thresholded(where: Map, threshold: float) -> Answer:
    """A map itself, from a threshold on."""
    return once(
        lambda batch: [
            (one >= threshold).cpu().numpy() for one in in_images(batch.segmenter, where(batch), batch.sessions.sizes)
        ]
    )


def grab_cut_answer(batch: ClickBatch, masks: Masks, turn: int) -> Masks:
    """What OpenCV's GrabCut makes of the clicks so far, on all cores; equal episodes are cut once."""
    asked = [(int(batch.rows[i]), int(batch.categories[i]), tuple(batch.sessions.clicks(i))) for i in range(batch.n)]
    images = {episode: batch.sample(i).image for i, episode in enumerate(asked)}
    with ThreadPoolExecutor(th.get_num_threads()) as pool:
        cut = dict(zip(images, pool.map(grab_cut, images.values(), (clicks for *_, clicks in images)), strict=True))
    return [cut[episode] for episode in asked]


def grab_cut(image: NDArray[np.uint8], clicks: Sequence[Click]) -> Mask:
    """OpenCV's GrabCut from clicks alone: a disc around each is sure, a wider one around the first positive one may be it.

    :param image: (H, W, 3) RGB
    :return: (H, W) bool; empty without a positive click
    """
    height, width = image.shape[:2]
    positive = [place for place, label in clicks if label]
    if not positive:
        return np.zeros((height, width), bool)
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    state = np.full(small.shape[:2], cv2.GC_PR_BGD, np.uint8)
    discs = [(positive[0], REACH, cv2.GC_PR_FGD)]
    discs += [(place, TOUCH, cv2.GC_FGD if label else cv2.GC_BGD) for place, label in clicks]
    for (x, y), radius, value in discs:
        cv2.circle(state, (int(x * scale), int(y * scale)), max(round(radius * max(size)), 1), value, -1)
    ground = np.isin(state, (cv2.GC_BGD, cv2.GC_PR_BGD))
    if ground.any() and not ground.all():
        cv2.setRNGSeed(0)
        cv2.grabCut(small, state, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    taken = np.isin(state, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    return np.asarray(cv2.resize(taken, (width, height), interpolation=cv2.INTER_NEAREST), bool)
