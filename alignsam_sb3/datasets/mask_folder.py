"""Images with masks: the layout of CUHK, SBU, MSD, DUTS, ISIC, Kvasir, DRIVE, BUSI, DAVIS and of most people's own data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignsam_sb3.datasets.finding import printable
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.labels import (
    LabelImage,
    LabelTable,
    colours_said,
    find_table,
    given_table,
    read_label_image,
    settled,
)
from alignsam_sb3.datasets.mask_values import SURVEYED, Meaning, meaning, survey
from alignsam_sb3.datasets.pairing import classes_of, pair_up
from alignsam_sb3.datasets.regions import Annotation, Dense, LeftOut, Mask, stacked, union


class MaskFolder(LabelledImages):
    """Images and masks, in two folders or side by side, paired by relative path and name (see ``pairing``).

    Several masks of one photo are united. Folders of masks that photos do not have (``masks/cat/x.png``,
    ``masks/dog/x.png``) are categories. What values mean is decided over all masks. These are understood: 0 and 255, 0 and
    1, 0 and one other value or colour, and soft edges (cut at half). Anything else must be said. A table of names beside the
    masks makes them label images of several categories: ``labelmap.txt`` (CVAT), ``class_names.txt`` (labelme2voc),
    ``_classes.csv`` (Roboflow), ``obj_class_to_machine_color.json`` (Supervisely).

    :param images: the images' folder below ``root`` (or below a split's folder), or a pattern; found by its usual names
        otherwise
    :param masks: the masks' folder or pattern, likewise
    :param category: what the masks show, all of them, whatever their folders are called; language is asked for it
    :param label_value: the value that means the object, or several
    :param threshold: values from here on mean the object
    :param ignore_value: a value, or several, that count neither way
    :param inverted: the object is what is *not* masked
    :param labels: for label images of several categories: names to values (``{"road": 7, "car": [26, 27]}``) or to colours
        (``{"road": "#804080"}``); what has no name is background
    :param instances: each of several masks of a photo is an object of its own
    :raises AmbiguousPairsError: it cannot be told which mask belongs to which photo
    :raises AmbiguousMasksError: it cannot be told which value is the object
    """

    kind = "mask_folder"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        images: str | None = None,
        masks: str | None = None,
        category: str | None = None,
        label_value: int | Sequence[int] | None = None,
        threshold: int | None = None,
        ignore_value: int | Sequence[int] | None = None,
        inverted: bool = False,
        labels: Mapping[str, int | str | Sequence[int | str]] | None = None,
        instances: bool = False,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        self._folders, self._category, self._inverted, self._instances = (images, masks), category, inverted, instances
        self._classes: tuple[str, ...] = ()  # that folders of masks say
        self._ignored = _several(ignore_value)
        self._table = None if labels is None else given_table(labels)
        self._whole_table = labels is None  # a file names everything that there is
        self._meaning: Meaning | None = None
        if label_value is not None:
            values = _several(label_value)
            self._meaning = Meaning(values, min(values), None, f"{list(values)} is the object, as label_value says")
        elif threshold is not None:
            self._meaning = Meaning(None, threshold, None, f"the object from {threshold} on, as threshold says")
        super().__init__(root, split, **options)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        pairs = pair_up(self.root, *self._folders, self.skipped)
        if self._category is None and self._table is None:
            self._classes = classes_of(pairs, self.root)
        records = [
            Record(printable(p.image.relative_to(self.root)), p.image, [*zip(p.masks, p.categories, strict=True)])
            for p in pairs
        ]
        found, given = self._of_split(records, [p.name for p in pairs], split)
        masks = [mask for pair in pairs for mask in pair.masks]
        if self._table is None and self._meaning is None:
            places = [self.root, *dict.fromkeys(p for mask in masks[:1] for p in mask.parents if p.is_relative_to(self.root))]
            self._table = find_table(places)
        if self._table is None and self._meaning is None:
            some = masks[:: max(len(masks) // SURVEYED, 1)]
            self._meaning = meaning(survey(some, self._ignored), some[0])
        return found, given

    def _known(self) -> Sequence[str]:
        if self._table is not None:
            return tuple(self._table.names)
        return self._classes or (self._category or "object",)

    def _annotate(self, record: Record) -> Annotation:
        parts = [self._one(path, printable(folder)) for path, folder in record.labels]
        sizes = {part.shape for part in parts}
        if len(sizes) > 1:
            raise UnreadableImageError(f"masks of {record.image_id} have different sizes: {sorted(sizes)}")
        if len(parts) == 1:
            return parts[0]
        valid = [part.valid for part in parts if part.valid is not None]
        names = [name for part in parts for name in part.names]
        masks: list[Mask] = [mask for part in parts for mask in part.masks]
        left_out = [thing for part in parts for thing in part.left_out]
        if not self._instances:
            pairs = list(zip(masks, names, strict=True))
            united = {name: union([m for m, n in pairs if n == name], parts[0].shape) for name in names}
            names, masks = list(united), list(united.values())
        return Annotation(masks, names, np.all(valid, axis=0) if valid else None, left_out, parts[0].shape)

    def _one(self, path: Path, folder: str) -> Annotation:
        """What one mask file says.

        :param folder: that its photo does not lie in
        """
        image = read_label_image(path, turn=self.photos.orientation != "stored")
        if self._table is not None:
            self._note(f"mask values: named by {self._table.source}")
            return named(image, self._table, self._ignored, self._whole_table, path)
        assert self._meaning is not None
        self._note(f"mask values: {self._meaning.rule}")
        values = settled(image, [0, *(self._meaning.values or (255,)), *self._ignored], path)
        ignored = np.isin(values, self._ignored)
        shown = self._meaning.shown(image, values)
        shown = (~shown if self._inverted else shown) & ~ignored
        name = folder if self._classes else self._known()[0]
        if self._classes:
            self._note("categories: named by the masks' folders (category=NAME takes all as one)")
        elif self._category is None:
            self._note(f"category: called {name!r}, since nothing names what the masks show (category=NAME does)")
        return Annotation(shown[None], (name,), ~ignored if self._ignored else None)


def named(image: LabelImage, table: LabelTable, ignored: tuple[int, ...], whole: bool, path: Path) -> Annotation:
    """What a label image says by a table of names.

    :param whole: the table names everything: what it does not name is left out, and is background otherwise
    """
    if table.coloured and not image.coloured:
        image = replace(image, values=image.values * 0x010101, coloured=True)
    elif image.coloured and not table.coloured:
        raise UnreadableImageError(f"{path}: {colours_said(image.values)} where {table.source} has values")
    meant = [*(v for numbers in table.names.values() for v in numbers), *table.background, *table.ignored, *ignored]
    values = settled(image, meant, path)
    masks = {name: np.isin(values, numbers) for name, numbers in table.names.items()}
    shown = {name: mask for name, mask in masks.items() if mask.any()}
    unsaid = np.isin(values, [*table.ignored, *ignored])
    left_out = []
    if whole:
        unknown: Dense = ~np.isin(values, meant)
        if unknown.any():
            left_out.append(LeftOut(None, unknown, f"values without a name in {table.source}"))
    valid = ~unsaid if unsaid.any() else None
    return Annotation(
        stacked(list(shown.values()), values.shape), list(shown), valid, left_out, (values.shape[0], values.shape[1])
    )


def _several(values: int | Sequence[int] | None) -> tuple[int, ...]:
    if values is None:
        return ()
    return (values,) if isinstance(values, int) else tuple(values)
