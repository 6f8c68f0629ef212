"""What annotating needs of a predictor, and reading photos of any size for it."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.annotation import Annotation
from alignsam_sb3.calibration import Calibration
from alignsam_sb3.datasets.images import image_size, read_rgb
from alignsam_sb3.encodings import to_coco_rle

Picture = NDArray[np.uint8]
MOST_PIXELS = 4_000_000
"""Larger photos are made smaller for the models, which see no more than a million pixels anyway; masks grow again."""
_one_large_photo_at_a_time = threading.Lock()


class Predicts(Protocol):
    """A policy with its frozen models: ``alignsam_sb3.Predictor`` is one."""

    @property
    def categories(self) -> tuple[str, ...]:
        """What it can be asked for."""

    @property
    def fingerprint(self) -> str:
        """Changes with the policy."""

    @property
    def calibration(self) -> Calibration | None:
        """How far its masks can be trusted, if that was measured."""

    @property
    def answer(self) -> str:
        """Whose masks it hands out, a name in :data:`~alignsam_sb3.choice.ANSWERS`."""

    def batch(self, images: Sequence[Picture], categories: Sequence[str]) -> list[list[Annotation]]:
        """For each image (H_i, W_i, 3) an annotation of each category."""


def read_photo(path: Path) -> tuple[Picture, tuple[int, int]]:
    """A photo (H, W, 3) of at most :data:`MOST_PIXELS`, and the (height, width) of its file.

    :raises UnreadableImageError: with the path and the reason
    """
    height, width = image_size(path)
    if height * width <= MOST_PIXELS:
        return read_rgb(path), (height, width)
    with _one_large_photo_at_a_time:
        photo = read_rgb(path)
    factor = (MOST_PIXELS / (height * width)) ** 0.5
    small = (max(int(width * factor), 1), max(int(height * factor), 1))
    shrunk: Picture = cv2.resize(photo, small, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return shrunk, (height, width)


def in_original(annotation: Annotation, size: tuple[int, int]) -> Annotation:
    """An annotation of a photo that was made smaller, in the pixels of its file."""
    if annotation.size == size:
        return annotation
    answered = replace(annotation, present=True).mask.astype(np.uint8)
    large = cv2.resize(answered, size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    down, across = size[0] / annotation.size[0], size[1] / annotation.size[1]
    clicks = tuple(((int((x + 0.5) * across), int((y + 0.5) * down)), label) for (x, y), label in annotation.clicks)
    return replace(annotation, size=size, rle=to_coco_rle(large)["counts"], clicks=clicks)
