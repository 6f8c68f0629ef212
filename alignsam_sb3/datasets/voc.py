"""PASCAL VOC 2012 segmentation: 20 classes; the border around objects counts neither way."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignsam_sb3.datasets.images import UnreadableImageError
from alignsam_sb3.datasets.labelled import Annotation, LabelledImages, Record, listed, read_labels, regions, stacked

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_BORDER = 255


class Voc(LabelledImages):
    """``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/{train,val,trainval}.txt``.

    Where ``SegmentationObject/`` has the image too, each object is an instance; otherwise each class is one.
    The root may be ``VOCdevkit``, or a folder that holds ``VOC2012``.
    """

    kind = "voc"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        places = (self.root, self.root / "VOC2012", self.root / "VOCdevkit" / "VOC2012")
        base = next((p for p in places if (p / "SegmentationClass").is_dir()), None)
        if base is None:
            raise FileNotFoundError(
                f"no SegmentationClass/ in {self.root}: give the folder VOC2012 of the VOC development kit"
            )
        lists = base / "ImageSets" / "Segmentation"
        path = next(
            (lists / f"{n}.txt" for n in (split, {"eval": "val"}.get(split, split)) if (lists / f"{n}.txt").is_file()), None
        )
        if path is None:
            have = ", ".join(sorted(p.stem for p in lists.glob("*.txt"))) or "no lists"
            raise FileNotFoundError(f"no split {split!r} of {base}: {lists} has {have}")
        labels = base / "SegmentationClass"
        return [Record(n, base / "JPEGImages" / f"{n}.jpg", labels / f"{n}.png") for n in sorted(listed(path))], True

    def _known(self) -> Sequence[str]:
        return VOC_CLASSES

    def _annotate(self, record: Record) -> Annotation:
        classes = read_labels(record.labels)
        path = Path(record.labels).parents[1] / "SegmentationObject" / Path(record.labels).name
        if not path.is_file():
            return regions(classes, dict(enumerate(VOC_CLASSES, start=1)), (_BORDER,))
        objects = read_labels(path)
        if objects.shape != classes.shape:
            raise UnreadableImageError(f"{path}: {objects.shape} where {record.labels} has {classes.shape}")
        masks, names = [], []
        for value in np.unique(objects[(objects > 0) & (objects != _BORDER)]):
            mask = (objects == value) & (classes > 0) & (classes != _BORDER)
            if mask.any():
                masks.append(mask)
                names.append(VOC_CLASSES[int(np.bincount(classes[mask]).argmax()) - 1])
        return Annotation(stacked(masks, classes.shape), names, classes != _BORDER)
