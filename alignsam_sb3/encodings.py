"""Masks as the tools around us write them: run lengths of COCO, CVAT and Label Studio, outlines of YOLO."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

Mask = NDArray[np.bool_]
LS_BITS = (3, 4, 8, 16)
"""Label Studio writes a run's length in one of four widths."""


def to_coco_rle(mask: Mask) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask (H, W), as JSON can hold them: ``{"size": [H, W], "counts": str}``.

    >>> to_coco_rle(np.eye(3, dtype=bool))
    {'size': [3, 3], 'counts': '01313000'}
    """
    encoded = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def from_coco_rle(encoded: dict[str, Any]) -> Mask:
    """The mask (H, W) of COCO's compressed run lengths."""
    decoded: Mask = np.ascontiguousarray(rle.decode(encoded)).astype(bool)
    return decoded


def box_of(encoded: dict[str, Any]) -> tuple[int, int, int, int]:
    """(x, y, width, height) of run lengths in pixels; all 0 where the mask is empty."""
    x, y, width, height = (int(v) for v in rle.toBbox(encoded))
    return x, y, width, height


def area_of(encoded: dict[str, Any]) -> int:
    """Pixels of the mask."""
    return int(rle.area(encoded))


def run_lengths(flat: Mask) -> list[int]:
    """Lengths of the runs of a flat mask, beginning with one of False, which may be 0 long."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def to_cvat_points(mask: Mask) -> list[int]:
    """CVAT's mask: run lengths row by row within the box, then its corners (left, top, right, bottom), the last ones inside.

    :raises ValueError: the mask is empty, which CVAT cannot say
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("CVAT has no empty masks: leave the object out")
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    inside = mask[top : bottom + 1, left : right + 1].ravel()
    return [*run_lengths(inside), left, top, right, bottom]


def to_label_studio_rle(mask: Mask) -> list[int]:
    """Label Studio's brush mask, which is not COCO's: bytes of packed runs over RGBA pixels, row by row.

    Header: the number of values (32 bits), bits of a value less 1 (5), and four widths of lengths less 1 (4 each). Each run:
    a 1, which width (2 bits), its length less 1, its value (8).
    """
    bits = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{width - 1:04b}" for width in LS_BITS)]
    for k, pixels in enumerate(run_lengths(mask.ravel())):
        left = 4 * pixels  # channels
        while left:
            length = min(left, 1 << LS_BITS[-1])
            which = next(i for i, width in enumerate(LS_BITS) if length <= 1 << width)
            bits.append(f"1{which:02b}{length - 1:0{LS_BITS[which]}b}{255 * (k % 2):08b}")
            left -= length
    said = "".join(bits)
    return [int(said[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(said), 8)]


def outlines(mask: Mask) -> list[NDArray[np.int64]]:
    """The outer outlines of a mask's pieces, largest first, each (N, 2) as (x, y) in pixels, N >= 3. Holes are filled."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    pieces = [c.reshape(-1, 2).astype(np.int64) for c in found if len(c) >= 3]
    return sorted(pieces, key=lambda c: -cv2.contourArea(c.astype(np.float32)))


def to_yolo_lines(mask: Mask, class_id: int) -> list[str]:
    """YOLO's segments: for each piece ``class x1 y1 x2 y2 ...``, the places as fractions of width and height."""
    height, width = mask.shape
    lines = []
    for outline in outlines(mask):
        places = ((outline + 0.5) / (width, height)).tolist()
        lines.append(f"{class_id} " + " ".join(f"{x:.6f} {y:.6f}" for x, y in places))
    return lines
