"""Polygons drawn as masks, and the two kinds of files that hold them: ``annotations.json`` lists and LabelMe."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from alignsam_sb3.datasets.base import SegmentationDataset
from alignsam_sb3.datasets.images import UnreadableImageError, image_size
from alignsam_sb3.datasets.labelled import SPLIT_FOLDERS, Annotation, LabelledImages, Record, stacked
from alignsam_sb3.files import removed_on_error

logger = logging.getLogger(__name__)

_FIXED_POINT = 8  # binary digits of a vertex behind the point


def draw_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons as a mask.

    :param polygons: each (V, 2) or flat x, y, x, y, ...; pixels of the image, of any precision
    :param size: (height, width)
    :raises ValueError: one has fewer than three vertices, or a coordinate is no finite number
    """
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        flat = np.asarray(polygon, np.float64).reshape(-1)
        if flat.size < 6 or flat.size % 2 or not np.isfinite(flat).all():
            raise ValueError(f"a polygon needs three or more (x, y) pairs of finite numbers, got {polygon!r:.80}")
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

    :return: how many images were written; those that cannot be read, and what annotations leave open, are left out
    """
    entries = []
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    written = 0
    for index in tqdm(range(len(dataset)), desc="writing images", disable=len(dataset) < 100):
        try:
            sample = dataset[index]
        except UnreadableImageError as error:
            logger.warning("left out: %s", error)
            continue
        name = f"{index:06d}.png"
        Image.fromarray(sample.image).save(images / name)
        for mask, category in zip(sample.masks, sample.category_ids, strict=True):
            entries.append({"image": name, "category": dataset.categories[category], "mask": polygons_of(mask)})
        written += 1
    part = folder / "annotations.json.part"
    with removed_on_error(part):
        part.write_text(json.dumps(entries))
        part.replace(folder / "annotations.json")
    return written


class PolygonList(LabelledImages):
    """``annotations.json``: a list of ``{"image": file name, "mask": [polygon, ...]}``, each polygon flat: x, y, x, y, ...

    An entry may have a ``"category"``. Images lie in ``images/`` or beside the file; ``train/`` and ``val/`` (or ``test/``)
    folders, each with a file of its own, are splits.

    :param category: what is shown where an entry does not say it
    """

    kind = "polygons"

    def __init__(self, root: str | Path, split: str = "train", category: str = "object", **options: Any) -> None:  # noqa: ANN401
        self._category = category
        super().__init__(root, split, **options)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        names = SPLIT_FOLDERS.get(split, (split,))
        own = next((self.root / n for n in names if (self.root / n / "annotations.json").is_file()), None)
        base = own or self.root
        path = base / "annotations.json"
        try:
            entries = json.loads(path.read_text())
            assert isinstance(entries, list)
        except FileNotFoundError:
            raise FileNotFoundError(f"no annotations.json in {base}") from None
        except (ValueError, AssertionError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no list of {{'image', 'mask'}} entries ({error})") from error
        records: dict[str, Record] = {}
        known: dict[str, None] = {}
        for k, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "mask" not in entry:
                self._skip("entry without image or mask", f"entry {k}")
                continue
            name = entry["image"]
            folder = base / "images" if (base / "images" / name).is_file() else base
            known.setdefault(str(entry.get("category", self._category)))
            records.setdefault(name, Record(name, folder / name, []))
            records[name].labels.append(entry)
        self._all = tuple(known) or (self._category,)
        return [records[name] for name in sorted(records)], own is not None

    def _known(self) -> Sequence[str]:
        return self._all

    def _annotate(self, record: Record) -> Annotation:
        size = image_size(record.image)
        masks = np.stack([draw_polygons(entry["mask"], size) for entry in record.labels])
        return Annotation(masks, [str(entry.get("category", self._category)) for entry in record.labels])


class LabelMe(LabelledImages):
    """A folder of LabelMe's ``.json`` files, each beside its image: polygons, rectangles and circles."""

    kind = "labelme"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        names = SPLIT_FOLDERS.get(split, (split,))
        own = next((self.root / name for name in names if (self.root / name).is_dir()), None)
        records: list[Record] = []
        known: dict[str, None] = {}
        for path in sorted((own or self.root).rglob("*.json")):
            name = str(path.relative_to(self.root))
            try:
                content = json.loads(path.read_text())
                shapes = [(str(s["label"]), str(s.get("shape_type", "polygon")), s["points"]) for s in content["shapes"]]
                image = path.parent / str(content["imagePath"]).replace("\\", "/")
                size = int(content["imageHeight"]), int(content["imageWidth"])
            except (ValueError, KeyError, TypeError):
                self._skip("no LabelMe file", name)
                continue
            known |= dict.fromkeys(label for label, *_ in shapes)
            records.append(Record(name, image, (size, shapes)))
        if not records:
            raise FileNotFoundError(f"no LabelMe .json files in {own or self.root} (others: {len(self.skipped)})")
        self._all = tuple(sorted(known))
        return records, own is not None

    def _known(self) -> Sequence[str]:
        return self._all

    def _annotate(self, record: Record) -> Annotation:
        size, shapes = record.labels
        masks = [_draw_shape(kind, np.asarray(points, np.float64), size) for _, kind, points in shapes]
        return Annotation(stacked(masks, size), [label for label, *_ in shapes])


def _draw_shape(kind: str, points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A LabelMe shape as a mask; lines and points have no area."""
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        return draw_polygons([[x0, y0, x1, y0, x1, y1, x0, y1]], size)
    if kind == "circle":
        centre, edge = points
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        return draw_polygons([centre + np.hypot(*(edge - centre)) * np.stack([np.cos(angle), np.sin(angle)], 1)], size)
    return draw_polygons([points], size) if kind == "polygon" else np.zeros(size, bool)
