"""What is installed on this machine, as the text that a report of a fault should begin with."""

import os
import platform
import shutil
from importlib import metadata

from packaging.requirements import Requirement

from alignsam_sb3.files import cache_folder
from alignsam_sb3.version import __version__

PACKAGE = "alignsam_sb3"
OFFLINE = ("ALIGNSAM_OFFLINE", "HF_HUB_OFFLINE")
ROOM = 5e9
"""Bytes that a bank of some thousand images of a full-size SAM takes."""


def report() -> str:
    """Versions, device, extras, cache and downloads, one a line; what stands in the way begins with ``!``."""
    lines = [f"{PACKAGE} {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    return "\n".join([*lines, *_packages(), _device(), *_extras(), *_cache(), _downloads()])


def _requirements(extra: str = "") -> list[Requirement]:
    """What the package needs for an extra alone; without one, what it always needs."""
    stated = [Requirement(line) for line in metadata.requires(PACKAGE) or []]
    if not extra:
        return [entry for entry in stated if entry.marker is None]
    return [entry for entry in stated if entry.marker is not None and entry.marker.evaluate({"extra": extra})]


def _wrong(requirement: Requirement) -> str:
    """What is wrong with an installed package, or the empty text."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return "" if fits else f"{requirement.name} is {version}, not {requirement.specifier}"


def _packages() -> list[str]:
    try:
        needed = _requirements()
    except metadata.PackageNotFoundError:
        return [f"! {PACKAGE} is not installed, so what it needs is not known: pip install -e . (in the clone)"]
    found = [(entry, _wrong(entry)) for entry in needed]
    return [
        f"! {wrong}: pip install '{entry}'" if wrong else f"  {entry.name} {metadata.version(entry.name)}"
        for entry, wrong in found
    ]


def _extras() -> list[str]:
    try:
        extras = metadata.metadata(PACKAGE).get_all("Provides-Extra", [])
    except metadata.PackageNotFoundError:
        return []
    lines = []
    for extra in extras:
        wrong = [said for said in map(_wrong, _requirements(extra)) if said]
        said = f"{'; '.join(wrong)} (pip install '{PACKAGE}[{extra}]')" if wrong else "there"
        lines.append(f"  extra {extra}: {said}")
    return lines


def _device() -> str:
    import torch as th

    if th.cuda.is_available():
        free, total = th.cuda.mem_get_info()
        return f"  device: {th.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    return f"  device: CPU, {os.cpu_count()} cores, {th.get_num_threads()} threads of torch"


def _cache() -> list[str]:
    folder = cache_folder()
    exists = next(path for path in (folder, *folder.parents) if path.exists())
    lines = [f"  cache: {folder}" + ("" if folder == exists else " (not yet made)")]
    if not os.access(exists, os.W_OK):
        lines.append(f"! {exists} cannot be written: point ALIGNSAM_CACHE to a folder that can")
    free = shutil.disk_usage(exists).free
    lines.append(f"{'!' if free < ROOM else ' '} {free / 1e9:.1f} GB free there")
    return lines


def _downloads() -> str:
    forbidden = [name for name in OFFLINE if os.environ.get(name, "0") not in ("", "0")]
    return f"  downloads: forbidden by {' and '.join(forbidden)}" if forbidden else "  downloads: allowed"
