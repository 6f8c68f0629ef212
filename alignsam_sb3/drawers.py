"""Who draws the masks of photos: the agent, whose last mask or another one is taken, CLIP's points, or a module's map."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from alignsam_sb3.arrays import on_device
from alignsam_sb3.choice import LAST
from alignsam_sb3.clickers import Click
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.evaluation.answers import Best, by_agreement, by_segmenter
from alignsam_sb3.evaluation.maps import module_map
from alignsam_sb3.evaluation.rivals import give_map, map_logits
from alignsam_sb3.photos import Encoded
from alignsam_sb3.rewards.network import RewardScorer
from alignsam_sb3.rewards.network.model import score_of
from alignsam_sb3.semantics import similarity_map_to_points, top_point

Score = Callable[[ClickEpisodes, th.Tensor], NDArray[np.float64]]
"""Given N episodes and their logits before the last click, how good each mask is held to be, (N,)."""
RULES: dict[str, Score] = {"best IoU": by_segmenter, "steadiest": by_agreement}
"""By what one of the agent's masks is taken. The reward network's score is made by :func:`network_score`."""
BEST_SCORE, CLIP_POINTS, MAP_ALONE, MAP_PROMPT = "best score", "CLIP points", "map alone", "map as mask prompt"
HALF = 0.5
"""From where on a recalibration module's map, which is a probability, holds a place to be the target."""


@dataclass(frozen=True)
class Drawn:
    """Masks of N episodes, and how they came about.

    :param logits: (N, s, s) in the frame
    :param before: (N, s, s) what was there before the last change
    :param iou: (N,) that the segmenter predicts; None where no segmenter answered
    :param clicks: of each, in order
    """

    logits: th.Tensor
    before: th.Tensor
    iou: th.Tensor | None
    clicks: Sequence[Sequence[Click]]

    @classmethod
    def now(cls, episodes: ClickEpisodes, before: th.Tensor) -> "Drawn":
        """What is there at the moment."""
        sessions = episodes.sessions
        return cls(sessions.logits, before, sessions.iou, [sessions.clicks(i) for i in range(episodes.n)])

    def where(self, better: NDArray[np.bool_], other: "Drawn") -> "Drawn":
        """The same with another's masks where those are better, (N,)."""
        at = on_device(better, self.logits.device)
        logits, before = (th.where(at[:, None, None], getattr(other, n), getattr(self, n)) for n in ("logits", "before"))
        iou = None if self.iou is None or other.iou is None else th.where(at, other.iou, self.iou)
        clicks = [theirs if taken else own for taken, theirs, own in zip(better, other.clicks, self.clicks, strict=True)]
        return Drawn(logits, before, iou, clicks)


def by_agent(model: BaseAlgorithm, episodes: ClickEpisodes, rules: Mapping[str, Score]) -> dict[str, Drawn]:
    """Let the agent play, acting greedily.

    :param rules: by what one of its masks is taken
    :return: for each rule what it takes, and the last one
    """
    over, now = np.zeros(episodes.n, bool), Drawn.now(episodes, episodes.sessions.logits)
    bests = {name: Best(episodes.sessions) for name in rules}
    kept = dict.fromkeys(rules, now)
    for _ in range(episodes.task.max_steps):
        observation: Any = episodes.observe()
        actions, _ = model.predict(observation, deterministic=True)
        before = episodes.sessions.logits
        plan = episodes.plan(actions, ~over)
        episodes.carry_out(plan)
        over |= episodes.over(plan)
        episodes.refresh()
        now = Drawn.now(episodes, before)
        for name, rule in rules.items():
            better = bests[name].found(episodes.sessions, rule(episodes, bests[name].before))
            kept[name] = kept[name].where(better, now)
    return {LAST: now, **kept}


def by_clip(episodes: ClickEpisodes, maps: NDArray[np.floating]) -> Drawn:
    """Click where CLIP Surgery says, all at once.

    :param maps: (N, g_h, g_w) of the targets over the squashed images
    """
    sized = [(seen, episodes.size(i)) for i, seen in enumerate(maps)]
    points = [similarity_map_to_points(seen, size) or [top_point(seen, size)] for seen, size in sized]
    before = episodes.sessions.logits
    episodes.place(np.arange(episodes.n), points)
    return Drawn.now(episodes, before)


def by_map(episodes: ClickEpisodes) -> Drawn:
    """Take the recalibration module's map as the mask."""
    logits = map_logits(episodes, module_map(episodes), HALF)
    return Drawn(logits, th.zeros_like(logits), None, [[] for _ in range(episodes.n)])


def by_map_prompt(episodes: ClickEpisodes) -> Drawn:
    """Give the segmenter the module's map as its mask prompt, with a click at the peak."""
    peaks = give_map(episodes, module_map(episodes), HALF)
    before = episodes.sessions.logits
    episodes.place(np.arange(episodes.n), peaks)
    return Drawn.now(episodes, before)


def network_score(scorer: RewardScorer, photos: Encoded, categories: Sequence[str]) -> Score:
    """The reward network's score of the masks of episodes on photos.

    :param categories: names of those that the photos' are numbers of
    """
    seen = th.from_numpy(np.stack([scorer.photo(image) for image in photos.images])[photos.rows])
    names, spoken = [categories[c] for c in photos.categories], None
    if scorer.config.language is not None:
        said = [{name: x[row].astype(np.float32) for name, x in photos.said.items()} for row in photos.rows]
        sizes = [photos.images[row].shape[:2] for row in photos.rows]
        maps = [scorer.spoken(own, name, size) for own, name, size in zip(said, names, sizes, strict=True)]
        spoken = th.from_numpy(np.stack([m for m in maps if m is not None]))

    def score(episodes: ClickEpisodes, before: th.Tensor) -> NDArray[np.float64]:
        sessions = episodes.sessions
        embeddings = sessions.features["embeddings"]
        predicted = scorer.predict(seen, sessions.probabilities, embeddings, sessions.sizes, names, spoken)
        return np.where(sessions.answered, score_of(predicted).double().cpu().numpy(), 0.0)

    return score
