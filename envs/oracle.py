"""What the greedy oracle would do on the click grid; it looks at the truth, for warm starts in training."""

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.clickers import centre_click, error_depths, oracle_click
from alignsam_sb3.frame import CellGrid, Size

PREFERENCE_SHARPNESS = 2  # 4 and 12 imitate worse: a click beside the best one is nearly as good
Mask = NDArray[np.bool_]


def oracle_action(
    truth: Mask, mask: Mask | None, allowed: NDArray[np.int8], grid: CellGrid, size: Size, labels: str = "agent"
) -> int:
    """The allowed action nearest to the greedy oracle's click.

    :param truth: (g, g) over the frame
    :param mask: (g, g) the current mask where it is judged, None before the first click
    :param allowed: (n_actions,) the action mask
    :param size: (height, width) of the image in pixels
    :param labels: who labels the clicks; where the truth does, a position alone is chosen
    """
    (x, y), label = centre_click(truth) if mask is None else oracle_click(truth, mask)
    offered = np.flatnonzero(allowed[: 2 * grid.n_cells])
    mine = offered[(offered < grid.n_cells) == (bool(label) or labels == "oracle-train-only")]
    candidates = mine if len(mine) else offered
    height, width = grid.frame.reaches(size)
    wanted = np.array([(x + 0.5) * width, (y + 0.5) * height]) / len(truth)
    places = grid.centres(size)[candidates % grid.n_cells] + 0.5
    return int(candidates[np.square(places - wanted).sum(1).argmin()])


def oracle_preference(
    truth: Mask, mask: Mask | None, allowed: NDArray[np.int8], grid: CellGrid, size: Size, labels: str = "agent"
) -> NDArray[np.float32]:
    """How the oracle rates each action, (n_actions,) adding up to 1.

    A click is rated by how deep the cell's centre lies in an error. For a positive click that is what the mask misses, for a
    negative one what it wrongly covers. Where no cell's centre lies in an error, :func:`oracle_action` gets all.
    """
    ratings = np.zeros(len(allowed), np.float32)
    positive, negative = (grid.sample(depth, size) for depth in error_depths(truth, mask))
    if labels == "oracle-train-only":  # the positive action stands for both
        positive = np.maximum(positive, negative)
    ratings[: 2 * grid.n_cells] = np.concatenate([positive, negative])
    ratings *= allowed
    if ratings.max() < 1:
        ratings[oracle_action(truth, mask, allowed, grid, size, labels)] = 1
    sharp = (ratings / ratings.max()) ** PREFERENCE_SHARPNESS
    return np.asarray(sharp / sharp.sum(), np.float32)
