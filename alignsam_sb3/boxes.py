"""Boxes to start a session with: from where CLIP sees a text, or from the truth, moved a little, for training."""

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the image: the first and the last column and row that belong to it."""

JITTER = 0.1
"""Standard deviation of a corner's shift in side lengths, as SAM was trained (arXiv 2304.02643, appendix A)."""
LONGEST_SHIFT = 20 / 1024
"""The largest shift, in long sides of the image: 20 pixels where SAM was trained."""
LIKELY = 0.6
"""How likely a place must be to belong to a map's box: the best of 0.3 to 0.8 on training scenes of the five toy tasks."""


def box_around(mask: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds a mask (H, W); None where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def truth_box(truth: NDArray[np.bool_], rng: np.random.Generator | None = None, jitter: float = JITTER) -> Box | None:
    """The box around the truth, its corners moved as a person's hand would; None where there is nothing to mark.

    It looks at the truth: for training, and in evaluation for rows that say so.

    :param truth: (H, W)
    :param rng: None leaves the corners where they are
    :param jitter: standard deviation of each coordinate's shift, in lengths of the box's side along that axis
    :return: within the image, at least one pixel wide and high
    """
    box = box_around(truth)
    if box is None or rng is None:
        return box
    height, width = truth.shape
    x0, y0, x1, y1 = box
    sides = np.array([x1 - x0 + 1, y1 - y0 + 1, x1 - x0 + 1, y1 - y0 + 1])
    most = LONGEST_SHIFT * max(height, width)
    moved = np.array(box) + np.clip(rng.normal(0, jitter * sides), -most, most)
    return _ordered(moved, height, width)


def _ordered(corners: NDArray[np.float64], height: int, width: int) -> Box:
    """Corners within the image, the upper left one first."""
    x0, x1 = sorted(np.clip(corners[[0, 2]], 0, width - 1).tolist())
    y0, y1 = sorted(np.clip(corners[[1, 3]], 0, height - 1).tolist())
    return x0, y0, x1, y1


def map_box(similarity: NDArray[np.floating], size: tuple[int, int], threshold: float = LIKELY) -> Box:
    """The box around the most likely place of a map and all that is connected with it and nearly as likely.

    :param similarity: (g_h, g_w) over the whole image, as :class:`~alignsam_sb3.semantics.ClipSurgery` gives it
    :param size: (height, width) of the image in pixels
    :param threshold: how likely, between the map's least (0) and most likely place (1)
    :return: the whole image where all places are alike
    """
    height, width = size
    low, high = float(similarity.min()), float(similarity.max())
    likely = np.asarray(similarity >= low + threshold * (high - low))
    _, islands = cv2.connectedComponents(likely.astype(np.uint8), connectivity=8)
    row, column = np.unravel_index(int(similarity.argmax()), similarity.shape)
    x0, y0, x1, y1 = box_around(np.asarray(islands == islands[row, column])) or (0.0, 0.0, 0.0, 0.0)
    across, down = width / similarity.shape[1], height / similarity.shape[0]  # a cell covers that many pixels
    corners = np.array([x0 * across, y0 * down, (x1 + 1) * across - 1, (y1 + 1) * down - 1])
    return _ordered(corners, height, width)
