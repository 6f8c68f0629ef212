"""Toy scenes: textured objects over a textured ground, with occlusion, light and noise, drawn from a seed.

A scene is a function of (task, split, seed, index), so that any process draws the same one, and the training and the
evaluation split share no scene by construction: the split is part of the random key.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, indices_by_category
from alignsam_sb3.datasets.shapes import SHAPES, Outline
from alignsam_sb3.datasets.textures import TEXTURES, noise_field, palette
from alignsam_sb3.datasets.vessels import vessel_cover
from alignsam_sb3.names import nearest

SCENES = {"train": 2000, "eval": 300}
SPLITS = tuple(SCENES)
TASKS = ("semantic", "saliency", "vessels")  # a task's place is part of the random key: add at the end
SCENE_VERSION = 2  # part of the fingerprint: raise it whenever a scene would be drawn differently
_SUPERSAMPLING = 4
_MIN_CONTRAST = 0.25  # Euclidean distance of mean RGB colours in [0, 1]


@dataclass(frozen=True)
class Scene:
    """One drawn scene.

    :param image: (S, S, 3) uint8 RGB
    :param labels: (S, S) uint8, 0 for the ground and k for the visible part of object k
    :param shapes: name of the shape of each object, in order of k = 1, 2, ...
    :param textures: name of the texture of each object
    :param salient: the k of the object that stands out, 0 where none does
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    salient: int


def _coverage(outline: Outline, centre: NDArray[Any], radius: float, angle: float, size: int) -> NDArray[np.float32]:
    """Antialiased coverage (S, S) in [0, 1] of an outline placed in the image."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rings = [((ring @ turn * radius + centre) * _SUPERSAMPLING).round().astype(np.int32) for ring in outline]
    canvas = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    cv2.fillPoly(canvas, rings, 255)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def _texture(rng: np.random.Generator, size: int, hue: float, min_saturation: float) -> tuple[str, NDArray[np.float32]]:
    """A random texture around a hue: its name and (S, S, 3)."""
    name = list(TEXTURES)[rng.integers(len(TEXTURES))]
    return name, TEXTURES[name](rng, size, palette(rng, hue, min_saturation=min_saturation))


def _skin(
    rng: np.random.Generator, below: NDArray[np.float32], cover: NDArray[np.float32], hue: float, min_saturation: float
) -> tuple[str, NDArray[np.float32]]:
    """A texture that can be told from what it covers: redrawn (a few times) while its mean colour is too near."""
    inside = cover > 0.5
    ground = below[inside].mean(0) if inside.any() else below.mean((0, 1))
    name, skin = _texture(rng, len(below), hue, min_saturation)
    for _ in range(6):
        if np.linalg.norm(skin.mean((0, 1)) - ground) > _MIN_CONTRAST:
            break
        name, skin = _texture(rng, len(below), hue, min_saturation)
    return name, skin


def _laid_over(below: NDArray[Any], cover: NDArray[np.float32], skin: NDArray[np.float32]) -> NDArray[Any]:
    """A skin (S, S, 3) over what lies below where it covers it (S, S)."""
    out: NDArray[Any] = below * (1 - cover[..., None]) + skin * cover[..., None]
    return out


def _light_and_noise(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Uneven light, a little blur and sensor noise over the whole scene."""
    size = image.shape[0]
    light = 1 + rng.uniform(0, 0.5) * (noise_field(rng, size, (1, 2)) - 0.5)
    lit = image * light[..., None] * rng.uniform(0.8, 1.15)
    if rng.random() < 0.5:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.3, 0.9))))
    noisy = lit + rng.normal(0, rng.uniform(0.0, 0.04), lit.shape)
    out: NDArray[np.uint8] = (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)
    return out


def _hues(rng: np.random.Generator, ground: float, n: int, salient: int) -> NDArray[np.float64]:
    """One hue an object: any, or, where one stands out, near the ground's for all the others."""
    if not salient:
        return rng.random(n)
    hues = ground + rng.normal(0, 0.05, n)
    hues[salient - 1] = ground + rng.choice([-1, 1]) * rng.uniform(0.25, 0.5)
    return hues % 1.0


