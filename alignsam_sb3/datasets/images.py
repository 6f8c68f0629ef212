"""Reading photographs of every kind as RGB: one rule for orientation, one for depth."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.image_files import (
    Source,
    Stored,
    UnreadableImageError,
    file_stamp,
    header,
    name_of,
    stored_image,
    three,
    turned,
)
from alignsam_sb3.names import nearest

__all__ = [
    "PhotoReader",
    "UnreadableImageError",
    "file_stamp",
    "image_size",
    "other_size",
    "read_rgb",
    "stored_pixels",
    "turned",
]

logger = logging.getLogger(__name__)

READING_VERSION = 4  # part of fingerprints: raise it whenever a file would be read differently
ORIENTATIONS = ("turned", "stored")
_NOTHING, _LEAST = -9999, -1e38  # this value, and floats below: nothing was measured, where a file does not say another
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


class PhotoReader:
    """Reads photographs as (H, W, 3) uint8 RGB, and counts the rules that it applied.

    **Orientation.** A photo whose EXIF tag says that the camera was turned is read ``"turned"`` (as viewers show it) or
    ``"stored"``. Where the annotation states a size that only one of the two has, that one is taken. Where both have it, the
    kind's convention decides: half a turn, a mirrored or a square photo, no size stated. ``orientation`` overrides both.

    **Depth.** 8 bits stay. More are scaled by the first of these rules that fits:

    - the depth that the file states (PNG's sBIT, TIFF's and PPM's own);
    - 65,535, where values fill 16 bits;
    - 0 to 1, -1 to 1 or 0 to 255, for floats within these;
    - the image's own percentiles 0.5 and 99.5.

    ``scale`` overrides them: the value that becomes white, or (black, white). What was not measured is black: NaN, and the
    value that GDAL's tag says, or else -9999 and the least float.

    Greyscale becomes three equal channels. Of more than four bands the first three are taken. Transparency lies on white.

    :param convention: of the kind of annotation
    :raises ValueError: an orientation that does not exist, or a scale that is no number or pair of rising numbers
    """

    def __init__(
        self,
        convention: str = "turned",
        orientation: str | None = None,
        scale: float | Sequence[float] | None = None,
    ) -> None:
        if orientation is not None and orientation not in ORIENTATIONS:
            raise ValueError(nearest("orientation", orientation, ORIENTATIONS))
        self.convention, self.orientation = convention, orientation
        self.limits = None if scale is None else _limits(scale)
        self.rules: Counter[str] = Counter()

    @property
    def key(self) -> str:
        """Changes where the same file would be read differently."""
        return f"v{READING_VERSION}-{self.convention}-{self.orientation}-{self.limits}"

    def read(self, source: Source, stated: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Read one photograph.

        :param stated: (height, width) of the annotation; it helps to choose the orientation, and is not enforced
        :raises UnreadableImageError: with the path and the reason
        """
        stored = stored_image(source)
        pixels, orientation = stored.pixels, stored.orientation
        if stored.pages > 1:
            self.rules[f"pages: the first of {stored.pages}"] += 1
        try:
            rgb = pixels if pixels.dtype == np.uint8 and stored.bits == 8 else self._eight_bits(source, stored)
        except Exception as error:
            raise UnreadableImageError(f"{name_of(source)}: {type(error).__name__}: {error}") from error
        if orientation != 1:
            size = (rgb.shape[0], rgb.shape[1])
            how = self._choose(size, orientation, stated)
            self.rules[f"orientation: EXIF tag, read as {how}"] += 1
            rgb = turned(rgb, orientation) if how == "turned" else rgb
        return np.ascontiguousarray(rgb)

    def size(self, source: Source) -> tuple[int, int]:
        """Height and width as the photograph is read where no size is stated, without decoding it."""
        height, width, orientation = header(source)
        how = self._choose((height, width), orientation, None)
        return (width, height) if orientation in _SIDEWAYS and how == "turned" else (height, width)

    def _choose(self, stored: tuple[int, int], orientation: int, stated: tuple[int, int] | None) -> str:
        if self.orientation is not None:
            return self.orientation
        if stated is not None and orientation in _SIDEWAYS and stored != stored[::-1] and stated in (stored, stored[::-1]):
            return "stored" if stated == stored else "turned"
        return self.convention

    def _eight_bits(self, source: Source, stored: Stored) -> NDArray[np.uint8]:
        values = stored.pixels
        nothing = _NOTHING if stored.nothing is None else stored.nothing
        measured = np.isfinite(values) & (values != nothing) & (values > _LEAST)
        (low, high), rule = (self.limits, "as scale says") if self.limits else _rule(values[measured], stored.bits)
        rule = f"depth: {values.dtype}, {rule}{', black where nothing was measured' if not measured.all() else ''}"
        if not self.rules[rule]:
            logger.warning("%s: %s (scale=WHITE or [BLACK, WHITE] sets it)", name_of(source), rule)
        self.rules[rule] += 1
        with np.errstate(invalid="ignore"):
            scaled = (values.astype(np.float64) - low) / max(high - low, 1e-12) * 255
        scaled[~measured & (values != np.inf)] = 0  # what is infinitely bright is white
        eight = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).round().astype(np.uint8)
        return three(eight)


