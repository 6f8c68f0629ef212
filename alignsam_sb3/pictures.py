"""Pictures of images, masks and clicks, drawn the same way for rendering, videos, TensorBoard and reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alignsam_sb3.clickers import Click

Picture = NDArray[np.uint8]
GREEN, RED, BLUE = (40, 200, 60), (230, 50, 50), (60, 120, 255)
PALETTE = (BLUE, (255, 140, 0), GREEN, (220, 60, 160), (0, 180, 180), RED, (150, 90, 220), (230, 200, 30))


def overlay(image: Picture, mask: NDArray[np.bool_], colour: tuple[int, int, int] = BLUE) -> Picture:
    """Tint the mask and draw its outline; (H, W, 3) uint8."""
    out = image.copy()
    out[mask] = (0.45 * out[mask] + 0.55 * np.array(colour)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, outlines, -1, (255, 255, 255), 1)
    return out


def draw_clicks(picture: Picture, clicks: Sequence[Click], scale: float = 1.0) -> Picture:
    """Mark positive clicks with a green plus, negative ones with a red minus, numbered in order.

    :param scale: pixels of the picture per pixel of the image that the clicks refer to
    """
    out = picture.copy()
    arm = max(round(min(out.shape[:2]) / 40), 3)
    for (x, y), label in clicks:
        cx, cy = int((x + 0.5) * scale), int((y + 0.5) * scale)
        colour = GREEN if label else RED
        for thickness, paint in ((max(arm // 2, 1) + 2, (255, 255, 255)), (max(arm // 2, 1), colour)):
            cv2.line(out, (cx - arm, cy), (cx + arm, cy), paint, thickness)
            if label:
                cv2.line(out, (cx, cy - arm), (cx, cy + arm), paint, thickness)
    return out


def enlarge(image: Picture, side: int = 256) -> tuple[Picture, float]:
    """Scale the image so that its long side is at least ``side``; also the factor."""
    factor = max(side / max(image.shape[:2]), 1.0)
    if factor == 1.0:
        return image, 1.0
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    grown: Picture = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return grown, factor


def triptych(
    image: Picture, truth: NDArray[np.bool_], predicted: NDArray[np.bool_], clicks: Sequence[Click], side: int = 256
) -> Picture:
    """Photo | truth | prediction with clicks, next to each other, each in a square: (side, 3 x side, 3) for any image."""
    panels = [(None, (), GREEN), (truth, (), GREEN), (predicted, clicks, BLUE)]
    return np.concatenate([letterbox(panel(image, m, made, side, colour), side) for m, made, colour in panels], axis=1)


def letterbox(picture: Picture, side: int) -> Picture:
    """A picture scaled to fit into the middle of a black square."""
    factor = side / max(picture.shape[:2])
    height, width = (max(round(extent * factor), 1) for extent in picture.shape[:2])
    canvas = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    canvas[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=how)
    return canvas


def panel(
    image: Picture,
    mask: NDArray[np.bool_] | None,
    clicks: Sequence[Click],
    side: int = 256,
    colour: tuple[int, int, int] = BLUE,
) -> Picture:
    """One enlarged picture of an image with a mask and clicks."""
    large, factor = enlarge(image, side)
    if mask is not None:
        grown = cv2.resize(mask.astype(np.uint8), large.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
        large = overlay(large, grown, colour)
    return draw_clicks(large, clicks, factor)


def heat(image: Picture, values: NDArray[Any], side: int = 256) -> Picture:
    """A map (h, w) in [0, 1] of any resolution laid over the whole image: dark blue for 0, yellow for 1."""
    large, _ = enlarge(image, side)
    grown = cv2.resize(values.astype(np.float32), large.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap((grown.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    out: Picture = (0.4 * large + 0.6 * colours).astype(np.uint8)
    return out


def caption(picture: Picture, text: str) -> Picture:
    """Put a line of text above a picture."""
    strip = np.full((22, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def stack(pictures: Sequence[Picture]) -> Picture:
    """Put pictures of any widths below each other, on white."""
    width = max(p.shape[1] for p in pictures)
    padded = [np.pad(p, ((0, 6), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(padded)


def save_picture(picture: Picture, path: Path) -> None:
    """Write a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
