"""Toy vessels: thin, winding, branching structures over a textured ground, with spots that are no vessels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.toy.drawing import Scene, coverage, laid_over, light_and_noise, skin, texture
from alignsam_sb3.datasets.toy.shapes import SHAPES

_SUPERSAMPLING = 4
_STEP = 0.03  # of the image's side, between two points of a vessel
_THINNEST = 0.022  # of the image's side


def _branch(
    rng: np.random.Generator,
    canvas: NDArray[np.uint8],
    start: NDArray[np.float64],
    heading: float,
    width: float,
    depth: int,
) -> None:
    """Draw one vessel into the canvas and, from places along it, thinner ones; lengths are fractions of the canvas."""
    side = canvas.shape[0]
    bend, place = 0.0, start
    for _ in range(int(rng.integers(14, 34))):
        bend = 0.7 * bend + rng.normal(0, 0.13)
        heading += bend
        after = place + _STEP * np.array([np.cos(heading), np.sin(heading)])
        ends = [tuple(int(v) for v in (p * side).round()) for p in (place, after)]
        cv2.line(canvas, ends[0], ends[1], 255, max(round(width * side), 1), cv2.LINE_8)
        place, width = after, max(width * rng.uniform(0.96, 1.0), _THINNEST)
        if not (-0.05 < place[0] < 1.05 and -0.05 < place[1] < 1.05):
            return
        if depth and rng.random() < 0.1:
            turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
            _branch(rng, canvas, place, heading + turn, max(width * rng.uniform(0.6, 0.85), _THINNEST), depth - 1)


def vessel_cover(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Antialiased coverage (size, size) in [0, 1] of one or two trees of vessels that grow in from the border."""
    canvas = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        along = rng.uniform(0.2, 0.8)
        start, inward = [((0.0, along), 0.0), ((1.0, along), np.pi), ((along, 0.0), np.pi / 2), ((along, 1.0), -np.pi / 2)][
            rng.integers(4)
        ]
        _branch(rng, canvas, np.array(start), inward + rng.uniform(-0.5, 0.5), rng.uniform(0.04, 0.075), depth=2)
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)


def draw_vessels(rng: np.random.Generator, size: int = 128) -> Scene:
    """Draw a scene of vessels over a ground with a few spots; the vessels are object 1.

    :param size: side of the square image in pixels
    """
    hue = float(rng.random())
    _, image = texture(rng, size, hue, 0.15)
    ground = image.mean((0, 1))
    image = ground + rng.uniform(0.2, 0.6) * (image - ground)  # a calmer ground than under the objects of other tasks
    for _ in range(int(rng.integers(0, 5))):
        radius = size * rng.uniform(0.03, 0.08)
        spot = coverage(SHAPES["disc"](rng), rng.uniform(0, size, 2), radius, 0.0, size)
        image = laid_over(image, spot, skin(rng, image, spot, float(rng.random()), 0.15)[1])
    cover = vessel_cover(rng, size)
    name, hide = skin(rng, image, cover, (hue + rng.uniform(0.1, 0.9)) % 1.0, 0.15)
    image = laid_over(image, cover, hide.mean((0, 1)) + 0.4 * (hide - hide.mean((0, 1))))
    return Scene(light_and_noise(rng, image.astype(np.float32)), (cover >= 0.5).astype(np.uint8), ("vessel",), (name,), 1)
