"""Finding files: all images below a folder, and the one that an annotation names, wherever the tool that wrote it ran."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.datasets.splits import split_in

IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jp2",
        ".png",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tga",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
        ".mpo",
    ]
)


def files_in(folder: Path, suffixes: Iterable[str], skipped: Skipped | None = None) -> list[Path]:
    """Files with one of the endings in a folder and below it, sorted; linked folders too, hidden files not.

    :param skipped: counts what bears such a name and cannot be opened, and folders that cannot be entered
    """
    wanted, found, visited = frozenset(suffixes), [], set()
    skipped = Skipped() if skipped is None else skipped

    def closed(error: OSError) -> None:
        skipped.add(
            f"files: a folder that cannot be read ({error.strerror})", printable(Path(error.filename).relative_to(folder))
        )

    for place, folders, names in os.walk(folder, onerror=closed, followlinks=True):
        here = os.stat(place)  # noqa: PTH116 (a name that is not UTF-8 stays as it is)
        if (here.st_dev, here.st_ino) in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add((here.st_dev, here.st_ino))
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [Path(place, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in wanted]
    for path in sorted(path for path in found if not path.is_file()):
        reason = "a link that leads nowhere" if path.is_symlink() else "no regular file"
        skipped.add(f"files: {reason}", printable(path.relative_to(folder)))
    return sorted(path for path in found if path.is_file())


def images_in(folder: Path, skipped: Skipped | None = None) -> list[Path]:
    """Image files in a folder and below it, see :func:`files_in`."""
    return files_in(folder, IMAGE_SUFFIXES, skipped)


def images_by_stem(folder: Path, skipped: Skipped) -> dict[str, Path]:
    """Image files by their path below a folder without its ending; those that share one are left out, and counted."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in images_in(folder, skipped):
        found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    for path in (path for paths in found.values() if len(paths) > 1 for path in paths):
        skipped.add("files: several have one name, and it cannot be told which is meant", printable(path.relative_to(folder)))
    return {stem: paths[0] for stem, paths in found.items() if len(paths) == 1}


def printable(path: Path | str) -> str:
    """A file's name as text that can be written anywhere, also where it is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


class UnknownFileError(ValueError):
    """No file, or more than one, is what an annotation names; the text is the reason, without the name."""


class NamedFiles:
    """Finds images by the names that annotation files give them: relative, absolute, of Windows, URL-encoded.

    Nothing outside the data set's folder is ever found.

    :param root: the data set's folder
    :param folders: where names begin, most likely first
    :param names: all names of the annotation file. A last part that several names share is never enough to find a file.
        Neither is a file taken from a folder that only other names say: ``cam2/1.jpg`` is not found for ``cam1/1.jpg``
    """

    def __init__(self, root: Path, folders: Sequence[Path], names: Iterable[str] = ()) -> None:
        self.root, self.folders = root, list(folders)
        parts = [[part.lower() for part in _parts(unquote(name))] for name in dict.fromkeys(names)]
        last = Counter(name[-1] for name in parts if name)
        self._repeated = {name for name, count in last.items() if count > 1}
        self._said_folders = {name[-2] for name in parts if len(name) > 1}

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[str, ...]]]:
        found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for path in images_in(self.root):
            parts = path.relative_to(self.root).parts
            found[parts[-1].lower()].append(parts)
        return found

    def find(self, name: str, beside: Path | None = None, split: str | None = None) -> Path:
        """The file that is meant.

        :param beside: the folder of the annotation file, where names in it may begin
        :param split: which the annotation belongs to: files in folders of other splits are not meant
        :raises UnknownFileError: there is none in the data set's folder, or several fit equally well
        """
        starts = [beside, *self.folders] if beside is not None else self.folders
        query = name.partition("?d=")[2]  # Label Studio's local files
        texts = dict.fromkeys([name, unquote(name), *([unquote(query)] if query else [])])
        for text in texts:
            for parts in dict.fromkeys([tuple(PurePosixPath(text).parts), tuple(_parts(text))]):
                for start in starts:
                    path = self._within(start, parts)
                    if path is not None:
                        return path
        for text in texts:
            last = _parts(text)[-1:]
            found = self._within(beside, last) if beside is not None else None
            known = beside.relative_to(self.root).parts if beside is not None and len(_parts(text)) == 1 else ()
            found = found or self._by_end((*known, *_parts(text)), split)
            if found is not None:
                return found
        climbs = ".." in _parts(name) or _absolute(name)
        raise UnknownFileError("file name outside the data set's folder" if climbs else "no such file")

    def _within(self, start: Path, parts: Sequence[str]) -> Path | None:
        """A file by its relative name, if the name stays in the data set's folder."""
        if not parts or parts[0] == "/" or re.fullmatch("[A-Za-z]:", parts[0]):
            return None
        path = Path(os.path.normpath(start.joinpath(*parts)))
        try:
            inside = path.is_relative_to(os.path.normpath(self.root)) and path.is_file()
        except (OSError, ValueError):  # too long, or with a null byte
            return None
        return path if inside else None

    def _by_end(self, parts: tuple[str, ...], split: str | None) -> Path | None:
        """A file by the longest end of its name that is known, where one file alone has it."""
        if ".." in parts:
            parts = parts[len(parts) - parts[::-1].index("..") :]
        if not parts:
            return None
        candidates = self._by_name.get(parts[-1].lower(), [])
        if len(parts) > 1:
            named = self._said_folders - {parts[-2].lower()}
            candidates = [c for c in candidates if len(c) == 1 or c[-2].lower() not in named]
        if split is not None:
            candidates = [c for c in candidates if split_in(c[:-1]) in (None, split)]
        shortest = 2 if parts[-1].lower() in self._repeated else 1
        for length in range(len(parts), shortest - 1, -1):
            end = tuple(p.lower() for p in parts[-length:])
            fitting = [c for c in candidates if tuple(p.lower() for p in c[-length:]) == end]
            if len(fitting) > 1:
                near = [c for c in fitting if any(self.root.joinpath(*c).is_relative_to(f) for f in self.folders[:1])]
                fitting = near or fitting
            if len(fitting) == 1:
                return self.root.joinpath(*fitting[0])
            if fitting:
                raise UnknownFileError("file name that several files have")
        return None


def _parts(name: str) -> list[str]:
    """The parts of a name written on any system, without drive, scheme and host."""
    name = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", "", name)
    name = re.sub(r"^[A-Za-z]:", "", name)
    return [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")]


def _absolute(name: str) -> bool:
    return bool(re.match(r"([\\/]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://)", name))
