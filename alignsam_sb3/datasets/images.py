"""Reading photographs of every kind as RGB: one rule for orientation, one for depth, one kind of error."""

import logging
import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from alignsam_sb3.datasets.finding import printable
from alignsam_sb3.names import nearest

logger = logging.getLogger(__name__)

READING_VERSION = 3  # part of fingerprints: raise it whenever a file would be read differently
MAX_PIXELS = 178_956_970  # more are refused: a small file can claim any size
ORIENTATIONS = ("turned", "stored")
_WANTED = [
    "JPEG",
    "MPO",
    "PNG",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "WEBP",
    "PPM",
    "TGA",
    "AVIF",
    "HEIF",
    "JPEG2000",
    "ICO",
]  # none that calls another program
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width

Source = Path | BytesIO


class UnreadableImageError(ValueError):
    """An image file that is missing, empty, truncated or no image, or that does not fit its annotation."""


def formats() -> tuple[str, ...]:
    """The formats that are opened: photographs and masks, and none that Pillow hands to another program."""
    Image.init()
    return tuple(name for name in _WANTED if name in Image.OPEN)


def name_of(source: Source) -> str:
    """What an error calls a file."""
    return printable(source) if isinstance(source, Path) else "image data within an annotation file"


def check_file(path: Path) -> None:
    """:raises UnreadableImageError: there is no such file, or it is empty."""
    if not path.is_file():
        raise UnreadableImageError(f"{printable(path)}: no such file")
    if path.stat().st_size == 0:
        raise UnreadableImageError(f"{printable(path)}: the file is empty")


@contextmanager
def opened_image(source: Source) -> Iterator[Image.Image]:
    """Open an image file; whatever is wrong with it, also while it is being decoded, becomes one kind of error.

    :raises UnreadableImageError: with the path and the reason
    """
    if isinstance(source, Path):
        check_file(source)
    try:
        with ExitStack() as stack:
            # by its path Pillow maps a TIFF into memory, and garbles the rows of a sideways grey one
            stream: Any = source
            if isinstance(source, Path) and head(source, 4) in _TIFF_MAGIC:
                stream = stack.enter_context(source.open("rb"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is our own
                opened = stack.enter_context(Image.open(stream, formats=formats()))
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width}x{opened.height} pixels: more than {MAX_PIXELS:,} are not read")
            yield opened
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow raises a dozen types for damaged files
        heic = " (HEIC needs `pip install pillow-heif`, and `pillow_heif.register_heif_opener()`)"
        hint = heic if isinstance(source, Path) and source.suffix.lower() in (".heic", ".heif") else ""
        said = str(error).replace(str(source), "the file")
        raise UnreadableImageError(f"{name_of(source)}: {type(error).__name__}: {said}{hint}") from error


def file_stamp(path: Path) -> str:
    """Changes when a file does: its size and time, or that it is missing."""
    if not path.is_file():
        return "missing"
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


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

    ``scale`` overrides them: the value that becomes white, or (black, white).

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
        pixels, bits, orientation = _stored(source)
        try:
            rgb = pixels if pixels.dtype == np.uint8 and bits == 8 else self._eight_bits(source, pixels, bits)
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
        height, width, orientation = _header(source)
        how = self._choose((height, width), orientation, None)
        return (width, height) if orientation in _SIDEWAYS and how == "turned" else (height, width)

    def _choose(self, stored: tuple[int, int], orientation: int, stated: tuple[int, int] | None) -> str:
        if self.orientation is not None:
            return self.orientation
        if stated is not None and orientation in _SIDEWAYS and stored != stored[::-1] and stated in (stored, stored[::-1]):
            return "stored" if stated == stored else "turned"
        return self.convention

    def _eight_bits(self, source: Source, values: NDArray[Any], bits: int | None) -> NDArray[np.uint8]:
        (low, high), rule = (self.limits, "as scale says") if self.limits else _rule(values, bits)
        rule = f"depth: {values.dtype}, {rule}"
        if not self.rules[rule]:
            logger.warning("%s: %s (scale=WHITE or [BLACK, WHITE] sets it)", name_of(source), rule)
        self.rules[rule] += 1
        with np.errstate(invalid="ignore"):
            scaled = (values.astype(np.float64) - low) / max(high - low, 1e-12) * 255
        eight = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).round().astype(np.uint8)
        return _three(eight)


