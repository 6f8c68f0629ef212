"""What a data set holds, what was left out and how it was read, as text and as a contact sheet."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from alignsam_sb3.datasets.base import Sample, SegmentationDataset
from alignsam_sb3.datasets.image_files import UnreadableImageError
from alignsam_sb3.datasets.regions import alike
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.frame import Frame
from alignsam_sb3.pictures import PALETTE, Picture, caption, overlay, stack

READ = 300  # images that are read for sizes and areas, spread over the data set
COLUMNS, ROWS, TILE = 5, 4, 224
_SHOWN = 12  # categories, and reasons, that are printed: all fits on a screen
_FOR, _OTHER = {"train": "training", "eval": "evaluation"}, {"train": "eval", "eval": "train"}


@dataclass
class Description:
    """What was found.

    :param images: how many the data set has
    :param counts: images that show each category
    :param read: how many of them were read
    :param objects: among those read, objects of each category
    :param areas: their areas as fractions of the image
    :param sizes: (height, width) of the images read
    :param unsaid: mean share of pixels of which the annotation says nothing
    :param unjudged: mean share of pixels on objects that are left out
    :param skipped: what was left out, with reasons; images that could not be read among it
    :param rules: how files were read, and how many
    :param split: which of the images these are: ``"train"``, ``"eval"``, ``"all"`` or a split of the data set's own
    :param kept_apart: further images, for the other split, where folds divide the data set
    """

    images: int
    counts: dict[str, int]
    read: int
    objects: Counter[str] = field(default_factory=Counter)
    areas: dict[str, list[float]] = field(default_factory=dict)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    unsaid: float = 0.0
    unjudged: float = 0.0
    skipped: Skipped = field(default_factory=Skipped)
    rules: Counter[str] = field(default_factory=Counter)
    split: str = "all"
    kept_apart: int = 0

    def __str__(self) -> str:
        lines = [f"{self.images} images{self._purpose()}, {self.read} of them read", *self._others()]
        if self.sizes:
            sides = np.array(self.sizes)
            low, middle, high = (np.sort(sides[:, 1] * sides[:, 0])[i] for i in (0, len(sides) // 2, -1))
            lines.append(
                f"sizes (width x height): {sides[:, 1].min()}x{sides[:, 0].min()} to {sides[:, 1].max()}x{sides[:, 0].max()}, "
                f"{low / 1e6:.2f} to {high / 1e6:.2f} megapixels, median {middle / 1e6:.2f}"
            )
        lines.append(
            f"pixels that count neither as object nor as background: {self.unsaid:.1%} not annotated, "
            f"{self.unjudged:.1%} on objects left out"
        )
        return "\n".join([*lines, *self._table(), *self._left_out(), *self._how()])

    def _purpose(self) -> str:
        return "" if self.split == "all" else f" for {_FOR[self.split]}" if self.split in _FOR else f" of split {self.split!r}"

    def _others(self) -> list[str]:
        if not self.kept_apart:
            return []
        other = _OTHER[self.split]
        return [
            f"{self.kept_apart} more are kept for {_FOR[other]}, since images without splits are divided by folds: "
            f"--split {other} shows those, --split all shows everything"
        ]

    def _table(self) -> list[str]:
        shown = {name: count for name, count in self.counts.items() if count}
        most = dict(sorted(shown.items(), key=lambda item: -item[1])[:_SHOWN])
        width = max(map(len, most), default=8) + 2
        lines = [f"{'category':<{width}}{'images':>8}{'objects read':>14}{'median area':>13}"]
        for name, count in most.items():
            area = f"{np.median(self.areas[name]):.1%}" if self.areas.get(name) else "-"
            lines.append(f"{name:<{width}}{count:>8}{self.objects[name]:>14}{area:>13}")
        if len(shown) > len(most):
            lines.append(f"... and {len(shown) - len(most)} categories more")
        for same in alike(shown):
            said = ", ".join(f"{name!r} ({shown[name]} images)" for name in same)
            lines.append(f"ALIKE but for upper and lower case, and {len(same)} categories: {said}")
        never = [name for name, count in self.counts.items() if not count]
        if never:
            lines.append(f"never shown: {len(never)} categories ({', '.join(never[:8])}{', ...' if never[8:] else ''})")
        return lines

    def _left_out(self) -> list[str]:
        lines = self.skipped.lines()
        more = [f"  ... and {len(lines) - _SHOWN} reasons more"] if len(lines) > _SHOWN else []
        return ["left out:", *(f"  {line}" for line in lines[:_SHOWN]), *more] if lines else ["left out: nothing"]

    def _how(self) -> list[str]:
        rules = self.rules or Counter({"all photos 8 bits, none with an EXIF orientation": self.read})
        return ["how it was read:", *(f"  {count} x {rule}" for rule, count in sorted(rules.items()))]


def _spread(count: int, most: int | None) -> list[int]:
    """At most so many indices, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, count if most is None else most)).round()})


def describe(dataset: SegmentationDataset, most: int | None = READ) -> Description:
    """Count what a data set holds, reading at most ``most`` images (None: all). Unreadable images are counted, not raised."""
    counts = {name: len(images) for name, images in zip(dataset.categories, dataset.images_by_category, strict=True)}
    chosen = _spread(len(dataset), most)
    parts = getattr(dataset, "parts", (dataset,))
    found = Description(len(dataset), counts, 0, split=getattr(parts[0], "split", "all"))
    found.kept_apart = sum(getattr(part, "kept_apart", 0) for part in parts)
    for reason, names in getattr(dataset, "skipped", {}).items():
        found.skipped.add_all(reason, names)
    unsaid, unjudged = [], []
    for i in tqdm(chosen, desc="reading images", disable=len(chosen) < 50, leave=False):
        try:
            sample = dataset[i]
        except UnreadableImageError as error:
            found.skipped.add("images: cannot be read", str(error))
            continue
        found.read += 1
        found.sizes.append(sample.size)
        unsaid.append(0.0 if sample.valid is None else float((~sample.valid).mean()))
        unjudged.append(float(np.any(list(sample.left_out.values()), axis=0).mean()) if sample.left_out else 0.0)
        for mask, category in zip(sample.masks, sample.category_ids, strict=True):
            name = dataset.categories[category]
            found.objects[name] += 1
            found.areas.setdefault(name, []).append(float(mask.mean()))
    found.unsaid, found.unjudged = (float(np.mean(values)) if values else 0.0 for values in (unsaid, unjudged))
    found.rules = Counter(getattr(dataset, "rules", {}))
    return found


def contact_sheet(dataset: SegmentationDataset, columns: int = COLUMNS, rows: int = ROWS) -> Picture:
    """Photographs with their masks laid over, a colour for each category, what counts neither way grey: (H, W, 3) uint8."""
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
    grey = [*sample.left_out.values(), *([] if sample.valid is None else [~sample.valid])]
    if grey:
        picture = overlay(picture, np.any(grey, axis=0) & ~sample.masks.any(0), (128, 128, 128))
    names = ", ".join(dataset.categories[c] for c in np.unique(sample.category_ids))
    return caption(Frame(TILE).picture(picture), names)
