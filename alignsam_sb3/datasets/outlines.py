"""Polygons drawn as masks, masks as polygons, and data sets written as ``annotations.json``."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from alignsam_sb3.datasets.base import ANY_CATEGORY, Sample, SegmentationDataset
from alignsam_sb3.datasets.coco_masks import polygon_numbers
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.files import removed_on_error

logger = logging.getLogger(__name__)

_FIXED_POINT = 8  # binary digits of a vertex behind the point


def draw_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons as a mask.

    :param polygons: each (V, 2) or flat x, y, x, y, ...; pixels of the image, of any precision
    :param size: (height, width)
    :raises ValueError: one has fewer than three vertices, or a coordinate is no finite number or far outside
    """
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        flat = np.array(polygon_numbers(polygon))
        if flat.size < 6:
            raise ValueError("a polygon of fewer than three points")
        vertices = np.round((flat.reshape(-1, 2) - 0.5) * 2**_FIXED_POINT).astype(np.int32)
        cv2.fillPoly(mask, [vertices], 1, shift=_FIXED_POINT)
    return mask.astype(bool)


def polygons_of(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Flat polygons x, y, x, y, ... whose union :func:`draw_polygons` draws as this very mask.

    A polygon has no holes: a part that has some is cut in two through one of them, until no part has any.
    """
    outlines, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found: list[list[float]] = []
    for k, outline in enumerate(outlines):
        _, _, hole, parent = tree[0][k]
        if parent >= 0:
            continue
        if hole < 0:
            around = outline.reshape(-1, 2)
            closed = np.concatenate(
                [around, *[around[-1:]] * max(3 - len(around), 0)]
            )  # a pixel or a line has fewer than three
            found.append((closed + 0.5).ravel().tolist())
            continue
        part = np.zeros(mask.shape, np.uint8)
        cv2.drawContours(part, [outline], -1, 1, cv2.FILLED)
        within = part.astype(bool) & mask
        column = int(outlines[hole][:, 0, 0].mean())
        for side in (slice(None, column + 1), slice(column + 1, None)):
            half = np.zeros_like(mask)
            half[:, side] = within[:, side]
            found += polygons_of(half)
    return found


def write_polygons(dataset: SegmentationDataset, folder: Path) -> int:
    """Write a data set as ``annotations.json`` with its images in ``images/``, as :class:`PolygonList` reads it.

    Images keep their names, as PNG files. What counts neither way is written as entries with ``"ignore": true``.

    :return: how many images were written; those that cannot be read are left out
    """
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for index in tqdm(range(len(dataset)), desc="writing images", disable=len(dataset) < 100):
        try:
            sample = dataset[index]
        except UnreadableImageError as error:
            logger.warning("left out: %s", error)
            continue
        name = _name(sample.image_id, taken)
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(path)
        entries += _entries(sample, name, dataset.categories)
    part = folder / "annotations.json.part"
    with removed_on_error(part):
        part.write_text(json.dumps(entries))
        part.replace(folder / "annotations.json")
    return len(taken)


def _name(image_id: str, taken: set[str]) -> str:
    """A file name for an image, below ``images/``, that no other has."""
    parts = [part for part in PurePosixPath(image_id.replace("\\", "/")).parts if part not in ("/", "..")]
    stem = PurePosixPath(*parts).with_suffix("") if parts else PurePosixPath("image")
    name, k = f"{stem}.png", 1
    while name.lower() in taken:
        name, k = f"{stem}-{k}.png", k + 1
    taken.add(name.lower())
    return name


def _entries(sample: Sample, name: str, categories: Sequence[str]) -> list[dict[str, Any]]:
    """What is written of one image."""
    found = [
        {"image": name, "category": categories[category], "mask": polygons_of(mask)}
        for mask, category in zip(sample.masks, sample.category_ids, strict=True)
    ]
    unsaid = dict(sample.left_out)
    if sample.valid is not None:
        unsaid[ANY_CATEGORY] = unsaid.get(ANY_CATEGORY, np.zeros(sample.size, bool)) | ~sample.valid
    for key, mask in unsaid.items():
        entry: dict[str, Any] = {"image": name, "mask": polygons_of(mask), "ignore": True}
        found.append(entry if key == ANY_CATEGORY else {**entry, "category": categories[key]})
    return found
