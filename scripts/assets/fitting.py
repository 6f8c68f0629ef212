"""What the fits of the embedded models share: their scenes."""

import multiprocessing as mp
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

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
