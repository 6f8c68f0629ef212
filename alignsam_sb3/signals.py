"""What may tell, without the truth, whether a mask is right: how sure its segmenter is, and what language sees within it."""

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.frame import PADDING

Floats = NDArray[np.floating]


def mask_signals(logits: th.Tensor, before: th.Tensor, iou: th.Tensor | None) -> list[dict[str, float]]:
    """What a segmenter's answers tell of the quality of each of N masks.

    :param logits: (N, s, s) in the frame
    :param before: (N, s, s) of the mask before the last step, or of the map that was the mask prompt
    :param iou: (N,) that the segmenter predicts; None where no segmenter answered

    - ``iou_predicted``: that IoU
    - ``stability``: IoU of the masks at one logit above and below the threshold (segment_anything's own measure)
    - ``agreement``: IoU with the mask before
    - ``area``: share of the frame
    - ``certainty``: mean distance of the probability from one half, within the mask
    """
    mask = logits > 0
    inside = (logits.sigmoid() - 0.5) * mask
    values = {} if iou is None else {"iou_predicted": iou}
    values |= {
        "stability": _iou(logits > 1, logits > -1),
        "agreement": _iou(mask, before > 0),
        "area": mask.float().mean((1, 2)),
        "certainty": 2 * inside.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1),
    }
    columns = {name: value.tolist() for name, value in values.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _iou(one: th.Tensor, other: th.Tensor) -> th.Tensor:
    """(N,) of masks (N, h, w); 1 where both are empty."""
    both, either = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return th.where(either > 0, both / either.clamp(min=1), 1.0)


def language_signals(inside: NDArray[np.bool_], cosines: Floats, scores: Floats, category: int) -> dict[str, float]:
    """Whether the language prior agrees with a mask of a category.

    :param inside: (h, w) the mask at the cells of the map
    :param cosines: (N, h, w) how much each place suits each of N categories, -1 in the padding
    :param scores: (N,) whether each category is in the image at all
    :param category: whose mask it is
    :return: ``clip_score``; ``map_top``, the category's best place; ``map_inside`` and ``map_outside``, its mean inside and
        outside the mask. Each ``_margin`` says how much more that is than for the best other category, 0 without others
    """
    real = cosines[category] > PADDING
    within, without = real & inside, real & ~inside
    within = within if within.any() else real
    inner, best = cosines[:, within].mean(1), cosines[:, real].max(1)
    return {
        "clip_score": float(scores[category]),
        "clip_margin": _margin(scores, category),
        "map_inside": float(inner[category]),
        "map_inside_margin": _margin(inner, category),
        "map_outside": float(cosines[category, without].mean()) if without.any() else float(cosines[category, real].min()),
        "map_top": float(best[category]),
        "map_top_margin": _margin(best, category),
    }


def _margin(values: Floats, category: int) -> float:
    """How much a category has above the best other one."""
    others = np.delete(values, category)
    return float(values[category] - others.max()) if len(others) else 0.0
