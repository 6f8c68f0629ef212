"""Which mask belongs to which photo: by folder, relative path and name; what stays ambiguous is an error."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath

from alignsam_sb3.datasets.finding import IMAGE_SUFFIXES, images_in, printable
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import plain_split, split_of

_IMAGE_WORDS = [
    "jpegimages",
    "images",
    "image",
    "imgs",
    "img",
    "shadowimages",
    "photos",
    "inputs",
    "input",
    "src",
    "originals",
    "original",
    "rgb",
]
_MASK_WORDS = [
    "1st_manual",
    "masks",
    "mask",
    "gts",
    "gt",
    "groundtruths",
    "groundtruth",
    "ground_truth",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentations",
    "segmentation",
    "masks_machine",
    "segmentationclasspng",
    "segmentationclass",
    "shadowmasks",
    "targets",
    "target",
    "mattes",
]
"""What folders are usually called, best first: DRIVE's ``mask/`` beside ``1st_manual/`` is the field of view."""
_LETTERS = {"a": "images", "b": "masks"}  # train_A, train_B
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".heic", ".heif", ".avif")
_BORDER = r"(?:[_\-. ]|(?<=[a-z0-9)])(?=[A-Z]))"  # x_mask, x-mask, xMask
_MASK_END = re.compile(
    _BORDER + r"(?i:masks?|gts?|labels?|seg|segm|segmentations?|segmented|ground_?truth|annotations?|annot?|matte|alpha|"
    r"manual\d*|[12](st|nd)HO|lesion|target)(?:[_\- ]?\(?\d+\)?)?$"
)
_IMAGE_END = re.compile(r"[_\-. ](?i:images?|img|rgb|sat|photo|training|test|inputs?|orig|original)$")
_MASK_START = re.compile(r"^(?i:masks?|gt|labels?|seg|segmentation|annotation)[_\-. ]")
_IMAGE_START = re.compile(r"^(?i:images?|img|photo|rgb)[_\-. ]")
_NUMBER_END = re.compile(r"[_\-]\d+$")
_WORD_END = re.compile(r"[_\-. ][^\W\d_]+$")
_EITHER_END = re.compile(r"(?<=[\w)])[_\- ]?(?P<letter>[AB])$")


class AmbiguousPairsError(ValueError):
    """Files of which it cannot be told which is the mask of which."""


@dataclass(frozen=True)
class Pair:
    """A photo and its masks.

    :param name: the photo's path below the root, as it is to be looked at for splits: without the words for images
    :param categories: for each mask the folder that it lies in and its photo does not (``"cat"`` for ``masks/cat/x.png``); the
        empty string for none
    """

    image: Path
    masks: tuple[Path, ...]
    name: PurePath
    categories: tuple[str, ...]


@dataclass(frozen=True)
class _File:
    path: Path
    folder: tuple[str, ...]  # without the word for images or masks, and with plain words for splits

    @property
    def stem(self) -> str:
        return self.path.stem


def pair_up(root: Path, images: str | None, masks: str | None, skipped: Skipped) -> list[Pair]:
    """Photos below a folder with their masks, sorted; what has no partner is counted.

    :param images: folder of the photos below ``root`` or below a split's folder, or a pattern such as ``"*/photo_*.jpg"``;
        by its usual names otherwise
    :param masks: likewise; where it is the same folder, or there is no folder of masks, masks lie beside their photos and have
        longer names (``x_mask.png``)
    :raises AmbiguousPairsError: it cannot be told which is whose
    :raises FileNotFoundError: a folder that is given is not there, or no photo has a mask
    """
    files = images_in(root, skipped)
    photos, found = _roles(root, files, images, masks)
    if not found:
        photos, found = _beside(root, photos)
    owners = _owners(root, photos, found, skipped)
    pairs = []
    for photo in photos:
        if photo not in owners:
            skipped.add("images: no mask of that name", printable(photo.path.relative_to(root)))
            continue
        name = PurePath(*photo.folder, photo.path.name)
        own = sorted(owners[photo], key=lambda mask: mask.path)
        pairs.append(Pair(photo.path, tuple(m.path for m in own), name, tuple(_category(photo, m) for m in own)))
    if not pairs:
        folders = sorted({p.relative_to(root).parts[0] for p in files if p.parent != root})
        raise FileNotFoundError(
            f"no image of {root} has a mask: it has {len(files)} image files and the folders "
            f"{', '.join(map(printable, folders)) or '(none)'}. Name those of photos and masks as in --dataset-kwargs "
            "images=FOLDER masks=FOLDER (images='FOLDER' in Python). A mask is called as its photo, or that and a word: "
            f"cat.jpg, cat.png or cat_mask.png. Left out: {skipped}"
        )
    return pairs