def stored_pixels(source: Source) -> NDArray[Any]:
    """The pixels of a photograph (H, W, 3) of the depth that it is stored with, neither scaled nor turned: as no option says.

    :raises UnreadableImageError: with the path and the reason
    """
    pixels = _stored(source)[0]
    return np.ascontiguousarray(_three(pixels), pixels.dtype.newbyteorder("="))


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


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (H, W, ...) as an EXIF orientation says that they are to be shown."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
        return pixels if orientation == 5 else pixels[::-1, ::-1]
    flips = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    return np.rot90(pixels, {6: -1, 8: 1}[orientation]) if orientation in (6, 8) else flips.get(orientation, pixels)


_BACK = {6: 8, 8: 6}  # all others undo themselves


def _limits(scale: float | Sequence[float]) -> tuple[float, float]:
    try:
        low, high = (0.0, float(scale)) if isinstance(scale, int | float) else map(float, scale)
    except (TypeError, ValueError):
        raise ValueError(f"scale is the value that becomes white, or [black, white], got {scale!r}") from None
    if not low < high:
        raise ValueError(f"scale needs black < white, got {low:g} and {high:g}")
    return low, high


def _rule(values: NDArray[Any], bits: int | None) -> tuple[tuple[float, float], str]:
    """The values that become black and white, and the rule that says so."""
    if bits is not None:
        return (0, 2**bits - 1), f"{bits} bits as the file states"
    known = values[np.isfinite(values)]
    if not known.size:
        return (0, 1), "no finite value"
    low, high = float(known.min()), float(known.max())
    for limits in ((0, 1), (-1, 1), (0, 255)):
        whole = np.issubdtype(values.dtype, np.integer) and limits[1] == 1
        if limits[0] <= low and high <= limits[1] and not whole:
            return limits, f"{limits[0]} to {limits[1]}"
    if values.dtype == np.uint16 and np.percentile(known, 99.9) > 2**15:
        return (0, 2**16 - 1), "16 bits in full"
    low, high = np.percentile(known, (0.5, 99.5))
    return (float(low), float(high)), "by percentiles 0.5 to 99.5"


def _header(source: Source) -> tuple[int, int, int]:
    """Height, width and EXIF orientation, as stored."""
    if _needs_tifffile(source):
        pixels, _, orientation = _stored(source)
        return pixels.shape[0], pixels.shape[1], orientation
    with opened_image(source) as opened:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return opened.height, opened.width, orientation if orientation in range(1, 9) else 1


def _stored(source: Source) -> tuple[NDArray[Any], int | None, int]:
    """Pixels as stored: (H, W, 3) uint8, or (H, W[, C]) of more depth; bits if the file states them; EXIF orientation."""
    if _needs_tifffile(source):
        return _tiff(source)
    with opened_image(source) as opened:
        bits = _png_bits(source) if opened.format == "PNG" else 8
        orientation, as_stored = loaded(opened)
        if (bits or 16) > 8 or opened.mode.startswith(("I", "F")):
            bits = 16 if opened.format == "PPM" else bits if opened.format == "PNG" else None
            pixels = _deep_png(source) if opened.mode not in ("I", "F") and ";" not in opened.mode else np.asarray(opened)
            return pixels, bits, orientation
        return turned(_to_rgb(opened), as_stored), 8, orientation


def loaded(opened: Image.Image) -> tuple[int, int]:
    """Decode an image: its EXIF orientation, and the one that brings it back as stored where Pillow turned it (TIFF files)."""
    orientation, size = opened.getexif().get(ExifTags.Base.Orientation, 1), opened.size
    orientation = orientation if orientation in range(1, 9) else 1
    opened.load()
    already = opened.size != size or (orientation != 1 and opened.getexif().get(ExifTags.Base.Orientation, 1) == 1)
    return orientation, _BACK.get(orientation, orientation) if already else 1


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """An 8-bit Pillow image as RGB; transparency lies on white, unless nothing at all would be seen."""
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1]:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"), np.uint8)


