"""Zip archives as annotation tools export them, unpacked once into the cache, and nothing outside it."""

import hashlib
import logging
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO
from uuid import uuid4

from alignsam_sb3.datasets.image_files import file_stamp
from alignsam_sb3.datasets.splits import split_of
from alignsam_sb3.files import cache_folder, hold

logger = logging.getLogger(__name__)

MAX_FILES = 2_000_000
MAX_BYTES = 200 * 2**30  # unpacked
MAX_RATIO = 200  # unpacked to packed, from SMALL on: images do not shrink, and annotations by 20 or 50
SMALL = 64 * 2**20


def as_folder(path: Path) -> Path:
    """The folder itself, or the one that a zip archive is unpacked into; where it holds one folder alone, that one.

    :raises FileNotFoundError: it is neither
    :raises ValueError: the archive is damaged, too large, or holds names that lead out of it
    """
    if path.is_dir():
        return path
    if not zipfile.is_zipfile(path):
        raise FileNotFoundError(f"{path} is neither a folder nor a zip archive")
    key = hashlib.sha256(f"{path.resolve()}|{file_stamp(path)}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    target = cache_folder() / "archives" / f"{path.stem}-{key}"
    if not target.is_dir():
        _unpack(path, target)
    hold(target)
    inside = [p for p in target.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and split_of(inside[0].name) is None else target


def _unpack(path: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            _refuse(path, members)
            part.mkdir(parents=True)
            logger.info("unpacking %s into %s", path, target)
            for member in members:
                place = part.joinpath(*PurePosixPath(member.filename.replace("\\", "/")).parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as packed, place.open("wb") as unpacked:
                    _copy(packed, unpacked, member)
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(part, ignore_errors=True)  # another process unpacked it meanwhile
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ValueError(f"{path} cannot be unpacked: {type(error).__name__}: {error}") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _refuse(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """:raises ValueError: the archive would unpack to too much, or outside its folder."""
    total = sum(m.file_size for m in members)
    packed = max(sum(m.compress_size for m in members), 1)
    if len(members) > MAX_FILES or total > MAX_BYTES or (total > SMALL and total / packed > MAX_RATIO):
        raise ValueError(
            f"{path} would unpack to {len(members)} files and {total / 2**30:.1f} GB, {total / packed:.0f} times its size: "
            "that is no data set; unpack it yourself if it is"
        )
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        climbs = not name.parts or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]
        if climbs or member.external_attr >> 28 == 0xA:
            raise ValueError(
                f"{path} holds {member.filename!r}, which would be written outside its folder: it is not unpacked"
            )


def _copy(packed: IO[bytes], unpacked: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Copy as much as the archive states, and no more."""
    left = member.file_size
    while chunk := packed.read(min(left, 2**20) or 1):
        left -= len(chunk)
        if left < 0:
            raise zipfile.BadZipFile(f"{member.filename} is longer than stated")
        unpacked.write(chunk)
