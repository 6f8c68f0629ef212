"""``SamSeg-v0``: place point prompts for a frozen SAM until its mask covers the target."""

from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.batch import ClickBatch
from gymnasium import spaces
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click
from alignsam_sb3.datasets.seen import Hashes
from alignsam_sb3.names import nearest
from alignsam_sb3.pictures import Picture, caption, heat, triptych
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.task import Task

Arrays = dict[str, Any]
_ALONE = np.zeros(1, np.int64)


class SamSegEnv(gym.Env[Arrays, int]):
    """Each action clicks one cell of a grid as foreground or background; a frozen SAM answers all clicks so far.

    Observation (Dict); the truth is used for rewards only:

    - ``image`` (3, S, S) uint8 and ``sam_image_embeddings`` (C, h, w), in the segmenter's frame
    - ``sam_pred_mask_prob`` (4h, 4w): the mask's probability, 0.5 before the first click
    - ``target_category``, ``num_steps``
    - ``action_mask`` (n_actions,): the same as :meth:`action_masks`
    - with a language prior ``similarity_maps`` (n_categories, h, w) in [0, 1]: where CLIP Surgery sees each category's text
    - with a language prior ``cosine_maps`` (n_categories, h, w) in [-1, 1]: how much each place suits each text. Both kinds
      of maps are -1 in the padding
    - with ``srm`` ``foreground_map`` (h, w)

    An action that the mask forbids changes nothing, uses the step up, and is reported as ``info["invalid_action"]``.
    ``info["dice"]`` and ``info["iou"]`` are measured on a grid in the segmenter's frame; evaluation measures in the image.

    :param task: all options at once; or give them one by one
    :param render_mode: ``"rgb_array"``: photo | truth | prediction with clicks
    :param options: of :class:`~alignsam_sb3.task.Task`
    :raises ValueError: an option does not exist, or does not go with another one
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(self, task: Task | None = None, render_mode: str | None = None, **options: Any) -> None:  # noqa: ANN401
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(nearest("render_mode", render_mode, self.metadata["render_modes"]))
        if task is not None and options:
            raise TypeError(f"give a task or options, not both: got a Task and {', '.join(options)}")
        self.batch = ClickBatch(task or Task.from_kwargs(**options))
        self.task = self.batch.task
        self.render_mode, self.max_steps = render_mode, self.task.max_steps
        self.shared, self.scorer = self.batch.shared, self.batch.scorer
        self.labelled, self.uses_ground_truth = self.batch.labelled, self.batch.uses_ground_truth
        self.config = self.task.to_json()
        """What evaluation needs to make the same task again; plain values, stored with a policy."""
        self.action_space = spaces.Discrete(self.batch.actions.n)  # type: ignore[assignment]
        self.observation_space = self.batch.observation_space
        self._begun = False

    # Plain values for what asks a VecEnv, whose environments may live in other processes

    @property
    def dataset_fingerprint(self) -> str:
        """What tells the data set from others."""
        return self.shared.dataset.fingerprint

    @property
    def models(self) -> dict[str, str]:
        """Fingerprints of the frozen models, by role."""
        return self.shared.models

    @property
    def categories(self) -> list[str]:
        """Names, in the order of ``target_category``."""
        return list(self.shared.dataset.categories)

    @property
    def drawn(self) -> Hashes:
        """Hashes of the images that the environments of this process have shown so far."""
        return self.shared.drawn

    def fill(self) -> None:
        """Describe all images now, see :meth:`alignsam_sb3.envs.shared.Shared.fill`."""
        self.shared.fill()

    @property
    def recalibration(self) -> Recalibration | None:
        """The module that draws ``foreground_map``. Policies hold one: ``alignsam_sb3.policies.attach_recalibration``."""
        return self.batch.recalibration

    def use_recalibration(self, module: Recalibration | None) -> None:
        """Draw ``foreground_map`` with this module from now on. A method, for an attribute set on a wrapper stays there."""
        self.batch.recalibration = module

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Start an episode.

        :param options: ``image_index`` and ``category_id`` choose the episode instead of drawing it
        """
        super().reset(seed=seed)
        self.batch.rngs = [self.np_random]
        chosen = None
        if options and "image_index" in options:
            chosen = (int(options["image_index"]), int(options["category_id"]))
        self.batch.reset(_ALONE, [chosen])
        self._begun = True
        return self._observe(), self.batch.info(0)

    def action_from_click(self, point: tuple[float, float], label: int) -> int:
        """The action nearest to a person's click at (x, y), in pixels of the current image."""
        return self.batch.actions.at(point, label, self.batch.size(0))

    def step(self, action: int) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        self._check_begun()
        done = self.batch.step(np.array([int(action)]))
        over = bool(done.over[0])
        info = (self.batch.ended(0) if over else self.batch.info(0)) | {"invalid_action": bool(done.invalid[0])}
        return self._observe(), float(done.rewards[0]), over, False, info

    def _check_begun(self) -> None:
        if not self._begun:
            raise RuntimeError("call reset() before the first step")

    def _observe(self) -> Arrays:
        values = {name: x[0].to("cpu", copy=True).numpy() for name, x in self.batch.observe().items()}
        return values | {"target_category": np.int64(values["target_category"])}

    def action_masks(self) -> NDArray[np.bool_]:
        """(n_actions,) True for the actions that make sense now."""
        self._check_begun()
        return np.asarray(self.batch.action_mask[0], bool)

    def oracle_action(self) -> int:
        """The allowed action nearest to the greedy oracle's click. It looks at the truth: for warm starts in training."""
        return self.batch.oracle_action(0)

    def oracle_preference(self, enough: float = 1.0) -> NDArray[np.float32]:
        """How the oracle rates each action, (n_actions,) adding up to 1. It looks at the truth, too.

        :param enough: Dice from which on it is done, where the task offers that
        """
        return self.batch.oracle_preference(0, enough)

    def truth_on_grid(self) -> NDArray[np.float32]:
        """(2, h, w) of the embedding's cells: the share that the target covers, and that the annotation speaks of."""
        return self.batch.truth_on_grid()[0]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The current mask in the image, (H, W); empty before the first click."""
        return self.batch.sessions.masks()[0]

    @property
    def target(self) -> NDArray[np.bool_]:
        """The truth of the current episode, (H, W); for baselines and reports."""
        return self.batch.sample(0).target(int(self.batch.categories[0]))

    @property
    def clicks(self) -> list[Click]:
        """The clicks so far."""
        return self.batch.sessions.clicks(0)

    def render(self) -> Picture | None:
        """Photo | truth | prediction with clicks, each letterboxed to the same square; (256, 768, 3) uint8."""
        if self.render_mode is None:
            gym.logger.warn("render() does nothing without render_mode='rgb_array'")
            return None
        return triptych(self.batch.sample(0).image, self.target, self.mask, self.clicks)

    def render_maps(self) -> Picture:
        """What the agent is told, over the photo: belief, and where there is a prior, the target's similarity map."""
        batch, image = self.batch, self.batch.sample(0).image
        belief = batch.sessions.in_image()[0].sigmoid().cpu().numpy()
        maps = [caption(heat(image, belief), "belief")]
        if batch.recalibration is not None:
            maps.append(caption(heat(image, self._foreground_in_image()), "recalibrated"))
        if self.shared.language is not None:
            said = f"{self.shared.texts[batch.categories[0]]}: {batch.info(0)['clip_score']:.2f}"
            maps.append(caption(heat(image, batch.similarity_map(0)), said))
        return np.concatenate(maps, axis=1)

    def _foreground_in_image(self) -> NDArray[np.float32]:
        values = self.batch.foreground[0].cpu().numpy()
        height, width = (round(reach) for reach in self.batch.grid.frame.reaches(self.batch.size(0)))
        rows, columns = self.batch.size(0)
        return np.asarray(cv2.resize(values, (width, height))[:rows, :columns], np.float32)
