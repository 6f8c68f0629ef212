"""What the numbers of actions mean: cells of a click grid times two labels, and ``remove`` and ``done`` where offered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.frame import CellGrid, Size

CLICK, REMOVE, DONE = 0, 1, 2


@dataclass(frozen=True)
class ClickActions:
    """Positive clicks on the grid's cells first, row by row, then negative ones, then ``remove`` and ``done``.

    :param grid: the cells that can be clicked
    :param remove: offer an action that takes the last click back
    :param done: offer an action that ends the episode
    :param done_at_once: offer it before the first click, too: where the target may not be there at all
    """

    grid: CellGrid
    remove: bool = False
    done: bool = False
    done_at_once: bool = False

    @property
    def n(self) -> int:
        """Number of actions."""
        return 2 * self.grid.n_cells + self.remove + self.done

    def kinds(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) ``CLICK``, ``REMOVE`` or ``DONE`` for each action.

        :raises ValueError: there is no such action
        """
        wrong = actions[(actions < 0) | (actions >= self.n)]
        if len(wrong):
            raise ValueError(f"action {wrong[0]} of {self.n}: expected a number from 0 to {self.n - 1}")
        first = 2 * self.grid.n_cells
        extra = np.where((actions == first) & self.remove, REMOVE, DONE)
        return np.where(actions < first, CLICK, extra)

    def cells(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) the cells that clicks are made in."""
        return actions % self.grid.n_cells

    def labels(self, actions: NDArray[np.int64]) -> NDArray[np.int64]:
        """(K,) 1 for positive clicks, 0 for negative ones."""
        return (actions < self.grid.n_cells).astype(np.int64)

    def at(self, point: tuple[float, float], label: int, size: Size) -> int:
        """The action whose click is nearest to a point (x, y) in pixels of an image.

        :raises ValueError: the point is outside the image, or the label is neither 0 nor 1
        """
        if label not in (0, 1):
            raise ValueError(f"a click's label is 1 (foreground) or 0 (background), got {label!r}")
        cell = self.grid.cell_at(point, size)
        return cell if label else self.grid.n_cells + cell

    def mask(self, on_image: NDArray[np.bool_], used: NDArray[np.bool_], clicked: NDArray[np.bool_]) -> NDArray[np.int8]:
        """(N, n) 1 for the actions that make sense; in each of the N episodes at least one always does.

        :param on_image: (N, n_cells) the cells that can be clicked at all
        :param used: (N, n_cells) the cells that hold a click; neither label may be clicked there again
        :param clicked: (N,) whether there is a click to take back, or to stop after
        """
        free = on_image & ~used
        full = ~free.any(1) & ~(clicked & self.done)
        free[full] = on_image[full]
        extra = np.repeat(clicked[:, None], self.remove + self.done, axis=1)
        if self.done_at_once:
            extra[:, -1] = True
        return np.concatenate([free, free, extra], axis=1).astype(np.int8)
