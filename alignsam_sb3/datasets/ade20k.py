"""ADE20K as the scene parsing benchmark ships it: 150 classes; pixels without a class count neither way."""

from collections.abc import Sequence
from functools import cached_property

from alignsam_sb3.datasets.labelled import Annotation, LabelledImages, Record, images_in, read_labels, regions, require_folders

_CLASSES = 150


class Ade20k(LabelledImages):
    """``images/{training,validation}/`` and ``annotations/{training,validation}/`` of ``ADEChallengeData2016``.

    Class names are read from ``objectInfo150.txt`` (the first of each entry's names).
    """

    kind = "ade20k"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        name = {"train": "training", "eval": "validation", "val": "validation"}.get(split, split)
        images, labels = self.root / "images" / name, self.root / "annotations" / name
        require_folders(f"an ADE20K root has images/{name}/ and annotations/{name}/", images, labels)
        return [Record(p.stem, p, labels / f"{p.stem}.png") for p in images_in(images)], True

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
