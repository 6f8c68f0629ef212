"""COCO instance annotations, read with pycocotools."""

import contextlib
import hashlib
import io
import logging
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from pycocotools.coco import COCO

from alignsam_sb3.datasets.base import Sample, indices_by_category
from alignsam_sb3.datasets.images import UnreadableImageError, file_stamp, read_rgb
from alignsam_sb3.names import nearest

logger = logging.getLogger(__name__)

SPLITS = {"train": ("train2017", "train2014", "train"), "eval": ("val2017", "val2014", "val", "eval", "test")}


class CocoDataset:
    """Images of a COCO-format folder that show one of the categories.

    Crowds are no targets, and their pixels count neither way.

    :param root: folder with ``annotations/instances_<split>.json`` and ``images/<split>/`` or ``<split>/``
    :param split: name of a split in that folder, or ``"train"`` or ``"eval"`` for the usual names of either
    :param categories: names to keep; all of the file by default, so that its splits number them alike
    :param min_area: objects smaller than this fraction of the image are no targets
    :param max_instances: at most this many objects of a category per image, the largest
    :param max_images: keep the first so many images, in order of their ids
    :raises FileNotFoundError: the annotations or the images' folder are missing
    :raises ValueError: a category is unknown, or has no object that is large enough and no crowd
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        categories: str | list[str] | tuple[str, ...] | None = None,
        min_area: float = 0.01,
        max_instances: int = 5,
        max_images: int | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        categories = [categories] if isinstance(categories, str) else categories
        self.min_area, self.max_instances = min_area, max_instances
        self.annotation_file, self.split = self._find_annotations(split)
        self.image_folder = self._find_images()
        self._coco = self._read_annotations()
        names = {c["name"]: c["id"] for c in self._coco.loadCats(self._coco.getCatIds())}
        for name in categories or ():
            if name not in names:
                raise ValueError(nearest(f"category in {self.annotation_file.name}", name, names))
        self.skipped: Counter[str] = Counter()
        self._areas: dict[int, int] = {}
        self._crowds: dict[int, list[dict[str, Any]]] = defaultdict(list)
        wanted = {names[name]: name for name in (categories or names)}
        self._objects = self._usable_objects(set(wanted))
        if max_images is not None:
            self._objects = dict(list(self._objects.items())[:max_images])
        self._image_ids = list(self._objects)
        found = Counter(o["category_id"] for objects in self._objects.values() for o in objects)
        empty = [name for key, name in wanted.items() if not found[key]]
        if (categories and empty) or not self._image_ids:
            raise ValueError(
                f"{self.annotation_file}: no usable object of {', '.join(empty) or 'any category'}: crowds and objects under "
                f"{min_area:.1%} of the image are left out ({dict(self.skipped)}); lower min_area or drop the category"
            )
        self._category_ids = list(wanted)
        self._names = tuple(wanted[key] for key in self._category_ids)

    def _find_annotations(self, split: str) -> tuple[Path, str]:
        tried = [self.root / "annotations" / f"instances_{name}.json" for name in SPLITS.get(split, (split,))]
        for path, name in zip(tried, SPLITS.get(split, (split,)), strict=True):
            if path.is_file():
                return path, name
        have = sorted(p.name for p in (self.root / "annotations").glob("*.json"))
        raise FileNotFoundError(
            f"no COCO annotations for split {split!r} in {self.root}: looked for {', '.join(p.name for p in tried)} under "
            f"annotations/, found {', '.join(have) or 'nothing'}"
        )

    def _find_images(self) -> Path:
        for folder in (self.root / "images" / self.split, self.root / self.split):
            if folder.is_dir():
                return folder
        raise FileNotFoundError(
            f"no images of split {self.split!r}: neither images/{self.split}/ nor {self.split}/ in {self.root}"
        )

    def _read_annotations(self) -> COCO:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its timings
                return COCO(str(self.annotation_file))
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise ValueError(
                f"{self.annotation_file} is not a COCO annotation file ({type(error).__name__}: {error})"
            ) from error

    def _usable_objects(self, wanted: set[int]) -> dict[int, list[dict[str, Any]]]:
        """Annotations that can be targets, by image id; the others are counted with the reason."""
        usable: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in self._coco.loadAnns(self._coco.getAnnIds()):
            if annotation.get("category_id") not in wanted:
                continue
            reason = self._unusable(annotation)
            if reason:
                self.skipped[reason] += 1
                if reason == "crowd":
                    self._crowds[annotation["image_id"]].append(annotation)
            else:
                usable[annotation["image_id"]].append(annotation)
        kept = {image_id: self._largest(usable[image_id]) for image_id in sorted(usable)}
        broken = self.skipped["broken annotation"]
        if broken:
            logger.warning("%s: %d broken annotations skipped", self.annotation_file, broken)
        return kept

    def _unusable(self, annotation: dict[str, Any]) -> str:
        """Why an annotation cannot be a target; the empty string if it can. Its mask is decoded to find out."""
        if annotation.get("iscrowd"):
            return "crowd"
        try:
            image = self._coco.imgs[annotation["image_id"]]
            height, width, _ = int(image["height"]), int(image["width"]), Path(image["file_name"])
            area = self._area(annotation, height, width)
        except Exception:  # pycocotools raises whatever its parser meets
            return "broken annotation"
        self._areas[annotation["id"]] = area
        return "too small" if area < self.min_area * height * width else ""

    def _area(self, annotation: dict[str, Any], height: int, width: int) -> int:
        """Pixels of the mask; raises if it is empty or does not fit its image."""
        counts = annotation["segmentation"]["counts"] if isinstance(annotation["segmentation"], dict) else None
        if isinstance(counts, list) and sum(counts) != height * width:
            raise ValueError("run lengths do not add up to the image")
        encoded = self._encode(annotation)
        area = int(rle.area(encoded))
        if list(encoded["size"]) != [height, width] or not 0 < area <= height * width:
            raise ValueError("mask of another size, or empty")
        return area

    def _largest(self, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept: list[dict[str, Any]] = []
        taken: Counter[int] = Counter()
        for annotation in sorted(objects, key=lambda o: (-self._areas[o["id"]], o["id"])):
            taken[annotation["category_id"]] += 1
            if taken[annotation["category_id"]] <= self.max_instances:
                kept.append(annotation)
        return kept

    def _encode(self, annotation: dict[str, Any]) -> Any:  # noqa: ANN401 (pycocotools' own RLE dictionary)
        return self._coco.annToRLE(annotation)

    @property
    def categories(self) -> tuple[str, ...]:
        return self._names

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for image_id in self._image_ids:
            info = self._coco.imgs[image_id]
            stamp = file_stamp(self.image_folder / info["file_name"])
            digest.update(f"{image_id}|{info['file_name']}|{stamp}|{info['height']}x{info['width']}\n".encode())
        return f"coco-{self.split}-{len(self)}-{digest.hexdigest()[:16]}"

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, index: int) -> Sample:
        image_id = self._image_ids[index]
        info = self._coco.imgs[image_id]
        image = read_rgb(self.image_folder / info["file_name"], (info["height"], info["width"]))
        objects = self._objects[image_id]
        try:
            masks = np.stack([rle.decode(self._encode(o)).astype(bool) for o in objects])
        except Exception as error:
            raise UnreadableImageError(f"{self.annotation_file}: broken mask on {info['file_name']}: {error}") from error
        ids = np.array([self._category_ids.index(o["category_id"]) for o in objects], np.int64)
        return Sample(str(info["file_name"]), image, masks, ids, self._valid(image_id, masks))

    def _valid(self, image_id: int, masks: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Crowds are drawn roughly over many objects: what lies in one, and is no target, counts neither way."""
        crowd = np.zeros(masks.shape[1:], bool)
        for annotation in self._crowds.get(image_id, ()):
            with contextlib.suppress(Exception):  # pycocotools raises whatever its parser meets
                found = rle.decode(self._encode(annotation)).astype(bool)
                crowd |= found if found.shape == crowd.shape else False
        return ~crowd | masks.any(0) if crowd.any() else None

    @cached_property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        shown = [{o["category_id"] for o in self._objects[image_id]} for image_id in self._image_ids]
        return indices_by_category(shown, self._category_ids)
