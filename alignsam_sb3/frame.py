"""Image <-> the segmenter's frame <-> a grid of cells, both ways: the only place that knows of padding and squashing."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch as th
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from alignsam_sb3.arrays import on_device

Size = tuple[int, int]
"""Height and width in pixels."""
PADDING = -1.0
"""What a map holds where there is no image."""


@dataclass(frozen=True)
class Frame:
    """A square that holds an image as a frozen model sees it.

    SAM scales the long side to ``side`` and keeps the aspect ratio; the rest, right and below, is padding. SAM 2, SAM 3 and
    CLIP squash the image to the whole square. Everything that a model says lies in its frame.

    :param side: of the square, in pixels
    :param squash: fill the square, whatever the aspect ratio
    """

    side: int
    squash: bool = False

    def extent(self, size: Size, side: int | None = None) -> Size:
        """Height and width that an image takes up in the frame, at least 1.

        :param size: (height, width) of the image in pixels
        :param side: count in a frame of this many cells instead of pixels
        :raises ValueError: the image has no pixels
        """
        height, width = size
        if height < 1 or width < 1:
            raise ValueError(f"an image of {width}x{height} pixels has nothing to segment")
        side = side or self.side
        if self.squash:
            return side, side
        scale = side / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def scales(self, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pixels of the frame per pixel of each image: (B, 2) as (x, y), of sizes (B, 2) as (height, width)."""
        extents = np.array([self.extent((int(h), int(w))) for h, w in sizes], np.float64).reshape(-1, 2)
        return (extents / sizes)[:, ::-1]

    def to_frame(self, coords: th.Tensor, sizes: NDArray[np.int64]) -> th.Tensor:
        """Points (B, N, 2) as (x, y) in pixels of their images to pixels of the frame, float32."""
        scale = on_device(self.scales(sizes), coords.device)
        return (coords.double() * scale[:, None]).float()

    def reaches(self, size: Size) -> tuple[float, float]:
        """Height and width of the frame in pixels of an image: how far its cells reach, padding included."""
        return (float(size[0]), float(size[1])) if self.squash else (float(max(size)),) * 2

    def picture(self, image: NDArray[np.uint8], side: int | None = None) -> NDArray[np.uint8]:
        """An image (H, W, 3) in the frame, padding black: (side, side, 3)."""
        side = side or self.side
        height, width = self.extent((image.shape[0], image.shape[1]), side)
        canvas = np.zeros((side, side, 3), np.uint8)
        canvas[:height, :width] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return canvas

    def cells(self, values: NDArray[Any], side: int) -> NDArray[np.uint8]:
        """A mask or probability (H, W) in [0, 1] at (side, side) cells of the frame, averaged, times 255; padding 0."""
        height, width = self.extent((values.shape[0], values.shape[1]), side)
        canvas = np.zeros((side, side), np.uint8)
        small = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        canvas[:height, :width] = (small * 255).round().astype(np.uint8)
        return canvas

    def inside(self, sizes: NDArray[np.int64], side: int) -> NDArray[np.bool_]:
        """(B, side, side) True in the image, False in its padding, for images of sizes (B, 2)."""
        inside = np.zeros((len(sizes), side, side), bool)
        for k, (h, w) in enumerate(sizes):
            height, width = self.extent((int(h), int(w)), side)
            inside[k, :height, :width] = True
        return inside

    def restore(self, values: th.Tensor, size: Size) -> th.Tensor:
        """Maps (..., m, m) of the frame in the image: enlarged to the frame, padding cut off, resized; (..., H, W).

        Bilinear, in the steps of ``segment_anything.Sam.postprocess_masks``. A squashed frame takes one step, as
        transformers' processors do.
        """
        flat = values.reshape(-1, 1, *values.shape[-2:])
        if not self.squash:
            flat = F.interpolate(flat, (self.side, self.side), mode="bilinear", align_corners=False)
            height, width = self.extent(size)
            flat = flat[..., :height, :width]
        if tuple(flat.shape[-2:]) != tuple(size):
            flat = F.interpolate(flat, size, mode="bilinear", align_corners=False)
        return flat.reshape(*values.shape[:-2], *size)

    def from_squashed(self, maps: NDArray[np.float32], size: Size, grid: Size) -> NDArray[np.float32]:
        """Maps (N, g_h, g_w) over a squashed image, as CLIP sees it, at cells of this frame.

        :param size: (height, width) of the image in pixels
        :param grid: (h, w) cells of the frame, those of the embedding
        :return: (N, h, w); ``PADDING`` in cells whose centre lies off the image
        """
        height, width = self.extent(size)
        y = (th.arange(grid[0]) + 0.5) * self.side / grid[0] / height  # in fractions of the image
        x = (th.arange(grid[1]) + 0.5) * self.side / grid[1] / width
        places = th.stack(th.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=-1)[None].float()
        source = th.as_tensor(maps, dtype=th.float32)[None]
        sampled = F.grid_sample(source, places, mode="bilinear", padding_mode="border", align_corners=False)[0].numpy()
        off = ((y >= 1)[:, None] | (x >= 1)[None, :]).numpy()
        sampled[:, off] = PADDING
        framed: NDArray[np.float32] = sampled
        return framed


