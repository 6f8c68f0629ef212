"""Which of many files are exact copies of each other."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

_SAMPLE = 4096  # bytes that are looked at before whole files are read


def groups_of_copies(paths: Sequence[Path]) -> list[list[int]]:
    """Indices of files that have the same bytes, under whatever names; each file is in one group, groups are in order.

    Only files of one size are opened, and only those whose middles agree are read as a whole.
    """
    groups = [list(range(len(paths)))]
    for key in (_size, _middle, _content):
        groups = [part for group in groups for part in (_divided(paths, group, key) if len(group) > 1 else [group])]
    return sorted(groups)


def _divided(paths: Sequence[Path], group: Sequence[int], key: Callable[[Path], Hashable]) -> list[list[int]]:
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in group:
        try:
            found[key(paths[index])].append(index)
        except OSError:  # missing: a group of its own
            found[None, index].append(index)
    return list(found.values())


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as opened:
        opened.seek(path.stat().st_size // 2)
        return opened.read(_SAMPLE)


def _content(path: Path) -> bytes:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()
