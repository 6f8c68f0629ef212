"""YOLO's segmentation labels: a text file for each image, polygons in fractions of its sides."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml

from alignsam_sb3.datasets.coco_masks import NoMaskError, box, encode, place_of, polygon_numbers
from alignsam_sb3.datasets.finding import files_in, images_in, printable
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask
from alignsam_sb3.datasets.splits import HELD_OUT
from alignsam_sb3.datasets.yolo_splits import said_splits


class YoloSegmentation(LabelledImages):
    """``images/`` and ``labels/`` (each with ``train/`` and ``val/``, or within those), and ``data.yaml`` with the names.

    A line is ``class x y x y ...``. A line of a box (``class x y width height``) has no mask: it is counted, and its place is
    ignored. Where a line cannot be read, the whole image is ignored for its class. Names may also lie in ``classes.txt`` or
    ``obj.names``. Images without a label file are left out. Where ``data.yaml`` names the splits (``train:``, ``val:``,
    ``test:``), these count, and folders' names do not.
    """

    kind = "yolo"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        self._names_of = self._read_names()
        labels = self._label_files()
        images = images_in(self.root, self.skipped)
        sharing = Counter(map(self._key, images))
        records, names = [], []
        for path in images:
            name = printable(path.relative_to(self.root))
            found = labels.get(self._key(path))
            if found is None:
                self._skip("images: without a label file", name)
                continue
            if sharing[self._key(path)] > 1:
                self._skip("images: several have one label file, and it cannot be told whose it is", name)
                continue
            records.append(Record(name, path, found))
            names.append(path.relative_to(self.root))
        for key in sorted(labels.keys() - sharing.keys()):
            if any(part.lower() == "labels" for part in labels[key].relative_to(self.root).parts):
                self._skip("files: labels without an image", printable(labels[key].relative_to(self.root)))
        if not records:
            raise FileNotFoundError(
                f"no pair of image and label file in {self.root}: expected images/.../x.jpg and labels/.../x.txt. "
                f"Left out: {self.skipped}"
            )
        said = said_splits(self._content, self.root, [record.image for record in records], self.skipped)
        return self._of_split(records, names if said is None else self._said(said, records, split), split)

    def _label_files(self) -> dict[tuple[str, ...], Path]:
        """Label files by what they have in common with their image.

        :raises ValueError: two that differ are of one image
        """
        labels: dict[tuple[str, ...], Path] = {}
        for path in files_in(self.root, (".txt",), self.skipped):
            if path.name in _LISTS:
                continue
            first = labels.setdefault(self._key(path), path)
            if first is not path and first.read_bytes() != path.read_bytes():
                both = " and ".join(printable(p.relative_to(self.root)) for p in (first, path))
                raise ValueError(f"{self.root}: {both} are labels of one image, and differ: remove one of them")
        return labels

    def _said(self, said: Sequence[Sequence[str]], records: Sequence[Record], split: str) -> list[PurePath]:
        """For each image the split that ``data.yaml`` gives it, as a path to be looked at.

        :raises FileNotFoundError: none of the images for training that it names is there
        """
        if split == "train" and self._content.get("train") and not any("train" in own for own in said):
            raise FileNotFoundError(
                f"data.yaml of {self.root} says train: {self._content['train']!r}, and no image with a label file is there"
            )
        for record, own in zip(records, said, strict=True):
            if split == "train" and "train" in own[1:]:
                self._skip(HELD_OUT, record.image_id)
        return [PurePath(*own[:1]) for own in said]

    def _key(self, path: Path) -> tuple[str, ...]:
        """What an image and its label file have in common: the path, without ``images`` and ``labels`` or the ending."""
        parts = path.relative_to(self.root).with_suffix("").parts
        return tuple(p for p in parts[:-1] if p.lower() not in ("images", "labels", "obj_train_data")) + parts[-1:]

    def _read_names(self) -> dict[int, str]:
        """Names by class number.

        :raises FileNotFoundError: nothing says them
        :raises ValueError: the file cannot be used
        """
        self._content: dict[str, Any] = {}  # of data.yaml
        without: list[str] = []
        for path in sorted([*self.root.glob("*.yaml"), *self.root.glob("*.yml")], key=lambda p: (p.stem != "data", p)):
            try:
                content = yaml.safe_load(path.read_text("utf-8-sig"))
                if not isinstance(content, dict) or "names" not in content:  # of a training run, not of the data
                    without.append(path.name)
                    continue
                names, self._content = content["names"], content
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                found = {int(k): str(name) for k, name in pairs}
            except (yaml.YAMLError, TypeError, ValueError) as error:
                raise ValueError(f"{path} does not say the names of the classes ({type(error).__name__}: {error})") from error
            if "kpt_shape" in content:
                raise ValueError(f"{path} says kpt_shape: its labels are boxes and key points, and have no masks")
            return found
        for path in (self.root / "classes.txt", self.root / "obj.names", self.root / "labels" / "classes.txt"):
            if path.is_file():
                lines = path.read_text("utf-8-sig").splitlines()
                return dict(enumerate(line.strip() for line in lines if line.strip()))
        raise FileNotFoundError(
            f"no data.yaml with names, classes.txt or obj.names in {self.root}: nothing says what the classes are called"
            + (f" ({', '.join(without)} has no 'names:')" if without else "")
        )

    def _known(self) -> Sequence[str]:
        return tuple(dict.fromkeys(self._names_of.values()))

    def _annotate(self, record: Record) -> Annotation:
        height, width = size = self.photos.size(record.image)
        masks: list[Mask] = []
        names: list[str] = []
        left_out: list[LeftOut] = []
        for line in Path(record.labels).read_text("utf-8-sig").splitlines():
            if not line.strip():
                continue
            name, values = self._numbers(line)
            if len(values) == 4 and name is not None:
                x, y, w, h = values * np.tile([width, height], 2)
                left_out.append(LeftOut(name, box((x - w / 2, y - h / 2, w, h), size), "a box has no mask"))
                continue
            try:
                if values.size and np.abs(values).max() > 2:
                    raise NoMaskError("coordinates that are no fractions of the image")
                points = np.reshape(polygon_numbers(values), (-1, 2))
                mask = encode([(points * [width, height]).ravel().tolist()], size)
            except ValueError as error:
                reason = str(error) if isinstance(error, NoMaskError) else "a damaged line"
                left_out.append(LeftOut(name, place_of(error, None, size), reason))
                continue
            if name is None:
                left_out.append(LeftOut(None, mask, "a class that has no name"))
            else:
                masks.append(mask)
                names.append(name)
        return Annotation(masks, names, None, left_out, size)

    def _numbers(self, line: str) -> tuple[str | None, np.ndarray[Any, np.dtype[np.float64]]]:
        """The name of a line's class and its coordinates; none of these where it is damaged."""
        try:
            number, *values = (float(v) for v in line.split())
        except ValueError:
            return None, np.zeros(1)
        if not number.is_integer():  # infinite and NaN neither
            return None, np.zeros(1)
        return self._names_of.get(int(number)), np.array(values)


_LISTS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "labels.txt", "readme.txt", "README.txt")
