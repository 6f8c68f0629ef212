"""What the fits of the embedded models share: their scenes, and drawing batches beside the model."""

import multiprocessing as mp
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

Drawn = TypeVar("Drawn")


def draw_pool(draw: Callable[[tuple[int, int, int]], Drawn], seed: int, count: int, size: int) -> list[Drawn]:
    """Draw the training scenes once, ``draw((seed, index, size))`` for each index, on all cores."""
    with mp.get_context("spawn").Pool(mp.cpu_count()) as pool:
        jobs = [(seed, i, size) for i in range(count)]
        return list(tqdm(pool.imap(draw, jobs, chunksize=32), total=count, desc="drawing scenes"))


def _ignore(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers


class _Steps(Dataset[Drawn]):
    """What is drawn for each step, as PyTorch's loader wants it."""

    def __init__(self, draw: Callable[[int], Drawn]) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Drawn:
        return self.draw(step)


def in_workers(draw: Callable[[int], Drawn], steps: Sequence[int]) -> Iterator[Drawn]:
    """``draw(step)`` for each step, in order, drawn ahead by processes on all cores but one."""
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    how = {"num_workers": workers, "multiprocessing_context": "fork", "worker_init_fn": _ignore}
    yield from DataLoader(_Steps(draw), batch_size=None, sampler=steps, **how)


def augment(
    rng: np.random.Generator, image: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Turn, mirror and permute colour channels."""
    turns = int(rng.integers(4))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image[..., rng.permutation(3)]), np.ascontiguousarray(labels)
