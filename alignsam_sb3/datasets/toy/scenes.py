"""Toy scenes: textured objects over a textured ground, with occlusion, light and noise, drawn from a seed.

A scene is a function of (task, split, seed, index), so any process draws the same one. The split is part of the random key,
so the training and the evaluation split share no scene.
"""

from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, indices_by_category
from alignsam_sb3.datasets.toy.areas import known_categories
from alignsam_sb3.datasets.toy.drawing import Scene
from alignsam_sb3.datasets.toy.objects import draw_scene
from alignsam_sb3.datasets.toy.phenomena import PHENOMENA
from alignsam_sb3.datasets.toy.shapes import SHAPES
from alignsam_sb3.datasets.toy.vessels import draw_vessels
from alignsam_sb3.names import nearest

SCENES = {"train": 2000, "eval": 300}
SPLITS = tuple(SCENES)
DRAWN: dict[str, Callable[[np.random.Generator, int], Scene]] = {
    "semantic": draw_scene,
    "saliency": lambda rng, size: draw_scene(rng, size, salient=True),
    "vessels": draw_vessels,
    **PHENOMENA,
}
TASKS = tuple(DRAWN)  # a task's place is part of the random key: add at the end
CATEGORIES = {
    "semantic": tuple(SHAPES),
    "saliency": ("salient object",),
    "vessels": ("vessel",),
    "shadow": ("shadow",),
    "blur": ("blurred object",),
    "glass": ("pane of glass",),
}
SCENE_VERSION = 2  # part of the fingerprint: raise it whenever a scene would be drawn differently


class ToyScenes:
    """A set of toy scenes.

    What each task asks for:

    - ``semantic``: all objects of a shape
    - ``saliency``: the object that stands out
    - ``vessels``: thin branching structures
    - ``shadow``, ``blur``, ``glass``: shadows, things out of focus, panes of glass

    :param task: one of these words
    :param split: ``"train"`` or ``"eval"``; no scene is in both
    :param n_images: number of scenes; by default 2,000 for training and 300 for evaluation
    :param seed: another seed gives other scenes
    :param size: side of the square images in pixels
    :param min_area: objects whose visible part is smaller than this fraction of the image are no targets
    """

    def __init__(
        self,
        task: str = "saliency",
        split: str = "train",
        n_images: int | None = None,
        seed: int = 0,
        size: int = 128,
        min_area: float = 0.01,
    ) -> None:
        if task not in TASKS:
            raise ValueError(nearest("toy task", task, TASKS))
        if split not in SPLITS:
            raise ValueError(nearest("split of toy scenes", split, SPLITS))
        n_images = SCENES[split] if n_images is None else n_images
        if n_images < 1 or size < 32:
            raise ValueError(f"toy scenes need n_images >= 1 and size >= 32, got n_images={n_images}, size={size}")
        self.task, self.split, self.n_images, self.seed, self.size, self.min_area = task, split, n_images, seed, size, min_area

    @property
    def categories(self) -> tuple[str, ...]:
        return CATEGORIES[self.task]

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.task}-{self.split}-{self.n_images}-{self.seed}-{self.size}-{self.min_area}-v{SCENE_VERSION}"

    def __len__(self) -> int:
        return self.n_images

    def scene(self, index: int) -> Scene:
        """The scene behind an image."""
        if not 0 <= index < self.n_images:
            raise IndexError(f"toy scene {index} of {self.n_images}")
        return _cached_scene(TASKS.index(self.task), SPLITS.index(self.split), self.seed, index, self.size)

    def targets(self, index: int) -> list[tuple[int, int]]:
        """Objects of an image that are targets: pairs of (k, category id)."""
        scene = self.scene(index)
        areas = np.bincount(scene.labels.ravel(), minlength=len(scene.shapes) + 1) / scene.labels.size
        large = [k for k in range(1, len(scene.shapes) + 1) if areas[k] >= self.min_area]
        if self.task != "semantic":
            return [(k, 0) for k in large if k == scene.salient]
        return [(k, self.categories.index(scene.shapes[k - 1])) for k in large]

    def __getitem__(self, index: int) -> Sample:
        scene, targets = self.scene(index), self.targets(index)
        masks = np.zeros((len(targets), *scene.labels.shape), bool)
        for mask, (k, _) in zip(masks, targets, strict=True):
            mask[:] = scene.labels == k
        ids = np.array([category for _, category in targets], np.int64)
        return Sample(f"{self.task}-{self.split}-{self.seed}-{index:06d}", scene.image, masks, ids)

    @cached_property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        shown = known_categories(self.task, self.split, len(self), self.seed, self.size, self.min_area)
        if shown is None:
            bar = tqdm(range(len(self)), desc="drawing scenes", disable=len(self) < 500, leave=False)
            shown = [{category for _, category in self.targets(i)} for i in bar]
        found = indices_by_category(shown, range(len(self.categories)))
        empty = [name for name, images in zip(self.categories, found, strict=True) if not len(images)]
        if empty:
            raise ValueError(
                f"none of the {len(self)} toy scenes shows {', '.join(empty)} on at least {self.min_area:.1%} of the image: "
                "ask for more scenes (n_images) or a smaller min_area"
            )
        return found


@lru_cache(maxsize=16_384)  # 1 GB at most; all tasks of an ablation
def _cached_scene(task: int, split: int, seed: int, index: int, size: int) -> Scene:
    rng = np.random.default_rng([task, split, seed, index])
    scene = DRAWN[TASKS[task]](rng, size)
    scene.image.setflags(write=False)
    scene.labels.setflags(write=False)
    return scene
