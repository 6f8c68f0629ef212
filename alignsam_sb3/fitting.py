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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    :raises ValueError: it is damaged
    """
    try:
        found: dict[str, Any] = th.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever it meets
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and the fit begins again"
        ) from error
    return found
