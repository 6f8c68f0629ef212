"""Images beside binary masks: the layout of CUHK, SBU, MSD, DUTS, Kvasir, DRIVE and of most people's own data."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignsam_sb3.datasets.labelled import Annotation, LabelledImages, Record, images_in, read_labels

_IMAGES = ("images", "image", "imgs", "img", "shadowimages", "jpegimages", "duts-tr-image", "duts-te-image", "input", "src")
_MASKS = ("1st_manual", "masks", "mask", "gt", "groundtruth", "ground_truth", "labels", "label", "annotations", "shadowmasks")
_SPLITS = {
    "train": ("train", "training", "duts-tr", "sbutrain4krecoveredsmall"),
    "eval": ("val", "validation", "test", "testing", "eval", "duts-te", "sbu-test"),
}
_ADDED = re.compile(
    r"[_-](mask|masks|gt|label|labels|seg|segmentation|matte|manual\d*|training|test|image|img)$", re.IGNORECASE
)


class MaskFolder(LabelledImages):
    """Images and masks in two folders, paired by their names (a mask may add ``_mask``, ``_gt``, ``_manual1`` or the like).

    :param images: the images' folder below ``root`` (or below the split's folder); found by its usual names otherwise
    :param masks: the masks' folder, likewise
    :param category: what the masks show; language is asked for it
    :param label_value: the value that means the object; by default masks are cut at ``threshold``
    :param threshold: values from here on mean the object; by default half of the 8-bit range, and 1 in masks of 0 and 1
    :param ignore_value: a value that counts neither way
    :param inverted: the object is what is *not* masked
    """

    kind = "mask_folder"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        images: str | None = None,
        masks: str | None = None,
        category: str = "object",
        label_value: int | None = None,
        threshold: int | None = None,
        ignore_value: int | None = None,
        inverted: bool = False,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        self._folders, self._category = (images, masks), category
        self._label, self._threshold, self._ignored, self._inverted = label_value, threshold, ignore_value, inverted
        super().__init__(root, split, **options)

    def _known(self) -> Sequence[str]:
        return (self._category,)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        inside = {p.name.lower(): p for p in self.root.iterdir() if p.is_dir()}
        own = next((inside[name] for name in (*_SPLITS.get(split, ()), split) if name in inside), None)
        base = own or self.root
        images = _folder(base, self._folders[0], _IMAGES, "images")
        masks = _folder(base, self._folders[1], (*_MASKS, "duts-tr-mask", "duts-te-mask"), "masks")
        found = images_in(masks)
        by_name = {_ADDED.sub("", p.stem).lower(): p for p in found} | {p.stem.lower(): p for p in found}
        records = []
        for path in images_in(images):
            mask = by_name.get(path.stem.lower()) or by_name.get(_ADDED.sub("", path.stem).lower())
            name = str(path.relative_to(self.root))
            if mask is None:
                self._skip("no mask of that name", name)
            else:
                records.append(Record(name, path, mask))
        if records:
            self._refuse_ambiguous(records[0].labels)
        return records, own is not None

    def _refuse_ambiguous(self, path: Path) -> None:
        """Masks with a few values other than black and white are not to be cut at half without asking."""
        if self._label is not None or self._threshold is not None:
            return
        try:
            values = np.unique(read_labels(path))
        except ValueError:
            return
        values = values[values != self._ignored]
        if len(values) <= 8 and not set(values.tolist()) <= {0, 255} and not set(values.tolist()) <= {0, 1}:
            raise ValueError(
                f"{path} holds the values {values.tolist()}: say which is the object (label_value={values[-1]}), which counts "
                "neither way (ignore_value=...), or from where on (threshold=...)"
            )

    def _annotate(self, record: Record) -> Annotation:
        labels = read_labels(record.labels)
        if self._label is not None:
            shown = labels == self._label
        else:
            # a mask whose values are not above 1 cannot be cut at half
            shown = labels >= (self._threshold or (1 if labels.max(initial=0) <= 1 else 128))
        valid = None if self._ignored is None else labels != self._ignored
        shown = ~shown if self._inverted else shown
        return Annotation((shown if valid is None else shown & valid)[None], (self._category,), valid)


def _folder(base: Path, given: str | None, usual: tuple[str, ...], what: str) -> Path:
    """The folder of images or masks: the given one, or the first usual name."""
    if given is not None:
        if not (base / given).is_dir():
            raise FileNotFoundError(f"no folder {given!r} of {what} in {base}")
        return base / given
    inside = {p.name.lower(): p for p in base.iterdir() if p.is_dir()}
    for name in usual:
        if name in inside:
            return inside[name]
    raise FileNotFoundError(
        f"no folder of {what} in {base}: it has {', '.join(sorted(inside)) or 'no folders'}; name it ({what}='...')"
    )
