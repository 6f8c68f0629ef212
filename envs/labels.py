"""Who says whether a click is positive, and the pair of clicks that an episode may begin with."""

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click
from alignsam_sb3.frame import CellGrid, Size


def restrict(
    mask: NDArray[np.int8], kind: str, foreground: NDArray[np.float32] | None, grid: CellGrid, sizes: NDArray[np.int64]
) -> NDArray[np.int8]:
    """Action masks (N, n_actions) without the clicks that have another label than the task gives them.

    :param kind: ``labels`` of the task
    :param foreground: (N, h, w) in [0, 1] over the frame, the recalibration module's map
    :param sizes: (N, 2) height and width of the images
    """
    if kind == "agent":
        return mask
    positive = np.ones((len(mask), grid.n_cells), bool)
    if kind == "srm" and foreground is not None:
        positive = np.stack([grid.sample(f, (int(h), int(w))) for f, (h, w) in zip(foreground, sizes, strict=True)]) >= 0.5
    rest = np.ones((len(mask), mask.shape[1] - 2 * grid.n_cells), bool)
    return mask * np.concatenate([positive, ~positive, rest], axis=1).astype(np.int8)


def pair_of_truth(truth: NDArray[np.bool_], valid: NDArray[np.bool_] | None, rng: np.random.Generator) -> list[Click]:
    """A random positive and a random negative click (AlignSAM, section 4.1); none where the truth covers all or nothing.

    :param truth: (H, W)
    :param valid: (H, W) False where the annotation says nothing: neither is drawn there
    """
    sides = [np.flatnonzero(part if valid is None else part & valid) for part in (truth, ~truth)]
    if not all(map(len, sides)):
        return []
    drawn = [divmod(int(rng.choice(side)), truth.shape[1]) for side in sides]
    return [((x, y), label) for (y, x), label in zip(drawn, (1, 0), strict=True)]


def pair_of_map(foreground: NDArray[np.float32], grid: CellGrid, size: Size) -> list[Click]:
    """A positive click where a map (h, w) of the frame is highest, and a negative one where it is lowest."""
    cells = CellGrid(grid.frame, len(foreground))
    shown = np.where(cells.on_image(size), foreground.ravel(), np.nan)
    places = [cells.centres(size)[find(shown)] for find in (np.nanargmax, np.nanargmin)]
    return [((int(x), int(y)), label) for (x, y), label in zip(places, (1, 0), strict=True)]
