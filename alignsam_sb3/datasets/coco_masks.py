"""COCO's segmentations as run lengths, checked before pycocotools sees them: it misreads the odd, or crashes."""

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

from alignsam_sb3.datasets.regions import Mask

_FAR = 100_000  # pixels: coordinates beyond are no annotation, and cost pycocotools memory
_POINTS = 6  # numbers of a triangle


class NoMaskError(ValueError):
    """A segmentation that gives no mask; the text is the reason, as it is counted."""


class EmptyMaskError(NoMaskError):
    """A segmentation that is read, and has no pixel in the image: nothing of the image is left out for it."""


def encode(segmentation: object, size: tuple[int, int]) -> Mask:
    """Run lengths of a segmentation in any of the ways in which tools write it.

    Polygons may be a list of lists, one flat list, or points; of numbers or of text. Run lengths may be packed, a list, text
    of either, or several of them.

    :param size: (height, width) of the image
    :raises NoMaskError: with the reason
    """
    if segmentation is None or (isinstance(segmentation, list | str | dict) and not segmentation):
        raise NoMaskError("no segmentation (a box alone has no mask)")
    if isinstance(segmentation, Mapping):
        parts = [_run_lengths(segmentation, size)]
    elif isinstance(segmentation, list) and isinstance(segmentation[0], Mapping):
        parts = [_run_lengths(one, size) for one in segmentation]
    elif isinstance(segmentation, list):
        parts = _polygons(segmentation, size)
    else:
        raise NoMaskError("a segmentation that is neither polygons nor run lengths")
    merged: Mask = rle.merge(parts) if len(parts) > 1 else parts[0]
    if not 0 < int(rle.area(merged)) <= size[0] * size[1]:
        raise EmptyMaskError("a segmentation without a pixel in the image")
    return merged


def box(bbox: object, size: tuple[int, int]) -> Mask | None:
    """Run lengths of a box (x, y, width, height); None if it is none."""
    try:
        x, y, width, height = (float(v) for v in bbox)  # type: ignore[attr-defined]
        corners = polygon_numbers([x, y, x + width, y, x + width, y + height, x, y + height])
    except (TypeError, ValueError):
        return None
    found: Mask = rle.frPyObjects([corners], *size)[0]
    return found if rle.area(found) else None


def place_of(error: ValueError, bbox: object, size: tuple[int, int]) -> Mask | None:
    """Where an object without a mask may be: in its box, or else anywhere; None: nowhere in the image.

    :param error: of :func:`encode`
    :param bbox: x, y, width, height
    """
    found = box(bbox, size)
    if found is not None or isinstance(error, EmptyMaskError):
        return found
    whole: Mask = rle.frPyObjects({"size": list(size), "counts": [0, size[0] * size[1]]}, *size)
    return whole


def polygon_numbers(polygon: object) -> list[float]:
    """A polygon as flat x, y, x, y, ...: of numbers, of text, or of points.

    :raises NoMaskError: it is none
    """
    try:
        flat = [float(v) for v in np.asarray(polygon, dtype=object).reshape(-1)]
    except (TypeError, ValueError):
        raise NoMaskError("a polygon of something else than numbers") from None
    if len(flat) % 2:
        raise NoMaskError("a polygon with an odd number of coordinates")
    if not all(math.isfinite(v) for v in flat):
        raise NoMaskError("a polygon with a coordinate that is no finite number")
    if any(abs(v) > _FAR for v in flat):
        raise NoMaskError("a polygon far outside the image")
    return flat


def _polygons(parts: Sequence[Any], size: tuple[int, int]) -> list[Any]:
    nested = any(isinstance(part, list | tuple) for part in parts)
    pairs = nested and all(isinstance(part, list | tuple) and len(part) == 2 for part in parts)
    polygons = [polygon_numbers(part) for part in (parts if nested and not pairs else [parts])]
    usable = [polygon for polygon in polygons if len(polygon) >= _POINTS]
    if not usable:
        raise NoMaskError("a polygon of fewer than three points")
    if min(size) > 1 and all(0 <= v <= 1 for polygon in usable for v in polygon):
        raise NoMaskError("a polygon of fractions, where pixels are expected")
    return list(rle.frPyObjects(usable, *size))


def _run_lengths(coded: Mapping[str, Any], size: tuple[int, int]) -> Any:  # noqa: ANN401 (pycocotools' dictionary)
    counts = coded.get("counts")
    if isinstance(counts, str) and counts[:1] in ("[", "b") and counts[-1:] in ("]", "'", '"'):
        try:
            counts = ast.literal_eval(counts)
        except (ValueError, SyntaxError):
            raise NoMaskError("run lengths that cannot be read") from None
    try:
        stated = tuple(int(v) for v in coded["size"])
    except (KeyError, TypeError, ValueError):
        raise NoMaskError("run lengths without a size") from None
    if stated != tuple(size):
        raise NoMaskError("run lengths of another size than the image")
    if isinstance(counts, list):
        if any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in counts) or sum(counts) != size[0] * size[1]:
            raise NoMaskError("run lengths that do not add up to the image")
        return rle.frPyObjects({"size": list(size), "counts": counts}, *size)
    if isinstance(counts, str | bytes) and counts:
        packed = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        if _length(packed) != size[0] * size[1]:
            raise NoMaskError("run lengths that do not add up to the image")
        return {"size": list(size), "counts": packed}
    raise NoMaskError("run lengths that cannot be read")


def _length(packed: bytes) -> int:
    """Pixels that packed run lengths describe; -1 if they are damaged. Each is in groups of five bits, as a difference to the
    one before the last from the third on.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in packed:
        bits = byte - 48
        if not 0 <= bits < 64 or shift > 40:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if counts[-1] < 0:
            return -1
        value = shift = 0
    return sum(counts) if shift == 0 else -1