def _radii(rng: np.random.Generator, salient: bool, stands_out: bool) -> tuple[float, float]:
    """Range of an object's radius as a fraction of the image's side."""
    if salient:
        return (0.14, 0.24) if stands_out else (0.07, 0.18)
    return (0.22, 0.36) if rng.random() < 0.12 else (0.07, 0.22)


def draw_scene(rng: np.random.Generator, size: int = 128, salient: bool = False) -> Scene:
    """Draw a scene of three to seven objects.

    :param size: side of the square image in pixels
    :param salient: let one object stand out by a hue and a size that the others do not have
    """
    n = int(rng.integers(3, 8))
    star = int(rng.integers(1, n + 1)) if salient else 0
    ground_hue = float(rng.random())
    hues = _hues(rng, ground_hue, n, star)
    min_saturation = 0.45 if salient else 0.15
    _, image = _texture(rng, size, ground_hue, min_saturation)
    labels = np.zeros((size, size), np.uint8)
    names: list[str] = []
    textures: list[str] = []
    taken: list[NDArray[np.float64]] = []
    for k in range(1, n + 1):
        names.append(list(SHAPES)[rng.integers(len(SHAPES))])
        radius = size * rng.uniform(*_radii(rng, salient, k == star))
        places = rng.uniform(radius * 0.8, size - radius * 0.8, (6, 2))
        crowding = [min((float(np.linalg.norm(p - t)) for t in taken), default=size) for p in places]
        centre = places[int(np.argmax(crowding))]
        taken.append(centre)
        cover = _coverage(SHAPES[names[-1]](rng), centre, radius, rng.uniform(0, 2 * np.pi), size)
        texture, skin = _skin(rng, image, cover, float(hues[k - 1]), min_saturation)
        textures.append(texture)
        shade = 1 - rng.uniform(0, 0.35) * cv2.GaussianBlur(cover, (0, 0), size / 40)[..., None]
        image = np.where(cover[..., None] > 0, image, image * shade)  # a soft contact shadow on what lies below
        image = _laid_over(image, cover, skin)
        labels[cover >= 0.5] = k
    return Scene(_light_and_noise(rng, image.astype(np.float32)), labels, tuple(names), tuple(textures), star)


def draw_vessels(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw a scene of vessels over a ground with a few spots; the vessels are object 1.

    :param size: side of the square image in pixels
    """
    hue = float(rng.random())
    _, image = _texture(rng, size, hue, 0.15)
    ground = image.mean((0, 1))
    image = ground + rng.uniform(0.2, 0.6) * (image - ground)  # a calmer ground than under the objects of other tasks
    for _ in range(int(rng.integers(0, 5))):
        radius = size * rng.uniform(0.03, 0.08)
        spot = _coverage(SHAPES["disc"](rng), rng.uniform(0, size, 2), radius, 0.0, size)
        image = _laid_over(image, spot, _skin(rng, image, spot, float(rng.random()), 0.15)[1])
    cover = vessel_cover(rng, size)
    texture, skin = _skin(rng, image, cover, (hue + rng.uniform(0.1, 0.9)) % 1.0, 0.15)
    image = _laid_over(image, cover, skin.mean((0, 1)) + 0.4 * (skin - skin.mean((0, 1))))
    return Scene(_light_and_noise(rng, image.astype(np.float32)), (cover >= 0.5).astype(np.uint8), ("vessel",), (texture,), 1)


class ToyScenes:
    """A set of toy scenes.

    ``toy:semantic`` asks for all objects of a shape, ``toy:saliency`` for the one that stands out, ``toy:vessels`` for thin
    branching structures.

    :param task: ``"semantic"``, ``"saliency"`` or ``"vessels"``
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
        return {"semantic": tuple(SHAPES), "saliency": ("salient object",), "vessels": ("vessel",)}[self.task]

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


@lru_cache(maxsize=8192)
def _cached_scene(task: int, split: int, seed: int, index: int, size: int) -> Scene:
    rng = np.random.default_rng([task, split, seed, index])
    scene = draw_vessels(rng, size) if TASKS[task] == "vessels" else draw_scene(rng, size, TASKS[task] == "saliency")
    scene.image.setflags(write=False)
    scene.labels.setflags(write=False)
    return scene
