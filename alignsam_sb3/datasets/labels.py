"""Reading label images: which value, or which colour, each pixel has, whatever mode the file is stored in."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alignsam_sb3.datasets.image_files import (
    UnreadableImageError,
    head,
    loaded,
    name_of,
    needs_tifffile,
    opened_image,
    tiff,
    turned,
)
from alignsam_sb3.datasets.jsons import read_json
from alignsam_sb3.datasets.regions import plain_name

Labels = NDArray[np.int64]
_APART = 48  # values of a JPEG that differ by less are not told apart
_NOISE = 24  # largest difference between the channels of a grey JPEG


@dataclass(frozen=True)
class LabelImage:
    """A label image as it is meant.

    :param values: (H, W) what each pixel holds: a value, or a colour as 0xRRGGBB
    :param coloured: whether these are colours
    :param lossy: whether the file's format changes them a little, as JPEG does
    """

    values: Labels
    coloured: bool = False
    lossy: bool = False


def read_label_image(path: Path, palette: bool = False, turn: bool = True) -> LabelImage:
    """Read a label image: palette indices stay indices, 16 and 32 bits stay, grey colours become their value.

    A palette of black and white alone, or one whose black is not 0, is read by its colours. An RGBA image whose colour is
    constant is its alpha; else what is transparent is 0. Floats from 0 to 1 become 0 to 255.

    :param palette: read palette images by their colours
    :param turn: turn it as its own EXIF tag says, which some tools copy from the photo
    :raises UnreadableImageError: with the path and the reason
    """
    found, orientation = _stored_label(path, palette)
    values = turned(found.values, orientation) if turn else found.values
    return replace(found, values=np.ascontiguousarray(values))


def _stored_label(path: Path, palette: bool) -> tuple[LabelImage, int]:
    """A label image as stored, and its EXIF orientation."""
    if needs_tifffile(path):
        stored = tiff(path)
        _one_page(path, stored.pages)
        pixels = stored.pixels
        return LabelImage(_whole(pixels)) if pixels.ndim == 2 else _from_rgb(pixels[..., :3], False), stored.orientation
    with opened_image(path) as opened:
        _one_page(path, getattr(opened, "n_frames", 1))
        orientation, as_stored = loaded(opened)
        lossy = opened.format in ("JPEG", "MPO") or (opened.format == "WEBP" and b"VP8L" not in head(path, 64))
        if opened.mode == "P" and not (palette or _meant_by_colours(opened)):
            found = LabelImage(np.array(opened, np.int64))
        elif opened.mode in ("LA", "RGBA", "PA"):
            found = _from_alpha(np.array(opened.convert("RGBA"), np.int64))
        elif opened.mode in ("L", "1", "F") or opened.mode.startswith("I"):
            found = LabelImage(_whole(np.array(opened)))
        else:
            found = _from_rgb(np.array(opened.convert("RGB")), lossy)
        return LabelImage(turned(found.values, as_stored), found.coloured, lossy), orientation


def _one_page(path: Path, pages: int) -> None:
    """:raises UnreadableImageError: a file has several pages, which may be objects or layers."""
    if pages > 1:
        raise UnreadableImageError(f"{name_of(path)}: {pages} pages, where one label image is expected")


def settled(found: LabelImage, known: Iterable[int], source: object) -> Labels:
    """The values of a label image; where its format changed them a little, the nearest of those that it may hold.

    :param known: what it may hold
    :param source: named in the error
    :raises UnreadableImageError: these are too close to be told apart
    """
    if not found.lossy:
        return found.values
    values = np.array(sorted({v for v in known if v >= 0}), np.int64)
    meant, stored = (_channels(v, found.coloured) for v in (values, found.values))
    apart = np.abs(meant[:, None] - meant[None]).max(2)
    if (apart[~np.eye(len(values), dtype=bool)] < _APART).any():
        raise UnreadableImageError(f"{source}: a JPEG keeps no values as close as these: save label images as PNG")
    nearest: Labels = values[np.argmin([((stored - one) ** 2).sum(-1) for one in meant], axis=0)]
    return nearest


def _channels(values: Labels, coloured: bool) -> Labels:
    """(..., 3) of colours, (..., 1) of values."""
    return np.stack([values >> shift & 255 for shift in (16, 8, 0)], -1) if coloured else values[..., None]


def read_labels(path: Path) -> Labels:
    """Read a label image of values (H, W); colours are refused.

    :raises UnreadableImageError: with the path and the reason
    """
    found = read_label_image(path)
    if found.lossy:
        raise UnreadableImageError(f"{name_of(path)}: a JPEG keeps no class numbers: save label images as PNG")
    if found.coloured:
        raise UnreadableImageError(f"{name_of(path)}: {colours_said(found.values)} where class numbers are expected")
    return found.values


def colours_said(values: Labels) -> str:
    """What colours there are, as a user would write them."""
    found = np.unique(values)
    some = ", ".join(f"#{int(v):06x}" for v in found[:6])
    return f"{len(found)} RGB colours ({some}{', ...' if len(found) > 6 else ''})"


def _whole(pixels: NDArray[Any]) -> Labels:
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.nan_to_num(pixels)
        fractions = pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 1 and (pixels % 1).any()
        pixels = np.round(pixels * 255) if fractions else np.round(pixels)
    return pixels.astype(np.int64)


def _meant_by_colours(image: Image.Image) -> bool:
    """Whether a palette image is to be read by its colours: they are black and white alone, or 0 is another than black."""
    palette = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3)
    used = np.unique(np.array(image))
    if len(palette) <= used.max(initial=0):
        return False
    black, white = (palette == 0).all(1), (palette == 255).all(1)
    return bool(((black | white).all() and white.any()) or (not black[0] and black[used].any()))


def _from_alpha(pixels: Labels) -> LabelImage:
    """RGBA: the alpha where the colour says nothing, the colour else."""
    colour, alpha = pixels[..., :3], pixels[..., 3]
    one_colour = (colour == colour[0, 0]).all() if colour.size else True
    if one_colour and alpha.min(initial=255) != alpha.max(initial=0):
        return LabelImage(alpha)
    return _from_rgb(np.where(alpha[..., None] > 0, colour, 0), False)


def _from_rgb(pixels: NDArray[Any], lossy: bool) -> LabelImage:
    colour = pixels.astype(np.int64)
    spread = int((colour.max(2) - colour.min(2)).max(initial=0))
    if spread <= (_NOISE if lossy else 0):
        return LabelImage(np.round(colour.mean(2)).astype(np.int64))
    return LabelImage(colour[..., 0] << 16 | colour[..., 1] << 8 | colour[..., 2], True)


def by_table(found: LabelImage, colours: Mapping[int, int]) -> LabelImage:
    """Values for colours; a grey image is left as it is, and colours that the table lacks become -1.

    :param colours: 0xRRGGBB to value
    """
    if not found.coloured:
        return found
    known = np.array(sorted(colours), np.int64)
    place = np.searchsorted(known, found.values).clip(0, len(known) - 1)
    values = np.array([colours[int(k)] for k in known], np.int64)[place]
    return replace(found, values=np.where(known[place] == found.values, values, -1), coloured=False)


def voc_colours(count: int = 256) -> dict[int, int]:
    """PASCAL VOC's colours: 0xRRGGBB to class number."""
    return {sum(_spread(k, channel) << 16 - 8 * channel for channel in range(3)): k for k in range(count)}


