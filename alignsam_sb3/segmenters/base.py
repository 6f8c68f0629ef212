"""The contract of a frozen, point-prompted segmenter, and the two types that cross it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch as th
from numpy.typing import NDArray


@dataclass(frozen=True)
class PointPrompts:
    """Clicks on B different images.

    :param point_coords: for each image (N_i, 2) float, (x, y) in pixels of the original image
    :param point_labels: for each image (N_i,) int, 1 foreground and 0 background
    :param original_sizes: for each image (height, width) in pixels
    :param mask_inputs: for each image the low-resolution logits (4h, 4w) of an earlier answer, or None
    """

    point_coords: Sequence[NDArray[np.float32]]
    point_labels: Sequence[NDArray[np.int64]]
    original_sizes: Sequence[tuple[int, int]]
    mask_inputs: Sequence[th.Tensor | None] | None = None

    def __post_init__(self) -> None:
        n = len(self.point_coords)
        masks = n if self.mask_inputs is None else len(self.mask_inputs)
        if not n == len(self.point_labels) == len(self.original_sizes) == masks:
            raise ValueError(
                f"prompts of {n} images came with {len(self.point_labels)} label lists, "
                f"{len(self.original_sizes)} sizes and {masks} mask inputs: one of each per image is needed"
            )
        for i, (coords, labels) in enumerate(zip(self.point_coords, self.point_labels, strict=True)):
            if np.shape(coords) != (len(labels), 2) or len(labels) == 0:
                raise ValueError(
                    f"image {i} of the batch: expected point_coords (N, 2) and point_labels (N,) with N >= 1, "
                    f"got {np.shape(coords)} and {np.shape(labels)}"
                )

    def __len__(self) -> int:
        return len(self.point_coords)


@dataclass(frozen=True)
class MaskPrediction:
    """Candidate masks for B images.

    :param logits: (B, M, 4h, 4w) low-resolution logits in the segmenter's frame; above 0 is foreground
    :param iou: (B, M) the segmenter's own estimate of each candidate's IoU
    """

    logits: th.Tensor
    iou: th.Tensor

    def best(self) -> tuple[th.Tensor, th.Tensor]:
        """The candidate with the highest predicted IoU: logits (B, 4h, 4w) and iou (B,)."""
        pick = self.iou.argmax(1)
        rows = th.arange(len(pick), device=pick.device)
        return self.logits[rows, pick], self.iou[rows, pick]


@runtime_checkable
class PromptableSegmenter(Protocol):
    """A frozen model that encodes an image once and answers batches of point prompts.

    The segmenter's *frame* is a square of ``img_size`` pixels that holds the image in its top left corner, its long side
    scaled to ``img_size`` and its aspect ratio kept. Embeddings and low-resolution logits live in that frame.
    """

    @property
    def fingerprint(self) -> str:
        """Changes with the architecture, a weight or the preprocessing; keys the FeatureBank."""

    @property
    def img_size(self) -> int:
        """Side of the frame in pixels."""

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one embedding; low-resolution logits are (4h, 4w)."""

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> th.Tensor:
        """Embed RGB images (H_i, W_i, 3) uint8 of any sizes: (B, C, h, w)."""

    def decode(self, embeddings: th.Tensor, prompts: PointPrompts, multimask_output: bool = True) -> MaskPrediction:
        """Answer prompts on B different images with embeddings (B, C, h, w)."""

    def postprocess(self, logits: th.Tensor, original_size: tuple[int, int]) -> th.Tensor:
        """Bring low-resolution logits (..., 4h, 4w) of images of one size to (..., H, W)."""


def frame_size(original_size: tuple[int, int], img_size: int) -> tuple[int, int]:
    """Height and width that an image occupies in the frame: long side ``img_size``, aspect ratio kept, at least 1 pixel."""
    height, width = original_size
    if height < 1 or width < 1:
        raise ValueError(f"an image of {width}x{height} pixels has nothing to segment")
    scale = img_size / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
