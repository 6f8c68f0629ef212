"""COCO annotations, as the benchmark and as annotation tools write them."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from alignsam_sb3.datasets.archives import as_folder
from alignsam_sb3.datasets.coco_file import key_of, read_coco
from alignsam_sb3.datasets.coco_masks import NoMaskError, encode, place_of
from alignsam_sb3.datasets.finding import NamedFiles, UnknownFileError, printable
from alignsam_sb3.datasets.image_files import UnreadableImageError, opened_image
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import HELD_OUT, TRAINING, by_name, split_in

_FALSE = ("0", "0.0", "false", "none", "")
_OTHER_TASKS = ("captions", "person_keypoints", "image_info", "stuff", "deepfashion")


class CocoDataset(LabelledImages):
    """Images of a COCO file that show one of the categories; instances, or COCO panoptic with its PNG files.

    Crowds, objects whose segmentation cannot be used and boxes without one are ignored where they are.

    :param root: a folder, a ``.zip`` of it, or a file. The folder has ``annotations/instances_<split>.json`` (any ``.json``
        where there is one alone), or an ``_annotations.coco.json`` in each split's folder. A file is ``FILE.json``, or
        ``FILE.json@IMAGES`` with the folder of its images. One file without splits is divided by ``folds``
    :param split: ``"train"``, ``"eval"``, ``"all"``, or the name of a split in that folder
    :param max_instances: at most this many objects of a category are targets in an image, the largest
    :param max_images: keep at most this many usable images, those with the lowest ids
    :param encoding: of an annotation file that is not UTF-8
    """

    kind = "coco"
    orientation_rule = "stored"  # as COCO's own tools read it

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        max_instances: int | None = 5,
        max_images: int | None = None,
        encoding: str | None = None,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        self._encoding, self._max_images = encoding, max_images
        self._file: Path | None = None
        self._images: Path | None = None
        super().__init__(root, split, max_instances=max_instances, **options)

    def _place(self, root: Path) -> Path:
        text = str(root)
        if "@" in text and not root.exists():
            file, at, images = text.partition(".json@") if ".json@" in text else text.rpartition("@")
            self._file, self._images = Path(file + at.rstrip("@")).expanduser(), Path(images).expanduser()
        elif root.suffix.lower() == ".json":
            self._file = root
        if self._file is None:
            return super()._place(root)
        if not self._file.is_file():
            raise FileNotFoundError(f"no COCO annotation file {self._file}")
        if self._images is not None and not self._images.exists():
            raise FileNotFoundError(f"no folder of images {self._images}")
        return as_folder(self._images) if self._images is not None else self._file.resolve().parent

    def _find(self, split: str) -> tuple[list[Record], bool]:
        path, given = self._annotations(split)
        self._coco = read_coco(path, self.skipped, self._encoding)
        self.annotation_file = path
        self._categories = {name: None for name in self._coco.categories}
        names = {str(entry["file_name"]) for entry in self._coco.images.values()}
        files = NamedFiles(self.root, self._folders(path, split), names)
        own = split_in(_split_name(path, self.root).parts) if given else None
        held_out = self._held_out(path, own)
        records = []
        taken: dict[Path, str] = {}
        unclear: set[Path] = set()
        for key in sorted(self._coco.images, key=_order):
            name = self._coco.images[key]["file_name"]
            if key not in self._coco.notes:
                self.skipped.add("images: without annotations", name)
                continue
            try:
                image = files.find(name, split=own)
            except UnknownFileError as error:
                self.skipped.add(f"images: {error}", name)
                continue
            if taken.setdefault(image, key) != key:
                if not self._joined(taken[image], key):
                    unclear.add(image)
                continue
            if image.resolve() in held_out:
                self.skipped.add(HELD_OUT, name)
                continue
            if not image.as_posix().endswith(name):
                self._note("file names: found by their end within the data set's folder")
            records.append(Record(name, image, key))
        records = [record for record in records if record.image not in unclear]
        if self._images is None and not given:
            return self._of_split(records, [PurePath(r.image.relative_to(self.root)) for r in records], split)
        return records, given

    def _joined(self, first: str, other: str) -> bool:
        """Take over what another entry of the same file says, so that its objects are no background.

        :return: False, and counted, where the two cannot be taken together: neither then says all that the image shows
        """
        one, two = (self._coco.images[key] for key in (first, other))
        same = all(one.get(key) == two.get(key) for key in ("height", "width"))
        if not same or PurePath(one["file_name"]) != PurePath(two["file_name"]) or self._coco.panoptic:
            self.skipped.add("images: a file that several entries name, each in its own way", two["file_name"])
            return False
        self._note("annotations of several entries of one image taken together")
        self._coco.notes[first] = [*self._coco.notes[first], *self._coco.notes[other]]
        return True

    def _held_out(self, path: Path, own: str | None) -> set[Path]:
        """The images that the file for evaluation names, where this one is for training."""
        if own not in TRAINING:
            return set()
        try:
            other, given = self._annotations("eval")
        except (FileNotFoundError, ValueError):  # there is none, or one of several folds was named
            return set()
        if not given or other == path:
            return set()
        names = {str(entry["file_name"]) for entry in read_coco(other, Skipped(), self._encoding).images.values()}
        files = NamedFiles(self.root, self._folders(other, "eval"), names)
        split = split_in(_split_name(other, self.root).parts)
        found = set()
        for name in names:
            try:
                found.add(files.find(name, split=split).resolve())
            except UnknownFileError:
                continue
        return found

    def _annotations(self, split: str) -> tuple[Path, bool]:
        """The annotation file of a split, and whether it is of that split alone.

        :raises FileNotFoundError: there is none, or it must be said which one
        """
        if self._file is not None:
            return self._file, False
        found = _candidates(self.root)
        if not found:
            raise FileNotFoundError(f"no COCO annotations in {self.root}: no .json file, in annotations/ neither")
        names = [_split_name(path, self.root) for path in found]
        chosen = None if split == "all" else by_name(names, split, self.root)
        if chosen:
            return self._one_of([found[i] for i in chosen], split), True
        if len(found) == 1:
            return found[0], False
        have = ", ".join(printable(p.relative_to(self.root)) for p in found[:8])
        raise FileNotFoundError(
            f"no COCO annotations for split {split!r} in {self.root}: found {have}; write coco:FILE.json@IMAGES to take one "
            "of them, divided by folds"
        )

    def _one_of(self, paths: Sequence[Path], split: str) -> Path:
        """The annotation file of a split: of several the benchmark's of 2017.

        :raises ValueError: it cannot be told which
        """
        latest = [p for p in paths if "2017" in p.name or "2017" in p.parent.name] or list(paths)
        if len(latest) > 1:
            have = ", ".join(printable(p.relative_to(self.root)) for p in latest[:8])
            name = _split_name(latest[0], self.root).name
            raise ValueError(
                f"{self.root} has several COCO files for split {split!r}: {have}. Name one: coco:{self.root}:{name}, or "
                "coco:FILE.json@IMAGES, which is divided by folds"
            )
        return latest[0]

    def _folders(self, path: Path, split: str) -> list[Path]:
        """Where file names may begin, most likely first."""
        if self._images is not None:
            return [self.root]
        words = [path.stem.partition("_")[2] or path.stem, split]
        inner = [part for word in words for part in (f"images/{word}", f"{word}/images", word, f"data/{word}")]
        folders = [*(self.root / part for part in inner), path.parent, path.parent / "images", path.parent / "data"]
        folders += [self.root, self.root / "images", self.root / "images" / "default", self.root / "data", path.parent.parent]
        return [f for f in dict.fromkeys(folders) if f.is_dir() and f.is_relative_to(self.root)]

    def _known(self) -> Sequence[str]:
        return tuple(self._categories)

    def _scan(self, records: Sequence[Record]) -> tuple[list[Record], list[set[str]]]:
        kept, shown = super()._scan(records)
        return kept[: self._max_images], shown[: self._max_images]

    def _size(self, entry: dict[str, Any], image: Path) -> tuple[int, int]:
        """Height and width as stated, or else as the file has it."""
        try:
            height, width = int(entry["height"]), int(entry["width"])
            if height > 0 and width > 0:
                return height, width
        except (KeyError, TypeError, ValueError):
            pass
        return self.photos.size(image)

    def _annotate(self, record: Record) -> Annotation:
        size = self._size(self._coco.images[record.labels], record.image)
        notes = self._coco.notes[record.labels]
        if self._coco.panoptic:
            return self._segments(notes[0], size)
        masks: list[Mask] = []
        names: list[str] = []
        left_out: list[LeftOut] = []
        for note in notes:
            name = self._coco.names.get(key_of(note.get("category_id")))
            try:
                mask = encode(note.get("segmentation"), size)
            except NoMaskError as error:
                left_out.append(LeftOut(name, place_of(error, note.get("bbox"), size), str(error)))
                continue
            reason = _reason(name, note)
            if reason:
                left_out.append(LeftOut(name, mask, reason))
            else:
                masks.append(mask)
                names.append(str(name))
        return Annotation(masks, names, None, left_out, size)

    def _segments(self, note: dict[str, Any], size: tuple[int, int]) -> Annotation:
        """COCO panoptic: a PNG whose colours are the ids of segments; 0 is not annotated."""
        folder = self._coco.path.with_suffix("")
        files = NamedFiles(self.root, [f for f in (folder, self._coco.path.parent, self.root) if f.is_dir()])
        try:
            path = files.find(str(note.get("file_name")))
        except UnknownFileError as error:
            raise UnreadableImageError(f"panoptic PNG {note.get('file_name')}: {error}") from error
        with opened_image(path) as opened:
            pixels = np.array(opened.convert("RGB"), np.int64)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
        masks, names, left_out = [], [], []
        unlisted = ~np.isin(ids, [0, *(int(segment["id"]) for segment in note["segments_info"])])
        if unlisted.any():
            left_out.append(LeftOut(None, unlisted, "panoptic segments that the file does not list"))
        for segment in note["segments_info"]:
            mask = ids == int(segment["id"])
            name = self._coco.names.get(key_of(segment.get("category_id")))
            reason = _reason(name, segment)
            if reason:
                left_out.append(LeftOut(name, mask, reason))
            else:
                masks.append(mask)
                names.append(str(name))
        return Annotation(masks, names, ids != 0 if (ids == 0).any() else None, left_out, (ids.shape[0], ids.shape[1]))

    def _check(self, asked: Sequence[str] | None) -> None:
        boxes = [reason for reason in self.skipped if "a box alone has no mask" in reason]
        if boxes and not self._records:
            raise ValueError(
                f"{self.annotation_file}: no mask in it: the annotations have a bbox and no segmentation, as for detection. "
                f"Export polygons or masks. Left out: {self.skipped}"
            )
        super()._check(asked)


def _reason(name: str | None, note: dict[str, Any]) -> str:
    """Why an annotation with a mask is no target; the empty string if it is one."""
    if name is None:
        return "a category_id that the file does not list"
    crowd, ignored = (str(note.get(key)).strip().lower() not in _FALSE for key in ("iscrowd", "ignore"))
    return "crowd" if crowd else "marked to be ignored" if ignored else ""


def _order(key: str) -> tuple[bool, int, str]:
    return (False, int(key), "") if key.isdecimal() else (True, 0, key)


def _candidates(root: Path) -> list[Path]:
    """COCO files of a folder, those for instances before all others."""
    places = [root / "annotations", root, *(p for p in sorted(root.iterdir()) if p.is_dir() and p.name != "annotations")]
    found = [
        path for place in places if place.is_dir() for path in sorted(place.glob("*.json")) if not path.name.startswith(".")
    ]
    found = [path for path in found if not path.name.startswith(_OTHER_TASKS)]
    for wanted in ("instances", "panoptic"):
        fitting = [path for path in found if path.name.startswith(wanted)]
        if fitting:
            return fitting
    named = [path for path in found if "coco" in path.name.lower()] or found
    return [path for path in named if len(named) == 1 or _is_coco(path)]


def _is_coco(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            return any(key in opened.read(2**20) for key in (b'"images"', b'"annotations"', b'"categories"'))
    except OSError:
        return False


def _split_name(path: Path, root: Path) -> PurePath:
    """What of an annotation file's path may name its split: folders, and its own name without what it annotates."""
    stem = path.stem.removeprefix("instances_").removeprefix("panoptic_").removesuffix("_annotations").removesuffix("_coco")
    return PurePath(*path.relative_to(root).parts[:-1], stem)


__all__ = ["CocoDataset"]
