"""ADE20K: as the scene parsing benchmark ships it, with 150 classes, and in full, with every object named."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alignsam_sb3.datasets.finding import images_by_stem, images_in, printable
from alignsam_sb3.datasets.image_files import opened_image
from alignsam_sb3.datasets.labelled import LabelledImages, Record, require_folders
from alignsam_sb3.datasets.labels import read_labels
from alignsam_sb3.datasets.regions import Annotation, Mask, regions

_CLASSES = 150


class Ade20k(LabelledImages):
    """``images/{training,validation}/`` and ``annotations/{training,validation}/`` of ``ADEChallengeData2016``.

    Class names are read from ``objectInfo150.txt`` (the first of each entry's names). Pixels without a class count neither
    way.
    """

    kind = "ade20k"
    orientation_rule = "stored"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        images, labels = self.root / "images", self.root / "annotations"
        layout = "an ADE20K root of the benchmark has images/ and annotations/, each with training/ and validation/"
        require_folders(f"{layout}; the full ADE20K, with *_seg.png beside the images, is ade20k_full:ROOT", images, labels)
        paths = [path.relative_to(images) for path in images_by_stem(images, self.skipped).values()]
        records = [Record(path.stem, images / path, (labels / path).with_suffix(".png")) for path in paths]
        return self._of_split(records, paths, split)

    @cached_property
    def _class_names(self) -> dict[int, str]:
        path = self.root / "objectInfo150.txt"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}: class names are read from the benchmark's own list")
        names = {}
        for line in path.read_text().splitlines():
            first, *others = line.split("\t")
            if first.strip().isdigit():
                names[int(first)] = others[-1].split(",")[0].strip()
        if sorted(names) != list(range(1, _CLASSES + 1)):
            raise ValueError(f"{path} lists {len(names)} classes, not {_CLASSES}")
        return {k: name if list(names.values()).count(name) == 1 else f"{name} ({k})" for k, name in names.items()}

    def _known(self) -> Sequence[str]:
        return tuple(self._class_names.values())

    def _annotate(self, record: Record) -> Annotation:
        return regions(read_labels(record.labels), self._class_names, (0,))


class Ade20kFull(LabelledImages):
    """The full ADE20K: ``x.jpg``, ``x_seg.png`` and what names its objects, ``x.json`` or, in older releases, ``x_atr.txt``.

    Every object is an instance, parts of objects are none; pixels without an object count neither way.
    """

    kind = "ade20k_full"
    orientation_rule = "stored"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        records, paths = [], []
        known: dict[str, None] = {}
        for path in images_in(self.root, self.skipped):
            labels = path.with_name(f"{path.stem}_seg.png")
            if not path.name.lower().endswith(".jpg"):
                continue
            name = printable(path.relative_to(self.root))
            if not labels.is_file():
                self._skip("images: without a _seg.png", name)
                continue
            try:
                known |= dict.fromkeys(_objects(path).values())
            except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
                self._skip("images: no .json or _atr.txt that names their objects", f"{name}: {error}"[:160])
                continue
            records.append(Record(name, path, labels))
            paths.append(path.relative_to(self.root))
        if not records:
            raise FileNotFoundError(
                f"no image of the full ADE20K in {self.root}: x.jpg with x_seg.png and x.json (or x_atr.txt) is expected. "
                f"Left out: {self.skipped}"
            )
        self._all = tuple(sorted(known))
        return self._of_split(records, paths, split)

    def _known(self) -> Sequence[str]:
        return self._all

    def _annotate(self, record: Record) -> Annotation:
        with opened_image(record.labels) as opened:
            red, green, blue = np.moveaxis(np.array(opened.convert("RGB"), np.int64), 2, 0)
        classes = red // 10 * 256 + green
        numbers = np.unique(blue, return_inverse=True)[1].reshape(blue.shape)  # 0 is no object
        by_class = record.image.with_suffix(".json").is_file()
        names = _objects(record.image)
        masks: list[Mask] = []
        said = []
        for number in np.unique(numbers[classes > 0]).tolist():
            mask = (numbers == number) & (classes > 0)
            name = names.get(int(np.bincount(classes[mask]).argmax()) if by_class else number)
            if name is not None:
                masks.append(mask)
                said.append(name)
        return Annotation(masks, said, classes > 0, (), (classes.shape[0], classes.shape[1]))


def _objects(image: Path) -> dict[int, str]:
    """Names by class number (of a ``.json``) or by object number (of an ``_atr.txt``), without parts of objects."""
    path = image.with_suffix(".json")
    if path.is_file():
        found: list[dict[str, Any]] = json.loads(_text(path))["annotation"]["object"]
        whole = [o for o in found if int(o.get("parts", {}).get("part_level", 0)) == 0]
        return {int(o["name_ndx"]): str(o["name"]).split(",")[0].strip() for o in whole}
    lines = _text(image.with_name(f"{image.stem}_atr.txt")).splitlines()
    fields = [[field.strip() for field in line.split("#")] for line in lines if line.strip()]
    return {int(f[0]): f[3].split(",")[0].strip() for f in fields if int(f[1]) == 0}


def _text(path: Path) -> str:
    """What a file says: in UTF-8, or in Latin-1 as the publishers wrote most of them."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