def _three(pixels: NDArray[Any]) -> NDArray[Any]:
    """Bands as RGB: one or two are grey, of more the first three are taken."""
    if pixels.ndim == 2 or pixels.shape[2] < 3:
        return np.repeat(pixels.reshape(*pixels.shape[:2], -1)[..., :1], 3, axis=2)
    return pixels[..., :3]


def head(source: Source, count: int) -> bytes:
    """The first bytes of a file; none where there is no file."""
    if isinstance(source, BytesIO):
        return source.getvalue()[:count]
    if not source.is_file():
        return b""
    with source.open("rb") as opened:
        return opened.read(count)


def _png_bits(source: Source) -> int | None:
    """Bits per channel of a PNG file: 8 or fewer as 8, what its sBIT states, or None for 16 bits of which nothing is said."""
    start = head(source, 4096)
    if len(start) < 26 or start[24] <= 8:
        return 8
    place = 8
    while place + 12 < len(start):
        length, kind = struct.unpack(">I4s", start[place : place + 8])
        if kind == b"sBIT" and 8 < start[place + 8] <= 16:
            return start[place + 8]
        if kind == b"IDAT":
            break
        place += 12 + length
    return None


def _deep_png(source: Source) -> NDArray[Any]:
    """A colour PNG of 16 bits (H, W, 3), of which Pillow reads the high bytes only."""
    data = source.getvalue() if isinstance(source, BytesIO) else source.read_bytes()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UnreadableImageError(f"{name_of(source)}: OpenCV cannot decode it")
    return pixels[..., ::-1][..., -3:] if pixels.ndim == 3 else pixels


def _needs_tifffile(source: Source) -> bool:
    """Whether a file is a TIFF of more than 8 bits or of bands that Pillow has no mode for."""
    if head(source, 4) not in _TIFF_MAGIC:
        return False
    try:
        with opened_image(source) as opened:
            tags: Any = getattr(opened, "tag_v2", {})
            return max(tags.get(258, (1,))) > 8 or set(tags.get(339, (1,))) - {1} != set()
    except UnreadableImageError as error:
        return "UnidentifiedImageError" in str(error)


def _tiff(source: Source) -> tuple[NDArray[Any], int | None, int]:
    """The first page of a TIFF of any depth and number of bands."""
    import tifffile

    try:
        with tifffile.TiffFile(source) as opened:
            page: Any = opened.pages[0]
            if page.imagelength * page.imagewidth > MAX_PIXELS:
                raise ValueError(f"{page.imagewidth}x{page.imagelength} pixels: more than {MAX_PIXELS:,} are not read")
            tag = page.tags.get(274)
            pixels = _tiff_pixels(page, source)
            if page.photometric == 0 and np.issubdtype(pixels.dtype, np.unsignedinteger):  # white is 0
                pixels = pixels.dtype.type(2 ** int(page.bitspersample) - 1) - pixels
            stated = int(page.bitspersample)
            bits = stated if stated in (9, 10, 12, 14) else 8 if pixels.dtype == np.uint8 else None
    except Exception as error:
        raise UnreadableImageError(f"{name_of(source)}: {type(error).__name__}: {error}") from error
    orientation = int(tag.value) if tag is not None and int(tag.value) in range(1, 9) else 1
    pixels = _three(pixels) if bits == 8 or pixels.ndim == 3 else pixels
    return pixels, bits, orientation


def _tiff_pixels(page: Any, source: Source) -> NDArray[Any]:  # noqa: ANN401 (tifffile's page)
    """(H, W) or (H, W, C); compressions that tifffile has no codec for are left to OpenCV."""
    try:
        pixels = np.asarray(page.asarray())
    except ValueError:
        data = source.getvalue() if isinstance(source, BytesIO) else source.read_bytes()
        read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if read is None:
            raise
        pixels = read[..., ::-1][..., -3:] if read.ndim == 3 else read
    if pixels.ndim == 3 and page.planarconfig == 2 and pixels.shape[0] == page.samplesperpixel:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim not in (2, 3):
        raise ValueError(f"an image of {pixels.ndim} dimensions")
    return pixels
