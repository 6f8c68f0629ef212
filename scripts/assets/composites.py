"""Scenes made of a few photographs with masks: crops, cut-outs laid over crops, toy shapes filled with crops."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets import Sample, load_dataset
from alignsam_sb3.datasets.toy.objects import draw_scene

Picture = NDArray[np.uint8]
Drawn = tuple[Picture, NDArray[np.uint8], tuple[str, ...]]
"""An image (S, S, 3), labels (S, S) with k for object k, and a name for each object."""
SMALLEST = 0.001
"""Share of its photograph that an object to be cut out takes up."""


@cache
def photographs(spec: str) -> list[Sample]:
    """The training photographs of a data set, with small objects, too."""
    dataset = load_dataset(spec, "train", min_area=SMALLEST, max_instances=50)
    return [dataset[i] for i in range(len(dataset))]


def draw_composite(rng: np.random.Generator, size: int, photos: list[Sample]) -> Drawn:
    """One scene: a crop with its own objects, cut-outs over a crop, or toy shapes filled with crops."""
    while True:
        draw = (crop_scene, pasted_scene, filled_scene)[int(rng.choice(3, p=(0.4, 0.35, 0.25)))]
        image, labels, names = draw(rng, size, photos)
        if np.bincount(labels.ravel(), minlength=2)[1:].max() >= 0.01 * labels.size:
            return spoiled(rng, image), labels, names


def window(rng: np.random.Generator, photo: Sample, around: NDArray[np.bool_] | None = None) -> tuple[slice, slice]:
    """A random square of a photo, as rows and columns: around an object, where one is given."""
    height, width = photo.size
    if around is None:
        side = int(min(height, width) * rng.uniform(0.25, 1))
        y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
        return slice(y, y + side), slice(x, x + side)
    ys, xs = np.flatnonzero(around.any(1)), np.flatnonzero(around.any(0))
    long = max(np.ptp(ys), np.ptp(xs)) + 1
    side = int(min(long * rng.uniform(1.0, 4.0), height, width))
    corner = []
    for seen, whole in ((ys, height), (xs, width)):
        lowest, highest = max(seen[-1] + 1 - side, 0), min(seen[0], whole - side)  # so that the object is inside, if it fits
        low, high = sorted((lowest, highest))
        corner.append(int(np.clip(rng.integers(low, high + 1), 0, whole - side)))
    return slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side)


def shrunk(image: NDArray[np.generic], size: int) -> NDArray[np.float32]:
    """Pixels or coverage at another size, averaged where it becomes smaller."""
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image.astype(np.float32), (size, size), interpolation=how), np.float32)


def backdrop(rng: np.random.Generator, size: int, photos: list[Sample]) -> NDArray[np.float32]:
    """A crop of any photo, sometimes out of focus."""
    photo = photos[rng.integers(len(photos))]
    image = shrunk(photo.image[window(rng, photo)], size)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3)), np.float32) if rng.random() < 0.3 else image


def crop_scene(rng: np.random.Generator, size: int, photos: list[Sample]) -> Drawn:
    """A crop of a photo around one of its objects, with all objects in it."""
    photo = photos[rng.integers(len(photos))]
    crop = window(rng, photo, photo.masks[rng.integers(len(photo.masks))])
    labels, names = np.zeros((size, size), np.uint8), []
    for mask, category in zip(photo.masks, photo.category_ids, strict=True):
        inside = shrunk(mask[crop], size) >= 0.5
        if inside.any():
            names.append(str(category))
            labels[inside] = len(names)
    return shrunk(photo.image[crop], size).astype(np.uint8), labels, tuple(names)


def tinted(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Another light: each channel scaled, all shifted."""
    return np.clip(image * rng.uniform(0.6, 1.4) * rng.uniform(0.8, 1.2, 3) + rng.uniform(-30, 30), 0, 255).astype(np.float32)


def pasted_scene(rng: np.random.Generator, size: int, photos: list[Sample]) -> Drawn:
    """One to five cut-outs, turned and in another light, over a crop."""
    image, labels, names = backdrop(rng, size, photos), np.zeros((size, size), np.uint8), []
    for _ in range(int(rng.integers(1, 6))):
        photo = photos[rng.integers(len(photos))]
        k = int(rng.integers(len(photo.masks)))
        rows, columns = window(rng, photo, photo.masks[k])
        side = rows.stop - rows.start
        wanted = size * rng.uniform(0.4, 1.6)  # of the window; the object in it is smaller
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-40, 40), wanted / side)
        turn[:, 2] += rng.uniform(0, size, 2) - side / 2
        blur = max(side / wanted / 2, 1e-3)
        cut = cv2.GaussianBlur(photo.image[rows, columns].astype(np.float32), (0, 0), blur)
        alpha = cv2.GaussianBlur(photo.masks[k][rows, columns].astype(np.float32), (0, 0), blur)
        cut, alpha = cv2.warpAffine(cut, turn, (size, size)), cv2.warpAffine(alpha, turn, (size, size))
        if (alpha >= 0.5).sum() >= 0.01 * size * size:
            image = alpha[..., None] * tinted(rng, np.asarray(cut, np.float32)) + (1 - alpha[..., None]) * image
            names.append(str(photo.category_ids[k]))
            labels[alpha >= 0.5] = len(names)
    return np.asarray(image, np.float32).astype(np.uint8), labels, tuple(names)


def filled_scene(rng: np.random.Generator, size: int, photos: list[Sample]) -> Drawn:
    """The outlines of a toy scene, each filled with a crop, over a crop."""
    scene = draw_scene(rng, size)
    image = backdrop(rng, size, photos)
    for k in range(1, len(scene.shapes) + 1):
        alpha = cv2.GaussianBlur((scene.labels == k).astype(np.float32), (0, 0), 0.5)[..., None]
        image = alpha * tinted(rng, backdrop(rng, size, photos)) + (1 - alpha) * image
    return image.astype(np.uint8), scene.labels, scene.shapes


def spoiled(rng: np.random.Generator, image: Picture) -> Picture:
    """Light, a little blur, noise and JPEG, each sometimes."""
    out = image.astype(np.float32)
    if rng.random() < 0.5:
        out = 255 * (out / 255) ** np.exp(rng.uniform(-0.5, 0.5))
    if rng.random() < 0.2:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.3, 0.8)), np.float32)
    if rng.random() < 0.3:
        out = out + rng.normal(0, rng.uniform(1, 6), out.shape)
    small = np.clip(out, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        done, code = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])
        assert done
        small = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return small
