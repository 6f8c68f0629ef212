"""Write how large the objects of the standard toy scenes are: ``python scripts/assets/index_toy.py`` (some minutes).

Run it again whenever a scene is drawn differently; a test compares the table with scenes.
"""

import multiprocessing as mp

import numpy as np
from tqdm import tqdm

from alignsam_sb3.datasets.toy.areas import ASSET, SEED, SIZE
from alignsam_sb3.datasets.toy.scenes import SCENE_VERSION, SCENES, TASKS, ToyScenes


def objects_of(job: tuple[str, str, int]) -> list[tuple[int, int, int]]:
    """(scene, category, area in pixels) of each object that can be a target."""
    task, split, index = job
    scenes = ToyScenes(task, split, index + 1, SEED, SIZE, min_area=0.0)
    areas = np.bincount(scenes.scene(index).labels.ravel(), minlength=256)
    return [(index, category, int(areas[k])) for k, category in scenes.targets(index) if areas[k]]


def main() -> None:
    """Command line."""
    tables = {}
    with mp.get_context("spawn").Pool(mp.cpu_count()) as pool:
        for task in TASKS:
            for split, count in SCENES.items():
                jobs = [(task, split, index) for index in range(count)]
                found = list(tqdm(pool.imap(objects_of, jobs, chunksize=64), total=count, desc=f"{task} {split}"))
                tables[f"{task}-{split}"] = np.array([row for rows in found for row in rows], np.uint16).T
    np.savez_compressed(ASSET, version=np.array(SCENE_VERSION), **tables)
    print(f"wrote {ASSET}: {ASSET.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
