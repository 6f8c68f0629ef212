"""One COCO annotation file: images and what is said of each, joined by the annotations' own ``image_id``."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignsam_sb3.datasets.jsons import read_json
from alignsam_sb3.datasets.regions import plain_name
from alignsam_sb3.datasets.skipped import Skipped


@dataclass
class CocoFile:
    """What a file says.

    :param images: entries by id (as text: tools write 1, "1" or 1.0)
    :param notes: the annotations of each image
    :param names: category by id; one name may have several ids
    :param things: for panoptic files whether a category is of countable things
    """

    path: Path
    images: dict[str, dict[str, Any]]
    notes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    panoptic: bool = False

    @property
    def categories(self) -> tuple[str, ...]:
        """Category names, each once."""
        return tuple(dict.fromkeys(self.names.values()))


def key_of(value: object) -> str:
    """An id as text: 1, 1.0 and "1" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def read_coco(path: Path, skipped: Skipped, encoding: str | None = None) -> CocoFile:
    """Read an annotation file; entries that cannot be used are counted.

    :raises ValueError: it is no COCO annotation file; what is missing is named
    """
    try:
        content = read_json(path, encoding)
    except ValueError as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error}") from error
    _check(path, content)
    names: dict[str, str] = {}
    for c in content["categories"]:
        if isinstance(c, Mapping) and isinstance(c.get("id"), int | float | str):
            name = plain_name(str(c.get("name", c["id"])))
            if names.setdefault(key_of(c["id"]), name) != name:
                raise ValueError(f"{path}: the category id {c['id']!r} means {names[key_of(c['id'])]!r} and {name!r}")
    found = CocoFile(path, _images(content["images"], skipped), names=names)
    found.panoptic = any(isinstance(a, Mapping) and "segments_info" in a for a in content["annotations"][:5])
    notes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for k, note in enumerate(content["annotations"]):
        if not isinstance(note, dict):
            skipped.add("objects: annotations that are no entries", f"annotation {k}")
        elif key_of(note.get("image_id")) not in found.images:
            skipped.add("objects: annotations of an unknown image_id", f"image_id {note.get('image_id')!r:.40}")
        else:
            notes[key_of(note["image_id"])].append(note)
    found.notes = dict(notes)
    return found


def _check(path: Path, content: object) -> None:
    """:raises ValueError: a part that every COCO file has is missing."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is not a COCO annotation file: it holds a {type(content).__name__}, not a dictionary")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            hint = " (a list of images without annotations is no data set)" if key == "annotations" else ""
            raise ValueError(
                f"{path} is not a COCO annotation file: it has no {key!r}, only {sorted(map(str, content))}{hint}"
            )
        if not isinstance(content[key], list):
            raise ValueError(f"{path} is not a COCO annotation file: {key!r} is a {type(content[key]).__name__}, not a list")


def _images(entries: list[Any], skipped: Skipped) -> dict[str, dict[str, Any]]:
    """Images by id; those whose id another image has too cannot be joined to their annotations."""
    images: dict[str, dict[str, Any]] = {}
    twice: Counter[str] = Counter()
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict) or "id" not in entry:
            skipped.add("images: entries without an id", f"image {k}")
        elif not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            skipped.add("images: entries without a file_name", f"id {entry['id']!r:.40}")
        elif images.get(key_of(entry["id"]), entry)["file_name"] != entry["file_name"]:
            twice[key_of(entry["id"])] += 1
        else:
            images[key_of(entry["id"])] = entry
    for key in twice:
        name = images.pop(key)["file_name"]
        for _ in range(twice[key] + 1):
            skipped.add("images: an id that several images have", f"id {key} ({name})")
    return images
