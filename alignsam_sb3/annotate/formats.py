"""Files of annotations for other tools, written from a run's journal one image at a time, each whole or not at all."""

import csv
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from alignsam_sb3.annotate.decisions import reviewed
from alignsam_sb3.annotate.run import Found, Run
from alignsam_sb3.annotate.sheet import write_sheet
from alignsam_sb3.annotation import Annotation, coco_categories
from alignsam_sb3.choice import ANSWERS
from alignsam_sb3.encodings import to_cvat_points
from alignsam_sb3.files import removed_on_error

logger = logging.getLogger(__name__)

QUEUE_COLUMNS = ("image", "category", "present", "score", "low", "iou_predicted", "area", "clicks", "review")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """A text file that appears once it is finished.

    :raises OSError: it could not be written; an earlier one stays
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with removed_on_error(part):
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def write_formats(run: Run, formats: Sequence[str], threshold: float) -> None:
    """Write ``queue.csv``, ``skipped.csv``, ``sheet.png`` and the formats asked for.

    :param formats: names in :data:`FORMATS`
    :param threshold: the score from which a mask needs no review
    """
    write_skipped(run)
    write_sheet(run, write_queue(run, threshold))
    for name in formats:
        FORMATS[name](run)


def write_skipped(run: Run) -> None:
    """``skipped.csv``: which images have no annotations, and why."""
    with whole_file(run.out / "skipped.csv") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "reason"))
        rows.writerows((found.image, found.skipped) for found in run if found.skipped)


def write_queue(run: Run, threshold: float) -> list[tuple[float, str, str]]:
    """``queue.csv``: all masks, the most doubtful first.

    :return: score, image and category of each, in that order
    """
    ranked = sorted((a.score, a.image_id, a.category) for found in run for a in found.annotations)
    with whole_file(run.out / "queue.csv") as file:
        rows = csv.writer(file)
        rows.writerow(QUEUE_COLUMNS)
        last: Found | None = None
        for score, image, category in ranked:
            last = last if last is not None and last.image == image else run.found(image)
            mine = next(a for a in last.annotations if a.category == category)
            numbers = [f"{value:.4f}" for value in (score, mine.low, mine.iou_predicted)]
            review = int(score < threshold)
            rows.writerow((image, category, int(mine.present), *numbers, mine.area, len(mine.clicks), review))
    return ranked


def write_coco(run: Run) -> None:
    """``coco.json``: one annotation of each mask that is there, as run lengths; images without any are listed, too."""
    numbers: dict[str, int] = {}
    places = {name: k for k, name in enumerate(run.identity.categories, 1)}
    info = {"description": "alignsam_sb3", "policy": run.identity.policy, "masks": ANSWERS[run.identity.answer]}
    with whole_file(run.out / "coco.json") as file:
        file.write('{"info": ' + json.dumps(info))
        file.write(', "categories": ' + json.dumps(coco_categories(run.identity.categories)) + ', "images": [')
        for k, found in enumerate(_usable(reviewed(run)), 1):
            numbers[found.image] = k
            height, width = found.annotations[0].size if found.annotations else _size(run, found.image)
            described = {"id": k, "file_name": found.image, "height": height, "width": width}
            file.write(("," if k > 1 else "") + "\n" + json.dumps(described))
        file.write('], "annotations": [')
        shown = (a for found in _usable(reviewed(run)) for a in found.annotations if a.found)
        for k, a in enumerate(shown, 1):
            line = json.dumps(a.to_coco(k, numbers[a.image_id], places[a.category]))
            file.write(("," if k > 1 else "") + "\n" + line)
        file.write("]}\n")


def write_png(run: Run) -> None:
    """``masks/CATEGORY/IMAGE.png``: 0 and 255, one for each category of each image, black where it is not there."""
    with whole_folder(run.out / "masks") as part:
        for found in _usable(reviewed(run)):
            for a in found.annotations:
                a.save_png(part / safe_name(a.category) / f"{found.image}.png")


def write_yolo(run: Run) -> None:
    """``yolo/``: ``labels/IMAGE.txt`` with polygons, empty where nothing was found, ``data.yaml``, and ``images`` linked."""
    places = {name: k for k, name in enumerate(run.identity.categories)}
    with whole_folder(run.out / "yolo") as part:
        for found in _usable(reviewed(run)):
            path = (part / "labels" / found.image).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                logger.warning(
                    "YOLO keeps the labels of %s where those of another image are: left out, rename it", found.image
                )
                continue
            path.write_text("".join(a.to_yolo(places[a.category]) for a in found.annotations), encoding="utf-8")
        names = "".join(f"  {k}: {json.dumps(name)}\n" for name, k in places.items())
        (part / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{names}", encoding="utf-8")
        (part / "images").symlink_to(run.folder, target_is_directory=True)


def write_label_studio(run: Run) -> None:
    """``label_studio.json``: a task for each image with one prediction; its score is that of its most doubtful mask."""
    with whole_file(run.out / "label_studio.json") as file:
        file.write("[")
        for k, found in enumerate(_usable(reviewed(run))):
            file.write(("," if k else "") + "\n" + json.dumps(label_studio_task(found, run.identity.policy)))
        file.write("]\n")


def label_studio_task(found: Found, policy: str) -> dict[str, Any]:
    """A task of Label Studio's whose image is served from local files."""
    prediction = {
        "model_version": policy,
        "score": min((a.score for a in found.annotations), default=1.0),
        "result": [region for a in found.annotations for region in a.to_label_studio_results()],
    }
    return {"data": {"image": f"/data/local-files/?d={quote(found.image)}"}, "predictions": [prediction]}


def write_cvat(run: Run) -> None:
    """``cvat.xml``: CVAT for images 1.1, masks as run lengths."""
    with whole_file(run.out / "cvat.xml") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        for k, found in enumerate(_usable(reviewed(run))):
            height, width = found.annotations[0].size if found.annotations else _size(run, found.image)
            file.write(f"<image{_attributes(id=k, name=found.image, width=width, height=height)}>\n")
            file.writelines(_cvat_mask(a) for a in found.annotations if a.found)
            file.write("</image>\n")
        file.write("</annotations>\n")


def _cvat_mask(a: Annotation) -> str:
    *runs, left, top, right, bottom = to_cvat_points(a.mask)
    said = _attributes(label=a.category, source="auto", occluded=0, rle=", ".join(map(str, runs)))
    place = _attributes(left=left, top=top, width=right - left + 1, height=bottom - top + 1, z_order=0)
    return f"<mask{said}{place}/>\n"


def _attributes(**values: object) -> str:
    """As XML writes them, each with a blank before it."""
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in values.items())


FORMATS: dict[str, Callable[[Run], None]] = {
    "coco": write_coco,
    "png": write_png,
    "yolo": write_yolo,
    "label_studio": write_label_studio,
    "cvat": write_cvat,
}


def safe_name(name: str) -> str:
    """A category as the name of a folder: what a path cannot hold becomes ``_``.

    >>> safe_name("../a/b c")
    '__a_b c'
    """
    return re.sub(r"^\.+|[^\w .-]", "_", name) or "_"


def _usable(all_found: Iterator[Found]) -> Iterator[Found]:
    return (found for found in all_found if not found.skipped)


def _size(run: Run, image: str) -> tuple[int, int]:
    """Height and width of an image all of whose masks were rejected."""
    return run.found(image).annotations[0].size


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of an earlier one once it is finished."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
