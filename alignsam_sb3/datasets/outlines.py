"""Polygons drawn as masks, and the two kinds of files that hold them: ``annotations.json`` lists and LabelMe."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.images import image_size
from alignsam_sb3.datasets.labelled import SPLIT_FOLDERS, Annotation, LabelledImages, Record, stacked

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
        known: dict[str, None] = {self._category: None}
        for k, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "mask" not in entry:
                self._skip("entry without image or mask", f"entry {k}")
                continue
            name = entry["image"]
            folder = base / "images" if (base / "images" / name).is_file() else base
            known.setdefault(str(entry.get("category", self._category)))
            records.setdefault(name, Record(name, folder / name, []))
            records[name].labels.append(entry)
        self._all = tuple(known)
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
