"""What fits of our own small models share: schedule, checkpoint and an interruption that loses nothing."""

import math
from pathlib import Path
from typing import Any

import torch as th

from alignsam_sb3.files import removed_on_error


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
