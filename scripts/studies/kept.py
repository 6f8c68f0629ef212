"""Results that a study keeps in files, so that a run that was stopped goes on where it stopped."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignsam_sb3.files import write_json


def kept(path: Path, identity: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` finds, and under ``identity`` what it was made with; what an earlier run has finished is read.

    :raises SystemExit: the file was made with other options
    """
    told = json.loads(json.dumps(identity))  # as it is read: tuples are lists
    if not path.is_file():
        found = {"identity": told, **make()}
        write_json(path, found)
        return found
    stored: dict[str, Any] = json.loads(path.read_text())
    if stored["identity"] != told:
        raise SystemExit(f"{path} was made with other options ({stored['identity']}): give another --out")
    return stored
