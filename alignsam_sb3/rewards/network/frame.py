"""Masks and language as the reward network sees them: some cells of the segmenter's frame."""

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.frame import PADDING, Frame, Size


def photo_in_frame(image: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """A photo (H, W, 3) as (3, side, side) in the frame."""
    return np.ascontiguousarray(frame.picture(image).transpose(2, 0, 1))


def resized(prob: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """A probability in the frame at another resolution, times 255."""
    how = cv2.INTER_AREA if prob.shape[0] > side else cv2.INTER_LINEAR
    grown = prob if prob.shape[0] == side else cv2.resize(prob, (side, side), interpolation=how)
    return np.asarray((grown * 255).round(), np.uint8)


def spoken_in_frame(found: Mapping[str, NDArray[np.float32]], category: int, size: Size, frame: Frame) -> NDArray[np.float32]:
    """What a language prior says of one category, (4, side / 4, side / 4): see ``SPOKEN`` in ``model.py``.

    :param found: ``similarity_maps`` and ``cosine_maps`` (N, g_h, g_w) over the squashed image, as a bank holds them
    :param size: (height, width) of the image in pixels
    """
    channels = []
    for name in ("similarity_maps", "cosine_maps"):
        framed = frame.from_squashed(found[name], size, (frame.side // 4, frame.side // 4))
        others = np.delete(framed, category, axis=0)
        channels += [framed[category], others.max(0) if len(others) else np.full_like(framed[0], PADDING)]
    return np.stack(channels)
