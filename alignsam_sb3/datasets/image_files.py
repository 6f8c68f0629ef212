"""Image files as they are stored: opened, measured and decoded, whatever format and depth they have."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from alignsam_sb3.datasets.finding import printable

MAX_PIXELS = 178_956_970  # more are refused: a small file can claim any size
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

Source = Path | BytesIO


class UnreadableImageError(ValueError):
    """An image file that is missing, empty, truncated or no image, or that does not fit its annotation."""


def formats() -> tuple[str, ...]:
    """The formats that are opened: photographs and masks, and none that Pillow hands to another program."""
    Image.init()
    return tuple(name for name in _WANTED if name in Image.OPEN)


def forget_other_formats() -> None:
    """Let nothing in this process open other formats than :func:`formats`.

    For servers: their library opens with Pillow what strangers upload, and Pillow hands PostScript to a program.
    """
    kept = formats()
    Image.ID[:] = [name for name in Image.ID if name in kept]
    for name in set(Image.OPEN) - set(kept):
        del Image.OPEN[name]


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


def content_key(source: Source) -> bytes:
    """Changes when a file's bytes do, whatever its size and time say; of a file that cannot be read it is empty."""
    try:
        content = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    except OSError:
        return b""
    return sha256(content).digest()


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels (H, W, ...) as an EXIF orientation says that they are to be shown."""
    if orientation in (5, 7):
        pixels = pixels.swapaxes(0, 1)
        return pixels if orientation == 5 else pixels[::-1, ::-1]
    flips = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    return np.rot90(pixels, {6: -1, 8: 1}[orientation]) if orientation in (6, 8) else flips.get(orientation, pixels)


_BACK = {6: 8, 8: 6}  # all others undo themselves


def header(source: Source) -> tuple[int, int, int]:
    """Height, width and EXIF orientation, as stored."""
    if needs_tifffile(source):
        stored = stored_image(source)
        return stored.pixels.shape[0], stored.pixels.shape[1], stored.orientation
    with opened_image(source) as opened:
        orientation = opened.getexif().get(ExifTags.Base.Orientation, 1)
        return opened.height, opened.width, orientation if orientation in range(1, 9) else 1


class Stored(NamedTuple):
    """A photograph as it is stored.

    :param pixels: (H, W, 3) uint8, or (H, W[, C]) of more depth
    :param bits: if the file states them
    :param orientation: of its EXIF tag
    :param nothing: the value that the file says to mean that nothing was measured
    :param pages: how many the file has; these are the pixels of the first
    """

    pixels: NDArray[Any]
    bits: int | None
    orientation: int
    nothing: float | None = None
    pages: int = 1


def stored_image(source: Source) -> Stored:
    """Decode an image file.

    :raises UnreadableImageError: with the path and the reason
    """
    if needs_tifffile(source):
        return tiff(source)
    with opened_image(source) as opened:
        bits = _png_bits(source) if opened.format == "PNG" else 8
        orientation, as_stored = loaded(opened)
        if (bits or 16) > 8 or opened.mode.startswith(("I", "F")):
            bits = 16 if opened.format == "PPM" else bits if opened.format == "PNG" else None
            pixels = _deep_png(source) if opened.mode not in ("I", "F") and ";" not in opened.mode else np.asarray(opened)
            return Stored(pixels, bits, orientation)
        pages = getattr(opened, "n_frames", 1) if opened.format == "TIFF" else 1
        return Stored(turned(_to_rgb(opened), as_stored), 8, orientation, pages=pages)


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


def three(pixels: NDArray[Any]) -> NDArray[Any]:
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


def needs_tifffile(source: Source) -> bool:
    """Whether a file is a TIFF of more than 8 bits, of bands that Pillow has no mode for, or of bits that tifffile wrote: it
    says that white is 0 and means the bits as they are.
    """
    if head(source, 4) not in _TIFF_MAGIC:
        return False
    try:
        with opened_image(source) as opened:
            tags: Any = getattr(opened, "tag_v2", {})
            deep = max(tags.get(258, (1,))) > 8 or set(tags.get(339, (1,))) - {1} != set()
            return deep or (opened.mode == "1" and str(tags.get(305, "")).startswith("tifffile"))
    except UnreadableImageError as error:
        return "UnidentifiedImageError" in str(error)


def tiff(source: Source) -> Stored:
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
            if pixels.dtype == bool:
                pixels = pixels.astype(np.uint8) * np.uint8(255)
            bits = stated if stated in (9, 10, 12, 14) else 8 if pixels.dtype == np.uint8 else None
            nothing, pages = _nothing(page), len(opened.pages)
    except Exception as error:
        raise UnreadableImageError(f"{name_of(source)}: {type(error).__name__}: {error}") from error
    orientation = int(tag.value) if tag is not None and int(tag.value) in range(1, 9) else 1
    pixels = three(pixels) if bits == 8 or pixels.ndim == 3 else pixels
    return Stored(pixels, bits, orientation, nothing, pages)


def _nothing(page: Any) -> float | None:  # noqa: ANN401 (tifffile's page)
    """The value that GDAL's tag says to mean that nothing was measured."""
    tag = page.tags.get(42113)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


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
