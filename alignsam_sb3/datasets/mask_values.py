"""What the values of a folder's masks mean: decided over all of them, asked where they do not say it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from alignsam_sb3.datasets.finding import printable
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.labels import LabelImage, Labels, read_label_image

SURVEYED = 200  # masks of a folder that are looked at before the rule is fixed; the others must fit it
_FEW = 8  # values that a message says one by one
_MANY = 4096  # distinct values of one mask that are counted
_WHITE = 247  # from here on a flat value is a JPEG's white
_BLACK = 16  # below, a flat value is a JPEG's black
_NOISE, _DARK = 6, 48  # of a JPEG: differences of neighbours, and what is still black (or, from 255 down, white)
_AREA = 16  # pixels that are flat by chance, at most
_PLATEAU = 0.002  # share of all pixels that makes a flat value a meaning of its own
_SOFT = 4  # as many values between the plateaus, or more, are a soft edge


class AmbiguousMasksError(ValueError):
    """Masks whose values do not say which of them is the object."""


@dataclass
class Survey:
    """Values that masks hold.

    :param ignored: values that count neither way
    """

    ignored: tuple[int, ...] = ()
    counts: dict[int, int] = field(default_factory=dict)
    flat: dict[int, int] = field(default_factory=dict)
    pixels: int = 0
    kinds: set[bool] = field(default_factory=set)

    def add(self, image: LabelImage) -> None:
        """Count one mask."""
        values = image.values
        if not np.isin(values, [0, 255, *self.ignored]).all():  # grey says nothing of whether a mask is coloured
            self.kinds.add(image.coloured)
        ignored = {*self.ignored, *(_rounded(np.array(self.ignored, np.int64)).tolist() if image.lossy else ())}
        for kept, into in ((values, self.counts), (_flat(image), self.flat)):
            for value, count in zip(*(a.tolist() for a in np.unique(kept, return_counts=True)), strict=True):
                if value not in ignored and len(into) < _MANY:
                    into[value] = into.get(value, 0) + count
        self.pixels += values.size


@dataclass(frozen=True)
class Meaning:
    """Which pixels of a mask are the object.

    :param values: these values; None: all from ``threshold`` on
    :param known: the only values that a mask may hold; None: any
    :param greys: the only greys that may fill an area, between black and white; None: any
    :param rule: as ``describe`` prints it
    """

    values: tuple[int, ...] | None
    threshold: int
    known: frozenset[int] | None
    rule: str
    greys: frozenset[int] | None = None

    def shown(self, image: LabelImage, settled: Labels) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """(H, W) bool.

        :param settled: the values as they were written, see :func:`~alignsam_sb3.datasets.labels.settled`
        :raises AmbiguousMasksError: the mask holds a value that the surveyed ones did not
        """
        allowed = self.greys if self.known is None else self.known
        if allowed is not None:
            exact = self.known is not None and not image.lossy
            others = set(np.unique(image.values).tolist()) - allowed if exact else _flat_greys(image, allowed)
            if others:
                raise AmbiguousMasksError(f"a mask with other values than the rest ({_said(sorted(others))})")
        return np.isin(settled, self.values) if self.values is not None else image.values >= self.threshold


def survey(paths: Iterable[Path], ignored: tuple[int, ...]) -> Survey:
    """Look at masks; those that cannot be read are left to the reading."""
    found = Survey(ignored)
    for path in paths:
        try:
            found.add(read_label_image(path))
        except UnreadableImageError:
            continue
    return found


def meaning(found: Survey, example: Path) -> Meaning:
    """What masks with such values mean.

    :param example: named in the error
    :raises AmbiguousMasksError: it takes an option to say it
    """
    values = set(found.counts)
    objects = values - {0}
    if len(objects) == 1 and (0 in values or objects <= {1, 255}):
        (value,) = objects
        said = f"#{value:06x}" if any(found.kinds) else str(value)
        return Meaning((value,), value, frozenset({0, value, *found.ignored}), f"0 is background, {said} the object")
    if not objects:
        return Meaning(None, 1, frozenset({0, 255, *found.ignored}), "all masks are empty")
    if not any(found.kinds) and _soft(found):
        return Meaning(None, 128, None, "soft edges, cut at 128", frozenset(found.ignored))
    raise AmbiguousMasksError(_question(found, example))


def _flat(image: LabelImage) -> Labels:
    """(N,) the values of pixels whose four neighbours have the same; of a lossy image nearly the same, and rounded."""
    values = image.values
    middle = values[1:-1, 1:-1]
    around = (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:])
    near = _NOISE if image.lossy and not image.coloured else 0
    inner: Labels = middle[np.all([np.abs(middle - other) <= near for other in around], axis=0)]
    return _rounded(inner) if near else inner


def _rounded(values: Labels) -> Labels:
    """Values as they may have been before a JPEG changed them: black, white, or one of a few greys."""
    greys = (values + 8) // 16 * 16
    return np.where(values < _DARK, 0, np.where(values > 255 - _DARK, 255, greys))


def _flat_greys(image: LabelImage, allowed: frozenset[int]) -> set[int]:
    """Values that fill an area of a mask, are neither black nor white, but for a JPEG's noise, and are not allowed."""
    found, counts = np.unique(_flat(image), return_counts=True)
    grey = (found >= _BLACK) & (found < _WHITE) & (counts >= max(_PLATEAU * image.values.size, _AREA))
    known = np.array(sorted(allowed), np.int64)
    return {int(value) for value in found[grey]} - {*allowed, *(_rounded(known).tolist() if image.lossy else ())}


def _soft(found: Survey) -> bool:
    """Whether masks are black and white but for soft edges or a JPEG's noise."""
    plateaus = {v for v, n in found.flat.items() if n >= _PLATEAU * found.pixels}
    between = set(found.counts) - plateaus - {0, 255}
    ends = max(found.counts) >= _WHITE and min(found.counts) < _BLACK
    return ends and len(between) >= _SOFT and all(v == 0 or v >= _WHITE for v in plateaus) and max(found.counts) <= 255


def _question(found: Survey, example: Path) -> str:
    values = sorted(found.counts)
    filling = sorted(v for v, n in found.flat.items() if n >= _PLATEAU * found.pixels)
    if len(values) > max(len(filling), _FEW) and len(filling) > 1 and not any(found.kinds):
        values = filling  # without a JPEG's noise and soft edges; few are all said: the rarest may be what is asked about
    if any(found.kinds):
        some = ", ".join(f"'...': '#{v:06x}'" for v in values if v)[:120]
        return (
            f"masks such as {printable(example)} hold {len(values)} RGB colours ({_said(values, True)}): say which colour "
            f"is what (labels={{{some}}}), or put CVAT's labelmap.txt beside them; a JPEG's cannot be told apart"
        )
    return (
        f"masks such as {printable(example)} hold the values {_said(values)}: say which is the object "
        f"(label_value={values[-1]}, or label_value=[...] for several), which counts neither way (ignore_value=...), from "
        f"where on (threshold=...), or what each is called (labels={{'name': {values[-1]}}})"
    )


def _said(values: list[int], coloured: bool = False) -> str:
    some = [f"#{v:06x}" if coloured else v for v in values[:_FEW]]
    return f"{some}" if len(values) <= _FEW else f"{str(some)[:-1]}, ... {len(values)} values]"
