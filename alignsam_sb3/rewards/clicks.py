"""Rewards of clicks, as small pure functions of a batch, chosen by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.names import nearest

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class RewardContext:
    """What a reward may look at after one action in each of K episodes.

    :param clicked: (K,) whether the action was a click, rather than ``remove`` or ``done``
    :param labels: (K,) 1 for a positive click, 0 for a negative one
    :param on_object: (K,) whether the click lies on the object
    :param known: (K,) whether the annotation says what lies under the click
    :param nearest: (K,) distance to the nearest earlier click of the same label, in pixels of the image; infinite without one
    :param patch_size: (K,) side of a click cell in pixels of the image
    :param dice_before: (K,) Dice of the mask before the action, 0 before the first click
    :param dice_after: (K,) Dice of the mask after it
    :param score_before: (K,) what a reward network says of the mask before the action, 0 before the first click
    :param score_after: (K,) what it says of the mask after it
    """

    clicked: Flags
    labels: NDArray[np.int64]
    on_object: Flags
    known: Flags
    nearest: Numbers
    patch_size: Numbers
    dice_before: Numbers
    dice_after: Numbers
    score_before: Numbers
    score_after: Numbers


Reward = Callable[[RewardContext], Numbers]
"""(K,) rewards. One that looks at no truth says so with :func:`no_ground_truth`."""
AnyReward = TypeVar("AnyReward", bound=Reward)


def no_ground_truth(reward: AnyReward) -> AnyReward:
    """Mark a reward that looks at no truth: it may be used where there is none.

    >>> @no_ground_truth
    ... def sparing(context: RewardContext) -> Numbers:
    ...     return context.score_after - context.score_before - 0.01 * context.clicked
    >>> uses_ground_truth(sparing)
    False
    """
    reward.uses_ground_truth = False  # type: ignore[attr-defined]
    return reward


def uses_ground_truth(reward: Reward) -> bool:
    """Whether a reward looks at the truth, as all do that do not say otherwise."""
    return bool(getattr(reward, "uses_ground_truth", True))


def paper(context: RewardContext) -> Numbers:
    """+1 where the position is foreground, else -1 (AlignSAM, section 3.2); 0 for ``remove``, ``done`` and ignored pixels."""
    return np.where(context.clicked & context.known, np.where(context.on_object, 1.0, -1.0), 0.0)


def shaped(
    context: RewardContext, wrong_on_object: float = -1.0, wrong_on_ground: float = -0.33, bonus: float = 0.5
) -> Numbers:
    """Correctness times distance to the nearest earlier click of the same label, and a bonus for negatives that trim a leak.

    The weight is ``1 - exp(-d / 2P)`` for a distance of d pixels and patches of P pixels, and 1 without an earlier click.
    A negative click earns the bonus where it raises a Dice of over 0.5 by over 0.01.
    """
    positive = context.labels == 1
    on_object, on_ground = np.where(positive, 1.0, wrong_on_object), np.where(positive, wrong_on_ground, 0.0)
    value = np.where(context.on_object, on_object, on_ground) * (1 - np.exp(-context.nearest / (2 * context.patch_size)))
    trims = ~positive & (context.dice_after > 0.5) & (context.dice_after - context.dice_before > 0.01)
    return np.where(context.clicked & context.known, value + bonus * trims, 0.0)


def dice_gain(context: RewardContext) -> Numbers:
    """Change of Dice: over an episode the rewards add up to the final Dice."""
    return context.dice_after - context.dice_before


@no_ground_truth
def network(context: RewardContext) -> Numbers:
    """Change of a reward network's score: over an episode the rewards add up to the final score. Looks at no truth."""
    return context.score_after - context.score_before


REWARDS: dict[str, Reward] = {"paper": paper, "shaped": shaped, "dice_gain": dice_gain, "network": network}
"""Rewards by name. Put one of yours here, and a saved policy remembers it by that name."""


def make_reward(reward: str | Reward) -> Reward:
    """A reward by name, or a function as it is.

    :raises ValueError: there is no such reward
    """
    if callable(reward):
        return reward
    if reward not in REWARDS:
        raise ValueError(nearest("reward", reward, REWARDS) + "; or give a function of a RewardContext")
    return REWARDS[reward]
