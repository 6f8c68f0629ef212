"""What people decided, as a COCO data set to learn from: ``--dataset coco:DIR/corrections``."""

import json
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from alignsam_sb3.annotate.decisions import Decisions
from alignsam_sb3.annotate.formats import whole_folder
from alignsam_sb3.annotate.run import Found, Run
from alignsam_sb3.annotation import coco_categories

FOLDER = "corrections"


def write_corrections(run: Run) -> int:
    """Write the photos that people looked at, with the masks that they accepted or drew.

    Only what somebody answered for is in there. The file says nothing of categories that nobody looked at, or whose mask was
    rejected. As in LVIS, each image has two lists: ``neg_category_ids`` are certainly not in it, and nobody answered for
    ``not_exhaustive_category_ids``. That is enough to train on, where a target is always a category that is shown. It is too
    little to calibrate with.

    :return: how many photos those are; nothing is written where there are none
    """
    chosen = list(_answered(run))
    if not chosen:
        return 0
    places = {name: k for k, name in enumerate(run.identity.categories, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with whole_folder(run.out / FOLDER) as part:
        for number, found in enumerate(chosen, 1):
            target = part / "images" / found.image
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.image_path(found.image), target)
            images.append(_image(number, found, places))
            for a in found.annotations:
                if a.found:
                    annotations.append(a.to_coco(len(annotations) + 1, number, places[a.category]))
        content = {"images": images, "annotations": annotations, "categories": coco_categories(run.identity.categories)}
        (part / "annotations").mkdir()
        (part / "annotations" / "instances.json").write_text(json.dumps(content))
    return len(chosen)


def _image(number: int, found: Found, places: Mapping[str, int]) -> dict[str, Any]:
    """COCO's entry of an image."""
    height, width = found.annotations[0].size
    answered = {a.category: a.found for a in found.annotations}
    return {
        "id": number,
        "file_name": found.image,
        "height": height,
        "width": width,
        "neg_category_ids": [places[name] for name, shown in answered.items() if not shown],
        "not_exhaustive_category_ids": [place for name, place in places.items() if name not in answered],
    }


def _answered(run: Run) -> Iterator[Found]:
    """Images with the masks that somebody accepted or drew."""
    said = Decisions(run).latest()
    for found in run:
        decisions = [(a, said.get((a.image_id, a.category))) for a in found.annotations]
        kept = [d.applied(a) for a, d in decisions if d is not None and d.verdict in ("accept", "correct")]
        if any(kept):
            yield Found(found.image, found.stamp, tuple(a for a in kept if a is not None))
