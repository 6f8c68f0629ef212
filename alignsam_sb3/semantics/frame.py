"""From CLIP's squashed square to SAM's frame."""

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch.nn import functional as F

from alignsam_sb3.segmenters.base import frame_size

PADDING = -1.0
"""What a map holds where there is no image."""


def maps_in_frame(
    maps: NDArray[np.float32], original_size: tuple[int, int], img_size: int, grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Resample maps over a squashed image to the segmenter's frame, in which the aspect ratio is kept and the rest is padding.

    :param maps: (N, g_h, g_w) over the whole image, whatever its aspect ratio
    :param original_size: (H, W) of the image in pixels
    :param img_size: side of the frame in pixels
    :param grid: (h, w) cells of the frame to sample at, those of the embedding
    :return: (N, h, w); ``PADDING`` in cells whose centre lies off the image
    """
    height, width = frame_size(original_size, img_size)
    y = (th.arange(grid[0]) + 0.5) * img_size / grid[0] / height  # in fractions of the image
    x = (th.arange(grid[1]) + 0.5) * img_size / grid[1] / width
    places = th.stack(th.meshgrid(2 * y - 1, 2 * x - 1, indexing="ij")[::-1], dim=-1)[None].float()
    source = th.as_tensor(maps, dtype=th.float32)[None]
    sampled = F.grid_sample(source, places, mode="bilinear", padding_mode="border", align_corners=False)[0].numpy()
    off = ((y >= 1)[:, None] | (x >= 1)[None, :]).numpy()
    sampled[:, off] = PADDING
    framed: NDArray[np.float32] = sampled
    return framed
