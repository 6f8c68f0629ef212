"""The protocol: every player plays the same episodes, drawn from a seed, and is measured in the image after each turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import Click
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.shared import Shared
from alignsam_sb3.evaluation.answers import Answer, Masks, last
from alignsam_sb3.evaluation.episodes import Pair, begun
from alignsam_sb3.evaluation.players import Move, Player

CHUNK = 32  # episodes played at a time
KEPT_MASKS = 12  # episodes whose masks are kept for pictures


@dataclass
class Row:
    """One player's results.

    :param distinct: how many of the episodes are different (image, category) pairs
    :param scores: for each metric (episodes, clicks), the value after each click
    :param image_ids: for each episode the name of its image
    :param clicks: for each episode the clicks in order
    :param present: for each episode whether the target is in the image
    :param masks: the final masks of the first ``KEPT_MASKS`` episodes
    """

    distinct: int
    scores: dict[str, NDArray[np.float64]]
    image_ids: list[str] = field(default_factory=list)
    clicks: list[list[Click]] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    def mean(self, metric: str) -> list[float]:
        """Mean over episodes after each click."""
        means: list[float] = self.scores[metric].mean(0).tolist()
        return means

    def interval(self, metric: str) -> list[float]:
        """Half the width of the 95 % interval of that mean (normal approximation over distinct episodes)."""
        values = self.scores[metric]
        half: list[float] = (1.96 * values.std(0, ddof=min(1, len(values) - 1)) / np.sqrt(self.distinct)).tolist()
        return half


def play(player: Player, batch: ClickBatch, episodes: Sequence[Pair]) -> Row:
    """Let a player play episodes, as many at a time as the batch has, with one decoder call per turn."""
    return play_answers(player, batch, episodes, {"": last})[""]


def play_answers(player: Player, batch: ClickBatch, episodes: Sequence[Pair], answers: Mapping[str, Answer]) -> dict[str, Row]:
    """The same, judged by several rules of which mask is handed out; a row for each of them."""
    turns = batch.task.max_steps
    measured = [*metrics.METRICS, *["presence"] * (batch.task.absent > 0), *["score"] * (batch.scorer is not None)]
    blank = {name: np.full((len(episodes), turns), np.nan) for name in measured}
    rows = {name: Row(len(set(episodes)), {m: values.copy() for m, values in blank.items()}) for name in answers}
    for group in begun(batch, episodes):
        over, judge = np.zeros(batch.n, bool), _Judge(batch, answers)
        for turn in range(turns):
            moves = player(batch, batch.observe(), turn)
            over |= _move(batch, [None if stopped else move for stopped, move in zip(over, moves, strict=True)])
            judge.hand_out(turn)
            for name, row in rows.items():
                for i in range(len(group)):
                    for metric, value in judge.measure(name, i).items():
                        row.scores[metric][group[i], turn] = value
        for name, row in rows.items():
            row.image_ids += [batch.info(i)["image_id"] for i in range(len(group))]
            row.present += (~batch.absent[: len(group)]).tolist()
            row.clicks += [batch.sessions.clicks(i) for i in range(len(group))]
            row.masks += judge.handed[name][: min(KEPT_MASKS - len(row.masks), len(group))]
    for row in rows.values():
        if np.isnan(row.scores.get("score", 0.0)).any():  # of masks that are no answers of the segmenter
            del row.scores["score"]
    return rows


class _Judge:
    """What is handed out of a group of episodes, and all its metrics in the images; a mask that stays is measured once.

    :param answers: rules by name
    """

    def __init__(self, batch: ClickBatch, answers: Mapping[str, Answer]) -> None:
        self.batch, self.answers = batch, answers
        self.handed: dict[str, Masks] = {}
        self._scores: dict[int, float] = {}
        self._known: dict[int, dict[str, float]] = {}

    def hand_out(self, turn: int) -> None:
        """Take what every rule hands out after a turn."""
        masks = self.batch.sessions.masks()
        if self.batch.scorer is not None:
            self._scores |= {id(mask): float(score) for mask, score in zip(masks, self.batch.scores, strict=True)}
        handed = {name: answer(self.batch, masks, turn) for name, answer in self.answers.items()}
        here = {id(mask) for one in handed.values() for mask in one}
        self._scores = {key: value for key, value in self._scores.items() if key in here}
        self._known = {key: value for key, value in self._known.items() if key in here}
        self.handed = handed  # those before are let go only now: none of the new ones could take an old one's id

    def measure(self, name: str, i: int) -> dict[str, float]:
        """What the mask is worth that a rule hands out of an episode."""
        mask = self.handed[name][i]
        if id(mask) not in self._known:
            sample, category = self.batch.sample(i), int(self.batch.categories[i])
            truth, valid = sample.target(category), sample.valid_for(category)
            found = metrics.of_mask(mask, truth, valid)
            if self.batch.task.absent:
                found["presence"] = float(mask.any() != self.batch.absent[i])
            if id(mask) in self._scores:
                found["score"] = self._scores[id(mask)]
            self._known[id(mask)] = found
        return self._known[id(mask)]


def _move(batch: ClickBatch, moves: Sequence[Move]) -> NDArray[np.bool_]:
    """Make the moves; (N,) which episodes are over by an action."""
    placed = [i for i, move in enumerate(moves) if isinstance(move, list)]
    batch.place(np.array(placed, np.int64), [moves[i] for i in placed])  # type: ignore[misc]
    acting = np.array([isinstance(move, int) for move in moves])
    if not acting.any():
        return np.zeros(batch.n, bool)
    step = batch.step(np.array([move if isinstance(move, int) else 0 for move in moves]), acting)
    over: NDArray[np.bool_] = step.over & acting
    return over


def draw_episodes(images_by_category: Sequence[NDArray[np.int64]], count: int, rng: np.random.Generator) -> list[Pair]:
    """Draw (image index, category id), the categories in turn, no image of a category again before all were drawn."""
    if count < 1:
        raise ValueError(f"episodes must be at least 1, got {count}")
    shown = [c for c, images in enumerate(images_by_category) if len(images)]
    orders = {c: rng.permutation(images_by_category[c]) for c in shown}
    return [(int(orders[c][(i // len(shown)) % len(orders[c])]), c) for i in range(count) for c in [shown[i % len(shown)]]]


def draw_both(shared: Shared, count: int, share: float, seed: int) -> list[Pair]:
    """Draw episodes, a share of them with a target that the image lacks.

    :return: (image index, category id) of each, the absent ones anywhere among them
    """
    rng = np.random.default_rng(seed)
    drawn = draw_episodes(shared.images_by_category, count, rng)
    for i in rng.choice(count, round(share * count), replace=False) if share else ():
        drawn[i] = shared.draw_absent(rng)
    return drawn


def evaluate(players: Mapping[str, Player], batch: ClickBatch, episodes: int, seed: int) -> tuple[dict[str, Row], list[Pair]]:
    """Let every player play the same episodes.

    :param batch: episodes on the evaluation split
    :return: a row per player, and the episodes (image index, category id)
    """
    drawn = draw_both(batch.shared, episodes, batch.task.absent, seed)
    return {name: play(player, batch, drawn) for name, player in players.items()}, drawn


def number_of_clicks(row: Row) -> dict[str, float]:
    """NoC@80, 85, 90 and 95 with the episodes' number of clicks (20 in the field) as the cap, and the failures.

    Episodes whose target is not in the image have nothing to reach, and do not count.
    """
    ious = row.scores["iou"]
    cap = ious.shape[1]
    return metrics.clicks_needed(ious[np.array(row.present, bool)].tolist(), cap) | {"cap": cap}
