"""Observation spaces that pickle small."""

from typing import Any

import numpy as np
from gymnasium import spaces


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
