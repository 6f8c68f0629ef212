"""Photos with their masks: which files are which, by folders and names; ``matching`` says which belongs to which."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath

from alignsam_sb3.datasets.finding import images_in, printable
from alignsam_sb3.datasets.matching import (
    EITHER_END,
    IMAGE_END,
    IMAGE_START,
    MASK_END,
    MASK_START,
    AmbiguousPairsError,
    File,
    ambiguous,
    category,
    owners,
)
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
_MANUAL = ["1st_manual", "manual1", "manual"]
_MASK_WORDS = [
    *_MANUAL,
    "masks",
    "mask",
    "gts",
    "gt",
    "gt_object",
    "groundtruths",
    "groundtruth",
    "ground_truth",
    "labels",
    "label",
    "annotations",
    "annotation",
    "segmentations",
    "segmentation",
    "segmented",
    "seg",
    "ann",
    "masks_machine",
    "segmentationclasspng",
    "segmentationclass",
    "shadowmasks",
    "targets",
    "target",
    "mattes",
    "lesion",
]
"""What folders are usually called, best first: DRIVE's and HRF's ``mask/`` beside a ``manual`` one is the field of view."""
_FILLERS = ("dir", "png", "jpg", "tif")  # img_dir, masks_png
_LETTERS = {"a": "images", "b": "masks"}  # train_A, train_B
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".heic", ".heif", ".avif")


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
    photos, found = _roles(root, files, images, masks, skipped)
    if not found:
        photos, found = _beside(root, photos)
    own_masks = owners(root, photos, found, skipped)
    pairs = []
    for photo in photos:
        if photo not in own_masks:
            skipped.add("images: no mask of that name", printable(photo.path.relative_to(root)))
            continue
        name = PurePath(*photo.folder, photo.path.name)
        own = sorted(own_masks[photo], key=lambda mask: mask.path)
        pairs.append(Pair(photo.path, tuple(m.path for m in own), name, tuple(category(photo, m) for m in own)))
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


def _roles(
    root: Path, files: Sequence[Path], images: str | None, masks: str | None, skipped: Skipped
) -> tuple[list[File], list[File]]:
    """Photos and masks as the folders say; no masks where all lie together."""
    together = masks is not None and images is not None and PurePath(images) == PurePath(masks)
    found: dict[str, list[tuple[File, tuple[str, ...], int]]] = {"images": [], "masks": []}
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
            found[role].append((File(path, folder), parts[:start], rank))
    for role, given in (("images", images), ("masks", masks)):
        if given is not None and not found[role] and not (role == "masks" and together):
            raise FileNotFoundError(f"no folder {given!r} of {role} in {root}")
    photos, kept = (_best(root, role, found[role], skipped) for role in ("images", "masks"))
    if not kept and (not photos or (images is None and masks is None)):
        photos = [File(path, _plain(path.relative_to(root).parts[:-1])) for path in files]
    elif not photos:
        taken = {f.path for f in kept}
        photos = [File(path, _plain(path.relative_to(root).parts[:-1])) for path in files if path not in taken]
    return photos, kept


def _best(root: Path, role: str, found: Sequence[tuple[File, tuple[str, ...], int]], skipped: Skipped) -> list[File]:
    """Of several folders for one thing in one place those with the best word.

    :param skipped: counts photos that lie in another
    :raises AmbiguousPairsError: several folders hold masks of the same names
    """
    best: dict[tuple[str, ...], int] = {}
    for _, base, rank in found:
        best[base] = min(rank, best.get(base, rank))
    kept = [(file, base) for file, base, rank in found if rank == best[base]]
    others = [(file, base) for file, base, rank in found if rank != best[base]]
    if role == "images":
        for file, _ in others:
            skipped.add("images: in another folder than most photos", printable(file.path.relative_to(root)))
    names = {(base, MASK_END.sub("", file.stem).lower()): file for file, base in kept}
    for file, base in others if role == "masks" else ():
        same = names.get((base, MASK_END.sub("", file.stem).lower()))
        if same is not None and best[base] >= len(_MANUAL):
            said = " and ".join(printable(one.path.relative_to(root)) for one in (same, file))
            raise AmbiguousPairsError(
                f"{root}: {said} may both be masks of one photo: say which folder is meant (masks='FOLDER')"
            )
    return [file for file, _ in kept]


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
        tokens = re.split(r"[_\- ]", part.lower())
        if split_of(part) is not None and len(tokens) > 1 and _LETTERS.get(tokens[-1]) == role:
            return k, k + 1, 0
        rank = _rank(part, words)
        if rank is not None:
            return k, k + 1, rank
    return None


def _rank(name: str, words: Sequence[str]) -> int | None:
    """Which of the words a folder's name is or ends with: ``my_masks``, ``Ground truth``, ``PedMasks``, ``img_dir``."""
    tokens = [token for token in re.split(r"[_\- ]", name) if token.lower() not in _FILLERS] or [name]
    last = tokens[::-1] if split_of(name) is not None else tokens[-1:]
    humps = re.split(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", tokens[-1])
    candidates = [name, "_".join(tokens), *last, humps[-1]]
    return next((words.index(one.lower()) for one in candidates if one.lower() in words), None)


def _plain(parts: Sequence[str], keep: bool = True) -> tuple[str, ...]:
    """Folder names with plain words for splits: ``train_masks`` and ``Training_Images`` are ``train`` and ``training``.

    :param keep: whether these are kept; a folder that is given names no split
    """
    if not keep:
        return ()
    words = [(plain_split(part), part) for part in parts]
    return tuple(word or part for word, part in words if word or _rank(part, _IMAGE_WORDS + _MASK_WORDS) is None)


def _beside(root: Path, files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Photos and masks that lie in one folder, told apart by their names."""
    groups: dict[tuple[str, ...], list[File]] = defaultdict(list)
    for file in files:
        groups[file.folder].append(file)
    masks = [file for group in groups.values() for file in _masks_of(root, group)]
    chosen = {file.path for file in masks}
    return [file for file in files if file.path not in chosen], masks


def _masks_of(root: Path, group: Sequence[File]) -> list[File]:
    """The masks among the files of a folder."""
    by_key: dict[str, set[Path]] = defaultdict(set)
    for file in group:
        for key in (file.stem, IMAGE_END.sub("", file.stem), IMAGE_START.sub("", file.stem)):
            by_key[key.lower()].add(file.path)
    masks = []
    for file in group:
        for pattern in (MASK_END, MASK_START):
            base = pattern.sub("", file.stem)
            if base != file.stem and by_key.get(base.lower(), set()) - {file.path}:
                masks.append(file)
                break
    taken = {m.path for m in masks}
    rest = [file for file in group if file.path not in taken]
    twins: dict[str, list[File]] = defaultdict(list)
    for file in rest:
        twins[file.stem].append(file)
    masks += [m for same in twins.values() if len(same) > 1 for m in _lossless(root, same)]
    letters = [EITHER_END.search(file.stem) for file in rest]
    if not masks and rest and all(letters):
        masks = [file for file, letter in zip(rest, letters, strict=True) if letter and letter["letter"] == "B"]
    return masks


def _lossless(root: Path, same: Sequence[File]) -> list[File]:
    """Of a photo and a mask of one name the mask, which is no JPEG."""
    masks = [file for file in same if file.path.suffix.lower() not in _LOSSY]
    if len(same) - len(masks) != 1:
        raise AmbiguousPairsError(ambiguous(root, [(same[0], same[1:])]))
    return masks
