"""``SamSeg-v0``: place point prompts for a frozen SAM until its mask covers the target."""

import logging
import math
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.episode import Answer, Belief, Episode, Job, Language, decode_jobs
from alignsam_sb3.envs.grid import ClickGrid
from alignsam_sb3.envs.labels import Labels, initial_pair
from alignsam_sb3.envs.oracle import oracle_action, oracle_preference
from alignsam_sb3.envs.shared import Shared, share, share_by_name
from alignsam_sb3.envs.spaces import CompactBox
from gymnasium import spaces
from numpy.typing import NDArray

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import Click
from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError, draw_episode
from alignsam_sb3.names import nearest
from alignsam_sb3.pictures import Picture, caption, heat, in_frame, triptych
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.rewards import Turn, make_reward
from alignsam_sb3.rewards.network import RewardScorer, embedded_for, load_scorer
from alignsam_sb3.rewards.network.frame import to_frame
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.semantics import PADDING, ClipSurgery, load_clip, maps_in_frame

logger = logging.getLogger(__name__)

Observation = dict[str, Any]
Move = int | Click | list[Click]
"""An action of the action space, or clicks at pixels."""
SUCCESS_IOU = 0.8
LARGEST_IMAGE = 256  # side of the ``image`` observation in pixels, at most


