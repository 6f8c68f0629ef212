"""Whether a target is in the image at all, said by one number and without a click."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.evaluation.episodes import Pair
from alignsam_sb3.evaluation.players import clip_points_player
from alignsam_sb3.evaluation.protocol import draw_both, play
from alignsam_sb3.signals import language_signals

TAUGHT_ON = 400  # training episodes on which a threshold is chosen
Scores = NDArray[np.float64]


def presence_of_scores(batch: ClickBatch, episodes: Sequence[Pair], seed: int) -> dict[str, float]:
    """How often a single number says rightly whether the target is there, above or below the best threshold in training.

    ``CLIP's score`` is the mean over the image, ``CLIP's best place`` its best cell less the best other category's, and
    ``reward network`` what that gives to the mask of CLIP's points, where there is one.

    :param batch: on the evaluation split, with a language prior
    :param episodes: on that split
    """
    training = ClickBatch(replace(batch.task, split="train"), batch.n)
    taught = draw_both(training.shared, TAUGHT_ON, batch.task.absent, seed)
    signals: dict[str, Callable[[ClickBatch, Sequence[Pair]], Scores]] = {
        "CLIP's score": lambda of, pairs: np.array([_said(of, pair)[0] for pair in pairs]),
        "CLIP's best place": lambda of, pairs: np.array([_said(of, pair)[1] for pair in pairs]),
    }
    if batch.scorer is not None:
        signals["reward network"] = lambda of, pairs: play(clip_points_player, of, pairs).scores["score"][:, -1]
    there, here = (np.array([_shows(of, pair) for pair in pairs]) for of, pairs in ((training, taught), (batch, episodes)))
    out = {}
    for name, signal in signals.items():
        threshold = _best_threshold(signal(training, taught), there)
        out[name] = float(((signal(batch, episodes) > threshold) == here).mean())
    return out


def _shows(batch: ClickBatch, pair: Pair) -> bool:
    return bool(batch.shared.sample(pair[0]).target(pair[1]).any())


def _said(batch: ClickBatch, pair: Pair) -> tuple[float, float]:
    """The prior's score of a category, and how far its best place is above the others'."""
    assert batch.shared.language is not None
    row, category = pair
    said = batch.shared.language[row]
    cosines = said["cosine_maps"]
    signals = language_signals(np.zeros(cosines.shape[1:], bool), cosines, said["scores"], category)
    return signals["clip_score"], signals["map_top_margin"]


def _best_threshold(scores: Scores, truth: NDArray[np.bool_]) -> float:
    """Where most are rightly told apart, halfway between two scores."""
    values = np.unique(scores)
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    right = [((scores > cut) == truth).mean() for cut in cuts]
    return float(cuts[int(np.argmax(right))])
