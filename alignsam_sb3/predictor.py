"""Predictor: a saved policy with its frozen models, asked for masks of photos. Sessions and a policy; no truth anywhere."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image, ImageOps
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn.functional import adaptive_avg_pool2d

from alignsam_sb3.annotation import Annotation
from alignsam_sb3.boxes import map_box
from alignsam_sb3.calibration import Calibration
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.images import read_rgb
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.envs.spaces import picture_side
from alignsam_sb3.fingerprints import digest
from alignsam_sb3.names import nearest
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.policies.frozen import warn_of_changed_models
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics import ClipSurgery, LanguagePrior, load_clip
from alignsam_sb3.signals import language_signals
from alignsam_sb3.task import Task

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 64  # of an image and a category, played together
IMAGES_AT_ONCE = 16  # encoded together
Photo = NDArray[np.uint8]
Shown = Photo | str | Path | Image.Image


class Predictor:
    """Masks of what is named in photos, clicked by a trained policy.

    :param model: the policy
    :param task: what it may do; its data set is not opened
    :param categories: what it can be asked for, in the order of its training
    :param segmenter: the frozen SAM
    :param clip: the frozen language prior, where the policy hears one
    :param recipe: how the policy was built
    :param calibration: how far its masks can be trusted, if that was measured
    :raises ValueError: the policy has clicks labelled by the truth
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        task: Task,
        categories: Sequence[str],
        segmenter: PromptableSegmenter,
        clip: ClipSurgery | None = None,
        recipe: dict[str, Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.model, self.task, self.segmenter, self.clip = model, task, segmenter, clip
        self.categories, self.recipe, self.calibration = tuple(categories), recipe or {}, calibration
        texts = tuple(task.prompts.get(name, name) for name in self.categories)
        self._prior = None if clip is None else LanguagePrior(clip, texts)
        default = Task().to_json()  # an option that a later version adds changes no policy that does not use it
        chosen = {name: value for name, value in task.to_json().items() if value != default[name]}
        self.fingerprint = digest(model.policy.state_dict(), json.dumps(chosen, sort_keys=True))

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        segmenter: str | PromptableSegmenter | None = None,
        clip: str | ClipSurgery | None = None,
        trust: bool = False,
    ) -> "Predictor":
        """Load what ``SamMaskablePPO.save`` or ``scripts/train.py`` wrote, without unpickling anything.

        :param path: a ``.zip``
        :param device: where policy and frozen models run
        :param segmenter: another copy of the policy's segmenter, as a spec or an object
        :param clip: another copy of its language prior
        :param trust: unpickle the file: only where you trust its origin
        :raises FileNotFoundError: there is no such file
        :raises ValueError: it is no policy of this package, or does not fit the segmenter

        Where an embedded model has changed since its training, that is said, and a calibration does not count.

        >>> predict = Predictor.load("policy.zip")  # doctest: +SKIP
        >>> predict(image, "dog").mask  # doctest: +SKIP
        """
        path = Path(path).expanduser()
        recipe = read_recipe(path, trust)
        changes = {key: value for key, value in (("segmenter", segmenter), ("clip", clip)) if value is not None}
        task = Task.from_kwargs(**recipe["env"]).for_evaluation(device=device, **changes)
        sam = load_segmenter(task.segmenter, device) if isinstance(task.segmenter, str) else task.segmenter
        hears = load_clip(task.clip, device) if isinstance(task.clip, str) else task.clip
        categories = recipe.get("categories") or _categories_of(task)
        episodes = ClickEpisodes(task, sam, len(categories), 1)
        env = DummyVecEnv([lambda: _Spaces(episodes.observation_space, episodes.actions.n)])
        model = load_policy(path, env, trust)
        models = {"segmenter": sam.fingerprint, "clip": "" if hears is None else hears.fingerprint}
        calibration = Calibration.read(path)
        if warn_of_changed_models(path, recipe, models, task.to_json()) and calibration is not None:
            logger.warning("%s was calibrated with the former masks: calibrate it again (alignsam calibrate)", path)
            calibration = None
        return cls(model, task, categories, sam, hears, recipe, calibration)

    @classmethod
    def from_hub(cls, repo: str, revision: str | None = None, **options: Any) -> "Predictor":  # noqa: ANN401
        """Load a policy that ``alignsam push`` published.

        :param repo: ``"user/repo"``
        :param revision: a branch, tag or commit
        :param options: of :meth:`load`
        """
        from alignsam_sb3.hub import pull

        return cls.load(pull(repo, revision), **options)

    @overload
    def __call__(self, image: Shown, category: str) -> Annotation: ...
    @overload
    def __call__(self, image: Shown, category: None = None) -> list[Annotation]: ...
    @overload
    def __call__(self, image: list[Shown], category: str) -> list[Annotation]: ...
    @overload
    def __call__(self, image: list[Shown], category: None = None) -> list[list[Annotation]]: ...

    def __call__(self, image: Shown | list[Shown], category: str | None = None) -> Any:
        """Look for a category in a photo, or for all of them.

        :param image: an array (H, W, 3) uint8 RGB, a path or a PIL image, or a list of these
        :param category: one of ``categories``; all where none is named
        :return: an annotation, a list of them (one for each category) where no category is named, and a list of either for a
            list of images
        :raises ValueError: there is no such category, or what came is no image
        """
        wanted = list(self.categories) if category is None else [category]
        shown = image if isinstance(image, list) else [image]
        names = [str(i) if isinstance(i, str | Path) else "" for i in shown]
        found = [
            [_named(annotation, name) for annotation in row]
            for row, name in zip(self.batch([as_photo(i) for i in shown], wanted), names, strict=True)
        ]
        rows: list[Any] = found if category is None else [row[0] for row in found]
        return rows if isinstance(image, list) else rows[0]

    def batch(self, images: Sequence[Photo], categories: Sequence[str]) -> list[list[Annotation]]:
        """Annotate many photos: each is encoded once, and all pairs of photo and category are played together.

        :param images: (H_i, W_i, 3) uint8 RGB
        :param categories: some of ``categories``
        :return: for each image an annotation of each category
        :raises ValueError: there is no such category
        """
        places = [self._place(name) for name in categories]
        out: list[list[Annotation]] = []
        group = max(min(IMAGES_AT_ONCE, PAIRS_AT_ONCE // max(len(places), 1)), 1)
        for start in range(0, len(images), group):
            out += self._play(images[start : start + group], places)
        return self._judged(out)

    def _place(self, name: str) -> int:
        if name not in self.categories:
            raise ValueError(nearest("category of this policy", name, self.categories))
        return self.categories.index(name)

    def _judged(self, found: list[list[Annotation]]) -> list[list[Annotation]]:
        if self.calibration is None:
            return found
        judged = iter(self.calibration.judge_all([annotation for row in found for annotation in row]))
        return [[next(judged) for _ in row] for row in found]

    @th.no_grad()
    def _play(self, images: Sequence[Photo], places: Sequence[int]) -> list[list[Annotation]]:
        """Play some images that are encoded together."""
        count = len(places)
        rows = np.repeat(np.arange(len(images)), count)
        categories = np.tile(np.array(places, np.int64), len(images))
        episodes, said = self._begin(images, rows, categories)
        over, before = np.zeros(len(rows), bool), episodes.sessions.logits
        for _ in range(self.task.max_steps):
            observation: Any = episodes.observe()
            actions, _ = self.model.predict(observation, deterministic=True)
            before = episodes.sessions.logits
            plan = episodes.plan(actions, ~over)
            episodes.carry_out(plan)
            over |= episodes.over(plan)
            episodes.refresh()
        signals = self._signals(episodes, before)
        if said:
            signals = [
                own | other for own, other in zip(signals, self._agreement(episodes, rows, categories, said), strict=True)
            ]
        masks, ious = episodes.sessions.masks(), episodes.sessions.iou.tolist()
        made = [
            Annotation.of("", self.categories[c], masks[k], episodes.sessions.clicks(k), ious[k], signals[k], self.fingerprint)
            for k, c in enumerate(categories)
        ]
        return [made[k * count : (k + 1) * count] for k in range(len(images))]

    def _begin(
        self, images: Sequence[Photo], rows: NDArray[np.int64], categories: NDArray[np.int64]
    ) -> tuple[ClickEpisodes, dict[str, NDArray[np.floating]]]:
        """Episodes before their first step, and what the prior says of the images, with ``cosine_maps`` in the frame.

        All is rounded to half precision, as in the banks that the policy was trained on.
        """
        episodes = ClickEpisodes(self.task, self.segmenter, len(self.categories), len(rows))
        episodes.recalibration = getattr(self.model.policy, "srm", None)
        frame, everyone = self.segmenter.frame, np.arange(len(rows))
        sizes = np.array([image.shape[:2] for image in images], np.int64)
        pictures = np.stack([frame.picture(image, picture_side(self.segmenter)) for image in images])
        constants = {"image": th.from_numpy(pictures.transpose(0, 3, 1, 2).copy())}
        said: dict[str, NDArray[np.floating]] = {}
        if self._prior is not None:
            said = {name: x.half().float().cpu().numpy() for name, x in self._prior.describe(images).items()}
            grid = self.segmenter.embedding_shape[1:]
            for name in ("similarity_maps", "cosine_maps"):
                framed = [frame.from_squashed(m, (h, w), grid) for m, (h, w) in zip(said[name], sizes, strict=True)]
                constants[name] = th.from_numpy(np.stack(framed)).half().float()
            said["cosine_maps"] = constants["cosine_maps"].numpy()
        device, at = self.segmenter.device, th.from_numpy(rows)
        features = {name: x[at.to(x.device)].half().float() for name, x in self.segmenter.encode(images).items()}
        episodes.start(everyone, features, {k: x[at].to(device) for k, x in constants.items()}, sizes[rows], categories)
        if self.task.box == "clip" and said:
            maps = said["similarity_maps"][rows, categories]
            episodes.draw_boxes(everyone, [map_box(m, episodes.size(k)) for k, m in enumerate(maps)])
        if self.task.initial_pair:
            episodes.place_pairs(everyone, episodes.pairs_of_maps(everyone))
        episodes.refresh()
        return episodes, said

    def _signals(self, episodes: ClickEpisodes, before: th.Tensor) -> list[dict[str, float]]:
        """What the segmenter's answers tell of the quality of each mask.

        - ``stability``: IoU of the masks at one logit above and below the threshold (segment_anything's own measure)
        - ``agreement``: IoU with the mask before the last step
        - ``area``: share of the frame
        - ``certainty``: mean distance of the probability from one half, within the mask
        """
        logits, ends = episodes.sessions.logits, episodes.sessions.iou
        mask = logits > 0
        inside = (logits.sigmoid() - 0.5) * mask
        values = {
            "iou_predicted": ends,
            "stability": _iou(logits > 1, logits > -1),
            "agreement": _iou(mask, before > 0),
            "area": mask.float().mean((1, 2)),
            "certainty": 2 * inside.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1),
        }
        columns = {name: value.tolist() for name, value in values.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _agreement(
        self,
        episodes: ClickEpisodes,
        rows: NDArray[np.int64],
        categories: NDArray[np.int64],
        said: dict[str, NDArray[np.floating]],
    ) -> list[dict[str, float]]:
        """How far language agrees with each mask; see :func:`~alignsam_sb3.signals.language_signals`."""
        cosines, scores = said["cosine_maps"], said["scores"]
        shares = adaptive_avg_pool2d((episodes.sessions.logits > 0).float()[:, None], cosines.shape[-2:])
        inside = (shares[:, 0] > 0.5).cpu().numpy()
        return [
            language_signals(mask, cosines[row], scores[row], int(category))
            for mask, row, category in zip(inside, rows, categories, strict=True)
        ]


class _Spaces(gym.Env[Any, Any]):
    """Nothing but the spaces that a policy is loaded for."""

    def __init__(self, observation_space: spaces.Dict, n_actions: int) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(n_actions)


def _iou(one: th.Tensor, other: th.Tensor) -> th.Tensor:
    """(K,) of masks (K, h, w); 1 where both are empty."""
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return th.where(either > 0, both / either.clamp(min=1), 1.0)


def _named(annotation: Annotation, name: str) -> Annotation:
    return replace(annotation, image_id=name) if name else annotation


def _categories_of(task: Task) -> tuple[str, ...]:
    """Those of the data set, for policies that do not name theirs (version 0.1)."""
    if not isinstance(task.dataset, str):
        return task.dataset.categories
    return load_dataset(task.dataset, task.split, **task.dataset_kwargs).categories


def as_photo(shown: Shown) -> Photo:
    """An image as (H, W, 3) uint8 RGB, turned upright.

    :param shown: such an array, a path or a PIL image
    :raises ValueError: an array of another kind
    :raises UnreadableImageError: a file cannot be read
    """
    if isinstance(shown, str | Path):
        return read_rgb(Path(shown).expanduser())
    if isinstance(shown, Image.Image):
        return np.asarray(ImageOps.exif_transpose(shown).convert("RGB"))
    if not (isinstance(shown, np.ndarray) and shown.ndim == 3 and shown.shape[2] == 3 and shown.dtype == np.uint8):
        found = f"{shown.dtype} {shown.shape}" if isinstance(shown, np.ndarray) else type(shown).__name__
        raise ValueError(f"expected an image as uint8 RGB (H, W, 3), a path or a PIL image, got {found}")
    return shown
