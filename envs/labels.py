"""Who says whether a click is positive, and the pair of clicks that an episode may begin with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from alignsam_sb3.envs.grid import ClickGrid
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click
from alignsam_sb3.names import nearest

LABELS = ("agent", "srm", "positive", "oracle-train-only")


def held_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task's settings for evaluation: on the evaluation split, and no click labelled by the truth."""
    out = {**settings, "split": "eval"}
    if out.get("labels") == "oracle-train-only":
        out["labels"] = "srm" if out.get("srm") else "positive"
    return out


class Labels:
    """One of the ways to label a click; all but ``"agent"`` leave the agent one action for each cell.

    :param kind: one of ``LABELS``
    :param split: all but ``"train"`` refuse labels from the truth
    :raises ValueError: there is no such way, or it looks at the truth in evaluation
    """

    def __init__(self, kind: str, split: str) -> None:
        if kind not in LABELS:
            raise ValueError(nearest("labels", kind, LABELS))
        if kind == "oracle-train-only" and split != "train":
            raise ValueError(
                "labels='oracle-train-only' looks at the truth, which evaluation must not: evaluate with labels='positive', "
                "or with labels='srm' where the policy has a recalibration module (srm=True)"
            )
        self.kind = kind

    def restrict(
        self, mask: NDArray[np.int8], foreground: NDArray[np.float32], grid: ClickGrid, size: tuple[int, int]
    ) -> NDArray[np.int8]:
        """An action mask (n_actions,) without the clicks whose label is another.

        :param foreground: (h, w) in [0, 1] over the frame
        """
        if self.kind == "agent":
            return mask
        positive = np.ones(grid.n_cells, bool)
        if self.kind == "srm":
            positive = grid.in_frame(foreground, size) >= 0.5
        rest = np.ones(grid.n_actions - 2 * grid.n_cells, bool)
        return mask * np.concatenate([positive, ~positive, rest]).astype(np.int8)

    def of(self, click: Click, truth: NDArray[np.bool_]) -> Click:
        """The click with its label."""
        if self.kind != "oracle-train-only":
            return click
        (x, y), _ = click
        return (x, y), int(truth[y, x])


def initial_pair(
    truth: NDArray[np.bool_] | None,
    foreground: NDArray[np.float32],
    size: tuple[int, int],
    rng: np.random.Generator,
    valid: NDArray[np.bool_] | None = None,
) -> list[Click]:
    """A positive and a negative click (AlignSAM, section 4.1).

    :param truth: (H, W) to draw them from in training; without it they are the map's extremes
    :param foreground: (h, w) in [0, 1] over the frame
    :param valid: (H, W) False where the annotation says nothing: the truth's pair is not drawn there
    :return: both, or none where the truth covers all or nothing
    """
    if truth is None:
        cell = max(size) / len(foreground)
        centres = ((np.arange(len(foreground)) + 0.5) * cell).astype(int)
        in_y, in_x = (np.union1d(0, np.flatnonzero(centres < side)) for side in size)  # of a thin image at least one cell
        shown = np.full(foreground.shape, np.nan)
        shown[np.ix_(in_y, in_x)] = foreground[np.ix_(in_y, in_x)]
        extremes = [divmod(int(find(shown)), len(foreground)) for find in (np.nanargmax, np.nanargmin)]
        places = [(min(int(centres[c]), size[1] - 1), min(int(centres[r]), size[0] - 1)) for r, c in extremes]
        return [(place, label) for place, label in zip(places, (1, 0), strict=True)]
    sides = [np.flatnonzero(part if valid is None else part & valid) for part in (truth, ~truth)]
    if not all(map(len, sides)):
        return []
    drawn = [divmod(int(rng.choice(side)), truth.shape[1]) for side in sides]
    return [((x, y), label) for (y, x), label in zip(drawn, (1, 0), strict=True)]
