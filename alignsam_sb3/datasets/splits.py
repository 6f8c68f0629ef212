"""Which images are for training and which for evaluation: decided here for every kind of data set, and always disjoint.

A folder, a file or a list says it by its name (``train/``, ``train1/``, ``instances_val2017.json``, ``Test_Images/``). Where
none does, seeded folds do, which copies of one file never cross.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

import numpy as np

from alignsam_sb3.datasets.copies import groups_of_copies
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.names import nearest

ALL = "all"
HELD_OUT = "images: for evaluation too, so not for training"
_WORDS = {
    "train": ("train", "trainval"),
    "eval": ("val", "dev", "eval", "test"),
}
"""What splits are called; of several for training or for evaluation the first is taken."""
TRAINING = _WORDS["train"]
_SAME = {
    **{"training": "train", "trn": "train", "tr": "train", "sbutrain4krecoveredsmall": "train"},
    **{"train_val": "trainval", "train-val": "trainval"},
    **{"valid": "val", "validation": "val", "evaluation": "eval", "testing": "test", "te": "test"},
    **dict.fromkeys(["holdout", "hold_out", "held_out"], "test"),
}
_SHORT = ("tr", "te")  # these do not stand alone: DUTS-TR
_CONTENT = (
    r"images?|imgs?|photos?|frames?|masks?|labels?|lab|segmentations?|inputs?|data|datasets?|set|gt|groundtruth|annotations?|"
    r"annots?|crops?|tiles?|patches|rgb|dir|[abc]"
)
_UNUSUAL = re.compile(r"(?P<word>train|val|test|eval)", re.IGNORECASE)
_KNOWN = "|".join([*(w for words in _WORDS.values() for w in words), *_SAME])
_NAME = re.compile(
    rf"(?P<before>.*?[_\-. ])??(?P<word>{_KNOWN})[_\- ]?(?P<number>\d{{1,4}})?([_\- ]?({_CONTENT}))*",
    re.IGNORECASE,
)
_FOLD = re.compile(r"(?:k?[_-]?folds?|cv|splits?)[_\- ]?(?P<number>\d{1,3})", re.IGNORECASE)
_YEAR = 4  # digits; fewer are a number


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
    return (_word_and_number(name) or (None,))[0]


def plain_split(name: str) -> str | None:
    """The same with its number, where there are several: ``"train1"`` for ``train_1`` and ``Train1_masks``."""
    found = _word_and_number(name)
    return None if found is None else "".join(found)


@lru_cache(2**14)  # folders repeat
def _word_and_number(name: str) -> tuple[str, str] | None:
    """What a name says of a split; a year is no number."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    word, number = found["word"].lower(), found["number"] or ""
    if not found["before"] and word in _SHORT:
        return None
    return _SAME.get(word, word), str(int(number)) if number and len(number) < _YEAR else ""


def split_in(parts: Iterable[str]) -> str | None:
    """The split that the outermost of several folders says."""
    return next(filter(None, map(split_of, parts)), None)


def _refuse_folds(names: Sequence[PurePath], where: object) -> None:
    """:raises ValueError: ``train1/``, ``val1/``, ``train2/``, ``val2/``: what one number trains on, another evaluates on."""
    sides: dict[str, dict[bool, PurePath]] = defaultdict(dict)
    for name in names:
        words = [_word_and_number(part) for part in name.parts]
        k = next((k for k, word in enumerate(words) if word), None)
        if k is None:
            continue
        word, number = words[k] or ("", "")
        number = number or next((f["number"] for part in name.parts[:k] if (f := _FOLD.fullmatch(part))), "")
        if number:
            sides[number].setdefault(word in TRAINING, PurePath(*name.parts[: k + 1]))
    both = [one for one in sides.values() if len(one) > 1]
    if len(both) > 1:
        train, held_out = both[0][True], both[0][False]
        one = f":{train.name} to train and :{held_out.name} to evaluate"
        if plain_split(train.name) in TRAINING:  # the number is that of a folder around both
            one = f"{where}/{train.parent}"
        raise ValueError(
            f"{where} has {', '.join(str(one[side]) for one in both[:2] for side in (True, False))}: these look like folds of "
            f"the same images, which together would mix training and evaluation. Name one as the data set: {one}"
        )


