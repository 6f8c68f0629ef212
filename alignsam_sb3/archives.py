"""Zip files from strangers: what they claim is checked before it is believed, and nothing in them is ever run."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _END64_BYTES = 22, 20, 56
_ENTRY_BYTES = 302  # of the directory for each file: the header and a long name


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; the defaults suit one that a library writes with many small tensors.

    :param entries: files, at most
    :param entry_bytes: of one file, unpacked
    :param total_bytes: of all files, unpacked
    :param ratio: unpacked bytes for each packed one
    """

    entries: int = 20_000
    entry_bytes: int = 1 << 36
    total_bytes: int = 1 << 36
    ratio: int = 100


@contextmanager
def opened_archive(file: BinaryIO, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """A zip file whose directory has been checked; whatever is wrong with it becomes one kind of error.

    :raises ValueError: it is no zip file, was cut, or is beyond the limits
    """
    try:
        _check_end(file, limits)
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive, limits)
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, OSError) as error:
        raise ValueError(f"it is a damaged zip file ({type(error).__name__}: {error})") from error


def read_entry(archive: zipfile.ZipFile, name: str, at_most: int) -> bytes:
    """The bytes of one file of an archive.

    :raises ValueError: it is not there, or larger than ``at_most`` bytes
    """
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"it holds no {name!r}") from None
    if entry.file_size > at_most:
        raise ValueError(f"{name!r} in it has {entry.file_size:,} bytes, and {at_most:,} are allowed")
    with archive.open(entry) as file:
        content = file.read(at_most + 1)
    if len(content) != entry.file_size:
        raise ValueError(f"{name!r} in it has {len(content):,} bytes, not the {entry.file_size:,} that it claims")
    return content


def _check_end(file: BinaryIO, limits: Limits) -> None:
    """Look at the last bytes alone, which say how long the directory is: a long one takes minutes to read."""
    size = file.seek(0, 2)
    file.seek(max(size - _END_BYTES - _LOCATOR_BYTES - _END64_BYTES, 0))
    tail = file.read()
    file.seek(0)
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or not end.startswith(_END) or end[-2:] != b"\0\0":
        raise ValueError("it is no zip file, or was cut")
    entries, directory = struct.unpack("<HL", end[10:16])
    locator = tail[-_END_BYTES - _LOCATOR_BYTES : -_END_BYTES]
    if locator.startswith(_LOCATOR):
        long = tail[: -_END_BYTES - _LOCATOR_BYTES]
        if (
            len(long) != _END64_BYTES
            or not long.startswith(_END64)
            or struct.unpack("<Q", locator[8:16])[0] != size - len(tail)
        ):
            raise ValueError("it is a damaged zip file (its end does not say where its directory is)")
        entries, directory = struct.unpack("<QQ", long[32:48])
    if entries > limits.entries or directory > limits.entries * _ENTRY_BYTES:
        raise ValueError(f"it claims {entries:,} files ({directory:,} bytes of names), and {limits.entries:,} are allowed")


def _check_entries(archive: zipfile.ZipFile, limits: Limits) -> None:
    entries = archive.infolist()
    if len(entries) > limits.entries:
        raise ValueError(f"it holds {len(entries):,} files, and {limits.entries:,} are allowed")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("it holds two files of one name")
    for entry in entries:
        _check_entry(entry, limits)
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise ValueError(f"its files have {total:,} bytes, and {limits.total_bytes:,} are allowed")


def _check_entry(entry: zipfile.ZipInfo, limits: Limits) -> None:
    name, parts = entry.filename, entry.filename.split("/")
    if ".." in parts or name.startswith("/") or "\\" in name or ":" in name:
        raise ValueError(f"it holds a file named {name!r}, which points out of it")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name!r} in it is encrypted, or packed in a way that is not read")
    if entry.file_size > limits.entry_bytes:
        raise ValueError(f"{name!r} in it has {entry.file_size:,} bytes, and {limits.entry_bytes:,} are allowed")
    if entry.file_size > limits.ratio * max(entry.compress_size, 1):
        raise ValueError(
            f"{name!r} in it unpacks {entry.compress_size:,} bytes to {entry.file_size:,}: over {limits.ratio} times as many"
        )
