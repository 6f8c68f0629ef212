"""Toy scenes after the paper's other tasks: shadows, what is out of focus, panes of glass. What is wanted is object 1.

None of them is a colour. A shadow is darker than the same ground beside it, and so are some things that are no shadows. Blur
takes the texture away. Glass shifts and tints what lies behind it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.toy.drawing import Scene, coverage, free_place, laid_over, light_and_noise, skin, texture
from alignsam_sb3.datasets.toy.shapes import SHAPES

_DETAILED = ("leafy", "striped", "checked", "speckled")
_PANES = ("box", "disc", "triangle", "cross")


def _placed(
    rng: np.random.Generator,
    size: int,
    taken: list[NDArray[np.float64]],
    radii: tuple[float, float],
    names: tuple[str, ...] = tuple(SHAPES),
) -> tuple[str, NDArray[np.float32]]:
    """A random outline where little is yet: the name of its shape and its coverage (S, S)."""
    name = names[int(rng.integers(len(names)))]
    radius = size * rng.uniform(*radii)
    centre = free_place(rng, size, radius, taken)
    return name, coverage(SHAPES[name](rng), centre, radius, rng.uniform(0, 2 * np.pi), size)


def _scene(rng: np.random.Generator, image: NDArray[np.float32], wanted: NDArray[np.float32], name: str) -> Scene:
    return Scene(light_and_noise(rng, image), (wanted >= 0.5).astype(np.uint8), (name,), ("",), 1)


def draw_shadow(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw a scene of things, some of them dark, over which one or two soft shadows fall.

    :param size: side of the square image in pixels
    """
    _, image = texture(rng, size, float(rng.random()), 0.15)
    image = image * rng.uniform(0.35, 0.8) / max(float(image.mean()), 1e-3)
    taken: list[NDArray[np.float64]] = []
    for _ in range(int(rng.integers(2, 5))):
        _, cover = _placed(rng, size, taken, (0.07, 0.16))
        hide = skin(rng, image, cover, float(rng.random()), 0.15)[1]
        image = laid_over(image, cover, hide * rng.uniform(0.3, 1.0))
    wanted = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        _, cover = _placed(rng, size, taken, (0.16, 0.28))
        soft = cv2.GaussianBlur(cover, (0, 0), size * rng.uniform(0.004, 0.012))
        wanted = np.maximum(wanted, np.asarray(soft, np.float32))
    light = 1 - wanted[..., None] * (1 - rng.uniform(0.35, 0.55) * np.array([0.93, 1.0, 1.1]))
    return _scene(rng, (image * light).astype(np.float32), wanted, "shadow")


def draw_blur(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw a scene of detailed things, of which one or two are out of focus.

    :param size: side of the square image in pixels
    """
    _, image = texture(rng, size, float(rng.random()), 0.15, _DETAILED)
    n = int(rng.integers(4, 7))
    blurred = set(rng.choice(n, size=int(rng.integers(1, 3)), replace=False).tolist())
    wanted = np.zeros((size, size), np.float32)
    taken: list[NDArray[np.float64]] = []
    for k in range(n):
        _, cover = _placed(rng, size, taken, (0.13, 0.24) if k in blurred else (0.1, 0.22))
        hide = skin(rng, image, cover, float(rng.random()), 0.15, _DETAILED)[1]
        if k in blurred:
            far = size * rng.uniform(0.03, 0.05)
            hide = np.asarray(cv2.GaussianBlur(hide, (0, 0), far, borderType=cv2.BORDER_REFLECT), np.float32)
            cover = np.asarray(cv2.GaussianBlur(cover, (0, 0), size * rng.uniform(0.008, 0.014)), np.float32)
        image = laid_over(image, cover, hide)
        wanted = np.maximum(wanted, cover) if k in blurred else np.minimum(wanted, 1 - cover)
    return _scene(rng, image, wanted, "blur")


def draw_glass(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw a scene of things, before which stand one or two panes of tinted glass.

    :param size: side of the square image in pixels
    """
    _, image = texture(rng, size, float(rng.random()), 0.15)
    taken: list[NDArray[np.float64]] = []
    for _ in range(int(rng.integers(3, 6))):
        _, cover = _placed(rng, size, taken, (0.08, 0.2))
        image = laid_over(image, cover, skin(rng, image, cover, float(rng.random()), 0.15)[1])
    wanted = np.zeros((size, size), np.float32)
    taken.clear()
    for _ in range(int(rng.integers(1, 3))):
        _, cover = _placed(rng, size, taken, (0.17, 0.3), _PANES)
        image = laid_over(image, cover, _through_glass(rng, image, cover))
        wanted = np.maximum(wanted, cover)
    return _scene(rng, image, wanted, "glass")


def _through_glass(rng: np.random.Generator, image: NDArray[np.float32], cover: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scene as a pane shows it: shifted, a little soft, tinted pale, with a bright rim and a streak of light."""
    size = len(image)
    angle, shift = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.05, 0.09)
    move = np.array([[1, 0, shift * np.cos(angle)], [0, 1, shift * np.sin(angle)]])
    seen = cv2.warpAffine(image.astype(np.float32), move, (size, size), borderMode=cv2.BORDER_REFLECT)
    seen = cv2.GaussianBlur(seen, (0, 0), size / 100)
    tint = np.array([0.72, 0.88, 0.9]) + rng.uniform(-0.08, 0.08, 3)
    seen = seen + rng.uniform(0.35, 0.5) * (tint - seen)
    y, x = np.mgrid[0:size, 0:size] / size
    along = (x * np.cos(angle + 0.8) + y * np.sin(angle + 0.8) - rng.uniform(-0.3, 1.0)) / 0.04
    rim = np.clip(cover - cv2.erode(cover, np.ones((3, 3), np.uint8)), 0, 1)
    shine = 0.25 * np.exp(-(along**2)) + 0.35 * rim
    return np.asarray(seen + shine[..., None] * (1 - seen), np.float32)


PHENOMENA: dict[str, Callable[[np.random.Generator, int], Scene]] = {
    "shadow": draw_shadow,
    "blur": draw_blur,
    "glass": draw_glass,
}
