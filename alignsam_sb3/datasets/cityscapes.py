"""Cityscapes: the 19 classes of its benchmark; all other labels count neither way."""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from alignsam_sb3.datasets.finding import images_in, printable
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.labelled import LabelledImages, Record, require_folders
from alignsam_sb3.datasets.labels import read_labels
from alignsam_sb3.datasets.regions import Annotation, regions, stacked

CITYSCAPES_CLASSES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign"},
    **{21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train"},
    **{32: "motorcycle", 33: "bicycle"},
}
_TRAIN_IDS = dict(enumerate(CITYSCAPES_CLASSES.values()))
_LARGEST_ID = 33
_OPEN = (255, -1)


class Cityscapes(LabelledImages):
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` with ``gtFine/SPLIT/CITY/*_gtFine_{labelIds,instanceIds}.png``.

    Where an image has ``instanceIds``, each countable object is an instance; otherwise each class is one. ``labelTrainIds``
    are read where there are no ``labelIds``.
    """

    kind = "cityscapes"
    orientation_rule = "stored"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        images, labels = self.root / "leftImg8bit", self.root / "gtFine"
        require_folders("a Cityscapes root has leftImg8bit/ and gtFine/, each with train/CITY/ and val/CITY/", images, labels)
        records: list[Record] = []
        names: list[PurePath] = []
        for path in images_in(images, self.skipped):
            place, stem = path.parent.relative_to(images), path.stem.removesuffix("_leftImg8bit")
            if len(place.parts) != 2 or stem == path.stem:
                self._skip("files: not SPLIT/CITY/*_leftImg8bit.png", printable(path.relative_to(images)))
                continue
            kinds = [labels / place / f"{stem}_gtFine_{kind}.png" for kind in ("labelIds", "labelTrainIds")]
            found = next((p for p in kinds if p.is_file()), kinds[0])
            records.append(Record(f"{path.parent.name}/{stem}", path, found))
            names.append(place / stem)
        if not records:
            raise FileNotFoundError(f"no SPLIT/CITY/*_leftImg8bit.png in {images}. Left out: {self.skipped}")
        if not any(record.labels.is_file() for record in records):
            have = sorted({p.stem.rpartition("_")[2] for p in labels.glob("*/*/*.png")})
            raise FileNotFoundError(
                f"no *_gtFine_labelIds.png (nor *_gtFine_labelTrainIds.png) of any of {len(records)} images in {labels}: "
                f"it has {', '.join(have) or 'nothing'}; colours alone are not read"
            )
        return self._of_split(records, names, split)

    def _known(self) -> Sequence[str]:
        return tuple(CITYSCAPES_CLASSES.values())

    def _annotate(self, record: Record) -> Annotation:
        path, ids = Path(record.labels), read_labels(record.labels)
        if path.stem.endswith("labelTrainIds"):
            others = sorted(set(np.unique(ids).tolist()) - set(_TRAIN_IDS) - set(_OPEN))
            if others:
                raise UnreadableImageError(
                    f"{path.name}: {others} are no train ids (0 to 18, 255); a file of labelIds is named *_gtFine_labelIds.png"
                )
            found = regions(ids, _TRAIN_IDS, _OPEN)
        else:
            found = regions(ids, CITYSCAPES_CLASSES, [*(set(range(_LARGEST_ID + 1)) - set(CITYSCAPES_CLASSES)), *_OPEN])
        path = path.with_name(f"{path.stem.rpartition('_')[0]}_instanceIds.png")
        if not path.is_file():
            return found
        instances = read_labels(path)
        masks, names = [], []
        for mask, name in zip(stacked(found.masks, found.shape), found.names, strict=True):
            for value in np.unique(instances[mask]):
                masks.append(mask & (instances == value))
                names.append(name)
        return Annotation(stacked(masks, ids.shape), names, found.valid)
