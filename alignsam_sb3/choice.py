"""Choice: whose mask is handed out, the agent's last one or a better one, chosen on labelled images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignsam_sb3.names import nearest

LAST = "last"
ANSWERS = {
    LAST: "the agent's last mask",
    "best score": "the agent's mask with the reward network's best score",
    "best IoU": "the agent's mask with the best IoU that SAM predicts",
    "steadiest": "the agent's mask that its click changed least",
    "CLIP points": "SAM's mask from CLIP's points",
    "map as mask prompt": "SAM's mask from the recalibration module's map",
    "map alone": "the recalibration module's map",
}
"""Names of what can be handed out, in words for people."""
LEAST_IMAGES = 20
"""With fewer labelled images to choose on, the agent's last mask stays."""
DOUBT = 0.025
"""Probability with which something no better than the last mask may be taken, as a bootstrap sees it. In simulated ties it was
taken in 4 to 6 % of cases, and more often where a rare large loss makes up for many small gains: few images do not show it."""
DRAWS = 4000

Dices = Sequence[tuple[str, float]]
"""For each mask the name of its image, and its Dice."""


@dataclass(frozen=True)
class Choice:
    """Whose mask is handed out. Plain values, kept as JSON with a calibration.

    :param answer: a name in :data:`ANSWERS`
    :param dices: mean Dice of each that was compared; empty where nothing was
    :param images: on how many images it was chosen
    :raises ValueError: there is no such name
    """

    answer: str = LAST
    dices: Mapping[str, float] = field(default_factory=dict)
    images: int = 0

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise ValueError(nearest("answer", self.answer, ANSWERS))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Choice":
        """Of JSON's values."""
        return cls(str(values["answer"]), {str(k): float(v) for k, v in values["dices"].items()}, int(values["images"]))

    def __str__(self) -> str:
        if not self.dices:
            return f"Handed out is {ANSWERS[self.answer]}"
        few = f": with fewer than {LEAST_IMAGES} images nothing else is chosen" if self.images < LEAST_IMAGES else ""
        kept = " (nothing else is surely better)" if self.answer == LAST and not few else ""
        rows = [
            f"  {dice:.3f}  {name}{'   <- handed out' + kept + few if name == self.answer else ''}"
            for name, dice in sorted(self.dices.items(), key=lambda item: -item[1])
        ]
        return "\n".join([f"Mean Dice on {self.images} labelled images, of what they show:", *rows])


def choose(compared: Mapping[str, Dices]) -> Choice:
    """Take what has the highest mean Dice of all that is surely better than the agent's last mask.

    Surely means: a paired bootstrap over the images leaves at most :data:`DOUBT` for it not to be so, shared by all that is
    compared.

    :param compared: Dice of each answer on the same masks, in the same order; only of what the images show
    """
    images = np.unique([image for image, _ in compared[LAST]], return_inverse=True)[1]
    count = int(images.max(initial=-1)) + 1
    sums = {name: np.bincount(images, [d for _, d in dices], count).astype(float) for name, dices in compared.items()}
    sizes = np.bincount(images, minlength=count).astype(float)
    means = {name: float(total.sum() / max(sizes.sum(), 1)) for name, total in sums.items()}
    others = [name for name in compared if name != LAST]
    if count < LEAST_IMAGES or not others:
        return Choice(LAST, means, count)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS)  # how often each image
    gains = {name: drawn @ (sums[name] - sums[LAST]) / (drawn @ sizes) for name in others}
    better = [name for name in others if np.quantile(gains[name], DOUBT / len(others)) > 0]
    return Choice(max(better, key=lambda name: means[name], default=LAST), means, count)
