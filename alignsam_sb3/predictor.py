"""Predictor: a saved policy with its frozen models, asked for masks of photos. Sessions and a policy; no truth anywhere."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from PIL import Image, ImageOps
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.nn.functional import adaptive_avg_pool2d

from alignsam_sb3.annotation import Annotation
from alignsam_sb3.calibration import Calibration
from alignsam_sb3.choice import LAST
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.images import read_rgb
from alignsam_sb3.drawers import (
    BEST_SCORE,
    CLIP_POINTS,
    MAP_ALONE,
    MAP_PROMPT,
    RULES,
    Drawn,
    by_agent,
    by_clip,
    by_map,
    by_map_prompt,
    network_score,
)
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.fingerprints import digest
from alignsam_sb3.names import nearest
from alignsam_sb3.photos import Encoded, Photo, encode_photos
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.policies.frozen import warn_of_changed_models
from alignsam_sb3.rewards.network import RewardScorer, embedded_for, load_scorer
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics import ClipSurgery, LanguagePrior, load_clip
from alignsam_sb3.session import in_images
from alignsam_sb3.signals import language_signals, mask_signals
from alignsam_sb3.task import Task

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 64  # of an image and a category, played together
IMAGES_AT_ONCE = 16  # encoded together
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
    :raises ValueError: the policy has clicks labelled by the truth, or cannot hand out what its calibration chose
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
        if self.answer != LAST:
            self._check_answer(self.answer)

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
        return self._judged(self._play_all(images, places, (self.answer,))[self.answer])

    def compare(
        self, images: Sequence[Photo], categories: Sequence[str], answers: Sequence[str]
    ) -> dict[str, list[list[Annotation]]]:
        """The same for several answers, without the judgement of a calibration, which is of one of them alone.

        :param answers: some of :attr:`answers`
        :raises ValueError: there is no such category, or no such answer
        """
        for name in answers:
            self._check_answer(name)
        return self._play_all(images, [self._place(name) for name in categories], answers)

    def _play_all(
        self, images: Sequence[Photo], places: Sequence[int], answers: Sequence[str]
    ) -> dict[str, list[list[Annotation]]]:
        out: dict[str, list[list[Annotation]]] = {name: [] for name in answers}
        group = max(min(IMAGES_AT_ONCE, PAIRS_AT_ONCE // max(len(places), 1)), 1)
        for start in range(0, len(images), group):
            for name, found in self._play(images[start : start + group], places, answers).items():
                out[name] += found
        return out

    def _place(self, name: str) -> int:
        if name not in self.categories:
            raise ValueError(nearest("category of this policy", name, self.categories))
        return self.categories.index(name)

    def _judged(self, found: list[list[Annotation]]) -> list[list[Annotation]]:
        if self.calibration is None:
            return found
        judged = iter(self.calibration.judge_all([annotation for row in found for annotation in row]))
        return [[next(judged) for _ in row] for row in found]

    @property
    def answer(self) -> str:
        """Whose masks are handed out: the agent's last ones (``"last"``), if calibration chose nothing else."""
        return LAST if self.calibration is None else self.calibration.choice.answer

    @property
    def answers(self) -> tuple[str, ...]:
        """What could be handed out: names in :data:`~alignsam_sb3.choice.ANSWERS`."""
        own = [LAST, *RULES]
        own += [BEST_SCORE] if self._scorer is not None else []
        own += [CLIP_POINTS] if self._prior is not None else []
        own += [MAP_PROMPT, MAP_ALONE] if getattr(self.model.policy, "srm", None) is not None else []
        return tuple(own)

    @cached_property
    def _scorer(self) -> RewardScorer | None:
        """The reward network that knows the categories and the frozen models, if there is one."""
        language = None if self._prior is None else self._prior.fingerprint
        try:
            given = self.task.reward_network or embedded_for(self.categories)
            scorer = load_scorer(given, self.segmenter.device) if isinstance(given, str) else given
            scorer.check(self.categories, self.segmenter.fingerprint, language)
        except (OSError, ValueError) as error:
            logger.debug("no reward network scores these masks: %s", error)
            return None
        return scorer

    def _check_answer(self, name: str) -> None:
        if name not in self.answers:
            raise ValueError(nearest("answer of this policy", name, self.answers))

    @th.no_grad()
    def _play(
        self, images: Sequence[Photo], places: Sequence[int], answers: Sequence[str]
    ) -> dict[str, list[list[Annotation]]]:
        """Play some images that are encoded together; what each of the answers is."""
        count, photos = len(places), encode_photos(images, places, self.segmenter, self._prior)
        found: dict[str, list[list[Annotation]]] = {}
        for name, drawn in self._draw(photos, answers).items():
            made = self._annotations(photos, drawn)
            found[name] = [made[k * count : (k + 1) * count] for k in range(len(images))]
        return found

    def _draw(self, photos: Encoded, answers: Sequence[str]) -> dict[str, Drawn]:
        """What is drawn for each answer; the agent plays once for all that are its own."""
        rivals: dict[str, Callable[[ClickEpisodes], Drawn]] = {
            CLIP_POINTS: lambda episodes: by_clip(episodes, photos.similarity_maps),
            MAP_PROMPT: by_map_prompt,
            MAP_ALONE: by_map,
        }
        found = {name: draw(self._begin(photos)) for name, draw in rivals.items() if name in answers}
        if set(answers) == set(found):
            return found
        rules = dict(RULES)
        if self._scorer is not None and BEST_SCORE in answers:
            rules[BEST_SCORE] = network_score(self._scorer, photos, self.categories)
        agents = by_agent(self.model, self._begin(photos), {name: rule for name, rule in rules.items() if name in answers})
        return found | {name: drawn for name, drawn in agents.items() if name in answers}

    def _begin(self, photos: Encoded) -> ClickEpisodes:
        module = getattr(self.model.policy, "srm", None)
        return photos.begin(self.task, self.segmenter, len(self.categories), module)

    def _annotations(self, photos: Encoded, drawn: Drawn) -> list[Annotation]:
        signals = mask_signals(drawn.logits, drawn.before, drawn.iou)
        if photos.said:
            signals = [own | other for own, other in zip(signals, _agreement(photos, drawn), strict=True)]
        large = in_images(self.segmenter, drawn.logits, photos.sizes)
        names = [self.categories[c] for c in photos.categories]
        return [
            Annotation.of("", name, (one > 0).cpu().numpy(), clicks, said.get("iou_predicted", 0.0), said, self.fingerprint)
            for name, one, clicks, said in zip(names, large, drawn.clicks, signals, strict=True)
        ]


def _agreement(photos: Encoded, drawn: Drawn) -> list[dict[str, float]]:
    """How far language agrees with each mask; see :func:`~alignsam_sb3.signals.language_signals`."""
    cosines, scores = photos.constants["cosine_maps"].cpu().numpy(), photos.said["scores"]
    shares = adaptive_avg_pool2d((drawn.logits > 0).float()[:, None], cosines.shape[-2:])
    inside = (shares[:, 0] > 0.5).cpu().numpy()
    return [
        language_signals(mask, cosines[row], scores[row], int(category))
        for mask, row, category in zip(inside, photos.rows, photos.categories, strict=True)
    ]


class _Spaces(gym.Env[Any, Any]):
    """Nothing but the spaces that a policy is loaded for."""

    def __init__(self, observation_space: spaces.Dict, n_actions: int) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(n_actions)


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