def classes_of(pairs: Sequence[Pair], root: Path) -> tuple[str, ...]:
    """The categories that folders of masks say; none where there are no two such folders.

    :raises AmbiguousPairsError: a photo has masks in several of them, and other masks lie in none
    """
    found = sorted({name for pair in pairs for name in pair.categories})
    if len(found) > 1 and all(found):
        return tuple(map(printable, found))
    several = next((pair for pair in pairs if len(set(pair.categories)) > 1), None)
    if several is None:
        return ()
    alone = next(mask for pair in pairs for mask, name in zip(pair.masks, pair.categories, strict=True) if not name)
    raise AmbiguousPairsError(
        f"{root}: {printable(several.image.relative_to(root))} has masks in the folders {', '.join(several.categories)}, "
        f"which look like categories, and {printable(alone.relative_to(root))} lies in none: category='NAME' takes all as one"
    )


def _roles(root: Path, files: Sequence[Path], images: str | None, masks: str | None) -> tuple[list[_File], list[_File]]:
    """Photos and masks as the folders say; no masks where all lie together."""
    together = masks is not None and images is not None and PurePath(images) == PurePath(masks)
    found: dict[str, list[tuple[_File, tuple[str, ...], int]]] = {"images": [], "masks": []}
    for path in files:
        parts = path.relative_to(root).parts
        asked = [("masks", masks, _MASK_WORDS)] * (not together) + [("images", images, _IMAGE_WORDS)]
        places = [
            (role, given is None, _given(parts, given) if given is not None else _usual(parts, role, words))
            for role, given, words in asked
        ]
        fitting = [(not usual, place, role) for role, usual, place in places if place is not None]
        if fitting:  # what is given goes first, then the outermost folder
            given_first, (start, end, rank), role = min(fitting, key=lambda one: (not one[0], one[1][0]))
            folder = _plain(parts[:start]) + _plain(parts[start:end], not given_first) + _plain(parts[end:-1])
            found[role].append((_File(path, folder), parts[:start], rank))
    for role, given in (("images", images), ("masks", masks)):
        if given is not None and not found[role] and not (role == "masks" and together):
            raise FileNotFoundError(f"no folder {given!r} of {role} in {root}")
    photos, kept = (_best(found[role]) for role in ("images", "masks"))
    if not kept and (not photos or (images is None and masks is None)):
        photos = [_File(path, _plain(path.relative_to(root).parts[:-1])) for path in files]
    elif not photos:
        taken = {f.path for f in kept}
        photos = [_File(path, _plain(path.relative_to(root).parts[:-1])) for path in files if path not in taken]
    return photos, kept


def _best(found: Sequence[tuple[_File, tuple[str, ...], int]]) -> list[_File]:
    """Of several folders for one thing in one place those with the best word."""
    best: dict[tuple[str, ...], int] = {}
    for _, base, rank in found:
        best[base] = min(rank, best.get(base, rank))
    return [file for file, base, rank in found if rank == best[base]]


def _given(parts: tuple[str, ...], given: str) -> tuple[int, int, int] | None:
    """Where in a path the given folder is (start, end, rank); a pattern has no place of its own."""
    if any(sign in given for sign in "*?["):
        return (0, 0, 0) if fnmatch("/".join(parts), given) or fnmatch("/".join(parts), f"*/{given}") else None
    wanted = tuple(part.lower() for part in PurePath(given.replace("\\", "/")).parts)
    for start in range(len(parts) - len(wanted)):
        if tuple(part.lower() for part in parts[start : start + len(wanted)]) == wanted:
            return start, start + len(wanted), 0
        if split_of(parts[start]) is None:  # below a split's folder, or at once
            return None
    return None


def _usual(parts: tuple[str, ...], role: str, words: Sequence[str]) -> tuple[int, int, int] | None:
    """Where in a path a folder has a usual name (start, end, rank)."""
    for k, part in enumerate(parts[:-1]):
        name = part.lower()
        tokens = re.split(r"[_\- ]", name)
        is_split = split_of(part) is not None
        if is_split and len(tokens) > 1 and _LETTERS.get(tokens[-1]) == role:
            return k, k + 1, 0
        for candidate in [name, *(reversed(tokens) if is_split else tokens[-1:])]:
            if candidate in words:
                return k, k + 1, words.index(candidate)
    return None


