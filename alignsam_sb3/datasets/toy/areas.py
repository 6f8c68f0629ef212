"""How large the objects of the standard toy scenes are: known, so that 2,000 scenes need not be drawn to draw from one."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ASSET = Path(__file__).resolve().parents[2] / "assets" / "toy_areas.npz"
"""Scene, category and area in pixels of every object that can be a target, in order of the scenes, for each task and split.

Of seed 0 at 128 pixels. ``scripts/assets/index_toy.py`` wrote it."""
SEED, SIZE = 0, 128


@lru_cache(maxsize=1)
def _tables() -> dict[str, NDArray[np.uint16]]:
    with np.load(ASSET, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if name != "version"} if _current(stored) else {}


def _current(stored: np.lib.npyio.NpzFile) -> bool:
    from alignsam_sb3.datasets.toy.scenes import SCENE_VERSION

    return int(stored["version"]) == SCENE_VERSION


def known_categories(task: str, split: str, count: int, seed: int, size: int, min_area: float) -> list[set[int]] | None:
    """For each of the first scenes the categories that it shows; None where that is not known without drawing."""
    if (seed, size) != (SEED, SIZE) or not ASSET.is_file():
        return None
    table = _tables().get(f"{task}-{split}")
    if table is None:
        return None
    scenes, areas = table[0].astype(np.int64), table[2].astype(np.int64)
    if count > int(scenes[-1]) + 1:
        return None
    shown: list[set[int]] = [set() for _ in range(count)]
    for scene, category in zip(*table[:2, (areas / SIZE**2 >= min_area) & (scenes < count)].tolist(), strict=True):
        shown[scene].add(category)
    return shown
