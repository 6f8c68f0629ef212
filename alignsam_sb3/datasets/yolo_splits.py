"""Which split an image belongs to, as YOLO's ``data.yaml`` says it: ``train:``, ``val:`` and ``test:``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignsam_sb3.datasets.finding import NamedFiles, UnknownFileError
from alignsam_sb3.datasets.skipped import Skipped

SPLITS = ("val", "test", "train")  # an image that several name is for evaluation


def said_splits(content: Mapping[str, Any], root: Path, images: Sequence[Path], skipped: Skipped) -> list[list[str]] | None:
    """The splits that name each image, in the order of :data:`SPLITS`.

    A split is a folder, a list of image names (``.txt``), or several of these; they begin at ``path:``, or at the file's own
    folder. One step out of the data set's folder (``../train/images``) is taken as none; nothing outside it is read.

    :param content: of ``data.yaml``
    :param root: the data set's folder, in which the file lies
    :param skipped: counts names of lists that are no file
    :return: None where nothing that the file names is there
    :raises ValueError: a split is no text and no list of texts
    """
    bases = [root / content["path"]] if isinstance(content.get("path"), str) else []
    bases += [root]
    places = {split: _places(content, split, bases, root) for split in SPLITS}
    for split in ("val", "test"):
        if places[split] == places["train"]:  # there is no split for evaluation, though one has to be named
            places[split] = []
    if not any(places.values()):
        return None
    named = {split: _images(places[split], bases, root, skipped) for split in SPLITS}
    here = [Path(os.path.abspath(image)) for image in images]  # noqa: PTH100 (links stay links)
    return [[s for s in SPLITS if named[s].intersection([image, *image.parents])] for image in here]


def _places(content: Mapping[str, Any], split: str, bases: Sequence[Path], root: Path) -> list[Path]:
    """The folders and lists of a split that are there."""
    given = content.get(split, content.get("validation") if split == "val" else None)
    values = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"data.yaml of {root} says {split}: {given!r}, expected a folder, a .txt list of images, or several")
    found = [_inside(value, bases, root) for value in values if value]
    return [place for place in found if place is not None]


def _inside(value: str, bases: Sequence[Path], root: Path) -> Path | None:
    """Where a name leads, if that is in the data set's folder."""
    value = value.replace("\\", "/")
    top = Path(os.path.abspath(root))  # noqa: PTH100
    for path in [*(base / value for base in bases), root / value.removeprefix("../")]:
        place = Path(os.path.abspath(path))  # noqa: PTH100
        if place.is_relative_to(top) and (place.is_dir() or (place.suffix.lower() == ".txt" and place.is_file())):
            return place
    return None


def _images(places: Sequence[Path], bases: Sequence[Path], root: Path, skipped: Skipped) -> set[Path]:
    """The folders of a split, and the images that its lists name."""
    found = {place for place in places if place.is_dir()}
    top = Path(os.path.abspath(root))  # noqa: PTH100
    for place in places:
        if place in found:
            continue
        lines = [line.strip() for line in place.read_text("utf-8-sig").splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
        files = NamedFiles(top, [Path(os.path.abspath(base)) for base in bases], names)  # noqa: PTH100
        for name in names:
            try:
                found.add(files.find(name, place.parent))
            except UnknownFileError as error:
                skipped.add(f"files: names in a list of data.yaml: {error}", name)
    return found
