"""Observation spaces, which pickle small."""

from typing import Any

import numpy as np
from gymnasium import spaces

from alignsam_sb3.frame import PADDING
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.task import Task


class CompactBox(spaces.Box):
    """A Box with one low and one high for all elements, pickled as those two numbers.

    A stock Box pickles its bounds as full arrays: 17 MB for a full-size SAM embedding, in every saved policy.
    """

    def __init__(
        self, low: float, high: float, shape: tuple[int, ...], dtype: type[np.floating[Any]] | type[np.integer[Any]]
    ) -> None:
        super().__init__(low, high, shape, dtype)
        self._arguments = (low, high, shape, dtype)

    def __reduce__(self) -> tuple[type["CompactBox"], tuple[Any, ...]]:
        return CompactBox, self._arguments


LARGEST_IMAGE = 256  # side of the ``image`` observation in pixels, at most


def picture_side(segmenter: PromptableSegmenter) -> int:
    """Side of the ``image`` observation in pixels."""
    return min(segmenter.frame.side, LARGEST_IMAGE)


def observation_space(segmenter: PromptableSegmenter, n_categories: int, task: Task, n_actions: int) -> spaces.Dict:
    """What an agent of ``SamSeg-v0`` sees."""
    channels, height, width = segmenter.embedding_shape
    side = picture_side(segmenter)
    described: dict[str, spaces.Space[Any]] = {
        "image": CompactBox(0, 255, (3, side, side), np.uint8),
        "target_category": spaces.Discrete(n_categories),
        "sam_image_embeddings": CompactBox(-np.inf, np.inf, (channels, height, width), np.float32),
        "sam_pred_mask_prob": CompactBox(0.0, 1.0, (4 * height, 4 * width), np.float32),
        "num_steps": CompactBox(0.0, float(task.max_steps), (1,), np.float32),
        "action_mask": spaces.MultiBinary(n_actions),
    }
    if task.wants_srm:
        described["foreground_map"] = CompactBox(0.0, 1.0, (height, width), np.float32)
    if task.clip is not None:
        for name in ("similarity_maps", "cosine_maps"):
            described[name] = CompactBox(PADDING, 1.0, (n_categories, height, width), np.float32)
    return spaces.Dict(described)