def _refuse_unusual(names: Sequence[PurePath], where: object) -> None:
    """:raises ValueError: folders begin with words for training and for evaluation, and are called like no split."""
    found: dict[bool, str] = {}
    for part in dict.fromkeys(part for name in names for part in name.parts[:-1]):
        word = _UNUSUAL.match(part)
        if word:
            found.setdefault(word["word"].lower() == "train", part)
    if len(found) > 1:
        raise ValueError(
            f"{where} has folders {found[True]} and {found[False]}, whose names are nearly those of splits: folds across them "
            f"might mix training and evaluation. Name one, KIND:{where}:{found[True]} to train, or call them train and test, "
            "or say part='all' if these are no splits"
        )


def by_name(names: Sequence[PurePath], split: str, where: object) -> list[int] | None:
    """The images of a split, where folders say which one an image belongs to.

    Training is what lies in a training folder or, where there are only folders for evaluation, everything outside them.

    :param names: each image's path (or its label file's) below the data set's folder, without what may not name a split
    :param split: ``"train"``, ``"eval"``, ``"all"``, or the name of a folder
    :param where: named in errors
    :return: indices into ``names``; None if no folder names a split
    :raises FileNotFoundError: there are splits, but not this one
    :raises ValueError: there are numbered folds of training and evaluation
    """
    if split == ALL:
        return list(range(len(names)))
    asked = {split.lower(), plain_split(split) or split.lower()}
    exact = [i for i, name in enumerate(names) if asked.intersection(part.lower() for part in name.parts)]
    if exact and split not in _WORDS:
        return exact
    words = [split_in(name.parts) for name in names]
    present = set(words) - {None}
    if not present:
        _refuse_unusual(names, where)
        return None
    if plain_split(split) in present and split not in _WORDS:
        return [i for i, w in enumerate(words) if w == split_of(split)]
    if split not in _WORDS:
        raise FileNotFoundError(f"{where} has no split {split!r}; it has {', '.join(sorted(filter(None, present)))}")
    _refuse_folds(names, where)
    word = next((w for w in _WORDS[split] if w in present), None)
    if word is None and split == "train":
        found = [i for i, w in enumerate(words) if w is None]
    else:
        found = [i for i, w in enumerate(words) if w is not None and w == word]
    if not found:
        have = ", ".join(sorted(filter(None, present)))
        raise FileNotFoundError(
            f"{where} has images in a folder for {have}, and none that can be used for split {split!r}: folds across it "
            f"would mix training and evaluation. Make one, or name the folder for {have.split(', ')[0]} itself as the data "
            "set, which is then divided by folds. `alignsam describe` with --split all says what was left out"
        )
    return found


def of_folders(
    images: Sequence[Path], names: Sequence[PurePath], split: str, where: object, ids: Sequence[str], skipped: Skipped
) -> list[int] | None:
    """As :func:`by_name`, with training and evaluation disjoint also where links put one image in folders of both.

    :param ids: what each image is called
    :param skipped: counts the images that this takes from training, and those that lie in no split's folder
    """
    chosen = by_name(names, split, where)
    if chosen is None or split != "train":
        return chosen
    for i in {i for i, name in enumerate(names) if split_in(name.parts) is None}.difference(chosen):
        skipped.add("images: outside the folders of splits", ids[i])
    try:
        held_out = {images[i].resolve() for i in by_name(names, "eval", where) or []}
    except FileNotFoundError:  # there is a folder for training alone
        return chosen
    both = {i for i in chosen if images[i].resolve() in held_out}
    for i in sorted(both):
        skipped.add(HELD_OUT, ids[i])
    return [i for i in chosen if i not in both]


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