@dataclass(frozen=True)
class CellGrid:
    """``patches`` x ``patches`` cells over a frame, as places to click on images of any size.

    Cells lie over the frame, not over the image: a cell is then at the same place of the embedding whatever the aspect
    ratio. Cells in the padding cannot be clicked.

    :param frame: of the segmenter
    :param patches: cells along each axis
    """

    frame: Frame
    patches: int

    def __post_init__(self) -> None:
        if self.patches < 2:
            raise ValueError(f"patches must be at least 2, got {self.patches}")

    @property
    def n_cells(self) -> int:
        return self.patches**2

    def sides(self, size: Size) -> tuple[float, float]:
        """Height and width of a cell in pixels of an image of (height, width)."""
        height, width = self.frame.reaches(size)
        return height / self.patches, width / self.patches

    def _centres(self, extent: int, side: float) -> NDArray[np.int64]:
        """Along one axis, the middle pixel of the part of each cell that lies within the image, at most ``extent - 1``."""
        first = np.arange(self.patches) * side
        middle = np.minimum((first + np.minimum(first + side, extent)) / 2, extent - 1)
        return np.asarray(middle, np.int64)

    @lru_cache(maxsize=1024)  # noqa: B019 (a grid is a small frozen value)
    def centres(self, size: Size) -> NDArray[np.int64]:
        """(n_cells, 2) the pixel (x, y) of an image at which each cell is clicked."""
        height, width = self.sides(size)
        rows, columns = self._centres(size[0], height), self._centres(size[1], width)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        centres = np.stack([x.ravel(), y.ravel()], axis=1)
        centres.setflags(write=False)
        return centres

    @lru_cache(maxsize=1024)  # noqa: B019
    def on_image(self, size: Size) -> NDArray[np.bool_]:
        """(n_cells,) True for the cells that can be clicked: their centre is a pixel of the image that no other cell has."""
        axes = [
            (self._centres(extent, side) / side).astype(np.int64) == np.arange(self.patches)
            for extent, side in zip(size, self.sides(size), strict=True)
        ]
        clickable: NDArray[np.bool_] = (axes[0][:, None] & axes[1][None, :]).ravel()
        clickable.setflags(write=False)
        return clickable

    def cell_at(self, point: tuple[float, float], size: Size) -> int:
        """The cell that holds a point (x, y) in pixels of an image.

        :raises ValueError: the point is outside the image
        """
        x, y = point
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            raise ValueError(f"point ({x}, {y}) lies outside the image of {size[1]}x{size[0]} pixels (width x height)")
        height, width = self.sides(size)
        last = self.patches - 1
        return min(int(y / height), last) * self.patches + min(int(x / width), last)

    def sample(self, values: NDArray[np.floating[Any]], size: Size) -> NDArray[np.floating[Any]]:
        """What a map (h, w) of the frame holds where each cell is clicked: (n_cells,)."""
        height, width = self.frame.reaches(size)
        x, y = (self.centres(size) + 0.5).T
        rows = np.minimum((y * values.shape[0] / height).astype(np.int64), values.shape[0] - 1)
        columns = np.minimum((x * values.shape[1] / width).astype(np.int64), values.shape[1] - 1)
        held: NDArray[np.floating[Any]] = values[rows, columns]
        return held