def _spread(k: int, channel: int) -> int:
    """One channel of VOC's colour of a class: every third bit of the number, from the highest bit down."""
    return sum((k >> 3 * bit + channel & 1) << 7 - bit for bit in range(3 if channel < 2 else 2))


@dataclass(frozen=True)
class LabelTable:
    """The names of values or colours.

    :param names: category to the values (or colours 0xRRGGBB) that mean it
    :param background: values and colours of nothing; others that have no name are left open
    :param ignored: values and colours that count neither way
    :param source: where it was read
    """

    names: dict[str, tuple[int, ...]]
    background: tuple[int, ...] = (0,)
    ignored: tuple[int, ...] = ()
    coloured: bool = False
    source: str = "labels"


_NOTHING = re.compile(r"_?(background|unlabell?ed)_?|__background__|void_background", re.IGNORECASE)
_OPEN = re.compile(r"_*(ignore|void|ignored)_*", re.IGNORECASE)


def table_of(entries: Iterable[tuple[str, int]], coloured: bool, source: str) -> LabelTable:
    """A table of (name, value); ``background`` and ``__ignore__`` are what they say."""
    names: dict[str, tuple[int, ...]] = {}
    background, ignored = [], []
    for given, value in entries:
        name = plain_name(given)
        if _NOTHING.fullmatch(name):
            background.append(value)
        elif _OPEN.fullmatch(name):
            ignored.append(value)
        else:
            names[name] = (*names.get(name, ()), value)
    return LabelTable(names, tuple(background or [0]), tuple(ignored), coloured, source)


