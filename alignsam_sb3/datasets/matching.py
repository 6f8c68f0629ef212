"""Which mask belongs to which photo by name and relative folder; what stays ambiguous is an error."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path, PurePath

from alignsam_sb3.datasets.finding import IMAGE_SUFFIXES, printable
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import split_of

_BORDER = r"(?:[_\-. ]|(?<=[a-z0-9)])(?=[A-Z]))"  # x_mask, x-mask, xMask
MASK_END = re.compile(
    _BORDER + r"(?i:masks?|gts?|labels?|seg|segm|segmentations?|segmented|ground_?truth|annotations?|annot?|matte|alpha|"
    r"manual\d*|[12](st|nd)HO|lesion|target)(?:[_\- ]?\(?\d+\)?)?$"
)
IMAGE_END = re.compile(r"[_\-. ](?i:images?|img|rgb|sat|photo|training|test|inputs?|orig|original)$")
MASK_START = re.compile(r"^(?i:masks?|gt|labels?|seg|segmentation|annotation)(?:[_\-. ]|(?=\d))")
IMAGE_START = re.compile(r"^(?i:images?|img|photo|rgb)(?:[_\-. ]|(?=\d))")
_NUMBER_END = re.compile(r"[_\-]\d+$")
EITHER_END = re.compile(r"(?<=[\w)])[_\- ]?(?P<letter>[AB])$")


class AmbiguousPairsError(ValueError):
    """Files of which it cannot be told which is the mask of which."""


@dataclass(frozen=True)
class File:
    """A photo or a mask.

    :param folder: where it lies, without the word for images or masks, and with plain words for splits
    :param affix: letters that all masks of its folder have and their photos have not: ``("", "_L")``
    """

    path: Path
    folder: tuple[str, ...]
    affix: tuple[str, str] = ("", "")

    @property
    def stem(self) -> str:
        """Its name as it is compared."""
        return self.path.stem.removeprefix(self.affix[0]).removesuffix(self.affix[1])


def owners(root: Path, photos: Sequence[File], masks: Sequence[File], skipped: Skipped) -> dict[File, list[File]]:
    """The masks of each photo; first in the same relative folder, then, where a name is unique, in any.

    :param skipped: counts masks without a photo
    :raises AmbiguousPairsError: it cannot be told which is whose
    """
    found: dict[File, list[File]] = defaultdict(list)
    left = _matched(root, photos, masks, found)
    left = _matched(root, photos, _without_affixes(photos, masks, left), found)
    left = _in_own_folders(photos, left, found)
    several = [(mask, [photo]) for photo, own in found.items() if _scattered(photo, own) for mask in own]
    if several:
        raise AmbiguousPairsError(ambiguous(root, several))
    for mask in left:
        skipped.add("files: masks without a photo", printable(mask.path.relative_to(root)))
    return found


def _matched(root: Path, photos: Sequence[File], masks: Sequence[File], found: dict[File, list[File]]) -> list[File]:
    """Add the masks whose names are those of photos; what is left."""
    unclear: list[tuple[File, Sequence[File]]] = []
    left = list(masks)
    misleads = _misleading(photos, masks)
    for reach in ("same folder", "folder around", "anywhere"):
        free = [photo for photo in photos if reach == "same folder" or photo not in found]
        if reach == "anywhere" and any(_own_folder(p) and category(p, m) for p, own in found.items() for m in own):
            free = [photo for photo in free if not _own_folder(photo)]  # masks' folders are within theirs, which are not left
        for image_key, mask_key in _keys():
            index: dict[tuple[object, str], list[File]] = defaultdict(list)
            for photo in free:
                for place in {_splits(photo), ()} if reach == "anywhere" else [photo.folder]:
                    index[place, image_key(photo.stem)].append(photo)
            rest = []
            for mask in left:
                alike = _alike(index, mask, mask_key(mask.stem), reach)
                fitting = [photo for photo in alike if not misleads(photo, mask)]
                if len(fitting) == 1:
                    found[fitting[0]].append(mask)
                elif fitting:
                    unclear.append((mask, fitting))
                else:
                    rest.append(mask)
            left = rest
            free = [photo for photo in free if reach == "same folder" or photo not in found]
    if unclear:
        raise AmbiguousPairsError(ambiguous(root, unclear))
    return left


def _alike(index: Mapping[tuple[object, str], list[File]], mask: File, name: str, reach: str) -> list[File]:
    """The photos that are called so and lie where a mask's may; of several folders around it those of the innermost."""
    if reach != "folder around":
        return index.get((mask.folder if reach == "same folder" else _splits(mask), name), [])
    for length in reversed(range(len(mask.folder))):
        places = dict.fromkeys(combinations(mask.folder, length))
        found = [photo for place in places for photo in index.get((place, name), [])]
        if found:
            return found
    return []


def _own_folder(file: File) -> bool:
    """Whether a file lies in a folder that is no split's."""
    return any(split_of(part) is None for part in file.folder)


def _splits(file: File) -> tuple[str, ...]:
    """The folders that are a split's."""
    return tuple(part for part in file.folder if split_of(part) is not None)


def _without_affixes(photos: Sequence[File], masks: Sequence[File], left: Sequence[File]) -> list[File]:
    """Masks compared without what all names of their folder have more than those of photos: ``x_L.png``, ``seg-x.png``.

    Only in folders of which no mask has a photo yet, and where all names begin or end with the same letters. Two names or more
    must be those of photos without them.
    """
    known = {photo.stem for photo in photos}
    whole = Counter(mask.path.parent for mask in masks)
    groups: dict[Path, list[File]] = defaultdict(list)
    for mask in left:
        groups[mask.path.parent].append(mask)
    compared = []
    for parent, group in groups.items():
        affix = _affix([mask.stem for mask in group], known) if len(group) == whole[parent] > 1 else ("", "")
        compared += [replace(mask, affix=affix) for mask in group]
    return compared


