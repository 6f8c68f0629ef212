"""Append-only files of JSON lines that survive being killed: what one line says is on the disk before the next is begun."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Journal:
    """One file of records, one a line. Several processes may append to it; a half-written last line is dropped.

    :param path: of the file, which need not exist
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records and wait until they are on the disk.

        :raises OSError: the disk is full or cannot be written; what was there before stays whole
        """
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _whole(file.fileno())
            try:
                os.ftruncate(file.fileno(), end)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), end)
                raise

    def records(self, start: int = 0) -> Iterator[tuple[int, int, Record]]:
        """Each record with the bytes at which it begins and ends, from one such place on.

        :raises ValueError: a line in the middle is no record: somebody else wrote to the file
        """
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            place = start
            for line in file:
                if not line.endswith(b"\n"):  # being written, or what a kill left
                    return
                try:
                    record = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{self.path}, at byte {place}: not a line of this journal ({error})") from error
                yield place, place + len(line), record
                place += len(line)

    def at(self, place: int) -> Record:
        """The record that begins at a place."""
        return next(self.records(place))[2]


def _whole(descriptor: int) -> int:
    """Where the last whole line of an open file ends."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(end - 65536, 0)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