def stored_pixels(source: Source) -> NDArray[Any]:
    """The pixels of a photograph (H, W, 3) of the depth that it is stored with, neither scaled nor turned: as no option says.

    :raises UnreadableImageError: with the path and the reason
    """
    pixels = stored_image(source).pixels
    return np.ascontiguousarray(three(pixels), pixels.dtype.newbyteorder("="))


def read_rgb(path: Path, expected_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image file as RGB (H, W, 3) uint8, turned as viewers show it; see :class:`PhotoReader`.

    :param expected_size: (height, width) that the annotation states
    :raises UnreadableImageError: with the path and the reason, also where the size is another one
    """
    image = PhotoReader().read(path, expected_size)
    if expected_size is not None and image.shape[:2] != tuple(expected_size):
        raise UnreadableImageError(other_size(path, (image.shape[0], image.shape[1]), expected_size))
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file as viewers show it (EXIF orientation applied), without decoding it.

    :raises UnreadableImageError: with the path and the reason
    """
    return PhotoReader().size(path)


def other_size(source: Source, has: tuple[int, int], stated: tuple[int, int]) -> str:
    """What is wrong where an image has another size than its annotation."""
    return (
        f"{name_of(source)}: the file is {has[1]}x{has[0]} but its annotation says {stated[1]}x{stated[0]} (width x height); "
        "where masks are smaller or larger copies, resize_masks=True reads them"
    )


def _limits(scale: float | Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (0.0, float(scale)) if isinstance(scale, int | float) else map(float, scale)
    except (TypeError, ValueError):
        raise ValueError(f"scale is the value that becomes white, or [black, white], got {scale!r}") from None
    if not low < high:
        raise ValueError(f"scale needs black < white, got {low:g} and {high:g}")
    return low, high


def _rule(known: NDArray[Any], bits: int | None) -> tuple[tuple[float, float], str]:
    """The values that become black and white, and the rule that says so.

    :param known: what was measured
    """
    if bits is not None:
        return (0, 2**bits - 1), f"{bits} bits as the file states"
    if not known.size:
        return (0, 1), "no finite value"
    low, high = float(known.min()), float(known.max())
    for limits in ((0, 1), (-1, 1), (0, 255)):
        whole = np.issubdtype(known.dtype, np.integer) and limits[1] == 1
        if limits[0] <= low and high <= limits[1] and not whole:
            return limits, f"{limits[0]} to {limits[1]}"
    if known.dtype == np.uint16 and np.percentile(known, 99.9) > 2**15:
        return (0, 2**16 - 1), "16 bits in full"
    low, high = np.percentile(known, (0.5, 99.5))
    return (float(low), float(high)), "by percentiles 0.5 to 99.5"
