"""How far the greedy oracle's first click is from the best one: ``python scripts/studies/best_click.py glass blur``.

Clicks every cell of unseen toy scenes once, as positive, and compares the masks. It looks at the truth.
"""

import argparse
from collections.abc import Sequence

import numpy as np
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from numpy.typing import NDArray

from alignsam_sb3.arguments import positive_int
from alignsam_sb3.task import Task


def dice_of_cells(venv: SamSegVecEnv, row: int, category: int) -> tuple[NDArray[np.float64], int]:
    """Dice (n_cells,) of a positive click in each cell, and the oracle's cell."""
    cells = venv.num_envs
    venv.set_options([{"image_index": row, "category_id": category}] * cells)
    venv.reset()
    preferred = venv.batch.oracle_action(0)
    venv.step(np.arange(cells))
    return venv.batch.dice.copy(), preferred


def compare(name: str, scenes: int, patches: int) -> tuple[float, float]:
    """Mean Dice over the targets of some scenes: of the oracle's first click, and of the best cell."""
    task = Task.from_kwargs(
        dataset=f"toy:{name}", dataset_kwargs={"n_images": scenes}, clip=None, patches=patches, max_steps=2, split="eval"
    )
    venv = SamSegVecEnv.of(task, patches**2)
    found = []
    for category, rows in enumerate(venv.batch.shared.images_by_category):
        for row in rows:
            dice, preferred = dice_of_cells(venv, int(row), category)
            found.append((dice[preferred], dice.max()))
    oracle, best = np.mean(found, axis=0)
    return float(oracle), float(best)


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["semantic", "shadow", "blur", "glass", "saliency"], metavar="TASK")
    parser.add_argument("--scenes", type=positive_int, default=40)
    parser.add_argument("--patches", type=positive_int, default=16, help="cells along each axis")
    args = parser.parse_args(words)
    print("| task | the oracle's first click | the best cell |\n|---|---|---|")
    for name in args.tasks:
        print("| {} | {:.3f} | {:.3f} |".format(name, *compare(name, args.scenes, args.patches)), flush=True)


if __name__ == "__main__":
    main()