def _plain(parts: Sequence[str], keep: bool = True) -> tuple[str, ...]:
    """Folder names with plain words for splits: ``train_masks`` and ``Training_Images`` are ``train`` and ``training``.

    :param keep: whether these are kept; a folder that is given names no split
    """
    if not keep:
        return ()
    words = [(plain_split(part), part) for part in parts]
    role = _IMAGE_WORDS + _MASK_WORDS
    return tuple(word or part for word, part in words if word or (part.lower() not in role and _last_token(part) not in role))


def _last_token(name: str) -> str:
    return re.split(r"[_\- ]", name.lower())[-1]


def _beside(root: Path, files: Sequence[_File]) -> tuple[list[_File], list[_File]]:
    """Photos and masks that lie in one folder, told apart by their names."""
    groups: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in files:
        groups[file.folder].append(file)
    masks = [file for group in groups.values() for file in _masks_of(root, group)]
    chosen = {file.path for file in masks}
    return [file for file in files if file.path not in chosen], masks


def _masks_of(root: Path, group: Sequence[_File]) -> list[_File]:
    """The masks among the files of a folder."""
    by_key: dict[str, set[Path]] = defaultdict(set)
    for file in group:
        for key in (file.stem, _IMAGE_END.sub("", file.stem), _IMAGE_START.sub("", file.stem)):
            by_key[key.lower()].add(file.path)
    masks = []
    for file in group:
        for pattern in (_MASK_END, _MASK_START):
            base = pattern.sub("", file.stem)
            if base != file.stem and by_key.get(base.lower(), set()) - {file.path}:
                masks.append(file)
                break
    taken = {m.path for m in masks}
    rest = [file for file in group if file.path not in taken]
    twins: dict[str, list[_File]] = defaultdict(list)
    for file in rest:
        twins[file.stem].append(file)
    masks += [m for same in twins.values() if len(same) > 1 for m in _lossless(root, same)]
    letters = [_EITHER_END.search(file.stem) for file in rest]
    if not masks and rest and all(letters):
        masks = [file for file, letter in zip(rest, letters, strict=True) if letter and letter["letter"] == "B"]
    return masks


def _lossless(root: Path, same: Sequence[_File]) -> list[_File]:
    """Of a photo and a mask of one name the mask, which is no JPEG."""
    masks = [file for file in same if file.path.suffix.lower() not in _LOSSY]
    if len(same) - len(masks) != 1:
        raise AmbiguousPairsError(_ambiguous(root, [(same[0], same[1:])]))
    return masks


def _keys(masks: Sequence[_File]) -> Iterator[tuple[Callable[[str], str], Callable[[str], str]]]:
    """How names of photos and of masks are compared, strictest first."""
    word = _last_word([mask.stem for mask in masks])
    same: Callable[[str], str] = str
    yield same, same
    yield str.lower, str.lower
    yield str.lower, lambda stem: _MASK_END.sub("", stem).lower()
    yield (
        lambda stem: _IMAGE_START.sub("", _IMAGE_END.sub("", stem)).lower(),
        lambda stem: _IMAGE_END.sub("", _MASK_START.sub("", _MASK_END.sub("", stem))).lower(),
    )
    yield str.lower, _without_ending
    yield str.lower, _without_number
    yield (lambda stem: _EITHER_END.sub("", stem).lower(),) * 2
    yield str.lower, lambda stem: stem.removesuffix(word).lower()


def _last_word(stems: Sequence[str]) -> str:
    """The word, with what sets it apart, that several names all end with; the empty text if there is none.

    >>> _last_word(["cat_1_fur", "dog_fur"]), _last_word(["cat_1", "dog_1"])
    ('_fur', '')
    """
    word = _WORD_END.search(stems[0]) if len(stems) > 1 else None
    return word[0] if word and all(stem.endswith(word[0]) for stem in stems) else ""


def _without_ending(stem: str) -> str:
    """``x`` for ``x.jpg_mask.png``, whose name is made of the photo's."""
    name = PurePath(_MASK_END.sub("", stem).lower())
    return name.stem if name.suffix in IMAGE_SUFFIXES else name.name


def _without_number(stem: str) -> str:
    return _NUMBER_END.sub("", _MASK_END.sub("", stem)).lower()


