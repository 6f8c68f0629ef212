"""The contract of a frozen, promptable segmenter, and the types that cross it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.frame import Frame, Size

Features = Mapping[str, th.Tensor]
"""What a segmenter says of B images, by name, each (B, ...). ``embeddings`` (B, C, h, w) is the one that observations show."""

TOKENS_AT_ONCE = 8192
"""Cells of embeddings that a CPU decodes in one call: two images of a full-size SAM, 32 of the embedded one."""
IMAGES_AT_ONCE = 512
"""Images that a GPU decodes in one call."""
TOKENS_ENCODED = {"cpu": 4096, "cuda": 32768}
"""Cells of embeddings that are encoded in one call: one image of a full-size SAM on a CPU. Its attention takes gigabytes."""


@dataclass(frozen=True)
class Prompts:
    """Clicks, boxes and earlier masks on B different images. Each image has at least a click or a box.

    :param point_coords: (B, T, 2) float, (x, y) in pixels of the original image; columns past an image's count are not read
    :param point_labels: (B, T) int, 1 foreground and 0 background
    :param counts: (B,) int, the number of points of each image
    :param sizes: (B, 2) int, (height, width) of each original image in pixels
    :param mask_inputs: (B, m, m) logits of an earlier answer, as it was given; read where ``fed``
    :param fed: (B,) bool, the images whose mask input is given
    :param boxes: (B, 4) float, (x0, y0, x1, y1) in pixels of the original image, NaN for an image without a box
    """

    point_coords: th.Tensor
    point_labels: th.Tensor
    counts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    mask_inputs: th.Tensor | None = None
    fed: NDArray[np.bool_] | None = None
    boxes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n, t = self.point_labels.shape
        others = {"counts": self.counts, "sizes": self.sizes, "mask_inputs": self.mask_inputs, "boxes": self.boxes}
        wrong = {name: len(value) for name, value in others.items() if value is not None and len(value) != n}
        if self.point_coords.shape != (n, t, 2) or self.sizes.shape[1:] != (2,) or wrong:
            raise ValueError(
                f"expected point_coords (B, T, 2), point_labels (B, T) and sizes (B, 2) of the same B images, got "
                f"{tuple(self.point_coords.shape)}, {tuple(self.point_labels.shape)}, {self.sizes.shape}"
                + "".join(f" and {count} {name}" for name, count in wrong.items())
            )
        if n and int(self.counts.max()) > t:
            raise ValueError(f"an image has {int(self.counts.max())} points, and point_coords has room for {t}")
        empty = np.flatnonzero((self.counts < 1) & ~self.boxed)
        if len(empty):
            raise ValueError(f"image {empty[0]} of the batch has neither a point nor a box: expected at least one of them")

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def boxed(self) -> NDArray[np.bool_]:
        """(B,) which images have a box."""
        return np.zeros(len(self.counts), bool) if self.boxes is None else np.asarray(np.isfinite(self.boxes).all(1))

    @classmethod
    def of(
        cls,
        point_coords: Sequence[NDArray[Any] | Sequence[tuple[float, float]]],
        point_labels: Sequence[NDArray[Any] | Sequence[int]],
        sizes: Sequence[Size],
        mask_inputs: Sequence[th.Tensor | None] | None = None,
        boxes: Sequence[Sequence[float] | None] | None = None,
    ) -> "Prompts":
        """Prompts of lists with one entry per image, whose number of points may differ.

        :param point_coords: for each image (N_i, 2), (x, y) in pixels of it
        :param point_labels: for each image (N_i,)
        :param sizes: for each image (height, width)
        :param mask_inputs: for each image logits (m, m), or None
        :param boxes: for each image (x0, y0, x1, y1), or None
        :raises ValueError: lists of different lengths, or an image without a prompt
        """
        n = len(point_coords)
        lists = {"point_labels": point_labels, "sizes": sizes, "mask_inputs": mask_inputs, "boxes": boxes}
        for name, given in lists.items():
            if given is not None and len(given) != n:
                raise ValueError(f"point_coords of {n} images came with {len(given)} {name}: one for each image is needed")
        for i, (coords, labels) in enumerate(zip(point_coords, point_labels, strict=True)):
            if np.shape(coords) != (len(labels), 2) and len(labels) + len(coords):
                raise ValueError(
                    f"image {i} of the batch: expected point_coords (N, 2) and point_labels (N,), "
                    f"got {np.shape(coords)} and {np.shape(labels)}"
                )
        counts = np.array([len(labels) for labels in point_labels], np.int64)
        room = max(int(counts.max(initial=0)), 1)
        xy, said = np.zeros((n, room, 2), np.float32), np.zeros((n, room), np.int64)
        for i, count in enumerate(counts):
            if count:
                xy[i, :count], said[i, :count] = point_coords[i], point_labels[i]
        masks, fed = _stacked(mask_inputs)
        rows = None if boxes is None else np.array([(np.nan,) * 4 if b is None else b for b in boxes], np.float32)
        return cls(th.from_numpy(xy), th.from_numpy(said), counts, np.array(sizes, np.int64).reshape(n, 2), masks, fed, rows)

    def groups(self, at_once: int) -> Iterator[NDArray[np.int64]]:
        """Rows that can be decoded together: as many points, mask input or not, box or not; at most ``at_once``.

        A padding token takes part in the decoder's attention and changes the masks, so prompts are never padded.
        """
        fed = np.zeros(len(self), bool) if self.fed is None else self.fed
        key = self.counts * 4 + fed * 2 + self.boxed
        for value in np.unique(key):
            rows = np.flatnonzero(key == value)
            for start in range(0, len(rows), at_once):
                yield rows[start : start + at_once]


def pooled(maps: th.Tensor, side: int) -> th.Tensor:
    """Maps (B, m, m) at a side that divides m, averaged: (B, side, side)."""
    times = maps.shape[-1] // side
    return maps if times == 1 else th.nn.functional.avg_pool2d(maps[:, None], times)[:, 0]


def _stacked(masks: Sequence[th.Tensor | None] | None) -> tuple[th.Tensor | None, NDArray[np.bool_] | None]:
    given = [] if masks is None else [mask for mask in masks if mask is not None]
    if masks is None or not given:
        return None, None
    nothing = th.zeros_like(given[0])
    return th.stack([nothing if m is None else m for m in masks]), np.array([m is not None for m in masks])


@dataclass(frozen=True)
class MaskPrediction:
    """Candidate masks for B images.

    :param logits: (B, M, m, m) logits in the segmenter's frame; above 0 is foreground
    :param iou: (B, M) the segmenter's own estimate of each candidate's IoU
    """

    logits: th.Tensor
    iou: th.Tensor

    def best(self) -> tuple[th.Tensor, th.Tensor]:
        """The candidate with the highest predicted IoU: logits (B, m, m) and iou (B,)."""
        pick = self.iou.argmax(1)
        rows = th.arange(len(pick), device=pick.device)
        return self.logits[rows, pick], self.iou[rows, pick]


class PromptableSegmenter(ABC):
    """A frozen model that encodes an image once and answers batches of prompts on different images.

    A subclass gives :meth:`encode_group` and :meth:`decode_group`; making groups that fit into memory, and bringing prompts to
    the frame, is done here.
    """

    name: str
    device: th.device

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with the architecture, a weight or the preprocessing; keys the FeatureBank."""

    @property
    def learned_boxes(self) -> bool:
        """Whether boxes were among the prompts that the model was trained on."""
        return True

    @property
    @abstractmethod
    def frame(self) -> Frame:
        """Where images lie in what the model says."""

    @property
    @abstractmethod
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each array that :meth:`encode` gives, for one image; ``embeddings`` (C, h, w) is among them."""

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one embedding."""
        channels, height, width = self.feature_shapes["embeddings"]
        return channels, height, width

    @property
    def mask_side(self) -> int:
        """m, the side of the logits that :meth:`decode` gives and takes: SAM's are four times as fine as its embedding."""
        return 4 * self.embedding_shape[1]

    @property
    def at_once(self) -> int:
        """How many images :meth:`decode` answers in one call of the model: what is fastest on its device."""
        if self.device.type != "cpu":
            return IMAGES_AT_ONCE
        return max(TOKENS_AT_ONCE // int(np.prod(self.embedding_shape[1:])), 1)

    @abstractmethod
    def encode_group(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, th.Tensor]:
        """What the model says of so many images that they fit into memory at once; see :meth:`encode`."""

    @th.no_grad()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, th.Tensor]:
        """What the model says of RGB images (H_i, W_i, 3) uint8 of any sizes and number, each (B, ...) float32."""
        cells = int(np.prod(self.embedding_shape[1:]))
        size = max(TOKENS_ENCODED.get(self.device.type, TOKENS_ENCODED["cuda"]) // cells, 1)
        groups = [self.encode_group(images[start : start + size]) for start in range(0, len(images), size)]
        if len(groups) == 1:
            return groups[0]
        return {name: th.cat([group[name] for group in groups]) for name in self.feature_shapes}

    @abstractmethod
    def decode_group(
        self,
        features: dict[str, th.Tensor],
        point_coords: th.Tensor | None,
        point_labels: th.Tensor | None,
        boxes: th.Tensor | None,
        mask_inputs: th.Tensor | None,
        multimask_output: bool,
    ) -> MaskPrediction:
        """Answer prompts of one kind on B different images.

        :param features: of these images, on the device, float32
        :param point_coords: (B, T, 2) in pixels of the frame
        :param point_labels: (B, T)
        :param boxes: (B, 2, 2) two corners (x, y) in pixels of the frame
        :param mask_inputs: (B, m, m)
        """

    @th.no_grad()
    def decode(self, features: Features, prompts: Prompts, multimask_output: bool = True) -> MaskPrediction:
        """Answer the prompts of B different images.

        Images are grouped by their number of points, and decoded as many at once as is fastest on the device.

        :param features: as :meth:`encode` gave them, of any float type, on any device
        :param multimask_output: three candidates for each image rather than one
        :return: logits (B, M, m, m) and predicted IoU (B, M), on the model's device
        :raises ValueError: the features are of another segmenter or of other images
        """
        self._check(features, len(prompts))
        parts: list[MaskPrediction] = []
        groups = list(prompts.groups(self.at_once))
        for rows in groups:
            everything = len(rows) == len(prompts)  # no copy

            def take(x: th.Tensor, rows: NDArray[np.int64] = rows, everything: bool = everything) -> th.Tensor:
                return on_device(x if everything else x[on_device(rows, x.device)], self.device)

            count, first = int(prompts.counts[rows[0]]), rows[0]
            sizes = prompts.sizes[rows]
            coords = self.frame.to_frame(take(prompts.point_coords[:, :count]), sizes) if count else None
            corners = None
            if prompts.boxes is not None and prompts.boxed[first]:
                corners = self.frame.to_frame(on_device(prompts.boxes[rows], self.device).reshape(-1, 2, 2), sizes)
            fed = prompts.mask_inputs is not None and (prompts.fed is None or bool(prompts.fed[first]))
            masks = take(prompts.mask_inputs).float() if fed and prompts.mask_inputs is not None else None
            labels = take(prompts.point_labels[:, :count]) if count else None
            mine = {name: take(x).float() for name, x in features.items()}
            parts.append(self.decode_group(mine, coords, labels, corners, masks, multimask_output))
        return _in_order(parts, groups)

    def _check(self, features: Features, count: int) -> None:
        for name, shape in self.feature_shapes.items():
            found = tuple(features[name].shape) if name in features else None
            if found != (count, *shape):
                raise ValueError(
                    f"expected {name} ({count}, {', '.join(map(str, shape))}) for {count} prompts to {self.name!r}, "
                    f"got {found}: were the images encoded by another segmenter?"
                )

    def postprocess(self, logits: th.Tensor, size: Size) -> th.Tensor:
        """Bring logits (..., m, m) of images of one size to (..., H, W)."""
        return self.frame.restore(logits, size)


def _in_order(parts: list[MaskPrediction], groups: list[NDArray[np.int64]]) -> MaskPrediction:
    """The answers to groups of rows in the order of the rows."""
    if len(parts) == 1:
        return parts[0]
    logits, iou = th.cat([p.logits for p in parts]), th.cat([p.iou for p in parts])
    back = on_device(np.argsort(np.concatenate(groups)), logits.device)
    return MaskPrediction(logits[back], iou[back])
