"""Lists of polygons: ``annotations.json`` with an entry for each object."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from alignsam_sb3.datasets.finding import NamedFiles, UnknownFileError, printable
from alignsam_sb3.datasets.jsons import read_json
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.outlines import draw_polygons
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask
from alignsam_sb3.datasets.splits import split_in


class PolygonList(LabelledImages):
    """``annotations.json``: a list of ``{"image": file name, "mask": [polygon, ...]}``, each polygon flat: x, y, x, y, ...

    An entry may have a ``"category"``, and ``"ignore": true`` where it counts neither way (without a category: for none).
    Images lie in ``images/`` or beside the file; ``train/`` and ``val/`` (or ``test/``) folders, each with a file of its own,
    are splits.

    :param category: what is shown where an entry does not say it
    :param encoding: of a file that is not UTF-8
    """

    kind = "polygons"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        category: str = "object",
        encoding: str | None = None,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        self._category, self._encoding = category, encoding
        super().__init__(root, split, **options)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        paths = [p for p in (self.root / "annotations.json", *sorted(self.root.glob("*/annotations.json"))) if p.is_file()]
        if not paths:
            raise FileNotFoundError(f"no annotations.json in {self.root}")
        records: list[Record] = []
        names: list[PurePath] = []
        known: dict[str, None] = {}
        for path in paths:
            own = self._read(path, known)
            records += own
            names += [PurePath(path.relative_to(self.root).parent, record.labels[0]["image"]) for record in own]
        self._all = tuple(known) or (self._category,)
        return self._of_split(records, names, split)

    def _read(self, path: Path, known: dict[str, None]) -> list[Record]:
        """The images of one file."""
        try:
            entries = read_json(path, self._encoding)
        except ValueError as error:
            raise ValueError(f"{path} is no list of {{'image', 'mask'}} entries: {error}") from error
        if not isinstance(entries, list):
            raise ValueError(f"{path} is no list of {{'image', 'mask'}} entries: it holds a {type(entries).__name__}")
        by_name: dict[str, list[dict[str, Any]]] = {}
        for k, entry in enumerate(entries):
            if isinstance(entry, dict) and isinstance(entry.get("image"), str) and "mask" in entry:
                by_name.setdefault(entry["image"], []).append(entry)
                if not entry.get("ignore"):
                    known.setdefault(self._named(entry))
            else:
                self._skip("objects: entries without image or mask", f"entry {k}")
        files = NamedFiles(self.root, [path.parent / "images", path.parent], by_name)
        own = split_in(path.relative_to(self.root).parts[:-1])
        records: dict[Path, Record] = {}
        for name in sorted(by_name):
            try:
                image = files.find(name, split=own)
            except UnknownFileError as error:
                self._skip(f"images: {error}", name)
                continue
            image_id = printable(path.relative_to(self.root).parent / name)
            first = records.setdefault(image, Record(image_id, image, by_name[name]))
            if first.labels is not by_name[name]:  # the same image by another name: its objects are no background
                first.labels.extend(by_name[name])
        return [*records.values()]

    def _named(self, entry: dict[str, Any]) -> str:
        return str(entry.get("category", self._category))

    def _known(self) -> Sequence[str]:
        return self._all

    def _annotate(self, record: Record) -> Annotation:
        size = self.photos.size(record.image)
        masks: list[Mask] = []
        names: list[str] = []
        left_out: list[LeftOut] = []
        for entry in record.labels:
            ignored = bool(entry.get("ignore"))
            name = None if ignored and "category" not in entry else self._named(entry)
            try:
                mask = draw_polygons(entry["mask"], size)
            except (ValueError, TypeError) as error:
                left_out.append(LeftOut(name, None, str(error)))
                continue
            if ignored:
                left_out.append(LeftOut(name, mask, "marked to be ignored"))
            else:
                masks.append(mask)
                names.append(str(name))
        return Annotation(masks, names, None, left_out, size)
