"""What the fits of the embedded models share: their scenes, schedule and checkpoint."""

import math
import multiprocessing as mp
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch as th
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.files import removed_on_error

Drawn = TypeVar("Drawn")


def draw_pool(draw: Callable[[tuple[int, int, int]], Drawn], seed: int, count: int, size: int) -> list[Drawn]:
    """Draw the training scenes once, ``draw((seed, index, size))`` for each index, on all cores."""
    with mp.get_context("spawn").Pool(mp.cpu_count()) as pool:
        jobs = [(seed, i, size) for i in range(count)]
        return list(tqdm(pool.imap(draw, jobs, chunksize=32), total=count, desc="drawing scenes"))


def augment(
    rng: np.random.Generator, image: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Turn, mirror and permute colour channels."""
    turns = int(rng.integers(4))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image[..., rng.permutation(3)]), np.ascontiguousarray(labels)


def cosine_schedule(optimizer: th.optim.Optimizer, steps: int, warmup: int) -> th.optim.lr_scheduler.LambdaLR:
    """A linear warm-up (at most a tenth of the steps), then half a cosine down to zero."""
    rising = min(warmup, steps // 10 + 1)
    return th.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / rising, 0.5 + 0.5 * math.cos(math.pi * min(s / steps, 1.0)))
    )


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically."""
    part = path.with_suffix(".part")
    with removed_on_error(part):
        th.save(state, part)
        part.replace(path)
