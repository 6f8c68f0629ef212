"""Where files are kept, and writing them so that an interruption leaves none half-written."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, json.dumps(content, indent=2).encode())


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, text.encode())
