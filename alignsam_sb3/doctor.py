"""What is installed on this machine, as the text that a report of a fault should begin with."""

import os
import platform
import shutil
from importlib import metadata
from importlib.util import find_spec

from alignsam_sb3.files import cache_folder
from alignsam_sb3.version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "stable_baselines3",
    "sb3_contrib",
    "gymnasium",
    "segment_anything",
    "open_clip_torch",
    "timm",
)
EXTRAS = {
    "zoo": "rl_zoo3",
    "app": "gradio",
    "cvat": "cvat_sdk",
    "label_studio": "label_studio_sdk",
    "ray": "ray",
    "hub": "huggingface_hub",
    "onnx": "onnxruntime",
    "mlflow": "mlflow",
}
ROOM = 5e9
"""Bytes that a bank of some thousand images of a full-size SAM takes."""


def report() -> str:
    """Versions, devices, extras and the cache, one a line; what stands in the way begins with ``!``."""
    lines = [f"alignsam_sb3 {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines += [_package(name) for name in PACKAGES]
    lines += [_device(), *_extras(), *_cache()]
    return "\n".join(lines)


def _package(name: str) -> str:
    try:
        return f"  {name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"! {name} is missing: pip install --force-reinstall alignsam_sb3"


def _device() -> str:
    import torch as th

    if th.cuda.is_available():
        free, total = th.cuda.mem_get_info()
        return f"  device: {th.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    return f"  device: CPU, {os.cpu_count()} cores, {th.get_num_threads()} threads of torch"


def _extras() -> list[str]:
    return [
        f"  extra {extra}: {'there' if find_spec(module) else f'''not installed (pip install 'alignsam_sb3[{extra}]')'''}"
        for extra, module in EXTRAS.items()
    ]


def _cache() -> list[str]:
    folder = cache_folder()
    exists = next(path for path in (folder, *folder.parents) if path.exists())
    lines = [f"  cache: {folder}" + ("" if folder == exists else " (not yet made)")]
    if not os.access(exists, os.W_OK):
        lines.append(f"! {exists} cannot be written: point ALIGNSAM_CACHE to a folder that can")
    free = shutil.disk_usage(exists).free
    lines.append(f"{'!' if free < ROOM else ' '} {free / 1e9:.1f} GB free there")
    return lines
