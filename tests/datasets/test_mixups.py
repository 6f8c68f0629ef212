"""Sets in which one image could get what belongs to another: photos are told apart by grey value, masks by height."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import load_dataset

SIZE = (40, 60)


def photo(path, k, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 20 + 12 * k, np.uint8)).save(path, **how)


def rows(k):
    found = np.zeros(SIZE, bool)
    found[2 : 6 + k, 3:23] = True
    return found


def mask(path, k, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(rows(k), value, 0).astype(np.uint8)).save(path)


def outline(k, x=3):
    return [[x, 2], [x + 20, 2], [x + 20, 6 + k], [x, 6 + k]]


def pairs(spec, split="all", **options):
    """For each image its grey value's number and, from the height of its first object, its mask's."""
    data = load_dataset(spec, split, **options)
    samples = [data[i] for i in range(len(data))]
    found = {s.image_id: (round((float(np.median(s.image)) - 20) / 12), int(s.masks[0].any(1).sum()) - 4) for s in samples}
    return found, data.skipped


@pytest.mark.parametrize(
    ("photos", "masks", "kept"),
    [
        (["dog", "dog_1"], ["dog", "dog_1", "dog_2"], ["dog", "dog_1"]),  # the photo dog_2 is missing
        (["dog", "dog_1"], ["dog_1", "dog_2"], ["dog_1"]),
        (["leaf", "slideA"], ["leaf", "slideB"], ["leaf"]),
        (["cam1/0", "cam1/1", "cam2/2"], ["cam1/0", "cam2/1", "cam2/2"], ["cam1/0", "cam2/2"]),
        (["cam1/0", "cam2/1"], ["cam2/0", "cam2/1"], ["cam2/1"]),
    ],
)
def test_what_has_no_partner_does_not_take_another_s(tmp_path, photos, masks, kept):
    names = sorted({*photos, *masks})
    for name in photos:
        photo(tmp_path / f"images/{name}.jpg", names.index(name))
    for name in masks:
        mask(tmp_path / f"masks/{name}.png", names.index(name))
    found, skipped = pairs(f"mask_folder:{tmp_path}")
    assert found == {f"images/{name}.jpg": (names.index(name),) * 2 for name in kept}
    assert len(skipped["files: masks without a photo"]) == len(set(masks) - set(kept))


def labelme(path, k, image="a.jpg", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"label": "x", "points": (np.array(outline(k)) + [[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]).tolist()}
    content = {"shapes": [shape], "imagePath": image, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("embedded", [False, True])
def test_a_missing_image_is_not_that_of_another_folder(tmp_path, embedded):
    kept = io.BytesIO()
    Image.fromarray(np.full((*SIZE, 3), 32, np.uint8)).save(kept, "PNG")
    labelme(tmp_path / "one/a.json", 1, imageData=base64.b64encode(kept.getvalue()).decode() if embedded else None)
    labelme(tmp_path / "two/a.json", 2)
    photo(tmp_path / "two/a.jpg", 2)
    found, skipped = pairs(f"labelme:{tmp_path}")
    assert found == {"two/a.json": (2, 2)} | ({"one/a.json": (1, 1)} if embedded else {})
    assert ("images: no such file" in skipped) != embedded


def test_a_file_that_was_renamed_with_its_image(tmp_path):
    for k, name in enumerate("ab"):
        photo(tmp_path / f"{name}.jpg", k)
        labelme(tmp_path / f"{name}.json", k, "a.jpg")
    assert pairs(f"labelme:{tmp_path}")[0] == {"a.json": (0, 0), "b.json": (1, 1)}


def test_several_files_of_one_image_are_one_image(tmp_path):
    photo(tmp_path / "a.jpg", 0)
    photo(tmp_path / "b.jpg", 1)
    labelme(tmp_path / "a.json", 0)
    labelme(tmp_path / "a_roads.json", 6)
    labelme(tmp_path / "b.json", 1, "b.jpg")
    data = load_dataset(f"labelme:{tmp_path}", "all")
    assert [len(data[i].masks) for i in range(len(data))] == [2, 1]


def test_shapes_that_are_no_region_are_ignored_where_they_are(tmp_path):
    photo(tmp_path / "a.jpg", 0)
    labelme(tmp_path / "a.json", 0)
    content = json.loads((tmp_path / "a.json").read_text())
    content["shapes"] += [
        {"label": "x", "points": [[40, 20], [50, 30]], "shape_type": "ellipse"},
        {"label": "x", "points": [[30, 20]], "shape_type": "point"},
        {"label": None, "points": outline(3, 30)},
    ]
    (tmp_path / "a.json").write_text(json.dumps(content))
    sample = load_dataset(f"labelme:{tmp_path}", "all")[0]
    judged = sample.valid_for(0)
    assert not judged[20:30, 40:50].any()
    assert not judged[20, 30]
    assert not judged[3:8, 31:49].any()
    assert judged[:, 52:].all()


@pytest.mark.parametrize("kind", ["labelme", "mask_folder"])
def test_an_image_that_folders_of_both_splits_hold_is_for_evaluation(tmp_path, kind):
    for folder, names in (("train", "ab"), ("val", "c"), ("more", "d")):
        for name in names:
            photo(tmp_path / folder / f"{name}.jpg", "abcd".index(name))
    (tmp_path / "train/link.jpg").symlink_to(tmp_path / "val/c.jpg")
    for path in tmp_path.glob("*/*.jpg"):
        if kind == "labelme":
            labelme(path.with_suffix(".json"), 0, path.name)
        else:
            mask(path.with_name(f"{path.stem}_mask.png"), 0)
    found, skipped = pairs(f"{kind}:{tmp_path}", "train")
    assert {Path(name).stem for name in found} == {"a", "b"}
    assert [len(skipped[reason]) for reason in sorted(skipped)] == [1, 1]
    assert len(pairs(f"{kind}:{tmp_path}", "eval")[0]) == 1
