"""Reading image files of every kind as RGB."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps


class UnreadableImageError(ValueError):
    """An image file that is missing, empty, truncated or no image, or that does not fit its annotation."""


@contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file; whatever is wrong with it, also while it is being decoded, becomes one kind of error.

    :raises UnreadableImageError: with the path and the reason
    """
    if not path.is_file():
        raise UnreadableImageError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UnreadableImageError(f"{path}: the file is empty")
    try:
        with Image.open(path) as opened:
            yield opened
    except Exception as error:  # Pillow raises a dozen types for damaged files
        raise UnreadableImageError(f"{path}: {type(error).__name__}: {error}") from error


def file_stamp(path: Path) -> str:
    """Changes when a file does: its size and time, or that it is missing."""
    if not path.is_file():
        return "missing"
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def read_rgb(path: Path, expected_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image file as RGB (H, W, 3) uint8.

    Greyscale, palette, 16-bit, CMYK and RGBA files are converted (transparency over white). Where the file has an EXIF
    orientation, it is read in whichever orientation ``expected_size`` describes: COCO, for one, annotates the unrotated
    file. Without an expected size the orientation is applied, as viewers do.

    :param expected_size: (height, width) that the annotation states
    :raises UnreadableImageError: with the path and the reason
    """
    with opened_image(path) as opened:
        opened.load()
        turned = ImageOps.exif_transpose(opened)
        image = opened.copy() if expected_size is not None and opened.size[::-1] == expected_size else turned
    if expected_size is not None and image.size[::-1] != expected_size:
        raise UnreadableImageError(
            f"{path}: the file is {image.size[0]}x{image.size[1]} but its annotation says "
            f"{expected_size[1]}x{expected_size[0]} (width x height)"
        )
    return _to_rgb(image)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as viewers show it (EXIF orientation applied), without decoding it.

    :raises UnreadableImageError: with the path and the reason
    """
    with opened_image(path) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        width, height = opened.size
    return (width, height) if turned else (height, width)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        values = np.asarray(image).astype(np.float64)
        scale = 257.0 if values.max(initial=0) > 255 else 1.0
        grey = np.clip(values / scale, 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"), np.uint8).copy()
