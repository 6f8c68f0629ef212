"""The files of a feature bank: rows of arrays, and beside them what is known of each row.

Rows are read and written by position, not mapped: a full disk or a cut file is then an error, not the end of the process. What
a row holds is on disk before its record says so, and the record has a checksum of it.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.files import IN_USE, lock_byte, write_json

logger = logging.getLogger(__name__)

DONE, SKIPPED = 1, 2  # 0: not yet described
KEY_BYTES = 16
_RECORD = np.dtype([("state", "u1"), ("key", "<u4", (4,)), ("checksum", "<u4"), ("own", "<u4")])
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_FEW = 64  # records that are read one by one

Row = Mapping[str, NDArray[np.float16]]


class BankFiles:
    """Rows of half-precision arrays on disk, shared by processes.

    :param folder: exists
    :param shapes: name and shape of each array of a row
    :param count: how many rows
    :param writable: whether rows can be added
    :raises OSError: a file cannot be opened
    """

    def __init__(self, folder: Path, shapes: Mapping[str, tuple[int, ...]], count: int, writable: bool) -> None:
        self.folder, self.shapes, self.count, self.writable = folder, dict(shapes), count, writable
        self._arrays = {name: self._open(f"{name}.f16") for name in shapes}
        self._records = self._open("records")
        self._locks = self._open("locks")
        if writable:
            lock_byte(self._locks, IN_USE, fcntl.LOCK_SH)

    def _open(self, name: str) -> BinaryIO:
        path = self.folder / name
        flags = os.O_RDWR | os.O_CREAT if self.writable else os.O_RDONLY
        return os.fdopen(os.open(path, flags, 0o666), "r+b" if self.writable else "rb", buffering=0)

    def records(self, rows: Sequence[int] | None = None) -> NDArray[Any]:
        """State, key and checksum of rows, all by default; a record that is damaged, or was never written, is all zeros."""
        size = _RECORD.itemsize
        if rows is not None and len(rows) <= _FEW:
            content = b"".join(os.pread(self._records.fileno(), size, row * size).ljust(size, b"\0") for row in rows)
        else:
            content = os.pread(self._records.fileno(), self.count * size, 0).ljust(self.count * size, b"\0")
        found = np.frombuffer(content, _RECORD).copy()
        if rows is not None and len(rows) > _FEW:
            found = found[list(rows)]
        found[found["own"] != _own(found, np.arange(self.count) if rows is None else np.asarray(rows))] = np.zeros((), _RECORD)
        return found

    def read(self, row: int, into: Row) -> int:
        """Fill arrays with a row; its checksum, -1 where a file is too short."""
        checksum = 0
        for name, array in sorted(into.items()):
            view = memoryview(array.data).cast("B")  # of a contiguous array
            offset, got = row * len(view), 0
            while got < len(view):
                step = os.preadv(self._arrays[name].fileno(), [view[got:]], offset + got)
                if not step:
                    return -1
                got += step
            checksum = crc32(view, checksum)
        return checksum

    def write(self, rows: Sequence[int], values: Row, keys: Sequence[bytes]) -> None:
        """Write rows, and when they are on disk, that they are there.

        :param values: of each array (B, *shape)
        :raises OSError: the disk is full, or the folder cannot be written
        """
        checksums = [0] * len(rows)
        for name, array in sorted(values.items()):
            for k, row in enumerate(rows):
                content = np.ascontiguousarray(array[k]).tobytes()
                _write(self._arrays[name], content, row * len(content))
                checksums[k] = crc32(content, checksums[k])
            os.fsync(self._arrays[name].fileno())
        self.note(rows, [DONE] * len(rows), keys, checksums)

    def note(self, rows: Sequence[int], states: Sequence[int], keys: Sequence[bytes], checksums: Sequence[int]) -> None:
        """Write down what is known of rows, durably."""
        records = np.zeros(len(rows), _RECORD)
        records["state"], records["checksum"] = states, checksums
        records["key"] = [np.frombuffer(key.ljust(KEY_BYTES, b"\0"), "<u4") for key in keys]
        records["own"] = _own(records, np.asarray(rows))
        for row, record in zip(rows, records, strict=True):
            _write(self._records, record.tobytes(), row * _RECORD.itemsize)
        os.fsync(self._records.fileno())

    def forget(self, rows: Sequence[int]) -> None:
        """Take rows for not described."""
        for row in rows:
            _write(self._records, bytes(_RECORD.itemsize), row * _RECORD.itemsize)

    def claim(self, rows: Sequence[int]) -> list[int]:
        """Those of some rows that no other process is describing; none will until they are released, or this one dies."""
        return [row for row in rows if lock_byte(self._locks, row, fcntl.LOCK_EX)]

    def release(self, rows: Sequence[int]) -> None:
        """Leave rows to others, also those that were not claimed."""
        for row in rows:
            lock_byte(self._locks, row, fcntl.LOCK_UN)


def open_files(folder: Path, identity: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], count: int) -> BankFiles | None:
    """The files of a bank, begun where there are none; None where there are none and none can be written.

    :param identity: what the bank is of, in plain values
    :raises ValueError: the folder holds a bank of something else
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_of(folder, identity):
            (folder / "records").unlink(missing_ok=True)
            write_json(folder / "bank.json", identity)
        files = BankFiles(folder, shapes, count, writable=True)
        os.utime(folder / "bank.json")
        return files
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    logger.warning(
        "%s cannot be written: what is described now is kept in memory, and described again next time. Point "
        "ALIGNSAM_CACHE to a folder that can be written",
        folder,
    )
    try:
        return BankFiles(folder, shapes, count, writable=False) if _is_of(folder, identity) else None
    except OSError:
        return None


def _is_of(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether a folder holds a bank of these images by this model; False where it holds none, or one that cannot be known.

    :raises ValueError: it holds one of other images or of another model
    """
    try:
        found = json.loads((folder / "bank.json").read_text())
    except FileNotFoundError:
        return False
    except ValueError:
        found = None
    if not isinstance(found, dict):
        logger.warning("bank.json in %s is damaged: all images are described again", folder)
        return False
    for key, value in identity.items():
        if found.get(key) != value:
            raise ValueError(
                f"the bank in {folder} was built for {key} {found.get(key)!r}, not {value!r}: "
                "what it holds would be wrong. Give another folder or delete this one, and build again"
            )
    return True


def read_reasons(folder: Path) -> dict[int, str]:
    """Why images were skipped, as far as that was noted."""
    try:
        return {int(row): str(reason) for row, reason in json.loads((folder / "skipped.json").read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _own(records: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Checksums of records themselves, and of whose they are; 0 of what was never written."""
    words = [rows + 1, records["checksum"], *records["key"].T]
    mixed = records["state"].astype(np.uint64)
    for word in words:
        mixed = ((mixed ^ word.astype(np.uint64)) * np.uint64(0x9E3779B1) + np.uint64(1)) & np.uint64(0xFFFFFFFF)
    return np.where(records["state"] > 0, mixed, 0).astype(np.uint64)


def _write(file: BinaryIO, content: bytes, offset: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(file.fileno(), content[done:], offset + done)
