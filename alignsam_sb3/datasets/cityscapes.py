"""Cityscapes: the 19 classes of its benchmark; all other labels count neither way."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignsam_sb3.datasets.labelled import Annotation, LabelledImages, Record, read_labels, regions, require_folders, stacked

CITYSCAPES_CLASSES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign"},
    **{21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
_LARGEST_ID = 33


class Cityscapes(LabelledImages):
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``gtFine/SPLIT/CITY/*_gtFine_{labelIds,instanceIds}.png``.

    Where an image has ``instanceIds``, each countable object is an instance; otherwise each class is one.
    """

    kind = "cityscapes"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        name = {"eval": "val"}.get(split, split)
        images, labels = self.root / "leftImg8bit" / name, self.root / "gtFine" / name
        require_folders(f"a Cityscapes root has leftImg8bit/{name}/ and gtFine/{name}/", images, labels)
        records = []
        for path in sorted(images.glob("*/*_leftImg8bit.png")):
            stem = path.name.removesuffix("_leftImg8bit.png")
            records.append(
                Record(f"{path.parent.name}/{stem}", path, labels / path.parent.name / f"{stem}_gtFine_labelIds.png")
            )
        return records, True

    def _known(self) -> Sequence[str]:
        return tuple(CITYSCAPES_CLASSES.values())

    def _annotate(self, record: Record) -> Annotation:
        ids = read_labels(record.labels)
        others = [k for k in range(_LARGEST_ID + 1) if k not in CITYSCAPES_CLASSES]
        found = regions(ids, CITYSCAPES_CLASSES, [*others, -1, 255])
        path = Path(str(record.labels).replace("_labelIds", "_instanceIds"))
        if not path.is_file():
            return found
        instances = read_labels(path)
        masks, names = [], []
        for mask, name in zip(found.masks, found.names, strict=True):
            for value in np.unique(instances[mask]):
                masks.append(mask & (instances == value))
                names.append(name)
        return Annotation(stacked(masks, ids.shape), names, found.valid)
