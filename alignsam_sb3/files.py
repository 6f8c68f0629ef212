"""Where files are kept, and writing them so that an interruption leaves none half-written."""

import fcntl
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

logger = logging.getLogger(__name__)

IN_USE = 1 << 62
"""Byte of a lock file that is locked while somebody has what lies beside it open."""
KINDS = ("banks", "answers", "archives", "hashes", "policies", "checkpoints")
"""Folders of the cache."""
ASKED_FOR = ("policies", "checkpoints")
"""Those of which nothing is removed: somebody downloaded it."""
_LOCKS = ("locks", ".lock")
_LEFT = re.compile(r"\..+\.[0-9a-f]{32}(\.part)?")
_DAY = 24 * 3600
_held: dict[Path, IO[bytes]] = {}


def cache_folder() -> Path:
    """Where banks and checkpoints are kept: ``ALIGNSAM_CACHE``, else ``~/.cache/alignsam_sb3``.

    Where nobody is at home, as in a container with an unknown user, it is a folder for temporary files.
    """
    given = os.environ.get("ALIGNSAM_CACHE", "")
    if given and not given.startswith("~"):
        return Path(given)
    try:
        return Path(given or "~/.cache/alignsam_sb3").expanduser()
    except RuntimeError:  # no HOME, and no user of that number
        return Path(tempfile.gettempdir()) / f"alignsam_sb3-{os.getuid()}"


@dataclass(frozen=True)
class CacheEntry:
    """Something in the cache.

    :param kind: the folder it is in, of :data:`KINDS`
    :param size: in bytes, on disk
    :param used: when it was last used, in seconds since 1970
    """

    path: Path
    kind: str
    size: int
    used: float


def cache_list() -> list[CacheEntry]:
    """What is in the cache, what was used last first."""
    found = []
    for kind in KINDS:
        folder = cache_folder() / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            stats = [stat for file in (path, *path.rglob("*")) if (stat := _stat(file)) is not None]
            if stats and not path.name.startswith("."):
                size, used = sum(512 * stat.st_blocks for stat in stats), max(stat.st_mtime for stat in stats)
                found.append(CacheEntry(path, kind, size, used))
    return sorted(found, key=lambda entry: -entry.used)


def cache_prune(limit: int | None = None, keep: Iterable[Path] = ()) -> list[CacheEntry]:
    """Remove what can be made again, the least recently used first, until the whole cache is no larger than a limit.

    What another process has open stays, and so do checkpoints and policies, which were asked for. What cannot be
    removed is named in the log.

    :param limit: in bytes; by default what ``ALIGNSAM_CACHE_LIMIT`` says (``20GB``), and without that nothing is removed
    :param keep: folders that stay
    :return: what was removed
    :raises ValueError: ``ALIGNSAM_CACHE_LIMIT`` is no size
    """
    limit = cache_limit() if limit is None else limit
    if limit is None:
        return []
    _remove_leftovers()
    entries, kept, removed = cache_list(), set(keep), []
    total = sum(entry.size for entry in entries)
    for entry in reversed(entries):
        if total <= limit:
            break
        if entry.kind in ASKED_FOR or entry.path in kept or in_use(entry.path):
            continue
        gone = entry.path.with_name(f".{entry.path.name}.{uuid4().hex}")
        try:
            entry.path.rename(gone)  # at once, so that nobody finds half of it
        except FileNotFoundError:  # another process was quicker
            total -= entry.size
            continue
        except OSError as error:
            logger.warning("%s stays in the cache: %s", entry.path, error.strerror)
            continue
        _remove(gone)
        total -= entry.size
        removed.append(entry)
    return removed


def cache_limit() -> int | None:
    """``ALIGNSAM_CACHE_LIMIT`` in bytes, None where it is not set.

    :raises ValueError: it is no size
    """
    given = os.environ.get("ALIGNSAM_CACHE_LIMIT", "").strip()
    if not given:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", given)
    if not match:
        raise ValueError(f"ALIGNSAM_CACHE_LIMIT is {given!r}, and should be a size as 500MB, 20GB or 1.5TB")
    return int(float(match[1]) * 1000 ** " kMGT".index(match[2] or " "))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_leftovers() -> None:
    """What a process that was killed had begun to remove, or a day ago to write."""
    for kind in KINDS:
        folder = cache_folder() / kind
        for path in folder.glob(".*") if folder.is_dir() else ():
            match, stat = _LEFT.fullmatch(path.name), _stat(path)
            if match and stat is not None and (not match[1] or stat.st_mtime < time.time() - _DAY):
                _remove(path)


def hold(folder: Path) -> None:
    """Keep a folder of the cache from being removed by others as long as this process lives, and note that it was used.

    Where the cache cannot be written, nobody removes anything, and nothing happens.
    """
    path = folder / ".lock"
    try:
        if path not in _held:
            _held[path] = path.open("a+b")
            lock_byte(_held[path], IN_USE, fcntl.LOCK_SH)
        os.utime(path)
    except OSError:
        return


def in_use(folder: Path) -> bool:
    """Whether a process has a bank or an unpacked archive open: it holds a lock on one byte."""
    if folder / ".lock" in _held:
        return True
    for name in _LOCKS:
        try:
            with (folder / name).open("r+b") as file:
                if not lock_byte(file, IN_USE, fcntl.LOCK_EX):
                    return True
        except OSError:
            continue
    return False


def lock_byte(file: IO[bytes], place: int, kind: int) -> bool:
    """Lock or unlock a byte of a file, without waiting; True where it is had, or where the file system has no locks.

    :param kind: of ``fcntl``: ``LOCK_EX``, ``LOCK_SH`` or ``LOCK_UN``
    """
    try:
        fcntl.lockf(file.fileno(), kind if kind == fcntl.LOCK_UN else kind | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _stat(path: Path) -> os.stat_result | None:
    """None where it was removed meanwhile."""
    try:
        return path.stat()
    except OSError:
        return None


@contextmanager
def removed_on_error(part: Path) -> Iterator[None]:
    """Remove a partial file if what happens inside fails or is interrupted."""
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also where several processes write it or the machine stops; the last one stays."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with removed_on_error(part):
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def parse_json(content: str | bytes) -> Any:  # noqa: ANN401 (what it holds)
    """Read JSON that somebody else may have written.

    :raises ValueError: it is none, or is nested too deeply
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, json.dumps(content, indent=2).encode())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, text.encode())
