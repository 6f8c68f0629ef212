"""ClickBatch: N episodes at once. Click sessions, and what may look at the truth: judging, rewards, oracle."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.actions import CLICK, DONE, REMOVE, ClickActions
from alignsam_sb3.envs.labels import pair_of_map, pair_of_truth, restrict
from alignsam_sb3.envs.oracle import oracle_action, oracle_preference
from alignsam_sb3.envs.scenes import Judge, Target
from alignsam_sb3.envs.shared import Shared, described, open_shared
from alignsam_sb3.envs.spaces import observation_space
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click
from alignsam_sb3.datasets import Sample, UnreadableImageError, draw_episode
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.rewards import RewardContext, make_reward
from alignsam_sb3.rewards.network import RewardScorer, embedded_for, load_scorer
from alignsam_sb3.rewards.network.model import score_of
from alignsam_sb3.session import ClickSessions
from alignsam_sb3.task import Task

logger = logging.getLogger(__name__)

SUCCESS_IOU = 0.8
Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Observation(dict[str, th.Tensor]):
    """Observations of N episodes, with the rows of the bank that hold what does not change within an episode."""

    def __init__(self, values: dict[str, th.Tensor], rows: Rows, shared: Shared) -> None:
        super().__init__(values)
        self.rows, self.bank = rows, shared.device_bank


@dataclass(frozen=True)
class Step:
    """What one action in each of N episodes brought.

    :param rewards: (N,)
    :param over: (N,) whether the episode has ended
    :param invalid: (N,) whether the action was one that the mask forbids: it changes nothing, but uses the step up
    """

    rewards: Numbers
    over: NDArray[np.bool_]
    invalid: NDArray[np.bool_]


class ClickBatch:
    """N episodes of one task, stepped together with one call of the segmenter.

    ``SamSegEnv``, ``SamSegVecEnv`` and ``SamSegVectorEnv`` are views of it. Observations are tensors on the segmenter's
    device. Dice and IoU are measured on a grid in the segmenter's frame (see :mod:`~alignsam_sb3.envs.scenes`).

    :param task: what is segmented, and what an agent may do
    :param n: number of episodes
    :raises ValueError: the task asks the truth where there is none, or its reward network is of other concepts or models
    """

    def __init__(self, task: Task, n: int = 1) -> None:
        self.task, self.n = task, n
        self.shared = open_shared(task)
        self.uses_ground_truth, self.labelled = task.uses_ground_truth, self.shared.labelled
        self._may_ask_truth = task.may_begin_from_truth and self.labelled
        task.check_truth(self._may_ask_truth)
        self._reward = make_reward(task.reward)
        self.scorer = self._make_scorer()
        self.scenes = self.shared.scenes(task.patches)
        self.grid = self.scenes.grid
        self.actions = ClickActions(self.grid, task.remove, task.done)
        self.sessions = ClickSessions(self.shared.segmenter, n, remembers=task.remove)
        segmenter = self.shared.segmenter
        self.judge = Judge(n, self.scenes.side, segmenter.frame, segmenter.device)
        self.recalibration: Recalibration | None = None
        self.rngs = [np.random.default_rng() for _ in range(n)]
        self.rows, self.categories = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.num_steps = np.zeros(n, np.int64)
        self.scores, self.best_dice = np.zeros(n), np.zeros(n)
        self.dice, self.iou = np.zeros(n), np.zeros(n)
        cells = self.grid.n_cells
        self._used = np.zeros((n, cells), np.int16)
        self._on_image, self._centres = np.zeros((n, cells), bool), np.zeros((n, cells, 2), np.int64)
        self._on_object, self._judged = np.zeros((n, cells), bool), np.zeros((n, cells), bool)
        self._info: list[dict[str, Any]] = [{} for _ in range(n)]
        grid = segmenter.embedding_shape[1:]
        self.foreground = th.full((n, *grid), 0.5, device=segmenter.device)
        self.action_mask = np.zeros((n, self.actions.n), np.int8)
        self.observation_space = observation_space(segmenter, len(self.shared.dataset.categories), task, self.actions.n)
        self._names = list(self.observation_space.spaces)
        self._constants: dict[str, th.Tensor] = {}
        self._scored: dict[str, th.Tensor] = {}

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
        for i, wanted in zip(which, episodes or [None] * len(which), strict=True):
            self._place(int(i), wanted)
        shared, rows = self.shared, self.rows[which]
        drawn = shared.device_bank.gather(rows)
        sizes = np.array([self.scenes.scene(int(row)).size for row in rows], np.int64)
        self.sessions.start(which, {name: drawn[name] for name in self.sessions.features}, sizes)
        self._keep_constants(which, {name: drawn[name] for name in drawn if name not in self.sessions.features})
        targets = [self._note(int(i)) for i in which]
        self.judge.note(which, targets)
        for counter in (self.num_steps, self.scores, self.dice, self.iou, self.best_dice):
            counter[which] = 0
        self._used[which] = 0
        if not self.labelled:
            self.dice[which] = self.iou[which] = self.best_dice[which] = np.nan
        self._begin(which)
        self._refresh()

    def _place(self, i: int, wanted: tuple[int, int] | None) -> None:
        """Choose an episode's image and category; one that cannot be read is replaced where that is allowed."""
        shared = self.shared
        while True:
            row, category = wanted or draw_episode(shared.images_by_category, self.rngs[i])
            try:
                self.scenes.scene(row)
                shared.device_bank.gather(np.array([row]), [])
            except UnreadableImageError as error:
                shared.unreadable.add(row)
                if self.task.on_error == "raise" or wanted or not shared.readable():
                    raise
                logger.warning("image %d is skipped (%d so far): %s", row, len(shared.unreadable), error)
                continue
            self.rows[i], self.categories[i] = row, category
            return

    def _note(self, i: int) -> Target:
        row, category = int(self.rows[i]), int(self.categories[i])
        scene, target = self.scenes.scene(row), self.scenes.target(row, category)
        self._on_image[i], self._centres[i] = self.grid.on_image(scene.size), self.grid.centres(scene.size)
        self._on_object[i], self._judged[i] = target.on_object, target.judged
        names = {"image_id": scene.image_id, "category": self.shared.dataset.categories[category]}
        self._info[i] = names | described(self.shared, row, category)
        return target

    def _keep_constants(self, which: Rows, drawn: dict[str, th.Tensor]) -> None:
        """Take what does not change within an episode into new tensors: those handed out stay as they are."""
        for name, new in drawn.items():
            self._constants[name] = self._replaced(self._constants.get(name), which, new)
        if self.scorer is None:
            return
        rows, categories = self.rows[which], self.categories[which]
        samples = [self.sample(int(i)) for i in which]
        seen = {"photos": th.from_numpy(np.stack([self.scorer.photo(sample.image) for sample in samples]))}
        if self.scorer.config.language is not None and self.shared.language is not None:
            found = {name: x.astype(np.float32) for name, x in self.shared.language.rows(rows).items()}
            said = [
                self.scorer.spoken({name: x[k] for name, x in found.items()}, self._name(int(c)), samples[k].size)
                for k, c in enumerate(categories)
            ]
            seen["spoken"] = th.from_numpy(np.stack([s for s in said if s is not None]))
        for name, new in seen.items():
            self._scored[name] = self._replaced(self._scored.get(name), which, new)

    def _replaced(self, old: th.Tensor | None, which: Rows, new: th.Tensor) -> th.Tensor:
        if old is None:
            old = th.zeros((self.n, *new.shape[1:]), dtype=new.dtype, device=new.device)
        return old.index_copy(0, th.from_numpy(which).to(old.device), new)

    def _name(self, category: int) -> str:
        return self.shared.dataset.categories[category]

    def _begin(self, which: Rows) -> None:
        """Draw the first box and make the first pair of clicks, which count as no step."""
        self.foreground[th.from_numpy(which).to(self.foreground.device)] = 0.5
        if not self.task.initial_pair or (not self._may_ask_truth and self.recalibration is None):
            return
        pairs = [self._pair(int(i)) for i in which] if self._may_ask_truth else self._pairs_of_maps(which)
        made = [k for k, pair in enumerate(pairs) if pair]
        self.place(which[made], [pairs[k] for k in made])

    def _pair(self, i: int) -> list[Click]:
        sample, category = self.sample(i), int(self.categories[i])
        return pair_of_truth(sample.target(category), sample.valid_for(category), self.rngs[i])

    def _pairs_of_maps(self, which: Rows) -> list[list[Click]]:
        self._draw_foreground()
        maps = self.foreground.cpu().numpy()
        return [pair_of_map(maps[i], self.grid, self.size(int(i))) for i in which]

    # Going on

    def step(self, actions: NDArray[np.integer], acting: NDArray[np.bool_] | None = None) -> Step:
        """Take an action in each episode, or in those that are ``acting`` (N,)."""
        everyone, acts = np.arange(self.n), np.ones(self.n, bool) if acting is None else acting
        chosen = np.where(acts, np.asarray(actions, np.int64), 0)
        kinds = self.actions.kinds(chosen)
        allowed = acts & (self.action_mask[everyone, chosen] > 0)
        cells, labels = self.actions.cells(chosen), self.actions.labels(chosen)
        if self.task.labels == "oracle-train-only":
            labels = self._on_object[everyone, cells].astype(np.int64)
        clicks = np.flatnonzero(allowed & (kinds == CLICK))
        context = self._before(allowed & (kinds == CLICK), cells, labels)
        if len(clicks):
            coords = self._centres[clicks, cells[clicks]]
            self.sessions.click(clicks, coords[:, None].astype(np.float32), labels[clicks, None])
            self._used[clicks, cells[clicks]] += 1
        taken_back = np.flatnonzero(allowed & (kinds == REMOVE))
        self._undo(taken_back)
        self._judge(np.union1d(clicks, taken_back))
        self.num_steps += acts
        self.best_dice = np.maximum(self.best_dice, self.dice)
        rewards = self._reward(RewardContext(**context, dice_after=self.dice.copy(), score_after=self.scores.copy()))
        over = (self.num_steps >= self.task.max_steps) | (allowed & (kinds == DONE))
        self._refresh()
        return Step(np.where(allowed, rewards, 0.0), over, acts & ~allowed)

    def _before(self, clicked: NDArray[np.bool_], cells: Rows, labels: Rows) -> dict[str, Any]:
        """What a reward may look at, as it is before the clicks."""
        everyone = np.arange(self.n)
        sizes = self.sessions.sizes
        patch = np.array([max(self.grid.sides((int(h), int(w)))) for h, w in sizes])
        return {
            "clicked": clicked,
            "labels": labels,
            "on_object": self._on_object[everyone, cells],
            "known": self._judged[everyone, cells],
            "nearest": self._nearest(self._centres[everyone, cells], labels),
            "patch_size": patch,
            "dice_before": self.dice.copy(),
            "score_before": self.scores.copy(),
        }

    def _nearest(self, coords: Rows, labels: Rows) -> Numbers:
        """(N,) distance of places (N, 2) to the nearest click of the same label so far; infinite where there is none."""
        made, said = self.sessions.point_coords, self.sessions.point_labels
        same = (np.arange(made.shape[1]) < self.sessions.counts[:, None]) & (said == labels[:, None])
        distance = np.hypot(*np.moveaxis(made - coords[:, None], -1, 0))
        return np.where(same, distance, np.inf).min(1, initial=np.inf)

    def _undo(self, which: Rows) -> None:
        for i in which:
            place, _ = self.sessions.clicks(int(i))[-1]
            self._used[i, self.grid.cell_at(place, self.size(int(i)))] -= 1
        if len(which):
            self.sessions.undo(which)

    def place(self, which: Rows, clicks: Sequence[Sequence[Click]]) -> None:
        """Make clicks at any pixels of some episodes, for people, baselines and first pairs; they count as no step.

        :raises ValueError: a point lies outside its image, or a label is neither 0 nor 1
        """
        for i, made in zip(which, clicks, strict=True):
            for point, label in made:
                self._used[i, self.actions.at(point, label, self.size(int(i))) % self.grid.n_cells] += 1
        if len(which):
            self.sessions.click_each(which, clicks)
        self._judge(which)
        self.best_dice[which] = np.maximum(self.best_dice[which], self.dice[which])
        self._refresh()

    @th.no_grad()
    def _judge(self, which: Rows) -> None:
        """Measure the masks of some episodes: 0 before the first answer, NaN where there is no truth."""
        if not len(which):
            return
        at = th.from_numpy(which).to(self.sessions.logits.device)
        logits = self.sessions.logits[at]
        answered = self.sessions.answered[which]
        if self.labelled:
            both = np.where(answered[:, None], self.judge.dice_and_iou(which, logits), 0.0)
            self.dice[which], self.iou[which] = both.T
            blank = [k for k, i in enumerate(which) if not self.scenes.scene(int(self.rows[i])).labelled]
            self.dice[which[blank]] = self.iou[which[blank]] = np.nan
        if self.scorer is not None:
            spoken = self._scored.get("spoken")
            predicted = self.scorer.predict(
                self._scored["photos"][at.cpu()],
                logits.sigmoid(),
                self.sessions.features["embeddings"][at],
                self.sessions.sizes[which],
                [self._name(int(c)) for c in self.categories[which]],
                None if spoken is None else spoken[at.cpu()],
            )
            self.scores[which] = np.where(answered, score_of(predicted).double().cpu().numpy(), 0.0)

    def _refresh(self) -> None:
        """Draw the recalibration module's maps and say what may be done next."""
        if self.task.wants_srm:
            self._draw_foreground()
        clicked = self.sessions.counts > 0
        mask = self.actions.mask(self._on_image, self._used > 0, clicked)
        foreground = self.foreground.cpu().numpy() if self.task.labels == "srm" else None
        self.action_mask = restrict(mask, self.task.labels, foreground, self.grid, self.sessions.sizes)

    # What is seen

    def _draw_foreground(self) -> None:
        if self.recalibration is not None:
            self.foreground = self.recalibration.foreground(self._values())

    def _values(self) -> dict[str, th.Tensor]:
        device = self.sessions.logits.device
        values = {
            "target_category": th.from_numpy(self.categories).to(device),
            "sam_image_embeddings": self.sessions.features["embeddings"],
            "sam_pred_mask_prob": self.sessions.probabilities,
            "num_steps": th.from_numpy(self.num_steps).to(device, th.float32)[:, None],
        }
        return values | self._constants

    def observe(self) -> Observation:
        """What agents see, (N, ...) tensors on the device; none of them is ever written to afterwards."""
        values = self._values()
        if self.task.wants_srm:
            values["foreground_map"] = self.foreground
        values["action_mask"] = th.from_numpy(self.action_mask).to(self.sessions.logits.device)
        return Observation({name: values[name] for name in self._names}, self.rows.copy(), self.shared)

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
                "iou_predicted": float(self.sessions.iou[i]),
            }
        )

    def ended(self, i: int) -> dict[str, Any]:
        """The same for an episode that has ended."""
        return self.info(i) | {"is_success": bool(self.iou[i] >= SUCCESS_IOU)}

    def sample(self, i: int) -> Sample:
        """The image of an episode with its annotation."""
        return self.shared.sample(int(self.rows[i]))

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of an episode's image in pixels."""
        height, width = self.sessions.sizes[i]
        return int(height), int(width)

    def similarity_map(self, i: int) -> NDArray[np.float32]:
        """Where the prior sees an episode's target, (g_h, g_w) in [0, 1] over the image squashed to CLIP's grid.

        :raises RuntimeError: there is no language prior
        """
        if self.shared.language is None:
            raise RuntimeError("this environment has no language prior: make it with clip='tiny'")
        maps = self.shared.language.rows([int(self.rows[i])])["similarity_maps"]
        return maps[0, self.categories[i]].astype(np.float32)

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
        truth, mask = self._truth_and_mask(i)
        return oracle_action(truth, mask, self.action_mask[i], self.grid, self.size(i), self.task.labels)

    def oracle_preference(self, i: int) -> NDArray[np.float32]:
        """How much the oracle would like each action, (n_actions,) adding up to 1. It looks at the truth, too."""
        truth, mask = self._truth_and_mask(i)
        return oracle_preference(truth, mask, self.action_mask[i], self.grid, self.size(i), self.task.labels)

    def truth_on_grid(self) -> list[NDArray[np.float32]]:
        """For each episode (2, h, w) of the embedding's cells: the share that the target covers, and that the annotation speaks of.

        For teaching a recalibration module on training images.
        """
        return list(self.judge.coarse(self.shared.segmenter.embedding_shape[1]))
