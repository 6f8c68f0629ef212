"""Toy scenes of objects: three to seven textured shapes, of which one may stand out."""

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.toy.drawing import Scene, coverage, free_place, in_colour, laid_over, light_and_noise, skin, texture
from alignsam_sb3.datasets.toy.shapes import SHAPES


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
    _, image = texture(rng, size, ground_hue, min_saturation)
    labels = np.zeros((size, size), np.uint8)
    names: list[str] = []
    textures: list[str] = []
    taken: list[NDArray[np.float64]] = []
    for k in range(1, n + 1):
        names.append(list(SHAPES)[rng.integers(len(SHAPES))])
        radius = size * rng.uniform(*_radii(rng, salient, k == star))
        centre = free_place(rng, size, radius, taken)
        cover = coverage(SHAPES[names[-1]](rng), centre, radius, rng.uniform(0, 2 * np.pi), size)
        name, hide = skin(rng, image, cover, float(hues[k - 1]), min_saturation)
        textures.append(name)
        shade = 1 - rng.uniform(0, 0.35) * cv2.GaussianBlur(cover, (0, 0), size / 40)
        image = image * in_colour(np.where(cover > 0, 1, shade))  # a soft contact shadow on what lies below
        image = laid_over(image, cover, hide)
        labels[cover >= 0.5] = k
    return Scene(light_and_noise(rng, image.astype(np.float32)), labels, tuple(names), tuple(textures), star)
