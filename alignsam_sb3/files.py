"""Where files are kept, and writing them so that an interruption leaves none half-written."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where banks and checkpoints are kept: ``ALIGNSAM_CACHE``, else ``~/.cache/alignsam_sb3``."""
    return Path(os.environ.get("ALIGNSAM_CACHE", Path.home() / ".cache" / "alignsam_sb3"))


@contextmanager
def removed_on_error(part: Path) -> Iterator[None]:
    """Remove a partial file if what happens inside fails or is interrupted."""
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    part = path.with_name(path.name + ".part")
    with removed_on_error(part):
        part.write_text(text)
        part.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    part = path.with_suffix(".json.part")
    with removed_on_error(part):
        part.write_text(json.dumps(content, indent=2))
        part.replace(path)
