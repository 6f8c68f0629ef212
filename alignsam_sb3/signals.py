"""What may tell, without the truth, whether a mask is right: what language sees within it, and what it sees elsewhere."""

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.frame import PADDING

Floats = NDArray[np.floating]


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