def given_table(labels: Mapping[str, int | str | Sequence[int | str]]) -> LabelTable:
    """The ``labels`` option: names to values, or to colours written ``"#ff0000"``.

    :raises ValueError: a value is neither, or both kinds occur
    """
    entries, kinds = [], set()
    for name, said in labels.items():
        for value in [said] if isinstance(said, int | str) else said:
            if isinstance(value, str) and not re.fullmatch("#[0-9a-fA-F]{6}", value):
                raise ValueError(f"labels[{name!r}] is {value!r}: expected a number, or a colour as '#ff0000'")
            kinds.add(type(value))
            entries.append((str(name), int(value[1:], 16) if isinstance(value, str) else int(value)))
    if len(kinds) > 1:
        raise ValueError("labels mixes numbers and colours: masks hold either")
    return table_of(entries, str in kinds, "labels")


def find_table(folders: Sequence[Path]) -> LabelTable | None:
    """The first table of names that lies in one of the folders: CVAT's, labelme2voc's, Roboflow's or Supervisely's."""
    readers = {
        "labelmap.txt": _cvat,
        "class_names.txt": _lines,
        "_classes.csv": _roboflow,
        "obj_class_to_machine_color.json": _supervisely,
    }
    for folder in folders:
        for name, reader in readers.items():
            path = folder / name
            if path.is_file():
                return reader(path)
    return None


def _cvat(path: Path) -> LabelTable:
    """``name:r,g,b:parts:actions`` in each line."""
    entries = []
    for line in path.read_text("utf-8-sig").splitlines():
        name, _, rest = line.partition(":")
        channels = rest.partition(":")[0].split(",")
        if not line.strip() or line.startswith("#"):
            continue
        if len(channels) != 3 or not all(c.strip().isdigit() and int(c) < 256 for c in channels):
            raise ValueError(f"{path}: expected name:r,g,b:: in each line, got {line!r:.60}")
        red, green, blue = (int(c) for c in channels)
        entries.append((name, red << 16 | green << 8 | blue))
    return table_of(entries, True, path.name)


def _supervisely(path: Path) -> LabelTable:
    """``{"cat": [1, 1, 1]}``: the colours of ``masks_machine``."""
    try:
        entries = [(str(name), int(r) << 16 | int(g) << 8 | int(b)) for name, (r, g, b) in read_json(path).items()]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected names and colours, {{'cat': [1, 1, 1]}} ({error})") from error
    return table_of(entries, True, path.name)


def _lines(path: Path) -> LabelTable:
    """labelme2voc's list, a name in each line, counted from 0; -1 (255 as stored) is ignored."""
    names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    names = [name for name in names if name != "__ignore__"]
    entries = [(name, k) for k, name in enumerate(names)]
    table = table_of(entries, False, path.name)
    return LabelTable(table.names, table.background, (*table.ignored, 255, -1), False, path.name)


def _roboflow(path: Path) -> LabelTable:
    """A table of pixel values and classes."""
    with path.open(encoding="utf-8-sig", newline="") as opened:
        rows = [[cell.strip() for cell in row] for row in csv.reader(opened)]
    entries = [(row[1], int(row[0])) for row in rows if len(row) >= 2 and row[0].isdigit()]
    if not entries:
        raise ValueError(f"{path}: expected rows of a pixel value and a class")
    return table_of(entries, False, path.name)
