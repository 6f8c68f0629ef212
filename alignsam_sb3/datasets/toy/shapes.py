"""Outlines of the toy categories: closed polygons around the origin, in units of the object's radius."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Outline = list[NDArray[np.float64]]
"""Rings of vertices (V, 2); a second ring is a hole (even-odd rule)."""


def _polar(radius: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _circle(radius: float = 1.0, n: int = 40) -> NDArray[np.float64]:
    return _polar(np.full(n, radius), np.linspace(0, 2 * np.pi, n, endpoint=False))


def disc(rng: np.random.Generator) -> Outline:
    return [_circle() * [1.0, rng.uniform(0.75, 1.0)]]


def box(rng: np.random.Generator) -> Outline:
    h = rng.uniform(0.55, 0.95)
    return [np.array([[-0.95, -h], [0.95, -h], [0.95, h], [-0.95, h]])]


def triangle(rng: np.random.Generator) -> Outline:
    tip = rng.uniform(-0.4, 0.4)
    return [np.array([[-1.0, 0.75], [1.0, 0.75], [tip, -1.0]])]


def star(rng: np.random.Generator) -> Outline:
    points = int(rng.integers(5, 7))
    angle = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    return [_polar(np.where(np.arange(2 * points) % 2, rng.uniform(0.42, 0.55), 1.15), angle)]


def ring(rng: np.random.Generator) -> Outline:
    return [_circle(), _circle(rng.uniform(0.4, 0.55))]


def cross(rng: np.random.Generator) -> Outline:
    t = rng.uniform(0.3, 0.42)
    arm = np.array([[t, t], [1.0, t], [1.0, -t]])
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return [np.concatenate([arm @ np.linalg.matrix_power(quarter_turn, 3 * k) for k in range(4)])]


def crescent(rng: np.random.Generator) -> Outline:
    angle = np.linspace(0.45 * np.pi, 1.55 * np.pi, 24)
    outer = _polar(np.ones(24), angle)
    inner = outer[::-1] * [rng.uniform(0.25, 0.45), 1.0]
    return [np.concatenate([outer, inner]) + np.array([0.45, 0.0])]


def blob(rng: np.random.Generator) -> Outline:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = [rng.normal(0, 0.22 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 6)]
    lumps = waves[1] + waves[2] + waves[3]  # without them (the first only stretches) it would be a disc
    radius = 0.85 + waves[0] + lumps * max(1.0, 0.13 / max(float(lumps.std()), 1e-3))
    return [_polar(np.clip(radius, 0.3, 1.3), angle)]


SHAPES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "disc": disc,
    "box": box,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "crescent": crescent,
    "blob": blob,
}