def _misleading(photos: Sequence[_File], masks: Sequence[_File]) -> Callable[[_File, _File], bool]:
    """Whether names that look alike say nothing, since the other files of the folders show how photos are named.

    A folder that both photos and masks have is not left. ``x_2`` is no second mask of ``x`` where ``x_1`` is a photo. ``xA``
    and ``xB`` are a pair only where all photos end with A and all masks with B.
    """
    folders = [{file.folder for file in files} for files in (photos, masks)]
    numbered = {_without_number(p.stem) for p in photos if _NUMBER_END.search(p.stem)}
    ends = [{(found := _EITHER_END.search(f.stem)) and found["letter"] for f in files} for files in (photos, masks)]

    def misleads(photo: _File, mask: _File) -> bool:
        same, base = photo.stem.lower(), _without_number(mask.stem)
        mirrored = [any(split_of(part) is None for part in f.folder) for f in (photo, mask)]
        return (
            (photo.folder != mask.folder and mirrored[1] and mask.folder in folders[0])
            or (photo.folder != mask.folder and mirrored[0] and photo.folder in folders[1])
            or (base == same != _MASK_END.sub("", mask.stem).lower() and same in numbered)
            or (ends != [{"A"}, {"B"}] and _apart(photo.stem, mask.stem))
        )

    return misleads


def _apart(photo: str, mask: str) -> bool:
    """Whether names differ in their last letter, A or B, alone."""
    found = [_EITHER_END.search(stem) for stem in (photo, mask)]
    letters = [one["letter"] for one in found if one]
    return photo[:-1].lower() == mask[:-1].lower() and len(letters) == 2 and letters[0] != letters[1]


def _owners(root: Path, photos: Sequence[_File], masks: Sequence[_File], skipped: Skipped) -> dict[_File, list[_File]]:
    """The masks of each photo; first in the same relative folder, then, where a name is unique, in any."""
    owners: dict[_File, list[_File]] = defaultdict(list)
    unclear: list[tuple[_File, Sequence[_File]]] = []
    left = list(masks)
    misleads = _misleading(photos, masks)
    for anywhere in (False, True):
        for image_key, mask_key in _keys(masks):
            index: dict[tuple[object, str], list[_File]] = defaultdict(list)
            for photo in photos:
                if not anywhere or photo not in owners:
                    index[_place(photo, anywhere), image_key(photo.stem)].append(photo)
            rest = []
            for mask in left:
                alike = index.get((_place(mask, anywhere), mask_key(mask.stem)), [])
                found = [photo for photo in alike if not misleads(photo, mask)]
                if len(found) == 1:
                    owners[found[0]].append(mask)
                elif found:
                    unclear.append((mask, found))
                else:
                    rest.append(mask)
            left = rest
    several = [(mask, [photo]) for photo, own in owners.items() if _scattered(photo, own) for mask in own]
    if unclear or several:
        raise AmbiguousPairsError(_ambiguous(root, unclear or several))
    for mask in left:
        skipped.add("files: masks without a photo", printable(mask.path.relative_to(root)))
    return owners


def _scattered(photo: _File, masks: Sequence[_File]) -> bool:
    """Whether the masks of a photo lie in several folders that are no categories."""
    return len({mask.path.parent for mask in masks}) > 1 and not all(_category(photo, mask) for mask in masks)


def _category(photo: _File, mask: _File) -> str:
    """The folders that a mask lies in and its photo does not, where it lies in all of the photo's."""
    rest = list(mask.folder)
    for part in photo.folder:
        if part not in rest:
            return ""
        rest.remove(part)
    return "/".join(rest)


def _place(file: _File, anywhere: bool) -> object:
    """Where a partner must lie: in the same relative folder, or at least in the same split."""
    splits = tuple(part for part in file.folder if split_of(part) is not None)
    return splits if anywhere else file.folder


def _ambiguous(root: Path, unclear: Sequence[tuple[_File, Sequence[_File]]]) -> str:
    def name(file: _File) -> str:
        return printable(file.path.relative_to(root))

    examples = "; ".join(f"{name(one)} with {' or '.join(name(o) for o in others[:3])}" for one, others in unclear[:3])
    return (
        f"{root}: it cannot be told which mask belongs to which photo ({len(unclear)} times): {examples}. Say where photos "
        "and masks are, as in --dataset-kwargs images=FOLDER masks=FOLDER (images='FOLDER' in Python), or by which patterns: "
        "images='*.jpg' masks='*_seg.png'"
    )
