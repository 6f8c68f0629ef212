"""Episodes of a report: which image and target each is, and how a batch begins them group by group."""

from collections.abc import Iterator, Sequence

import numpy as np

from alignsam_sb3.envs.batch import ClickBatch

Pair = tuple[int, int]
"""Image index and category id."""


def begun(batch: ClickBatch, episodes: Sequence[Pair]) -> Iterator[range]:
    """Begin episodes, as many at a time as the batch has; each time which of them. The last one fills the batch."""
    for start in range(0, len(episodes), batch.n):
        group = list(episodes[start : start + batch.n])
        batch.reset(np.arange(batch.n), group + group[-1:] * (batch.n - len(group)))
        yield range(start, start + len(group))
