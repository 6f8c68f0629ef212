"""The grid of clickable cells, and what an action means on an image of a given size."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click


@dataclass(frozen=True)
class ClickGrid:
    """``patches`` x ``patches`` square cells over the segmenter's frame, each clickable as positive or negative.

    Cells lie over the frame (image plus padding), not over the image: a cell is then at the same place of the embedding
    whatever the aspect ratio, and cells in the padding are masked. Actions are numbered positive cells first, row by row,
    then negative cells, then ``remove`` and ``done`` where they are offered.

    :param patches: cells along each axis
    :param remove: offer an action that takes the last click back
    :param done: offer an action that ends the episode
    """

    patches: int
    remove: bool = False
    done: bool = False

    def __post_init__(self) -> None:
        if self.patches < 2:
            raise ValueError(f"patches must be at least 2, got {self.patches}")

    @property
    def n_cells(self) -> int:
        return self.patches**2

    @property
    def n_actions(self) -> int:
        return 2 * self.n_cells + self.remove + self.done

    def kind(self, action: int) -> str:
        """``"click"``, ``"remove"`` or ``"done"``."""
        if not 0 <= action < self.n_actions:
            raise ValueError(f"action {action} of {self.n_actions}")
        if action < 2 * self.n_cells:
            return "click"
        return "remove" if self.remove and action == 2 * self.n_cells else "done"

    def patch_size(self, size: tuple[int, int]) -> float:
        """Side of a cell in pixels of an image of (height, width)."""
        return max(size) / self.patches

    def _centres(self, extent: int, size: tuple[int, int]) -> list[int]:
        """Along one axis, the middle pixel of the part of each cell that lies within the image, at most ``extent - 1``."""
        side = self.patch_size(size)
        return [min(int((k * side + min((k + 1) * side, extent)) / 2), extent - 1) for k in range(self.patches)]

    def at_centres(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a map over the image (H, W) holds where each cell would be clicked: (n_cells,)."""
        size = (values.shape[0], values.shape[1])
        rows, columns = (self._centres(extent, size) for extent in size)
        return values[np.ix_(rows, columns)].ravel()

    def in_frame(self, values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """What a map over the frame (h, h) holds where each cell would be clicked: (n_cells,)."""
        side = len(values)
        rows, columns = (
            np.minimum((np.array(self._centres(extent, size)) + 0.5) * side / max(size), side - 1).astype(int)
            for extent in size
        )
        held: NDArray[np.float32] = values[np.ix_(rows, columns)].ravel()
        return held

    def click(self, action: int, size: tuple[int, int]) -> Click:
        """The click that an action stands for: the centre of the cell's part within the image, ((x, y), label)."""
        row, column = divmod(action % self.n_cells, self.patches)
        return (self._centres(size[1], size)[column], self._centres(size[0], size)[row]), int(action < self.n_cells)

    def action(self, point: tuple[float, float], label: int, size: tuple[int, int]) -> int:
        """The action whose click is nearest to a point (x, y) in pixels of the image.

        :raises ValueError: the point is outside the image, or the label is neither 0 nor 1
        """
        x, y = point
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise ValueError(f"point ({x}, {y}) lies outside the image of {size[1]}x{size[0]} pixels (width x height)")
        if label not in (0, 1):
            raise ValueError(f"a click's label is 1 (foreground) or 0 (background), got {label!r}")
        side = self.patch_size(size)
        last = self.patches - 1
        cell = min(int(y / side), last) * self.patches + min(int(x / side), last)
        return cell if label else self.n_cells + cell

    @lru_cache(maxsize=256)  # noqa: B019 (a grid is a small frozen value)
    def cells_on(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(n_cells,) True for the cells that can be clicked: their centre is a pixel of the image that no other cell has."""
        side = self.patch_size(size)
        columns, rows = (
            np.array([int(centre / side) == k for k, centre in enumerate(self._centres(extent, size))])
            for extent in (size[1], size[0])
        )
        clickable: NDArray[np.bool_] = (rows[:, None] & columns[None, :]).ravel()
        clickable.setflags(write=False)
        return clickable

    def mask(self, size: tuple[int, int], used: set[int], clicked: bool) -> NDArray[np.int8]:
        """(n_actions,) 1 for the actions that make sense; at least one always does.

        :param used: cells that hold a click; neither label may be clicked there again
        :param clicked: whether there is a click to take back or to stop after
        """
        cells = self.cells_on(size)
        free = cells.copy()
        free[list(used)] = False
        if not free.any() and not (clicked and self.done):
            free = cells
        extra = [clicked] * (self.remove + self.done)
        return np.concatenate([free, free, np.array(extra, bool)]).astype(np.int8)
