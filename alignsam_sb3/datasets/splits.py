"""Which images are for training and which for evaluation: decided here for every kind of data set, and always disjoint.

A folder, a file or a list says it by its name (``train/``, ``instances_val2017.json``, ``Test_Images/``). Where none does,
seeded folds do, which copies of one file never cross.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from alignsam_sb3.datasets.copies import groups_of_copies
from alignsam_sb3.names import nearest

ALL = "all"
_WORDS = {
    "train": ("train", "trainval"),
    "eval": ("val", "dev", "eval", "test"),
}
"""What splits are called; of several for training or for evaluation the first is taken."""
TRAINING = _WORDS["train"]
_SAME = {
    **{"training": "train", "trn": "train", "tr": "train", "sbutrain4krecoveredsmall": "train"},
    **{"valid": "val", "validation": "val", "evaluation": "eval", "testing": "test", "te": "test"},
}
_SHORT = ("tr", "te")  # these do not stand alone: DUTS-TR
_CONTENT = r"images?|imgs?|masks?|labels?|inputs?|data|datasets?|set|gt|groundtruth|annotations?|[abc]"
_NAME = re.compile(
    rf"(?P<before>.*[_-])?(?P<word>{'|'.join([*(w for words in _WORDS.values() for w in words), *_SAME])})[_\- ]?(\d{{4}})?"
    rf"([_\- ]?({_CONTENT}))*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Folds:
    """How a folder without splits is divided.

    :param folds: number of equal parts, of which one is held out; by default five, or as many as there are images
    :param fold: which one
    :param seed: draws the parts
    """

    folds: int | None = None
    fold: int = 0
    seed: int = 0


def split_of(name: str) -> str | None:
    """The split that a folder's or a list's name says: ``"val"`` for ``val2017`` and ``Validation_Images``; None if none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    word = found["word"].lower()
    return _SAME.get(word, word) if found["before"] or word not in _SHORT else None


def split_in(parts: Iterable[str]) -> str | None:
    """The split that the outermost of several folders says."""
    return next(filter(None, map(split_of, parts)), None)


def by_name(names: Sequence[PurePath], split: str, where: object) -> list[int] | None:
    """The images of a split, where folders say which one an image belongs to.

    Training is what lies in a training folder or, where there are only folders for evaluation, everything outside them.

    :param names: each image's path (or its label file's) below the data set's folder, without what may not name a split
    :param split: ``"train"``, ``"eval"``, ``"all"``, or the name of a folder
    :param where: named in errors
    :return: indices into ``names``; None if no folder names a split
    :raises FileNotFoundError: there are splits, but not this one
    """
    if split == ALL:
        return list(range(len(names)))
    exact = [i for i, name in enumerate(names) if split.lower() in (part.lower() for part in name.parts)]
    if exact and split not in _WORDS:
        return exact
    words = [split_in(name.parts) for name in names]
    present = set(words) - {None}
    if not present:
        return None
    if split_of(split) in present and split not in _WORDS:
        return [i for i, w in enumerate(words) if w == split_of(split)]
    if split not in _WORDS:
        raise FileNotFoundError(f"{where} has no split {split!r}; it has {', '.join(sorted(filter(None, present)))}")
    word = next((w for w in _WORDS[split] if w in present), None)
    if word is None and split == "train":
        found = [i for i, w in enumerate(words) if w is None]
    else:
        found = [i for i, w in enumerate(words) if w is not None and w == word]
    if not found:
        have = ", ".join(sorted(filter(None, present)))
        raise FileNotFoundError(
            f"{where} has a folder {have}/ but none for split {split!r}: folds across it would mix training and evaluation. "
            f"Make one, or name {have.split(', ')[0]}/ itself as the data set, which is then divided by folds"
        )
    return found


def in_fold(images: Sequence[Path], split: str, folds: Folds, where: object) -> list[int]:
    """Every ``folds``-th image of a seeded order for evaluation, the others for training; exact copies go where their first
    one goes.

    :return: indices into ``images``
    :raises ValueError: the split is neither, or there are too few images
    """
    if split == ALL:
        return list(range(len(images)))
    if split not in _WORDS:
        raise ValueError(nearest("split (this folder has no split of its own)", split, [*_WORDS, ALL]))
    groups = groups_of_copies(images)
    count = len(groups)
    if count == 1 and folds.folds is None:
        if split == "train":
            return groups[0]
        raise ValueError(f"{where} has one image, which is for training: take the split {ALL!r} to use it for evaluation")
    parts = min(5, max(count, 2)) if folds.folds is None else folds.folds
    if not 2 <= parts <= max(count, 2) or not 0 <= folds.fold < parts:
        raise ValueError(
            f"cannot make fold {folds.fold} of {parts} of {count} images: take 2 <= folds <= images, fold < folds"
        )
    order = np.random.default_rng(folds.seed).permutation(count)
    held_out = {int(k) for k in order[folds.fold :: parts]}
    return sorted(i for k, group in enumerate(groups) if (k in held_out) == (split == "eval") for i in group)


def from_lists(lists: Mapping[str, Sequence[str]], split: str, where: object) -> tuple[list[str], list[str]] | None:
    """The names that lists give for a split, and those that were taken out of training since evaluation lists them too.

    :param lists: names by the list's own name
    :return: None where no list says which split it is
    :raises FileNotFoundError: there are such lists, but none for this split
    """
    if split == ALL:
        return sorted({name for names in lists.values() for name in names}), []
    order = list(lists)
    chosen = by_name([PurePath(name) for name in order], split, where)
    if chosen is None:
        return None
    found = sorted({name for i in chosen for name in lists[order[i]]})
    if split != "train":
        return found, []
    try:
        held_out = {name for i in by_name([PurePath(n) for n in order], "eval", where) or [] for name in lists[order[i]]}
    except FileNotFoundError:  # no list for evaluation
        held_out = set()
    return [name for name in found if name not in held_out], [name for name in found if name in held_out]
