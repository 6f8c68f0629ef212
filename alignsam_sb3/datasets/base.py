"""What every data set gives: images with instance masks, and the episodes that can be drawn from them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

ANY_CATEGORY = -1


@dataclass(frozen=True)
class Sample:
    """One image and its annotated objects.

    :param image_id: name of the image, unique within its data set
    :param image: (H, W, 3) uint8 RGB
    :param masks: (K, H, W) bool, one instance each
    :param category_ids: (K,) int, index into the data set's ``categories``
    :param valid: (H, W) bool, False where the annotation says nothing ("ignore", "void"): such a pixel counts neither as
        foreground nor as background, in no reward and no metric. None: valid everywhere
    :param left_out: (H, W) bool for each category, True on objects that are no targets: too small, too many, crowds, marked
        as ignored. :data:`ANY_CATEGORY` is for things that may be of any category. See :meth:`valid_for`
    """

    image_id: str
    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    category_ids: NDArray[np.int64]
    valid: NDArray[np.bool_] | None = None
    left_out: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"image {self.image_id!r}: expected uint8 RGB (H, W, 3), got {self.image.dtype} {self.image.shape}"
            )
        if self.masks.shape[1:] != self.image.shape[:2]:
            raise ValueError(
                f"image {self.image_id!r} is {self.image.shape[1]}x{self.image.shape[0]} but its masks are "
                f"{self.masks.shape[-1]}x{self.masks.shape[-2]} (width x height): resize or repair the annotation"
            )

    @property
    def labelled(self) -> bool:
        """Whether the annotation says anything of any pixel."""
        return self.valid is None or bool(self.valid.any())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def valid_for(self, category_id: int, max_instances: int | None = None) -> NDArray[np.bool_] | None:
        """Where a prediction of a category is judged, (H, W) bool; None: everywhere.

        Not where the annotation says nothing, and not on objects of this category that are left out: they are no targets, and
        who finds them makes no mistake. A left-out cat is background for "dog".

        :param max_instances: as for :meth:`target`: objects beyond it are left out too
        """
        left_out = [self.left_out[key] for key in (category_id, ANY_CATEGORY) if key in self.left_out]
        target = self.target(category_id, max_instances)
        beyond = self.target(category_id) & ~target
        left_out += [beyond] if beyond.any() else []
        if not left_out:
            return self.valid
        judged: NDArray[np.bool_] = ~np.any(left_out, axis=0) | target
        return judged if self.valid is None else judged & self.valid

    def target(self, category_id: int, max_instances: int | None = None) -> NDArray[np.bool_]:
        """Union of the category's instances, (H, W) bool; the largest ``max_instances`` where that is given."""
        mine = self.masks[self.category_ids == category_id]
        if max_instances is not None and len(mine) > max_instances:
            mine = mine[np.argsort(-mine.sum((1, 2)), kind="stable")[:max_instances]]
        union: NDArray[np.bool_] = mine.any(0) if len(mine) else np.zeros(self.size, bool)
        return union


@runtime_checkable
class SegmentationDataset(Protocol):
    """Images with instance masks of named categories.

    One object serves every environment of a process: it holds no random state and draws with the caller's generator.
    """

    @property
    def categories(self) -> tuple[str, ...]:
        """Category names; a target is an index into them."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever an image or its position changes; keys the FeatureBank."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one image with its instances."""

    @property
    def images_by_category(self) -> tuple[NDArray[np.int64], ...]:
        """For each category the indices of the images that show it; at least one category is shown."""


def indices_by_category(shown: Sequence[Collection[object]], categories: Sequence[object]) -> tuple[NDArray[np.int64], ...]:
    """For each category the indices of the images that show it.

    :param shown: what each image shows
    """
    return tuple(np.array([i for i, s in enumerate(shown) if c in s], np.int64) for c in categories)


def draw_absent(images_by_category: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> tuple[int, int]:
    """Draw a target and an image that is not known to show it; whether it does not show it, its annotation says.

    :param images_by_category: for each category the indices of the images that show it
    :return: (image index, category id)
    :raises ValueError: every image shows every category
    """
    every = np.unique(np.concatenate(images_by_category))
    others = {c: np.setdiff1d(every, images) for c, images in enumerate(images_by_category) if len(images)}
    lacking = [c for c, images in others.items() if len(images)]
    if not lacking:
        raise ValueError(
            f"{len(others)} of {len(images_by_category)} categories are shown, and by every image: absent > 0 needs images "
            "that lack one. Take a data set with several categories"
        )
    category_id = lacking[rng.integers(len(lacking))]
    candidates = others[category_id]
    return int(candidates[rng.integers(len(candidates))]), category_id


def draw_episode(images_by_category: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> tuple[int, int]:
    """Draw an image and a target, every category that is shown being equally likely.

    :param images_by_category: for each category the indices of the images that show it
    :return: (image index, category id)
    """
    shown = [c for c, images in enumerate(images_by_category) if len(images)]
    category_id = shown[rng.integers(len(shown))]
    candidates = images_by_category[category_id]
    return int(candidates[rng.integers(len(candidates))]), category_id
