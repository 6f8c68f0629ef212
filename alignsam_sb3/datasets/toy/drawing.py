"""What scenes are drawn with: outlines to coverage, textured skins, light and noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.toy.shapes import Outline
from alignsam_sb3.datasets.toy.textures import TEXTURES, noise_field, palette

SUPERSAMPLING = 4
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


def coverage(outline: Outline, centre: NDArray[Any], radius: float, angle: float, size: int) -> NDArray[np.float32]:
    """Antialiased coverage (S, S) in [0, 1] of an outline placed in the image."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rings = [((ring @ turn * radius + centre) * SUPERSAMPLING).round().astype(np.int32) for ring in outline]
    canvas = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
    cv2.fillPoly(canvas, rings, 255)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def free_place(rng: np.random.Generator, size: int, radius: float, taken: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Of six random places for an object the one farthest from those taken, (x, y) in pixels; it is then taken, too."""
    places = rng.uniform(radius * 0.8, size - radius * 0.8, (6, 2))
    room = np.linalg.norm(places[:, None] - np.reshape(taken, (1, -1, 2)), axis=2).min(1, initial=size)
    taken.append(places[int(np.argmax(room))])
    return taken[-1]


def texture(
    rng: np.random.Generator, size: int, hue: float, min_saturation: float, names: Sequence[str] = tuple(TEXTURES)
) -> tuple[str, NDArray[np.float32]]:
    """A random texture, one of ``names``, around a hue: its name and (S, S, 3)."""
    name = names[int(rng.integers(len(names)))]
    return name, TEXTURES[name](rng, size, palette(rng, hue, min_saturation=min_saturation))


def skin(
    rng: np.random.Generator,
    below: NDArray[np.float32],
    cover: NDArray[np.float32],
    hue: float,
    min_saturation: float,
    names: Sequence[str] = tuple(TEXTURES),
) -> tuple[str, NDArray[np.float32]]:
    """A texture that can be told from what it covers: redrawn (a few times) while its mean colour is too near."""
    inside = cover > 0.5
    ground = below[inside].mean(0) if inside.any() else below.mean((0, 1))
    name, skin = texture(rng, len(below), hue, min_saturation, names)
    for _ in range(6):
        if np.linalg.norm(skin.mean((0, 1)) - ground) > _MIN_CONTRAST:
            break
        name, skin = texture(rng, len(below), hue, min_saturation, names)
    return name, skin


def laid_over(below: NDArray[Any], cover: NDArray[np.float32], skin: NDArray[np.float32]) -> NDArray[Any]:
    """A skin (S, S, 3) over what lies below where it covers it (S, S)."""
    part = in_colour(cover)
    out: NDArray[Any] = below * (1 - part) + skin * part
    return out


def in_colour(field: NDArray[Any]) -> NDArray[Any]:
    """A field (S, S) for each of three channels, (S, S, 3): numpy is slow where it has to repeat along the last axis."""
    return np.asarray(cv2.merge((field, field, field)))


def light_and_noise(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Uneven light, a little blur and sensor noise over the whole scene."""
    size = image.shape[0]
    light = 1 + rng.uniform(0, 0.5) * (noise_field(rng, size, (1, 2)) - 0.5)
    lit = image * in_colour(light) * rng.uniform(0.8, 1.15)
    if rng.random() < 0.5:
        lit = np.asarray(cv2.GaussianBlur(lit, (0, 0), float(rng.uniform(0.3, 0.9))))
    noisy = lit + rng.normal(0, rng.uniform(0.0, 0.04), lit.shape)
    out: NDArray[np.uint8] = (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)
    return out
