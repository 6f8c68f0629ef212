"""ClickBatch: N episodes at once with what may look at the truth: judging, rewards, oracle."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.episodes import ClickEpisodes, Plan, replaced
from alignsam_sb3.envs.labels import pair_of_truth
from alignsam_sb3.envs.oracle import oracle_action, oracle_preference
from alignsam_sb3.envs.scenes import Judge, Scenes, Target
from alignsam_sb3.envs.shared import Shared, described, open_shared
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.boxes import Box, map_box, truth_box
from alignsam_sb3.clickers import Click
from alignsam_sb3.datasets import Sample, UnreadableImageError, draw_episode
from alignsam_sb3.rewards import RewardContext, make_reward
from alignsam_sb3.rewards.network import RewardScorer, embedded_for, load_scorer
from alignsam_sb3.rewards.network.model import score_of
from alignsam_sb3.task import Task

logger = logging.getLogger(__name__)

SUCCESS_IOU = 0.8
Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Observation(dict[str, Any]):
    """Observations of N episodes, with the rows of the bank that hold what does not change within an episode."""

    def __init__(self, values: Mapping[str, Any], rows: Rows, shared: Shared) -> None:
        super().__init__(values)
        self.rows, self.bank = rows, shared.device_bank

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # copied and pickled without the bank


@dataclass(frozen=True)
class Step:
    """What one action in each of N episodes brought.

    :param rewards: (N,)
    :param over: (N,) whether the episode has ended
    :param invalid: (N,) whether the action was one that the mask forbids
    """

    rewards: Numbers
    over: NDArray[np.bool_]
    invalid: NDArray[np.bool_]


class ClickBatch(ClickEpisodes):
    """N episodes of one task on the images of its data set, stepped together with one call of the segmenter.

    ``SamSegEnv``, ``SamSegVecEnv`` and ``SamSegVectorEnv`` are views of it. Dice and IoU are measured on a grid in the
    segmenter's frame (see :mod:`~alignsam_sb3.envs.scenes`).

    :param task: what is segmented, and what an agent may do
    :param n: number of episodes
    :raises ValueError: the task asks the truth where there is none, or its reward network is of other concepts or models
    """

    def __init__(self, task: Task, n: int = 1) -> None:
        self.shared = open_shared(task)
        super().__init__(task, self.shared.segmenter, len(self.shared.dataset.categories), n)
        self.uses_ground_truth, self.labelled = task.uses_ground_truth, self.shared.labelled
        self._may_ask_truth = task.may_begin_from_truth and self.labelled
        task.check_truth(self._may_ask_truth)
        if task.box is not None and not self.segmenter.learned_boxes:
            logger.warning("%s was never taught what a box is: box=%r will hardly help", self.segmenter.name, task.box)
        self._reward = make_reward(task.reward)
        self.scorer = self._make_scorer()
        self.judge = Judge(n, self.scenes.side, self.segmenter.frame, self.segmenter.device)
        self.rngs = [np.random.default_rng() for _ in range(n)]
        self.rows = np.zeros(n, np.int64)
        self.dice, self.iou, self.best_dice, self.scores, self._patches = (np.zeros(n) for _ in range(5))
        self.absent = np.zeros(n, bool)
        self._on_object, self._judged = (np.zeros((n, self.grid.n_cells), bool) for _ in range(2))
        self._info: list[dict[str, Any]] = [{} for _ in range(n)]
        self._scored: dict[str, th.Tensor] = {}

    @property
    def scenes(self) -> Scenes:
        """Images and targets of the task's grid, which all batches of a process share."""
        return self.shared.scenes(self.task.patches)

    def _make_scorer(self) -> RewardScorer | None:
        """The reward network, if there is to be one, checked against the task."""
        shared, given = self.shared, self.task.reward_network
        if self.uses_ground_truth and not self.labelled:
            raise ValueError(
                f"the reward {self.task.reward!r} needs ground truth, and {shared.dataset.fingerprint} has none: take "
                "reward='network' with reward_network='DIR' that `python -m alignsam_sb3.rewards.network fit` wrote"
            )
        if self.task.reward == "network" and given is None:
            given = embedded_for(shared.dataset.categories)
            self.task = replace(self.task, reward_network=given)  # so that an evaluation scores with it, too
        if given is None:
            return None
        scorer = load_scorer(given, self.task.device) if isinstance(given, str) else given
        said = None if shared.language is None else shared.language.fingerprint
        scorer.check(shared.dataset.categories, shared.segmenter.fingerprint, said)
        return scorer

    # Beginning

    def reset(self, which: Rows, episodes: Sequence[tuple[int, int] | None] | None = None) -> None:
        """Begin new episodes.

        :param which: (K,) episodes that begin anew
        :param episodes: for each (image index, category id), or None to draw it
        :raises UnreadableImageError: an image cannot be read, and ``on_error`` is ``"raise"`` or none is left
        """
        if not len(which):
            return
        chosen = self._choose(which, episodes or [None] * len(which))
        self.rows[which] = [row for row, _ in chosen]
        categories = np.array([category for _, category in chosen])
        drawn = self.shared.device_bank.gather(self.rows[which])
        sizes = np.array([self.scenes.scene(row).size for row, _ in chosen], np.int64)
        features = {name: drawn.pop(name) for name in self.sessions.features}
        self.start(which, features, drawn, sizes, categories)
        self._patches[which] = [max(self.grid.sides((int(h), int(w)))) for h, w in sizes]
        self.judge.note(which, [self._note(int(i)) for i in which])
        self.scores[which] = 0
        for measured in (self.dice, self.iou, self.best_dice):
            measured[which] = self.absent[which]  # no mask at all is right where the target is absent
        if not self.labelled:
            self.dice[which] = self.iou[which] = self.best_dice[which] = np.nan
        self._note_for_scorer(which)
        if self.task.box is not None:
            self._draw_boxes(which)
        if self.task.initial_pair:
            pairs = [self._pair(int(i)) for i in which] if self._may_ask_truth else self.pairs_of_maps(which)
            self.place_pairs(which, pairs)
        self.refresh()

    def _choose(self, which: Rows, wanted: Sequence[tuple[int, int] | None]) -> list[tuple[int, int]]:
        """Choose images and categories of episodes; images that nobody asked for before are described together."""
        chosen = [episode or self._draw(int(i)) for i, episode in zip(which, wanted, strict=True)]
        with suppress(UnreadableImageError):  # which one it is, is found out below
            self.shared.device_bank.gather(np.array([row for row, _ in chosen]), [])
        return [
            self._readable(int(i), episode, given is not None) for i, episode, given in zip(which, chosen, wanted, strict=True)
        ]

    def _draw(self, i: int) -> tuple[int, int]:
        shared, rng = self.shared, self.rngs[i]
        if not self.task.absent or rng.random() >= self.task.absent:
            return draw_episode(shared.images_by_category, rng)
        return shared.draw_absent(rng)

    def _readable(self, i: int, episode: tuple[int, int], given: bool) -> tuple[int, int]:
        """An episode, or where its image cannot be read and that is allowed, another one."""
        shared = self.shared
        while True:
            row = episode[0]
            try:
                self.scenes.scene(row)
                shared.device_bank.gather(np.array([row]), [])
            except UnreadableImageError as error:
                shared.unreadable.add(row)
                if self.task.on_error == "raise" or given or not shared.readable():
                    raise
                logger.warning("image %d is skipped (%d so far): %s", row, len(shared.unreadable), error)
                episode = self._draw(i)
                continue
            return episode

    def _note(self, i: int) -> Target:
        row, category = int(self.rows[i]), int(self.categories[i])
        scene, target = self.scenes.scene(row), self.scenes.target(row, category)
        self._on_object[i], self._judged[i] = target.on_object, target.judged
        self.absent[i] = self.labelled and scene.labelled and not target.share.any()
        self._info[i] = {"image_id": scene.image_id, "category": self._name(category)} | described(self.shared, row, category)
        return target

    def _note_for_scorer(self, which: Rows) -> None:
        """What a reward network sees of new episodes beside their masks."""
        if self.scorer is None:
            return
        samples = [self.sample(int(i)) for i in which]
        seen = {"photos": th.from_numpy(np.stack([self.scorer.photo(sample.image) for sample in samples]))}
        if self.scorer.config.language is not None and self.shared.language is not None:
            found = {name: x.astype(np.float32) for name, x in self.shared.language.rows(self.rows[which]).items()}
            said = [
                self.scorer.spoken({name: x[k] for name, x in found.items()}, self._name(int(c)), samples[k].size)
                for k, c in enumerate(self.categories[which])
            ]
            seen["spoken"] = th.from_numpy(np.stack([s for s in said if s is not None]))
        for name, new in seen.items():
            self._scored[name] = replaced(self._scored.get(name), which, new, self.n)

    def _name(self, category: int) -> str:
        return self.shared.dataset.categories[category]

    def _draw_boxes(self, which: Rows) -> None:
        if self.task.box == "clip":
            boxes: list[Box | None] = [map_box(self.similarity_map(int(i)), self.size(int(i))) for i in which]
        else:
            truths = [self.sample(int(i)).target(int(self.categories[i])) for i in which]
            boxes = [truth_box(truth, self.rngs[i]) for i, truth in zip(which, truths, strict=True)]
        self.draw_boxes(which, boxes)

    def _pair(self, i: int) -> list[Click]:
        sample, category = self.sample(i), int(self.categories[i])
        return pair_of_truth(sample.target(category), sample.valid_for(category), self.rngs[i])

    # Going on

    def step(self, actions: NDArray[np.integer], acting: NDArray[np.bool_] | None = None) -> Step:
        """Take an action in each episode, or in those that are ``acting`` (N,)."""
        plan = self.plan(actions, acting)
        if self.task.labels == "oracle-train-only":
            labels = self._on_object[np.arange(self.n), plan.cells].astype(np.int64)
            plan = replace(plan, labels=labels)
        context = self._before(plan)
        self._judge(self.carry_out(plan))
        self.best_dice = np.maximum(self.best_dice, self.dice)
        rewards = self._reward(RewardContext(**context, dice_after=self.dice.copy(), score_after=self.scores.copy()))
        rewards = rewards - self.task.click_cost * (plan.clicks | plan.removes)
        self.refresh()
        return Step(np.where(plan.acts & ~plan.invalid, rewards, 0.0), self.over(plan), plan.invalid)

    def _before(self, plan: Plan) -> dict[str, Any]:
        """What a reward may look at, as it is before the clicks."""
        everyone = np.arange(self.n)
        return {
            "clicked": plan.clicks,
            "labels": plan.labels,
            "on_object": self._on_object[everyone, plan.cells],
            "known": self._judged[everyone, plan.cells],
            "nearest": self._nearest(self._centres[everyone, plan.cells], plan.labels),
            "patch_size": self._patches.copy(),
            "dice_before": self.dice.copy(),
            "score_before": self.scores.copy(),
        }

    def _nearest(self, coords: Rows, labels: Rows) -> Numbers:
        """(N,) distance of places (N, 2) to the nearest click of the same label so far; infinite where there is none."""
        made, said = self.sessions.point_coords, self.sessions.point_labels
        same = (np.arange(made.shape[1]) < self.sessions.counts[:, None]) & (said == labels[:, None])
        distance = np.hypot(*np.moveaxis(made - coords[:, None], -1, 0))
        nearest: Numbers = np.where(same, distance, np.inf).min(1, initial=np.inf)
        return nearest

    def draw_boxes(self, which: Rows, boxes: Sequence[Box | None]) -> Rows:
        drawn = super().draw_boxes(which, boxes)
        self._judge(drawn)
        return drawn

    def place(self, which: Rows, clicks: Sequence[Sequence[Click]]) -> None:
        super().place(which, clicks)
        self._judge(which)
        self.best_dice[which] = np.maximum(self.best_dice[which], self.dice[which])
        self.refresh()

    @th.no_grad()
    def _judge(self, which: Rows) -> None:
        """Measure the masks of some episodes: 0 before the first answer, NaN where there is no truth."""
        if not len(which):
            return
        at = on_device(which, self.sessions.logits.device)
        logits = self.sessions.logits[at]
        answered = self.sessions.answered[which]
        if self.labelled:
            nothing = self.absent[which, None].astype(float)  # what an empty mask is worth
            both = np.where(answered[:, None], self.judge.dice_and_iou(which, logits), nothing)
            self.dice[which], self.iou[which] = both.T
            blank = [k for k, i in enumerate(which) if not self.scenes.scene(int(self.rows[i])).labelled]
            self.dice[which[blank]] = self.iou[which[blank]] = np.nan
        if self.scorer is not None:
            spoken = self._scored.get("spoken")
            predicted = self.scorer.predict(
                self._scored["photos"][which],
                logits.sigmoid(),
                self.sessions.features["embeddings"][at],
                self.sessions.sizes[which],
                [self._name(int(c)) for c in self.categories[which]],
                None if spoken is None else spoken[which],
            )
            self.scores[which] = np.where(answered, score_of(predicted).double().cpu().numpy(), 0.0)

    # What is seen

    def observe(self) -> Observation:
        return Observation(super().observe(), self.rows.copy(), self.shared)

    def info(self, i: int) -> dict[str, Any]:
        """What is known of one episode now; for logging, never for an agent."""
        clicks = self.sessions.clicks(i)
        scored = {} if self.scorer is None else {"reward_net_score": float(self.scores[i])}
        return (
            self._info[i]
            | scored
            | {
                "point_coords": [place for place, _ in clicks],
                "point_labels": [label for _, label in clicks],
                "dice": float(self.dice[i]),
                "best_dice": float(self.best_dice[i]),
                "iou": float(self.iou[i]),
                "iou_predicted": float(self.sessions.iou_predicted[i]),
            }
        )

    def ended(self, i: int) -> dict[str, Any]:
        """The same for an episode that has ended."""
        return self.info(i) | {"is_success": bool(self.iou[i] >= SUCCESS_IOU)}

    def sample(self, i: int) -> Sample:
        """The image of an episode with its annotation."""
        return self.shared.sample(int(self.rows[i]))

    def similarity_map(self, i: int) -> NDArray[np.float32]:
        """Where the prior sees an episode's target, (g_h, g_w) in [0, 1] over the image squashed to CLIP's grid.

        :raises RuntimeError: there is no language prior
        """
        if self.shared.language is None:
            raise RuntimeError("this environment has no language prior: make it with clip='tiny'")
        maps = self.shared.language.rows([int(self.rows[i])])["similarity_maps"]
        wanted: NDArray[np.float32] = maps[0, self.categories[i]].astype(np.float32)
        return wanted

    # What may look at the truth

    def _truth_and_mask(self, i: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
        """The target and the current mask on the judging grid, without what is not known."""
        truth = (self.judge.share[i] > 127).cpu().numpy()
        if not self.sessions.answered[i]:
            return truth, None
        known = self.judge.known[i] > 127
        return truth, (self.judge.masks(self.sessions.logits[i : i + 1])[0] & known).cpu().numpy()

    def oracle_action(self, i: int) -> int:
        """The allowed action nearest to the greedy oracle's click. It looks at the truth: for warm starts in training."""
        if self.absent[i]:
            return self.actions.n - 1  # done
        truth, mask = self._truth_and_mask(i)
        return oracle_action(truth, mask, self.action_mask[i], self.grid, self.size(i), self.task.labels)

    def oracle_preference(self, i: int, enough: float = 1.0) -> NDArray[np.float32]:
        """How the oracle rates each action, (n_actions,) adding up to 1. It looks at the truth, too.

        :param enough: Dice from which on it is done, where the task offers that
        """
        if self.absent[i] or (self.task.done and self.action_mask[i, -1] and self.dice[i] >= enough):
            done = np.zeros(self.actions.n, np.float32)
            done[-1] = 1
            return done
        truth, mask = self._truth_and_mask(i)
        return oracle_preference(truth, mask, self.action_mask[i], self.grid, self.size(i), self.task.labels)

    def truth_on_grid(self) -> list[NDArray[np.float32]]:
        """For each episode (2, h, w) of the embedding's cells: the share that the target covers, and the share that is known.

        For teaching a recalibration module on training images.
        """
        return list(self.judge.coarse(self.shared.segmenter.embedding_shape[1]))
