"""Rivals of an agent: what somebody with the same labelled images and the same frozen segmenter would try first.

Each is fitted on training images alone, and none looks at the truth of the images on which it is judged.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch as th
from numpy.typing import NDArray
from torch.nn import functional as F

from alignsam_sb3.clickers import Click, oracle_click
from alignsam_sb3.datasets.seen import SeenImages, hash_in
from alignsam_sb3.envs.batch import ClickBatch, Observation
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.evaluation.answers import Answer, best_by, grab_cut_answer, kept_rules, last, thresholded
from alignsam_sb3.evaluation.episodes import Pair
from alignsam_sb3.evaluation.maps import (
    Lessons,
    Map,
    best_thresholds,
    exemplar_map,
    head_map,
    language_map,
    learn,
    mean_mask_map,
    module_map,
)
from alignsam_sb3.evaluation.players import Move, Player
from alignsam_sb3.evaluation.protocol import Row, play_answers
from alignsam_sb3.names import first_of
from alignsam_sb3.session import in_images
from alignsam_sb3.task import Task

MOST_IMAGES = 500
"""Labelled images from which rivals are fitted, at most."""
APART = 1 / 8
"""How far apart peaks are clicked, in long sides of the image."""


@dataclass(frozen=True)
class Rival:
    """What clicks, if anything does, and what is handed out."""

    player: Player
    answer: Answer = last


def still(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """No clicks at all."""
    return [None] * batch.n


def peaks_player(where: Map, threshold: float) -> Player:
    """In each turn a positive click where a map is highest, apart from earlier clicks; only the first one may lie below a
    threshold.
    """

    def play(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
        moves: list[Move] = []
        for i, drawn in enumerate(in_images(batch.segmenter, where(batch), batch.sessions.sizes)):
            clicked = [place for place, _ in batch.sessions.clicks(i)]
            peak, value = _peak(drawn.cpu().numpy(), clicked)
            moves.append([(peak, 1)] if value >= threshold or not turn else None)
        return moves

    return play


def _peak(values: NDArray[np.float32], clicked: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], float]:
    """The highest pixel (x, y) of a map (H, W) that is apart from those clicked, and its value."""
    height, width = values.shape
    left = np.ascontiguousarray(values)
    for place in clicked:
        cv2.circle(left, place, max(round(APART * max(height, width)), 1), -2.0, -1)
    row, column = divmod(int(left.argmax()), width)
    return (column, row), float(left[row, column])


def errors_player(where: Map, threshold: float) -> Player:
    """The greedy oracle with a map in the truth's place: each click where mask and map differ most deeply."""

    def play(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
        masks, moves = batch.sessions.masks(), list[Move]()
        for i, drawn in enumerate(in_images(batch.segmenter, where(batch), batch.sessions.sizes)):
            clicked = [place for place, _ in batch.sessions.clicks(i)]
            mask = masks[i] if batch.sessions.answered[i] else None
            moves.append([oracle_click((drawn >= threshold).cpu().numpy(), mask, clicked)])
        return moves

    return play


def mask_prompt_player(where: Map, threshold: float) -> Player:
    """A map as the segmenter's mask prompt, with one click at its peak: segmenters know no mask prompt without a click."""

    def play(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
        return [None] * batch.n if turn else list(give_map(batch, where(batch), threshold))

    return play


def give_map(episodes: ClickEpisodes, maps: th.Tensor, threshold: float) -> list[list[Click]]:
    """Give a map to each of N episodes as the mask prompt, and say where it has its peak: a click in each, not made yet.

    :param maps: (N, g, g) in the frame
    """
    episodes.sessions.give_masks(np.arange(episodes.n), map_logits(episodes, maps, threshold))
    drawn = in_images(episodes.segmenter, maps, episodes.sessions.sizes)
    return [[(_peak(one.cpu().numpy(), ())[0], 1)] for one in drawn]


def map_logits(episodes: ClickEpisodes, maps: th.Tensor, threshold: float) -> th.Tensor:
    """Maps (N, g, g) as logits (N, m, m) that are 0 at a threshold."""
    side = episodes.segmenter.mask_side
    logits = _logit(maps) - _logit(th.tensor(threshold))
    return F.interpolate(logits[:, None], (side, side), mode="bilinear")[:, 0]


def _logit(values: th.Tensor) -> th.Tensor:
    return values.clamp(0.001, 0.999).logit()


def _drawn(where: Map, threshold: float) -> Rival:
    return Rival(still, thresholded(where, threshold))


def _prompted(where: Map, threshold: float) -> Rival:
    return Rival(mask_prompt_player(where, threshold))


def _at_peaks(where: Map, threshold: float) -> Rival:
    return Rival(peaks_player(where, threshold))


def _at_errors(where: Map, threshold: float) -> Rival:
    return Rival(errors_player(where, threshold))


_FITTED: dict[str, tuple[str, Callable[[Map, float], Rival]]] = {
    "map alone": ("map", _drawn),
    "map as mask prompt": ("map", _prompted),
    "map's peaks": ("map", _at_peaks),
    "map's errors": ("map", _at_errors),
    "nearest exemplar": ("exemplar", _at_peaks),
    "small head": ("head", _drawn),
    "mean training mask": ("mean", _drawn),
}
"""What rivals are made of, and how. The map is the recalibration module's or, without one, the language prior's."""
GRAB_CUT = "GrabCut"
RIVALS = (*_FITTED, GRAB_CUT)
"""Rows of a report. GrabCut is no player: it gets the agent's clicks."""


def labelled_task(task: Task, trained: Task) -> Task:
    """The task of an evaluation on the images that the policy was trained on.

    :param task: the evaluation's
    :param trained: the policy's own
    """
    images: dict[str, Any] = {"dataset": trained.dataset, "dataset_kwargs": trained.dataset_kwargs, "prompts": trained.prompts}
    plain: dict[str, Any] = {"labels": "agent", "srm": False, "initial_pair": False, "box": None}  # nobody plays
    return replace(task, **images, **plain, split="train", reward="dice_gain", reward_network=None, absent=0.0)


def labelled_pairs(batch: ClickBatch, held_out: SeenImages, seed: int = 0) -> list[Pair]:
    """Pairs of a labelled image and a category that it shows, of at most :data:`MOST_IMAGES` images.

    :param held_out: images that no rival may learn from: those on which it is judged
    """
    shared, chosen = batch.shared, set[int]()
    everything = np.unique(np.concatenate(shared.images_by_category))
    for row in np.random.default_rng(seed).permutation(everything).tolist():
        if len(chosen) == MOST_IMAGES:
            break
        if shared.sample(row).labelled and hash_in(shared.dataset, row, shared.sample(row)) not in held_out:
            chosen.add(row)
    pairs = [(int(row), c) for c, rows in enumerate(shared.images_by_category) for row in rows if row in chosen]
    return sorted(pairs)  # those of one image together, so that it is read once


@dataclass(frozen=True)
class Fitted:
    """Rivals that were fitted.

    :param rivals: by name
    :param left_out: why there is no row of others
    :param images: how many labelled images they learned from
    """

    rivals: Mapping[str, Rival] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    images: int = 0


def fit_rivals(names: Collection[str], batch: ClickBatch, pairs: Sequence[Pair], categories: Sequence[str]) -> Fitted:
    """Fit rivals to labelled images.

    :param names: some of :data:`RIVALS`
    :param batch: episodes on the labelled images, with the policy's recalibration module if it has one
    :param pairs: those images and categories that are learned from
    :param categories: that are asked for in the evaluation
    """
    wanted = [name for name in names if name in _FITTED]
    taught = {batch.shared.dataset.categories[c] for _, c in pairs}
    strange = [name for name in categories if name not in taught]
    if strange:
        return Fitted({}, dict.fromkeys(wanted, f"no labelled training image shows {first_of(strange)}"))
    maps = _maps({_FITTED[name][0] for name in wanted}, batch, pairs)
    best = best_thresholds(maps, batch, pairs)
    made = {name: make(maps[kind], best[kind]) for name, (kind, make) in _FITTED.items() if name in wanted and kind in maps}
    why = "the policy has no recalibration module, and there is no language prior"
    return Fitted(made, {name: why for name in wanted if name not in made}, len({row for row, _ in pairs}))


def _maps(kinds: Collection[str], batch: ClickBatch, pairs: Sequence[Pair]) -> dict[str, Map]:
    """Maps by kind, of those kinds that can be had."""
    lessons = learn(batch, pairs) if set(kinds) - {"map"} else None
    makers: dict[str, Callable[[Lessons], Map]] = {"exemplar": exemplar_map, "head": head_map, "mean": mean_mask_map}
    maps = {kind: make(lessons) for kind, make in makers.items() if lessons is not None and kind in kinds}
    if "map" in kinds and batch.recalibration is not None:
        maps["map"] = module_map
    elif "map" in kinds and batch.shared.language is not None:
        maps["map"] = language_map
    return maps


def rivals_of(names: Collection[str], task: Task, trained: Task, batch: ClickBatch, episodes: Sequence[Pair]) -> Fitted:
    """Rivals of a policy, fitted on the images that it was trained on.

    :param names: some of :data:`RIVALS`
    :param task: of the evaluation
    :param trained: that the policy learned
    :param batch: of the evaluation
    :param episodes: of the evaluation; no image among them is learned from
    """
    fitted = [name for name in names if name in _FITTED]
    if not fitted:
        return Fitted()
    if str(trained.dataset).startswith("images:"):
        return Fitted({}, dict.fromkeys(fitted, f"the policy was trained on {trained.dataset}, without labels"))
    try:
        taught = ClickBatch(labelled_task(task, trained), batch.n)
        taught.recalibration = batch.recalibration
        shared = batch.shared
        held_out = SeenImages(hash_in(shared.dataset, row, shared.sample(row)) for row in {row for row, _ in episodes})
        asked = [shared.dataset.categories[c] for c in sorted({category for _, category in episodes})]
        return fit_rivals(fitted, taught, labelled_pairs(taught, held_out), asked)
    except (OSError, ValueError) as error:
        return Fitted({}, dict.fromkeys(fitted, f"the images that the policy was trained on cannot be used ({error})"))


def all_rows(
    players: Mapping[str, Player],
    agent: str,
    rivals: Mapping[str, Rival],
    grab_cut: bool,
    batch: ClickBatch,
    episodes: Sequence[Pair],
) -> dict[str, Row]:
    """Let everybody play the same episodes.

    :param agent: name of the player of which other masks than the last one are shown, too
    :param grab_cut: and what GrabCut makes of its clicks
    """
    rows: dict[str, Row] = {}
    for name, player in players.items():
        answers: dict[str, Answer] = {name: last}
        if name == agent:
            answers |= {f"{name}, {rule}": best_by(score) for rule, score in kept_rules(batch).items()}
            answers |= {GRAB_CUT: grab_cut_answer} if grab_cut else {}
        rows |= play_answers(player, batch, episodes, answers)
    for name, rival in rivals.items():
        rows |= play_answers(rival.player, batch, episodes, {name: rival.answer})
    return rows
