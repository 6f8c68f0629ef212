"""LabelMe's files, those of X-AnyLabeling and AnyLabeling too: one ``.json`` for each image."""

import base64
from collections.abc import Collection, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.finding import IMAGE_SUFFIXES, NamedFiles, UnknownFileError, files_in, printable
from alignsam_sb3.datasets.image_files import Source, UnreadableImageError, opened_image
from alignsam_sb3.datasets.jsons import read_json
from alignsam_sb3.datasets.labelled import LabelledImages, Record
from alignsam_sb3.datasets.outlines import draw_polygons
from alignsam_sb3.datasets.regions import Annotation, LeftOut, Mask, plain_name
from alignsam_sb3.datasets.splits import split_in

IGNORED, BACKGROUND = "__ignore__", "_background_"


class LabelMe(LabelledImages):
    """A folder of LabelMe's ``.json`` files: polygons, rectangles, rotated boxes, circles and masks.

    What has no area (points, lines) is counted by its shape. Shapes of one label and ``group_id`` are one object;
    ``__ignore__`` counts neither way. Images lie where the files say, beside them, or within them (``imageData``).

    :param encoding: of files that are not UTF-8, as old versions wrote on Windows: ``"gb18030"``, ``"cp1252"``
    """

    kind = "labelme"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        encoding: str | None = None,
        **options: Any,  # noqa: ANN401 (LabelledImages')
    ) -> None:
        self._encoding = encoding
        super().__init__(root, split, **options)

    def _find(self, split: str) -> tuple[list[Record], bool]:
        paths = files_in(self.root, (".json",), self.skipped)
        contents = {path: content for path in paths if (content := self._content(path)) is not None}
        if not contents:
            raise FileNotFoundError(f"no LabelMe .json files in {self.root}. Left out: {self.skipped}")
        files = NamedFiles(self.root, [], [self._said(path, content) for path, content in contents.items()])
        records: dict[tuple[Path, str | None], Record] = {}
        unclear: set[tuple[Path, str | None]] = set()
        known: dict[str, None] = {}
        for path, content in contents.items():
            known |= dict.fromkeys(_label(s) for s in content["shapes"] if _label(s))
            image = self._image(path, content, files, contents)
            if image is not None:
                kept = {key: content.get(key) for key in ("imageHeight", "imageWidth", "shapes")}
                own = Record(printable(path.relative_to(self.root)), image, kept)
                key = (image, split_in(path.relative_to(self.root).parts[:-1]))
                first = records.setdefault(key, own)
                if first is not own and not self._joined(first, own):
                    unclear.add(key)
        records = {key: record for key, record in records.items() if key not in unclear}
        self._all = tuple(sorted(set(known) - {IGNORED, BACKGROUND}))
        order = {printable(path.relative_to(self.root)): path.relative_to(self.root) for path in contents}
        return self._of_split([*records.values()], [order[r.image_id] for r in records.values()], split)

    def _said(self, path: Path, content: dict[str, Any]) -> str:
        """The name of the image, with the folder of the file that says it where it says none."""
        name = str(content.get("imagePath"))
        return name if "/" in name or "\\" in name else f"{path.relative_to(self.root).parent.as_posix()}/{name}"

    def _joined(self, first: Record, other: Record) -> bool:
        """Take over the shapes of another file of the same image, so that its objects are no background.

        :return: False, and counted, where the two cannot be taken together: neither then says all that the image shows
        """
        if any(first.labels[key] != other.labels[key] for key in ("imageHeight", "imageWidth")):
            self._skip("images: that another file labels with another size", other.image_id)
            return False
        self._note("shapes of several files of one image taken together")
        first.labels["shapes"] = [*first.labels["shapes"], *other.labels["shapes"]]
        return True

    def _content(self, path: Path) -> dict[str, Any] | None:
        """What a file holds; None, and counted, if it is none of LabelMe's."""
        name = printable(path.relative_to(self.root))
        try:
            content = read_json(path, self._encoding)
        except (ValueError, OSError) as error:
            self._skip("files: cannot be read", f"{name}: {error}"[:200])
            return None
        if isinstance(content, dict) and isinstance(content.get("shapes"), list):
            return content
        self._skip("files: no LabelMe file", name)
        return None

    def _image(self, path: Path, content: dict[str, Any], files: NamedFiles, others: Collection[Path]) -> Path | None:
        """Where the image is; the ``.json`` file itself where the image lies within it.

        :param others: all files; an image that has one of its own is not that of a file which was renamed with its image
        """
        name = content.get("imagePath")
        reason = "no imagePath"
        same = [p for p in path.parent.glob(f"{_escaped(path.stem)}.*") if p.suffix.lower() in IMAGE_SUFFIXES]
        if isinstance(name, str) and name:
            try:
                image = files.find(name, path.parent, split_in(path.relative_to(self.root).parts[:-1]))
                if image in same or len(same) != 1 or image.with_suffix(path.suffix) not in others:
                    return image
            except UnknownFileError as error:
                reason = str(error)
        if len(same) == 1:
            self._note("file names: imagePath not found or another's, image of the same name taken")
            return same[0]
        if content.get("imageData"):
            return path
        self._skip(f"images: {reason}", f"{name} of {printable(path.relative_to(self.root))}")
        return None

    def _source(self, record: Record) -> Source:
        if record.image.suffix.lower() != ".json":
            return record.image
        try:
            return BytesIO(base64.b64decode(read_json(record.image, self._encoding)["imageData"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableImageError(f"{printable(record.image)}: imageData cannot be decoded ({error})") from error

    def _known(self) -> Sequence[str]:
        return self._all

    def _annotate(self, record: Record) -> Annotation:
        try:
            size = int(record.labels["imageHeight"]), int(record.labels["imageWidth"])
        except (TypeError, ValueError):
            size = self.photos.size(self._source(record))
        groups: dict[tuple[str, object], NDArray[np.bool_]] = {}
        left_out: list[LeftOut] = []
        for k, shape in enumerate(record.labels["shapes"]):
            label = _label(shape) or None
            try:
                mask = shape_mask(shape, size)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = str(error) if isinstance(error, ValueError) else "a damaged shape"
                left_out.append(LeftOut(None if label in (IGNORED, BACKGROUND) else label, _around(shape, size), reason))
                continue
            if label is None:
                left_out.append(LeftOut(None, mask, "a shape without a label"))
                continue
            if label == IGNORED:
                left_out.append(LeftOut(None, mask, "labelled __ignore__"))
            elif label != BACKGROUND:
                group = shape.get("group_id")
                key = (label, ("one", k) if group is None else str(group))
                groups[key] = groups[key] | mask if key in groups else mask
        masks: list[Mask] = list(groups.values())
        return Annotation(masks, [label for label, _ in groups], None, left_out, size)


def shape_mask(shape: dict[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """One of LabelMe's shapes as a mask.

    :param size: (height, width) of the image
    :raises ValueError: it has no area, or is damaged; the text is the reason, as it is counted
    """
    kind = str(shape.get("shape_type") or "polygon")
    points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
    if kind == "mask":
        return _pasted(shape["mask"], points, size)
    if kind == "circle" and len(points) == 2:
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        radius = np.hypot(*(points[1] - points[0]))
        return draw_polygons([points[0] + radius * np.stack([np.cos(angle), np.sin(angle)], 1)], size)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return draw_polygons([[x0, y0, x1, y0, x1, y1, x0, y1]], size)
    if kind in ("polygon", "rectangle", "rotation", "quadrilateral") and len(points) >= 3:
        return draw_polygons([points], size)
    raise ValueError(f"shape {kind!r} of {len(points)} points has no area")


def _label(shape: object) -> str:
    """The category of a shape; none where it does not say it."""
    label = shape.get("label") if isinstance(shape, dict) else None
    return "" if label is None else plain_name(str(label))


def _around(shape: object, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The box around the points of a shape that is no region, a pixel wider: where its object is; None if it has none."""
    try:
        points = np.asarray(shape["points"], np.float64).reshape(-1, 2)  # type: ignore[index]
        (x0, y0), (x1, y1) = points.min(0) - 1, points.max(0) + 1
        return draw_polygons([[x0, y0, x1, y0, x1, y1, x0, y1]], size)
    except (ValueError, TypeError, KeyError):
        return None


def _pasted(encoded: str, points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask that a shape holds as PNG, put where its box begins."""
    mask = np.zeros(size, bool)
    with opened_image(BytesIO(base64.b64decode(encoded))) as opened:
        part = np.array(opened.convert("L")) > 0
    x, y = (int(v) for v in points.min(0).round())
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + part.shape[0], size[0]), min(x + part.shape[1], size[1])
    if bottom > top and right > left:
        mask[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]
    return mask


def _escaped(stem: str) -> str:
    """A file's name in which no sign is a wildcard."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)
