"""PASCAL VOC's layout: 20 classes, or those that CVAT's or labelme2voc's list of names has."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from alignsam_sb3.datasets.finding import IMAGE_SUFFIXES, images_by_stem, printable
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.labels import (
    LabelTable,
    by_table,
    colours_said,
    find_table,
    read_label_image,
    voc_colours,
)
from alignsam_sb3.datasets.mask_folder import named
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask, stacked
from alignsam_sb3.datasets.splits import HELD_OUT, from_lists
from alignsam_sb3.names import nearest

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_BORDER = 255
_BORDER_COLOUR = 0xE0E0C0
_CLASS_FOLDERS = ("SegmentationClassPNG", "SegmentationClass")  # labelme2voc has arrays in the second


class Voc(LabelledImages):
    """``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/{train,val,trainval}.txt``.

    Where ``SegmentationObject/`` has the image too, each object is an instance; otherwise each class is one, as is what has no
    object there. The class of a pixel is what ``SegmentationClass/`` says: numbers of objects may restart in every class. The
    border around objects counts neither way. The root may be ``VOCdevkit``, a folder that holds ``VOC2012``, or a ``.zip``.
    Names of classes come from ``labelmap.txt`` (CVAT) or ``class_names.txt`` (labelme2voc) where there is one. Without lists
    of splits, ``folds`` make them.

    :param colours: ``"voc"``: masks that were saved as RGB hold VOC's own colours; without it such masks are refused, unless
        ``labelmap.txt`` names their colours
    """

    kind = "voc"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        colours: str | None = None,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        if colours not in (None, "voc"):
            raise ValueError(nearest("table of colours", colours, ["voc"]))
        self._colours = colours
        super().__init__(root, split, **options)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        places = [p for p in (self.root, *sorted(self.root.glob("VOC20*")), *sorted(self.root.glob("VOCdevkit/VOC20*")))]
        base = next((p for p in reversed(places) if any((p / name).is_dir() for name in _CLASS_FOLDERS)), None)
        if base is None:
            raise FileNotFoundError(
                f"no SegmentationClass/ in {self.root}: give the folder VOC2012 of the VOC development kit"
            )
        labels = next(base / name for name in _CLASS_FOLDERS if (base / name).is_dir())
        table = find_table([base, self.root])
        own = LabelTable({name: (k,) for k, name in enumerate(VOC_CLASSES, start=1)}, (0,), (_BORDER,), False, "VOC")
        self._table = own if table is None else table
        masks = images_by_stem(labels, self.skipped)
        self._refuse_others(masks)
        photos = images_by_stem(base / "JPEGImages", self.skipped)
        names, given = self._listed(base / "ImageSets" / "Segmentation", split, sorted(masks))
        records = []
        for name in names:
            if name in photos and name in masks:
                records.append(Record(printable(name), photos[name], masks[name]))
            else:
                missing = f"mask in {labels.name}/" if name in photos else "photo in JPEGImages/"
                self._skip(f"images: no {missing}", printable(name))
        return records, given

    def _refuse_others(self, masks: dict[str, Path]) -> None:
        """RGB masks say nothing of classes without a table of colours, and black and white ones neither."""
        if self._table.coloured or self._colours:
            return
        values: set[int] = set()
        for path in list(masks.values())[:: max(len(masks) // 20, 1)]:
            try:
                found = read_label_image(path)
            except UnreadableImageError:
                continue
            values.update(np.unique(found.values).tolist())
            if found.coloured:
                raise ValueError(
                    f"{printable(path)} holds {colours_said(found.values)} where a palette of class numbers is expected: "
                    "colours='voc' reads them as VOC's own palette; other colours are named by CVAT's labelmap.txt"
                )
        if self._table.source == "VOC" and values == {0, _BORDER}:
            raise ValueError(
                f"{self.root}: its masks hold 0 and 255 alone, and 255 is VOC's border: masks of one kind of object are "
                "read by mask_folder:ROOT"
            )

    def _listed(self, folder: Path, split: str, masks: list[str]) -> tuple[list[str], bool]:
        """Names of the images of a split, or all and False."""
        lists = {}
        for path in sorted(folder.glob("*.txt")):
            lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
            lists[path.stem] = [line if line in masks else _name_of(line) for line in lines]
        if not lists:
            return masks, split == "all"
        try:
            found = from_lists(lists, split, folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no split {split!r} of {folder.parents[1]}: {folder} has {', '.join(lists)}") from error
        if found is None:
            return sorted({name for names in lists.values() for name in names}), False
        for name in found[1]:
            self._skip(HELD_OUT, name)
        return found[0], True

    def _known(self) -> Sequence[str]:
        return tuple(self._table.names)

    def _annotate(self, record: Record) -> Annotation:
        turn = self.photos.orientation != "stored"
        image = read_label_image(record.labels, self._table.coloured, turn)
        if image.coloured and not self._table.coloured:
            image = by_table(image, voc_colours())
        found = named(image, self._table, (), True, record.labels)
        path = _objects_beside(Path(record.labels))
        if path is None:
            return found
        said = read_label_image(path, turn=turn)
        objects, border = said.values, _BORDER_COLOUR if said.coloured else _BORDER
        if objects.shape != found.shape:
            raise UnreadableImageError(f"{path}: {objects.shape} where {record.labels} has {found.shape}")
        each: list[tuple[int, str, Mask]] = []
        left_out = [*found.left_out]
        for name, mask in zip(found.names, stacked(found.masks, found.shape), strict=True):
            edge = mask & (objects == border)
            if edge.any():
                left_out.append(LeftOut(name, edge, f"border in {path.parent.name}/"))
            # 0 too: of a class whose objects are not told apart, all is one
            each += [(value, name, mask & (objects == value)) for value in np.unique(objects[mask & ~edge]).tolist()]
        each.sort(key=lambda one: one[0])
        return Annotation([mask for *_, mask in each], [name for _, name, _ in each], found.valid, left_out, found.shape)


def _name_of(line: str) -> str:
    """The name of an image in a line of a list, which may be ``/JPEGImages/x.jpg /SegmentationClassAug/x.png``."""
    path = PurePosixPath(line.split()[0].lstrip("/").removeprefix("JPEGImages/"))
    return (path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path).as_posix()


def _objects_beside(path: Path) -> Path | None:
    """The file of the same name in the folder of instances."""
    for folder in path.parents:
        if folder.name in _CLASS_FOLDERS:
            objects = folder.with_name(folder.name.replace("Class", "Object")) / path.relative_to(folder)
            return objects if objects.is_file() else None
    return None
