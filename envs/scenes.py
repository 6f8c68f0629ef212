"""What environments need of each image and target: read once, in the segmenter's frame."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.datasets import Sample
from alignsam_sb3.frame import CellGrid, Frame, Size

_SCENES = 4096  # images whose targets are kept on the grid


@dataclass(frozen=True)
class Target:
    """One category of one image.

    :param share: (g, g) uint8, the share of each cell that the target covers, of what is known, times 255
    :param known: (g, g) uint8, the share of each cell that lies in the image and is annotated, times 255
    :param on_object: (n_cells,) whether the click of each cell lies on the target
    :param judged: (n_cells,) whether the annotation says what lies there
    """

    share: NDArray[np.uint8]
    known: NDArray[np.uint8]
    on_object: NDArray[np.bool_]
    judged: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """An image's size, name and targets; ``labelled`` is False where there is no truth."""

    image_id: str
    size: Size
    labelled: bool
    targets: Mapping[int, Target]


class Scenes:
    """Images and their targets by row, the last ones kept.

    :param sample: reads an image with its annotation by row
    :param grid: the cells that are clicked
    :param side: g, cells along each axis of the grid on which masks are judged
    """

    def __init__(self, sample: Callable[[int], Sample], grid: CellGrid, side: int) -> None:
        self.sample, self.grid, self.side = sample, grid, side
        self.scene = lru_cache(maxsize=_SCENES)(self._scene)

    def _scene(self, index: int) -> Scene:
        sample = self.sample(index)
        shown = {int(c) for c in sample.category_ids}
        return Scene(sample.image_id, sample.size, sample.labelled, {c: self._target(sample, c) for c in shown})

    def target(self, index: int, category: int) -> Target:
        """One category of an image; empty where the image does not show it."""
        found = self.scene(index).targets.get(category)
        return self._target(self.sample(index), category) if found is None else found

    def _target(self, sample: Sample, category: int) -> Target:
        truth, valid = sample.target(category), sample.valid_for(category)
        known = np.ones(sample.size, bool) if valid is None else valid
        x, y = self.grid.centres(sample.size).T
        frame = self.grid.frame
        return Target(frame.cells(truth & known, self.side), frame.cells(known, self.side), (truth & known)[y, x], known[y, x])


def judging_side(mask_side: int) -> int:
    """Cells along each axis of the grid on which masks are judged in training: the logits' own, and at least 128.

    docs/speed.md says how well Dice there agrees with Dice in the image.
    """
    return max(mask_side, 128)


class Judge:
    """Dice and IoU of many masks at once, on a grid in the frame, on the segmenter's device.

    :param n: episodes
    :param side: cells along each axis
    """

    def __init__(self, n: int, side: int, frame: Frame, device: th.device) -> None:
        self.side, self.frame, self.device = side, frame, device
        self.share = th.zeros((n, side, side), dtype=th.uint8, device=device)
        self.known = th.zeros((n, side, side), dtype=th.uint8, device=device)

    def note(self, which: NDArray[np.int64], targets: list[Target]) -> None:
        """Take the truths of new episodes."""
        at = on_device(which, self.device)
        self.share[at] = on_device(np.stack([t.share for t in targets]), self.device)
        self.known[at] = on_device(np.stack([t.known for t in targets]), self.device)

    def masks(self, logits: th.Tensor) -> th.Tensor:
        """Masks (K, g, g) bool of logits (K, m, m)."""
        if logits.shape[-1] != self.side:
            size = (self.side, self.side)
            logits = th.nn.functional.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return logits > 0

    @th.no_grad()
    def dice_and_iou(self, which: NDArray[np.int64], logits: th.Tensor) -> NDArray[np.float64]:
        """(K, 2) of some episodes' masks (K, m, m); 1 where mask and truth are both empty."""
        at = on_device(which, self.device)
        truths = th.stack([self.share[at], self.known[at]], dim=1).flatten(2).float()  # (K, 2, g x g)
        mask = self.masks(logits).flatten(1).float()
        counted = th.cat([(truths @ mask[..., None])[..., 0], truths[:, :1].sum(2)], dim=1)
        hit, taken, wanted = counted.double().cpu().numpy().T / 255
        both = taken + wanted
        found = np.stack([2 * hit / np.maximum(both, 1e-9), hit / np.maximum(both - hit, 1e-9)], axis=1)
        return np.where(both[:, None] > 0, found, 1.0)

    def coarse(self, side: int) -> NDArray[np.float32]:
        """(N, 2, side, side) the share of each coarser cell that the target covers, and that is known."""
        both = th.stack([self.share, self.known], dim=1).float() / 255
        return th.nn.functional.adaptive_avg_pool2d(both, (side, side)).cpu().numpy()