def _affix(stems: Sequence[str], known: Collection[str]) -> tuple[str, str]:
    """What all names have before and behind those that are known; empty texts where that cannot be told.

    >>> _affix(["seg-a_L", "seg-b_L"], {"a", "b"}), _affix(["a_L", "b_R"], {"a", "b"})
    (('seg-', '_L'), ('', ''))
    """
    first = stems[0]
    parts = [(first[:i], first[j:]) for i, j in combinations(range(len(first) + 1), 2) if first[i:j] in known]
    fitting = [
        (before, after)
        for before, after in parts
        if _letters(before[::-1])
        and _letters(after)
        and all(s.startswith(before) and s.endswith(after) and len(s) > len(before + after) for s in stems)
        and sum(s.removeprefix(before).removesuffix(after) in known for s in stems) > 1
    ]
    return fitting[0] if len(fitting) == 1 else ("", "")


def _letters(affix: str) -> bool:
    """Whether an affix stands apart from the name and is no number."""
    return not affix or bool(re.match(r"[_\-. ](?!\d+$)", affix))


def _in_own_folders(photos: Sequence[File], masks: Sequence[File], found: dict[File, list[File]]) -> list[File]:
    """Add the masks that lie, under any name, in the folder of one photo: ``ID/images/ID.png`` and ``ID/masks/*``."""
    alone: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for photo in photos:
        alone[photo.folder].append(photo)
    own = {folder: some[0] for folder, some in alone.items() if len(some) == 1 and folder[-1:] == (some[0].path.stem,)}
    for mask in masks:
        if mask.folder in own:
            found[own[mask.folder]].append(mask)
    return [mask for mask in masks if mask.folder not in own]


def _keys() -> Iterator[tuple[Callable[[str], str], Callable[[str], str]]]:
    """How names of photos and of masks are compared, strictest first."""
    same: Callable[[str], str] = str
    yield same, same
    yield str.lower, str.lower
    yield str.lower, lambda stem: MASK_END.sub("", stem).lower()
    yield (
        lambda stem: IMAGE_START.sub("", IMAGE_END.sub("", stem)).lower(),
        lambda stem: IMAGE_END.sub("", MASK_START.sub("", MASK_END.sub("", stem))).lower(),
    )
    yield str.lower, _without_ending
    yield str.lower, _without_number
    yield (lambda stem: EITHER_END.sub("", stem).lower(),) * 2


def _without_ending(stem: str) -> str:
    """``x`` for ``x.jpg_mask.png``, whose name is made of the photo's."""
    name = PurePath(MASK_END.sub("", stem).lower())
    return name.stem if name.suffix in IMAGE_SUFFIXES else name.name


def _without_number(stem: str) -> str:
    return _NUMBER_END.sub("", MASK_END.sub("", stem)).lower()


def _misleading(photos: Sequence[File], masks: Sequence[File]) -> Callable[[File, File], bool]:
    """Whether names that look alike say nothing, since the other files of the folders show how photos are named.

    A folder that both photos and masks have is not left; ``x_2`` is no second mask of ``x`` where ``x_1`` is a photo; ``xA``
    and ``xB`` are a pair only where all photos end with A and all masks with B.
    """
    folders = [{file.folder for file in files} for files in (photos, masks)]
    numbered = {_without_number(p.stem) for p in photos if _NUMBER_END.search(p.stem)}
    ends = [{(found := EITHER_END.search(f.stem)) and found["letter"] for f in files} for files in (photos, masks)]

    def misleads(photo: File, mask: File) -> bool:
        same, base = photo.stem.lower(), _without_number(mask.stem)
        mirrored = [_own_folder(f) for f in (photo, mask)]
        return (
            (photo.folder != mask.folder and mirrored[1] and mask.folder in folders[0])
            or (photo.folder != mask.folder and mirrored[0] and photo.folder in folders[1])
            or (base == same != MASK_END.sub("", mask.stem).lower() and same in numbered)
            or (ends != [{"A"}, {"B"}] and _apart(photo.stem, mask.stem))
        )

    return misleads


def _apart(photo: str, mask: str) -> bool:
    """Whether names differ in their last letter, A or B, alone."""
    found = [EITHER_END.search(stem) for stem in (photo, mask)]
    letters = [one["letter"] for one in found if one]
    return photo[:-1].lower() == mask[:-1].lower() and len(letters) == 2 and letters[0] != letters[1]


def _scattered(photo: File, masks: Sequence[File]) -> bool:
    """Whether the masks of a photo lie in several folders that are no categories."""
    return len({mask.path.parent for mask in masks}) > 1 and not all(category(photo, mask) for mask in masks)


def category(photo: File, mask: File) -> str:
    """The folders that a mask lies in and its photo does not, where it lies in all of the photo's."""
    rest = list(mask.folder)
    for part in photo.folder:
        if part not in rest:
            return ""
        rest.remove(part)
    return "/".join(rest)


def ambiguous(root: Path, unclear: Sequence[tuple[File, Sequence[File]]]) -> str:
    """What an error says of pairs that cannot be told."""

    def name(file: File) -> str:
        return printable(file.path.relative_to(root))

    examples = "; ".join(f"{name(one)} with {' or '.join(name(o) for o in others[:3])}" for one, others in unclear[:3])
    return (
        f"{root}: it cannot be told which mask belongs to which photo ({len(unclear)} times): {examples}. Say where photos "
        "and masks are, as in --dataset-kwargs images=FOLDER masks=FOLDER (images='FOLDER' in Python), or by which patterns: "
        "images='*.jpg' masks='*_seg.png'"
    )