class SamSegEnv(gym.Env[Observation, int]):
    """Each action clicks one cell of a grid as foreground or background; a frozen SAM answers all clicks so far.

    Observation (Dict): ``image`` (3, S, S) uint8 and ``sam_image_embeddings`` (C, h, w) in the segmenter's frame,
    ``sam_pred_mask_prob`` (4h, 4w) the current belief (0.5 before the first click), ``target_category``, ``num_steps``, and
    ``action_mask`` (n_actions,), the same as :meth:`action_masks`. With a language prior also ``similarity_maps``
    (n_categories, h, w) in [0, 1], where CLIP Surgery sees each category's text, and ``cosine_maps`` (n_categories, h, w) in
    [-1, 1], how much each place suits it, both -1 in the padding; with ``srm`` also ``foreground_map`` (h, w). The truth is
    used for rewards only.

    An action that the mask forbids changes nothing, uses the step up, and is reported as ``info["invalid_action"]``.

    :param dataset: a spec (``toy:semantic``, ``coco:ROOT``) or a data set
    :param split: ``"train"`` or ``"eval"``
    :param dataset_kwargs: options of the data set
    :param segmenter: a spec (``tiny``, ``vit_b:PATH``) or a segmenter
    :param clip: the language prior, a spec (``tiny``, ``ViT-B-16-quickgelu:openai``) or a ClipSurgery; None for none
    :param prompts: what to ask the prior for a category, where its name does not say it: ``{"disc": "something round"}``
    :param reward: ``"dice_gain"``, ``"shaped"`` or ``"paper"``, which look at the truth, or ``"network"``, which does not
    :param reward_network: scores every mask (``info["reward_net_score"]``), as a reward or beside one: a folder that
        ``python -m alignsam_sb3.rewards.network fit`` wrote, ``tiny`` or ``tiny_named`` (embedded, for toy scenes) or a
        RewardScorer; with the reward ``"network"`` the default is the embedded one that knows the categories
    :param max_steps: clicks in an episode
    :param patches: cells along each axis of the grid
    :param labels: who says whether a click is positive: ``"agent"``; ``"srm"``, the recalibration module's map at that place;
        ``"positive"``, always; ``"oracle-train-only"``, the truth, which evaluation refuses. But for ``"agent"`` an action is
        a position only: of each cell's two actions the mask allows one
    :param srm: hand out ``foreground_map`` (h, w) in [0, 1], where the recalibration module of the policy (see
        :meth:`use_srm`) sees the target; 0.5 everywhere before there is one. ``labels="srm"`` implies it
    :param initial_pair: begin with one positive and one negative click (AlignSAM, section 4.1): random ones of the truth in
        training, the map's most and least certain places in evaluation; what is not the split ``"train"`` counts as evaluation
    :param remove: offer an action that takes the last click back
    :param done: offer an action that ends the episode
    :param on_error: ``"skip"`` leaves out images that cannot be read, ``"raise"`` names them
    :param device: where the segmenter runs
    :param render_mode: ``"rgb_array"``: photo | truth | prediction with clicks
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        dataset: str | SegmentationDataset = "toy:semantic",
        split: str = "train",
        dataset_kwargs: Mapping[str, Any] | None = None,
        segmenter: str | PromptableSegmenter = "tiny",
        clip: str | ClipSurgery | None = "tiny",
        prompts: Mapping[str, str] | None = None,
        reward: str = "dice_gain",
        reward_network: str | RewardScorer | None = None,
        max_steps: int = 5,
        patches: int = 8,
        labels: str = "agent",
        srm: bool = False,
        initial_pair: bool = False,
        remove: bool = False,
        done: bool = False,
        on_error: str = "raise",
        device: str = "auto",
        render_mode: str | None = None,
        **unknown: object,
    ) -> None:
        for name in unknown:
            known = [key for key in signature(SamSegEnv).parameters if key != "unknown"]
            raise ValueError(nearest("option of SamSeg-v0", name, known))
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(nearest("render_mode", render_mode, self.metadata["render_modes"]))
        self.render_mode, self.max_steps = render_mode, max_steps
        self.grid = ClickGrid(patches, remove, done)
        self._reward = make_reward(reward)
        self.labels = Labels(labels, split)
        self.wants_srm, self.initial_pair = srm or labels == "srm", initial_pair
        if initial_pair and remove:
            raise ValueError("initial_pair and remove do not go together: one half of the pair could be taken back")
        self.srm: Recalibration | None = None
        self.defer_foreground = False
        """Leave the map to a batched caller, which gives it with :meth:`note_foreground`."""
        if prompts and clip is None:
            raise ValueError("prompts are asked of a language prior, and there is none: give clip, for example clip='tiny'")
        self.looks_at_truth = reward != "network"
        """Whether the reward does; a warm start must not, where it does not."""
        self._begins_from_truth = split == "train" and self.looks_at_truth
        self._check_truth()  # before anything is built
        self.shared = _open(dataset, split, dataset_kwargs, segmenter, device, on_error, clip, prompts)
        self._begins_from_truth = self._begins_from_truth and self.labelled
        self._check_truth()
        if reward == "network" and reward_network is None:
            reward_network = embedded_for(self.shared.dataset.categories)
        self.scorer = self._make_scorer(reward, reward_network, device)
        self.settings = {
            "dataset": dataset if isinstance(dataset, str) else dataset.fingerprint,
            "dataset_kwargs": dict(dataset_kwargs or {}),
            "segmenter": segmenter if isinstance(segmenter, str) else segmenter.fingerprint,
            "clip": clip.name if isinstance(clip, ClipSurgery) else clip,
            "prompts": dict(prompts or {}),
            "reward": reward,
            "reward_network": reward_network if isinstance(reward_network, str) else None,
            "max_steps": max_steps,
            "patches": patches,
            "labels": labels,
            "srm": srm,
            "initial_pair": initial_pair,
            "remove": remove,
            "done": done,
            "on_error": on_error,
        }
        """What evaluation needs to make the same task again; plain values, stored with a policy."""
        self.action_space = spaces.Discrete(self.grid.n_actions)  # type: ignore[assignment]
        self.observation_space = self._make_observation_space()
        self.episode: Episode | None = None
        self._supplied: Answer | None = None
        self._unreadable: set[int] = set()
        self.copy_constants = True
        """Hand out new arrays at every step, as Gymnasium asks; SamSegVecEnv, which copies itself, turns it off."""

    def _check_truth(self) -> None:
        """Refuse what takes clicks or labels from the truth where the task must not look at it, or has none."""
        if self._begins_from_truth:
            return
        if self.labels.kind == "oracle-train-only":
            raise ValueError(
                "labels='oracle-train-only' takes labels from the truth, at which this task does not look (no masks, or "
                "reward='network'): take labels='agent'"
            )
        if self.initial_pair and not self.wants_srm:
            raise ValueError("initial_pair takes the map's extremes where it may not see the truth: give srm=True")

    def _make_scorer(self, reward: str, given: str | RewardScorer | None, device: str) -> RewardScorer | None:
        """The reward network, if there is to be one, checked against the task."""
        if reward != "network" and not self.labelled:
            raise ValueError(
                f"the reward {reward!r} needs ground truth, and {self.shared.dataset.fingerprint} has none: take "
                "reward='network' with reward_network='DIR' that `python -m alignsam_sb3.rewards.network fit` wrote"
            )
        if given is None:
            return None
        scorer = load_scorer(given, device) if isinstance(given, str) else given
        language = self.shared.language
        said = None if language is None else language.fingerprint
        scorer.check(self.shared.dataset.categories, self.segmenter.fingerprint, said)
        return scorer

    def _make_observation_space(self) -> spaces.Dict:
        channels, height, width = self.segmenter.embedding_shape
        side = min(self.segmenter.img_size, LARGEST_IMAGE)
        n_categories = len(self.shared.dataset.categories)
        described: dict[str, spaces.Space[Any]] = {
            "image": CompactBox(0, 255, (3, side, side), np.uint8),
            "target_category": spaces.Discrete(n_categories),
            "sam_image_embeddings": CompactBox(-np.inf, np.inf, (channels, height, width), np.float32),
            "sam_pred_mask_prob": CompactBox(0.0, 1.0, (4 * height, 4 * width), np.float32),
            "num_steps": CompactBox(0.0, float(self.max_steps), (1,), np.float32),
            "action_mask": spaces.MultiBinary(self.grid.n_actions),
        }
        if self.wants_srm:
            described["foreground_map"] = CompactBox(0.0, 1.0, (height, width), np.float32)
        if self.shared.language is not None:
            for name in ("similarity_maps", "cosine_maps"):
                described[name] = CompactBox(PADDING, 1.0, (n_categories, height, width), np.float32)
        return spaces.Dict(described)

    @property
    def segmenter(self) -> PromptableSegmenter:
        """The frozen model, shared by all environments of the process."""
        return self.shared.segmenter

    def _current(self) -> Episode:
        if self.episode is None:
            raise RuntimeError("call reset() before the first step")
        return self.episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        :param options: ``image_index`` and ``category_id`` choose the episode instead of drawing it
        """
        super().reset(seed=seed)
        if options and "image_index" in options:
            index, category_id = int(options["image_index"]), int(options["category_id"])
        else:
            index, category_id = draw_episode(self.shared.images_by_category, self.np_random)
        sample = self._read(index)
        while sample is None:
            index, category_id = draw_episode(self.shared.images_by_category, self.np_random)
            sample = self._read(index)
        truth = sample.target(category_id)
        embedding = self.shared.bank[index]["embeddings"]
        nothing = Belief(None, np.zeros(sample.size, bool))
        language = self._ask_prior(index, sample)
        self.episode = Episode(index, sample, category_id, truth, embedding, [nothing], language=language)
        if self.scorer is not None:
            self.episode.photo = self.scorer.photo(sample.image)
            if self.shared.language is not None:
                name = self.shared.dataset.categories[category_id]
                self.episode.spoken = self.scorer.spoken(self.shared.language[index], name, sample.size)
        self._supplied = None
        side = int(self.observation_space["image"].shape[1])  # type: ignore[index]
        self._image = np.ascontiguousarray(in_frame(sample.image, side).transpose(2, 0, 1))
        self._foreground = np.full(self.segmenter.embedding_shape[1:], 0.5, np.float32)
        if self.initial_pair:
            self._begin()
        return self._observe(), self._info()

    def _begin(self) -> None:
        """Make the first pair of clicks, which count as no step; none in evaluation before there is a module."""
        truth = self._current().truth if self._begins_from_truth else None
        if truth is None and self.srm is None:
            return
        if truth is None:
            self._observe(alone=True)  # draws the map
        pair = initial_pair(truth, self._foreground, self.image_size, self.np_random, self.valid)
        if pair:
            self._receive(pair, self._ask(pair))
            self._current().best_dice = self.dice

    def use_srm(self, srm: Recalibration) -> None:
        """Draw foreground maps with this module from now on; policies hold one, and share it with their environments."""
        if self.wants_srm:
            self.srm = srm

    def note_foreground(self, foreground: NDArray[np.float32]) -> NDArray[np.int8]:
        """Take the map (h, w) that a batched caller drew of the last observation; the action mask (n_actions,) with it."""
        self._foreground = foreground
        return self._mask()

    def _ask_prior(self, index: int, sample: Sample) -> Language | None:
        """What the prior says of an image, also brought to the frame."""
        if self.shared.language is None:
            return None
        found = self.shared.language[index]
        grid = self.segmenter.embedding_shape[1:]
        side = self.segmenter.img_size
        framed = {name: maps_in_frame(found[name], sample.size, side, grid) for name in ("similarity_maps", "cosine_maps")}
        return Language(found["similarity_maps"], found["scores"], framed)

    def _read(self, index: int) -> Sample | None:
        """Read an image; None, and a warning, where it has become unreadable since the bank was built and may be skipped."""
        try:
            return self.shared.dataset[index]
        except UnreadableImageError as error:
            self._unreadable.add(index)
            usable = {int(i) for images in self.shared.images_by_category for i in images}
            if self.settings["on_error"] == "raise" or usable <= self._unreadable:
                raise
            logger.warning("image %d is skipped (%d so far): %s", index, len(self._unreadable), error)
            return None

    def action_masks(self) -> NDArray[np.bool_]:
        """(n_actions,) True for the actions that make sense now."""
        return self._mask().astype(bool)

    def _mask(self) -> NDArray[np.int8]:
        episode = self._current()
        size = episode.sample.size
        used = {self.grid.action(click, 1, size) for click, _ in episode.clicks}
        mask = self.grid.mask(size, used, bool(episode.clicks))
        return self.labels.restrict(mask, self._foreground, self.grid, size)

    def action_from_click(self, point: tuple[float, float], label: int) -> int:
        """The action nearest to a person's click at (x, y), in pixels of the current image."""
        return self.grid.action(point, label, self._current().sample.size)

    def _interpret(self, action: Move) -> tuple[str, list[Click]]:
        """What an action does now: ``"click"`` (and where), ``"remove"``, ``"done"``, or ``"invalid"`` for a forbidden one."""
        size = self._current().sample.size
        if isinstance(action, tuple | list):
            clicks = [action] if isinstance(action, tuple) else list(action)
            for click in clicks:
                self.grid.action(*click, size)  # refuses points outside the image, and odd labels
            return "click", clicks
        action = int(action)
        kind = self.grid.kind(action)
        if not self._mask()[action]:
            return "invalid", []
        return kind, [self.labels.of(self.grid.click(action, size), self.target)] if kind == "click" else []

    def plan(self, action: Move) -> Job | None:
        """What the segmenter must be asked for this action; None where it need not be asked.

        A batched caller collects the jobs of many environments, decodes them in one call and hands each its part
        with :meth:`supply` before it steps.
        """
        _, new = self._interpret(action)
        if not new:
            return None
        episode = self._current()
        clicks = [*episode.clicks, *new]
        return Job(
            episode.embedding,
            np.array([c[0] for c in clicks], np.float32),
            np.array([c[1] for c in clicks], np.int64),
            episode.sample.size,
            episode.belief.logits,
            episode.photo,
            self.shared.dataset.categories[episode.category_id],
            episode.spoken,
        )

    def supply(self, answer: Answer) -> None:
        """Hand over the segmenter's answer to the job that :meth:`plan` described."""
        self._supplied = answer

    def step(self, action: Move) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take an action.

        A click given as ((x, y), label) is made at that very pixel, a list of clicks in one step (for baselines and people).
        """
        episode, (kind, clicks) = self._current(), self._interpret(action)
        before, scored = self.dice, episode.belief.score
        if clicks:
            self._receive(clicks, self._supplied or self._ask(action))
        elif kind == "remove":
            episode.clicks.pop()
            episode.beliefs.pop()
        self._supplied = None
        episode.num_steps += 1
        after = self.dice
        episode.best_dice = max(after, episode.best_dice)
        click = clicks[-1] if clicks else None
        earlier = tuple(episode.clicks[:-1] if clicks else episode.clicks)
        patch_size = self.grid.patch_size(episode.sample.size)
        scores = (scored, episode.belief.score)
        turn = Turn(episode.truth, click, earlier, before, after, patch_size, episode.sample.valid, *scores)
        reward = 0.0 if kind == "invalid" else self._reward(turn)
        terminated = episode.num_steps >= self.max_steps or kind == "done"
        info = self._info() | {"invalid_action": kind == "invalid"}
        if terminated:
            info["is_success"] = bool(info["iou"] >= SUCCESS_IOU)
        return self._observe(), float(reward), terminated, False, info

    def _ask(self, action: Move) -> Answer:
        """Ask the segmenter alone, where no batched caller has done so."""
        job = self.plan(action)
        assert job is not None
        return decode_jobs(self.segmenter, [job], self.scorer)[0]

    def _receive(self, clicks: Sequence[Click], answer: Answer) -> None:
        episode = self._current()
        mask = (self.segmenter.postprocess(answer.logits, episode.sample.size) > 0).numpy()
        episode.clicks += clicks
        episode.beliefs += [Belief(answer.logits, mask, answer.iou, answer.score)] * len(clicks)

    @property
    def target(self) -> NDArray[np.bool_]:
        """The truth of the current episode, (H, W); for baselines and reports."""
        return self._current().truth

    @property
    def valid(self) -> NDArray[np.bool_] | None:
        """(H, W) False where the annotation says nothing; None where it speaks of every pixel."""
        return self._current().sample.valid

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The current mask in the image, (H, W); empty before the first click."""
        return self._current().belief.mask

    @property
    def judged_mask(self) -> NDArray[np.bool_]:
        """The current mask without the pixels of which the annotation says nothing."""
        return self.mask if self.valid is None else self.mask & self.valid

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the current image in pixels."""
        return self._current().sample.size

    @property
    def clicks(self) -> list[Click]:
        """The clicks so far."""
        return self._current().clicks

    def oracle_action(self) -> int:
        """The allowed action nearest to the greedy oracle's click. It looks at the truth: for warm starts in training."""
        return oracle_action(self._current(), self.grid, self._mask(), self.judged_mask, self.labels.kind)

    def oracle_preference(self) -> NDArray[np.float32]:
        """How much the oracle would like each action, (n_actions,) adding up to 1. It looks at the truth, too."""
        return oracle_preference(self._current(), self.grid, self._mask(), self.judged_mask, self.labels.kind)

    def truth_on_grid(self) -> NDArray[np.float32]:
        """(2, h, w) of the embedding's cells: the share that the target covers, and that the annotation speaks of.

        For teaching a recalibration module on training images.
        """
        episode, side = self._current(), self.segmenter.embedding_shape[1]
        known = np.ones(episode.sample.size, bool) if self.valid is None else self.valid
        parts = np.stack([to_frame(part, side) for part in (episode.truth, known)])
        return parts.astype(np.float32) / np.float32(255)

    @property
    def similarity_map(self) -> NDArray[np.float32]:
        """Where the prior sees the target's text, (g_h, g_w) in [0, 1] over the image squashed to CLIP's grid."""
        language = self._current().language
        if language is None:
            raise RuntimeError("this environment has no language prior: make it with clip='tiny'")
        wanted: NDArray[np.float32] = language.maps[self._current().category_id]
        return wanted

    @property
    def dice(self) -> float:
        """Dice of the current mask; 0 before the first click, NaN where there is no truth."""
        episode = self._current()
        if not episode.sample.labelled:
            return math.nan
        return metrics.dice(episode.belief.mask, episode.truth, self.valid) if episode.clicks else 0.0

    @property
    def iou(self) -> float:
        """IoU of the current mask; 0 before the first click, NaN where there is no truth."""
        episode = self._current()
        if not episode.sample.labelled:
            return math.nan
        return metrics.iou(episode.belief.mask, episode.truth, self.valid) if episode.clicks else 0.0

    @property
    def score(self) -> float:
        """What the reward network says of the current mask; 0 before the first click, NaN where there is none."""
        return math.nan if self.scorer is None else self._current().belief.score

    @property
    def labelled(self) -> bool:
        """Whether the data set has ground truth."""
        return bool(getattr(self.shared.dataset, "labelled", True))

    def _observe(self, alone: bool = False) -> Observation:
        """What the agent sees; ``alone`` draws the foreground map even where a batched caller is to do it."""
        episode = self._current()
        shape = self.observation_space["sam_pred_mask_prob"].shape  # type: ignore[index]
        logits = episode.belief.logits
        prob = np.full(shape, 0.5, np.float32) if logits is None else logits.sigmoid().numpy()
        observation = {
            "image": self._image,
            "target_category": np.int64(episode.category_id),
            "sam_image_embeddings": episode.embedding,
            "sam_pred_mask_prob": prob,
            "num_steps": np.array([episode.num_steps], np.float32),
        }
        if episode.language is not None:
            observation |= episode.language.framed
        if self.wants_srm:
            if self.srm is not None and (alone or not self.defer_foreground):
                batch = {key: np.asarray(observation[key])[None] for key in self.srm.needs}
                self._foreground = self.srm.foreground(batch)[0]
            observation["foreground_map"] = self._foreground
        observation["action_mask"] = self._mask()
        return {k: v.copy() for k, v in observation.items()} if self.copy_constants else observation

    def _info(self) -> dict[str, Any]:
        episode = self._current()
        mask = episode.belief.mask
        language = episode.language
        said = {} if language is None else {"clip_score": float(language.scores[episode.category_id])}
        if self.scorer is not None:
            said["reward_net_score"] = episode.belief.score
        return said | {
            "image_id": episode.sample.image_id,
            "category": self.shared.dataset.categories[episode.category_id],
            "point_coords": [c[0] for c in episode.clicks],
            "point_labels": [c[1] for c in episode.clicks],
            "mask": mask,
            "dice": self.dice,
            "best_dice": episode.best_dice,
            "iou": self.iou,
            "iou_predicted": episode.belief.iou_predicted,
        }

    def render(self) -> Picture | None:
        """Photo | truth | prediction with clicks, (height, 3 x width, 3) uint8."""
        if self.render_mode is None:
            gym.logger.warn("render() does nothing without render_mode='rgb_array'")
            return None
        episode = self._current()
        return triptych(episode.sample.image, episode.truth, episode.belief.mask, episode.clicks)

    def render_maps(self) -> Picture:
        """What the agent is told, over the photo: belief, and where there is a prior, the target's similarity map."""
        episode = self._current()
        logits = episode.belief.logits
        size = episode.sample.size
        belief = np.full(size, 0.5) if logits is None else self.segmenter.postprocess(logits, size).sigmoid().numpy()
        maps = [caption(heat(episode.sample.image, belief), "belief")]
        if self.srm is not None:
            maps.append(caption(heat(episode.sample.image, self._foreground_in_image()), "recalibrated"))
        if episode.language is not None:
            said = f"{self.shared.texts[episode.category_id]}: {episode.language.scores[episode.category_id]:.2f}"
            maps.append(caption(heat(episode.sample.image, self.similarity_map), said))
        return np.concatenate(maps, axis=1)

    def _foreground_in_image(self) -> NDArray[np.float32]:
        height, width = self.image_size
        side = max(height, width)
        return np.asarray(cv2.resize(self._foreground, (side, side))[:height, :width], np.float32)


def _open(
    dataset: str | SegmentationDataset,
    split: str,
    dataset_kwargs: Mapping[str, Any] | None,
    segmenter: str | PromptableSegmenter,
    device: str,
    on_error: str,
    clip: str | ClipSurgery | None,
    prompts: Mapping[str, str] | None,
) -> Shared:
    if isinstance(dataset, str) and isinstance(segmenter, str) and not isinstance(clip, ClipSurgery):
        return share_by_name(dataset, split, dataset_kwargs, segmenter, device, on_error, clip, prompts)
    if isinstance(dataset, str) or isinstance(segmenter, str):
        raise TypeError("give both dataset and segmenter as spec strings (then clip, too), or both as objects")
    return share(dataset, segmenter, on_error, load_clip(clip, device) if isinstance(clip, str) else clip, prompts)
