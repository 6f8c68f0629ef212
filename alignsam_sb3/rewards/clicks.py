"""Rewards of one click, as small pure objects chosen by name."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.names import nearest


@dataclass(frozen=True)
class Turn:
    """What a reward may look at after one action.

    :param truth: (H, W) bool
    :param click: (x, y) in pixels of the image and its label, None for ``remove`` and ``done``
    :param earlier: the clicks before it
    :param dice_before: Dice of the mask before the action (0 before the first click)
    :param dice_after: Dice of the mask after it
    :param patch_size: side of a click cell, in pixels of the image
    :param valid: (H, W) bool, False where the annotation says nothing; None: valid everywhere
    :param score_before: what a reward network says of the mask before the action (0 before the first click)
    :param score_after: what it says of the mask after it
    """

    truth: NDArray[np.bool_]
    click: tuple[tuple[float, float], int] | None
    earlier: Sequence[tuple[tuple[float, float], int]]
    dice_before: float
    dice_after: float
    patch_size: float
    valid: NDArray[np.bool_] | None = None
    score_before: float = 0.0
    score_after: float = 0.0

    @property
    def on_foreground(self) -> bool:
        """Whether the click lies on the object."""
        if self.click is None:
            return False
        (x, y), _ = self.click
        return bool(self.truth[int(y), int(x)])

    @property
    def judged(self) -> bool:
        """Whether there is a click, and the annotation says what lies under it."""
        if self.click is None:
            return False
        (x, y), _ = self.click
        return self.valid is None or bool(self.valid[int(y), int(x)])


Reward = Callable[[Turn], float]


def paper(turn: Turn) -> float:
    """+1 where the position is foreground, else -1 (AlignSAM, section 3.2); 0 for ``remove``, ``done`` and ignored pixels."""
    if not turn.judged:
        return 0.0
    return 1.0 if turn.on_foreground else -1.0


def shaped(turn: Turn, wrong_on_object: float = -1.0, wrong_on_ground: float = -0.33, bonus: float = 0.5) -> float:
    """Correctness times distance to the nearest earlier click of the same label, and a bonus for negatives that trim a leak.

    The weight is ``1 - exp(-d / 2P)`` for a distance of d pixels and patches of P pixels, and 1 without an earlier click.
    A negative click earns the bonus where it raises a Dice of over 0.5 by over 0.01.
    """
    if turn.click is None or not turn.judged:
        return 0.0
    (x, y), label = turn.click
    on_object, on_ground = (1.0, wrong_on_ground) if label else (wrong_on_object, 0.0)
    value = on_object if turn.on_foreground else on_ground
    near = min((math.dist((x, y), place) for place, other in turn.earlier if other == label), default=math.inf)
    value *= 1 - math.exp(-near / (2 * turn.patch_size))
    trims = label == 0 and turn.dice_after > 0.5 and turn.dice_after - turn.dice_before > 0.01
    return value + bonus * trims


def dice_gain(turn: Turn) -> float:
    """Change of Dice: over an episode the rewards add up to the final Dice."""
    return turn.dice_after - turn.dice_before


def network(turn: Turn) -> float:
    """Change of a reward network's score: over an episode the rewards add up to the final score. Looks at no truth."""
    return turn.score_after - turn.score_before


REWARDS: dict[str, Reward] = {"paper": paper, "shaped": shaped, "dice_gain": dice_gain, "network": network}


def make_reward(name: str) -> Reward:
    """Look a reward up by name.

    :raises ValueError: there is no such reward
    """
    if name not in REWARDS:
        raise ValueError(nearest("reward", name, REWARDS))
    return REWARDS[name]
