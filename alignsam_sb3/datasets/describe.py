"""What a data set holds, as text and as a contact sheet."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, SegmentationDataset
from alignsam_sb3.datasets.images import UnreadableImageError
from alignsam_sb3.frame import Frame
from alignsam_sb3.pictures import PALETTE, Picture, caption, overlay, stack

READ = 300  # images that are read for sizes and areas, spread over the data set
COLUMNS, ROWS, TILE = 5, 4, 224


@dataclass
class Description:
    """What was found.

    :param images: how many the data set has
    :param counts: images that show each category
    :param read: how many of them were read
    :param objects: among those read, objects of each category
    :param areas: their areas as fractions of the image
    :param sizes: (height, width) of the images read
    :param ignored: mean share of pixels that count neither way
    :param unreadable: images that could not be read, with the reason
    :param skipped: reasons for which images or objects were left out, and how often
    """

    images: int
    counts: dict[str, int]
    read: int
    objects: Counter[str] = field(default_factory=Counter)
    areas: dict[str, list[float]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    ignored: float = 0.0
    unreadable: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.images} images, {self.read} of them read"]
        if self.sizes:
            sides = np.array(self.sizes)
            low, middle, high = (np.sort(sides[:, 1] * sides[:, 0])[i] for i in (0, len(sides) // 2, -1))
            lines.append(
                f"sizes (width x height): {sides[:, 1].min()}x{sides[:, 0].min()} to {sides[:, 1].max()}x{sides[:, 0].max()}, "
                f"{low / 1e6:.2f} to {high / 1e6:.2f} megapixels, median {middle / 1e6:.2f}"
            )
        lines.append(f"ignored pixels: {self.ignored:.1%}")
        width = max(map(len, self.counts), default=8) + 2
        lines.append(f"{'category':<{width}}{'images':>8}{'objects read':>14}{'median area':>13}")
        never = [name for name, count in self.counts.items() if not count]
        for name, count in self.counts.items():
            if not count:
                continue
            area = f"{np.median(self.areas[name]):.1%}" if self.areas.get(name) else "-"
            lines.append(f"{name:<{width}}{count:>8}{self.objects[name]:>14}{area:>13}")
        lines += (
            [f"never shown: {len(never)} categories ({', '.join(never[:8])}{', ...' if never[8:] else ''})"] if never else []
        )
        lines += [f"skipped: {count} x {reason}" for reason, count in self.skipped.items()]
        lines += [f"unreadable: {said}" for said in self.unreadable]
        return "\n".join(lines)


def _skipped(dataset: SegmentationDataset) -> dict[str, int]:
    """What a data set says that it left out: reasons with counts, or with names."""
    found: Mapping[str, int | Sequence[str]] = getattr(dataset, "skipped", {})
    return {reason: what if isinstance(what, int) else len(what) for reason, what in found.items()}


def _spread(count: int, most: int) -> list[int]:
    """At most so many indices, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, most)).round()})


def describe(dataset: SegmentationDataset, most: int = READ) -> Description:
    """Count what a data set holds; sizes and areas over at most ``most`` images. Unreadable images are listed, not raised."""
    counts = {name: len(images) for name, images in zip(dataset.categories, dataset.images_by_category, strict=True)}
    chosen = _spread(len(dataset), most)
    found = Description(len(dataset), counts, 0, skipped=_skipped(dataset))
    ignored = []
    for i in tqdm(chosen, desc="reading images", disable=len(chosen) < 50, leave=False):
        try:
            sample = dataset[i]
        except UnreadableImageError as error:
            found.unreadable.append(str(error))
            continue
        found.read += 1
        found.sizes.append(sample.size)
        ignored.append(0.0 if sample.valid is None else float((~sample.valid).mean()))
        for mask, category in zip(sample.masks, sample.category_ids, strict=True):
            name = dataset.categories[category]
            found.objects[name] += 1
            found.areas.setdefault(name, []).append(float(mask.mean()))
    found.ignored = float(np.mean(ignored)) if ignored else 0.0
    return found


def contact_sheet(dataset: SegmentationDataset, columns: int = COLUMNS, rows: int = ROWS) -> Picture:
    """Photographs with their masks laid over, a colour for each category, ignored pixels grey: (H, W, 3) uint8."""
    tiles: list[Picture] = []
    for i in _spread(len(dataset), columns * rows):
        try:
            tiles.append(_tile(dataset, dataset[i]))
        except UnreadableImageError:
            continue
    if not tiles:
        raise UnreadableImageError("none of the images could be read")
    return stack([np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)])


def _tile(dataset: SegmentationDataset, sample: Sample) -> Picture:
    picture = sample.image
    for category in np.unique(sample.category_ids):
        picture = overlay(picture, sample.target(int(category)), PALETTE[int(category) % len(PALETTE)])
    if sample.valid is not None:
        picture = overlay(picture, ~sample.valid, (128, 128, 128))
    names = ", ".join(dataset.categories[c] for c in np.unique(sample.category_ids))
    return caption(Frame(TILE).picture(picture), names)
