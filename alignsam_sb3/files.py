"""Writing files so that an interruption leaves none half-written."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def removed_on_error(part: Path) -> Iterator[None]:
    """Remove a partial file if what happens inside fails or is interrupted."""
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    part = path.with_suffix(".json.part")
    with removed_on_error(part):
        part.write_text(json.dumps(content, indent=2))
        part.replace(path)
