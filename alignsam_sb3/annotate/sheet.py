"""``sheet.png``: the most and the least doubtful masks of a run at a glance."""

from collections.abc import Sequence

import cv2
import numpy as np

from alignsam_sb3.annotate.predicting import Picture, read_photo
from alignsam_sb3.annotate.run import Run
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.datasets.images import UnreadableImageError
from alignsam_sb3.pictures import caption, panel, save_picture, stack

COLUMNS, ROWS, SIDE = 6, 2, 200


def write_sheet(run: Run, ranked: Sequence[tuple[float, str, str]]) -> None:
    """Write the worst masks above the best; nothing where there are no masks.

    :param ranked: score, image and category, the most doubtful first
    """
    count = COLUMNS * ROWS
    worst = list(ranked[:count])
    best = list(ranked[len(worst) :])[-count:][::-1]
    rows = []
    for title, chosen in (("most doubtful", worst), ("most certain", best)):
        tiles = [_tile(run, image, category) for _, image, category in chosen]
        if tiles:
            rows.append(caption(_grid(tiles), title))
    if rows:
        save_picture(stack(rows), run.out / "sheet.png")


def _grid(tiles: Sequence[Picture]) -> Picture:
    rows = [np.concatenate(tiles[k : k + COLUMNS], axis=1) for k in range(0, len(tiles), COLUMNS)]
    return stack(rows)


def _tile(run: Run, image: str, category: str) -> Picture:
    annotation = next(a for a in run.found(image).annotations if a.category == category)
    said = category if annotation.present else f"no {category}"
    return caption(draw(run, annotation, SIDE), f"{said[:16]} {annotation.score:.2f}")


def draw(run: Run, annotation: Annotation, side: int) -> Picture:
    """A photo with mask and clicks, (side, side, 3), on white; grey if it cannot be read any more."""
    canvas = np.full((side, side, 3), 255, np.uint8)
    try:
        photo, _ = read_photo(run.image_path(annotation.image_id))
    except (UnreadableImageError, ValueError):
        canvas[:] = 128
        return canvas
    factor = side / max(photo.shape[:2])
    size = (max(round(photo.shape[1] * factor), 1), max(round(photo.shape[0] * factor), 1))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST).astype(np.uint8)
    across, down = size[0] / annotation.size[1], size[1] / annotation.size[0]
    clicks = [((int((x + 0.5) * across), int((y + 0.5) * down)), label) for (x, y), label in annotation.clicks]
    mask = cv2.resize(annotation.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    drawn = panel(small, mask if annotation.present else None, clicks, 1)
    canvas[: drawn.shape[0], : drawn.shape[1]] = drawn
    return canvas
