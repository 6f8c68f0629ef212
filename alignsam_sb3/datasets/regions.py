"""What annotations say of one image: its objects, what is left out, and where nothing is said."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

Dense = NDArray[np.bool_]
Mask = Dense | Mapping[str, Any]
"""(H, W) bool, or pycocotools' run lengths of it: an annotation of many objects is small until it is drawn."""


@dataclass(frozen=True)
class LeftOut:
    """Something that is no target, and no background either.

    :param name: its category; None: it may be of any
    :param mask: where it is; None: not known
    :param reason: as it is counted
    """

    name: str | None
    mask: Mask | None
    reason: str


@dataclass(frozen=True)
class Annotation:
    """What is said of one image.

    :param masks: (K, H, W) bool, or a mask for each object
    :param names: the category of each mask
    :param valid: (H, W) bool, False where the annotation says nothing; None: everywhere valid
    :param left_out: objects that are no targets
    :param size: (H, W), where masks may be none
    """

    masks: Sequence[Mask] | Dense
    names: Sequence[str]
    valid: Dense | None = None
    left_out: Sequence[LeftOut] = field(default=())
    size: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        if self.size is not None:
            return self.size
        if isinstance(self.masks, np.ndarray):
            return self.masks.shape[1], self.masks.shape[2]
        return size_of(self.masks[0])


def plain_name(name: str) -> str:
    """A category's name without surrounding or doubled blanks, and with letters such as é written in one way.

    >>> plain_name(" traffic  light ")
    'traffic light'
    """
    return unicodedata.normalize("NFC", " ".join(name.split()))


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in upper and lower case alone.

    >>> alike(["cat", "dog", "Cat"])
    [['cat', 'Cat']]
    """
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[name.casefold()].append(name)
    return [same for same in found.values() if len(same) > 1]


def size_of(mask: Mask) -> tuple[int, int]:
    """Height and width of a mask."""
    height, width = mask["size"] if isinstance(mask, Mapping) else mask.shape
    return int(height), int(width)


def area_of(mask: Mask) -> int:
    """Pixels of a mask."""
    return int(rle.area(mask) if isinstance(mask, Mapping) else mask.sum())


def drawn(mask: Mask) -> Dense:
    """(H, W) bool."""
    return rle.decode(mask).astype(bool) if isinstance(mask, Mapping) else np.asarray(mask, bool)


def stacked(masks: Sequence[Mask] | Dense, size: tuple[int, ...]) -> Dense:
    """Masks of one size (H, W) as (K, H, W), also where there are none."""
    return np.stack([drawn(mask) for mask in masks]) if len(masks) else np.zeros((0, *size), bool)


def union(masks: Iterable[Mask], size: tuple[int, int]) -> Dense:
    """Where any of the masks is, (H, W)."""
    found = np.zeros(size, bool)
    for mask in masks:
        found |= drawn(mask)
    return found


def regions(labels: NDArray[np.integer[Any]], names: Mapping[int, str], ignored: Iterable[int] = ()) -> Annotation:
    """The annotation of a label map (H, W): a mask for each name that a value has; the ignored values are not valid."""
    values: dict[str, list[int]] = {}
    for value in np.unique(labels).tolist():
        if value in names:
            values.setdefault(names[value], []).append(value)
    masks = stacked([np.isin(labels, found) for found in values.values()], labels.shape)
    unsaid = np.isin(labels, list(ignored))
    return Annotation(masks, list(values), ~unsaid if unsaid.any() else None)
