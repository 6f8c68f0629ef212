"""Procedural colour textures: dead leaves, fractal noise, stripes, checks, gradients, speckle.

Natural images are well modelled by occluding shapes with 1/f spectra (the "dead leaves" model); what is fitted on these
textures therefore says something about photographs.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = Callable[[np.random.Generator, int, NDArray[np.float32]], NDArray[np.float32]]


def palette(
    rng: np.random.Generator, hue: float, spread: float = 0.04, min_saturation: float = 0.15, n: int = 5
) -> NDArray[np.float32]:
    """Draw ``n`` related RGB colours.

    :param hue: centre of the palette on the colour circle, in [0, 1)
    :param spread: standard deviation of the hues around it
    :param min_saturation: least mean saturation; hues are hard to tell apart below about 0.4
    :return: (n, 3) float32 in [0, 1]
    """
    hsv = np.empty((1, n, 3), np.float32)
    hsv[0, :, 0] = ((hue + rng.normal(0, spread, n)) % 1.0) * 360
    hsv[0, :, 1] = np.clip(rng.uniform(min_saturation, 0.95) + rng.normal(0, 0.1, n), 0, 1)
    hsv[0, :, 2] = np.clip(rng.uniform(0.3, 0.9) + rng.normal(0, 0.13, n), 0.08, 1)
    rgb: NDArray[np.float32] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return rgb


def noise_field(rng: np.random.Generator, size: int, octaves: tuple[int, ...]) -> NDArray[np.float32]:
    """Fractal value noise: random grids of the given sizes, enlarged and summed with amplitude 1/frequency.

    :return: (size, size) float32 in [0, 1]
    """
    field = np.zeros((size, size), np.float32)
    for cells in octaves:
        grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
        field += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / cells
    low, high = float(field.min()), float(field.max())
    scaled: NDArray[np.float32] = (field - low) / max(high - low, 1e-6)
    return scaled


def _blend(weights: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map a field in [0, 1] to colours by linear interpolation along the palette."""
    place = weights * (len(colours) - 1)
    low = np.clip(place.astype(np.int64), 0, len(colours) - 2)
    part = place - low
    rest = 1 - part
    mixed = np.empty((*weights.shape, 3), np.float32)
    for channel, shades in enumerate(colours.T):  # several times as fast as all three at once
        below, above = shades if len(shades) == 2 else (np.take(shades, k) for k in (low, low + 1))
        mixed[..., channel] = below * rest + above * part
    return mixed


def fractal(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clouds, marble, grass: fractal noise through a palette."""
    first = int(rng.integers(2, 7))
    return _blend(noise_field(rng, size, (first, first * 2, first * 4, first * 8)), colours[:3])


def dead_leaves(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Occluding discs and boxes with power-law sizes."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = colours[0]
    count = 90
    radii = np.minimum(2.0 / np.sqrt(rng.random(count)), size / 10)
    places = rng.integers(0, size, (count, 2))
    picks = colours[rng.integers(0, len(colours), count)] + rng.normal(0, 0.04, (count, 3))
    for radius, (x, y), colour in zip(radii, places, picks, strict=True):
        r = max(int(radius), 1)
        if r % 2:
            cv2.circle(canvas, (int(x), int(y)), r, colour.tolist(), -1)
        else:
            cv2.rectangle(canvas, (int(x) - r, int(y) - r), (int(x) + r, int(y) + r), colour.tolist(), -1)
    return canvas


def _rotated_axis(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixel coordinates turned by a random angle, each (size, size)."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    return along.astype(np.float32), across.astype(np.float32)


def stripes(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Soft or hard stripes of 4 to 14 pixels, slightly bent."""
    along, _ = _rotated_axis(rng, size)
    wave = np.sin(2 * np.pi * along / rng.uniform(4, 14) + 2 * noise_field(rng, size, (2, 4)))
    return _blend((0.5 + 0.5 * np.tanh(wave * rng.uniform(1, 6))).astype(np.float32), colours[:2])


def checks(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """A checkerboard at a random angle."""
    along, across = _rotated_axis(rng, size)
    pitch = rng.uniform(4, 12)
    board = (np.floor(along / pitch) + np.floor(across / pitch)) % 2
    return _blend(board.astype(np.float32), colours[:2])


def gradient(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """A smooth colour ramp: sky, wall, skin."""
    along, _ = _rotated_axis(rng, size)
    ramp = (along - along.min()) / max(float(along.max() - along.min()), 1e-6)
    return _blend(ramp.astype(np.float32), colours[:2])


def speckle(rng: np.random.Generator, size: int, colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fine grain on a plain ground: sand, cloth, asphalt."""
    grain = cv2.GaussianBlur(rng.random((size, size), dtype=np.float32), (0, 0), float(rng.uniform(0.5, 1.2)))
    return _blend(np.clip((grain - 0.5) * 3 + 0.5, 0, 1), colours[:2])


TEXTURES: dict[str, Texture] = {
    "fractal": fractal,
    "leafy": dead_leaves,
    "striped": stripes,
    "checked": checks,
    "smooth": gradient,
    "speckled": speckle,
}
