"""Sets in which one image could get what belongs to another, or a mask its opposite or its mirror image.

Photos are told apart by their grey value, masks by their height (``small_sets.py``).
"""

import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from small_sets import SIZE, coco, labelme, mask, outline, pairs, photo, rows, yolo

from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.images import turned
from alignsam_sb3.datasets.seen import SeenImages, hash_in, image_hash, image_hashes, seen_in


@pytest.mark.parametrize(
    ("photos", "masks", "kept"),
    [
        (["dog", "dog_1"], ["dog", "dog_1", "dog_2"], ["dog", "dog_1"]),  # the photo dog_2 is missing
        (["dog", "dog_1"], ["dog_1", "dog_2"], ["dog_1"]),
        (["leaf", "slideA"], ["leaf", "slideB"], ["leaf"]),
        (["cam1/0", "cam1/1", "cam2/2"], ["cam1/0", "cam2/1", "cam2/2"], ["cam1/0", "cam2/2"]),
        (["cam1/0", "cam2/1"], ["cam2/0", "cam2/1"], ["cam2/1"]),
        (["cam1/0", "cam2/1"], ["leaf/cam1/0", "leaf/cam2/1", "leaf/cam3/2"], ["cam1/0", "cam2/1"]),
        (["cam1/0", "cam2/2"], ["cam1/leaf/0", "cam3/leaf/2"], ["cam1/0"]),
    ],
)
def test_what_has_no_partner_does_not_take_another_s(tmp_path, photos, masks, kept):
    names = sorted({name.replace("leaf/", "") for name in [*photos, *masks]})
    for name in photos:
        photo(tmp_path / f"images/{name}.jpg", names.index(name))
    for name in masks:
        mask(tmp_path / f"masks/{name}.png", names.index(name.replace("leaf/", "")))
    found, skipped = pairs(f"mask_folder:{tmp_path}")
    assert found == {f"images/{name}.jpg": (names.index(name),) * 2 for name in kept}
    assert len(skipped["files: masks without a photo"]) == len(masks) - len(kept)


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


def in_palette(path, values, *colours):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("P", values.shape[::-1])
    image.putdata(values.ravel().tolist())
    image.putpalette([channel for colour in colours for channel in colour])
    image.save(path)


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)


def test_a_white_class_stays_a_class_where_the_palette_has_others(tmp_path):
    for k in range(2):
        photo(tmp_path / f"images/{k}.png", k)
        values = rows(k).astype(np.uint8)
        values[30:, 40:] = 2 * k  # the first mask shows the white class alone
        in_palette(tmp_path / f"masks/{k}.png", values, BLACK, WHITE, RED)
    data = load_dataset(f"mask_folder:{tmp_path}", "all", labels={"a": 1, "b": 2})
    assert [[int(data[k].target(c).sum()) for c in (0, 1)] for k in (0, 1)] == [[80, 0], [100, 200]]


@pytest.mark.parametrize("colour", [WHITE, RED])
def test_black_is_background_where_it_is_not_the_first_of_a_palette(tmp_path, colour):
    for k in range(2):
        photo(tmp_path / f"images/{k}.png", k)
        in_palette(tmp_path / f"masks/{k}.png", (~rows(k)).astype(np.uint8), colour, BLACK)
    assert pairs(f"mask_folder:{tmp_path}")[0] == {f"images/{k}.png": (k, k) for k in range(2)}


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("asked", [None, "stored"])
@pytest.mark.parametrize(("tag", "size"), [(3, (40, 40)), (6, (40, 40)), (6, (40, 60)), (5, (40, 40))])
def test_a_mask_with_its_photo_s_orientation_is_turned_with_it(tmp_path, ending, asked, tag, size):
    exif = Image.Exif()
    exif[0x0112] = tag
    shown = np.zeros(size, np.uint8)
    shown[2:12, 3:23] = 255
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(shown if folder == "masks" else np.stack([shown] * 3, 2))
        image.save(tmp_path / folder / (f"a.{ending}" if folder == "masks" else "a.png"), exif=exif)
    sample = load_dataset(f"mask_folder:{tmp_path}", "all", orientation=asked)[0]
    assert np.array_equal(sample.image[..., 0] > 0, sample.masks[0])


def test_white_is_zero_where_a_tiff_says_so(tmp_path):
    ramp = np.arange(0, 65536, 256, dtype=np.uint16)[None].repeat(4, 0)
    for name, how in (("a", "minisblack"), ("b", "miniswhite")):
        tifffile.imwrite(tmp_path / f"{name}.tif", ramp, photometric=how)
    black, white = (load_dataset(f"images:{tmp_path}", "all")[k].image.astype(int) for k in range(2))
    assert np.abs(black - (255 - white)).max() <= 1


@pytest.mark.parametrize("tag", [3, 6, 7])
def test_a_grey_tiff_that_was_turned(tmp_path, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = rows(3).astype(np.uint8) * 255
    Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
    for asked in ("turned", "stored"):
        image = load_dataset(f"images:{tmp_path}", "all", orientation=asked)[0].image[..., 0]
        assert np.array_equal(image, turned(stored, tag) if asked == "turned" else stored)


def test_a_folder_that_other_names_say_is_not_the_one_that_is_missing(tmp_path):
    for k in (1, 2):
        photo(tmp_path / f"cam2/{k}.jpg", k)
    coco(tmp_path / "a.json", ["cam1/1.jpg", "cam2/2.jpg"], [7, 2])
    found, skipped = pairs(f"coco:{tmp_path}")
    assert found == {"cam2/2.jpg": (2, 2)}
    assert list(skipped["images: no such file"]) == ["cam1/1.jpg"]


def test_two_entries_of_one_image_are_one_image(tmp_path):
    photo(tmp_path / "a.jpg", 0)
    coco(tmp_path / "a.json", ["a.jpg", "a.jpg"], [0, 5], iscrowd="0")
    data = load_dataset(f"coco:{tmp_path}", "all")
    assert len(data) == 1
    assert [int(mask.sum()) for mask in data[0].masks] == [80, 180]


def test_an_image_that_files_of_both_splits_name_is_for_evaluation(tmp_path):
    for k in range(5):
        photo(tmp_path / f"images/{k}.jpg", k)
    for split, own in (("train", [0, 1, 2, 3]), ("val", [2, 3, 4])):
        coco(tmp_path / f"annotations/{split}.json", [f"{k}.jpg" for k in own], own)
    found, skipped = pairs(f"coco:{tmp_path}", "train")
    assert list(found) == ["0.jpg", "1.jpg"]
    assert len(skipped["images: for evaluation too, so not for training"]) == 2
    assert list(pairs(f"coco:{tmp_path}", "eval")[0]) == ["2.jpg", "3.jpg", "4.jpg"]


def test_a_category_id_with_two_names_is_refused(tmp_path):
    photo(tmp_path / "a.jpg", 0)
    coco(tmp_path / "a.json", ["a.jpg"], [0])
    content = json.loads((tmp_path / "a.json").read_text())
    content["categories"].append({"id": "1", "name": "y"})
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="category id '1' means 'x' and 'y'"):
        load_dataset(f"coco:{tmp_path}", "all")


def test_yolo_s_other_yaml_files_and_tasks(tmp_path):
    photo(tmp_path / "images/a.jpg", 0)
    (tmp_path / "labels").mkdir()
    corners = (np.array(outline(0)) / SIZE[::-1]).ravel()
    (tmp_path / "labels/a.txt").write_text(f"0 {' '.join(map(str, corners))}\n")
    (tmp_path / "args.yaml").write_text("epochs: 3\n")
    (tmp_path / "data.yaml").write_text("names: [x]\n")
    assert pairs(f"yolo:{tmp_path}")[0] == {"images/a.jpg": (0, 0)}
    (tmp_path / "data.yaml").write_text("names: [x]\nkpt_shape: [2, 2]\n")
    with pytest.raises(ValueError, match="key points"):
        load_dataset(f"yolo:{tmp_path}", "all")


@pytest.mark.parametrize(
    "said",
    [
        "train: images/p1\nval: images/val",  # against what folders' names say
        "train: ../images/p1\nval: ../images/val\ntest: ../images/none",
        "path: images\ntrain: [p1]\nval: val",
        "path: /elsewhere\ntrain: p1.txt\nval: [val.txt]",
        "train: images\nval: images/val",
        "train: [images/p1, images/val]\nval: images/val",
    ],
)
def test_data_yaml_says_which_images_are_for_training(tmp_path, said):
    spec = yolo(tmp_path / "set", ["p1/a", "p1/train/b", "val/c", "val/train/d"], said)
    (tmp_path / "set/p1.txt").write_text("./images/p1/a.png\n/content/set/images/p1/train/b.png\n")
    (tmp_path / "set/val.txt").write_text("images/val/c.png\nimages/val/train/d.png\n../other.png\n")
    split = {s: [Path(name).stem for name in pairs(spec, s)[0]] for s in ("train", "eval", "all")}
    assert split == {"train": ["a", "b"], "eval": ["c", "d"], "all": ["a", "b", "c", "d"]}


def test_data_yaml_leads_nowhere_outside_its_folder(tmp_path):
    yolo(tmp_path / "other", ["train/x"])
    spec = yolo(tmp_path / "set", ["a", "b"], "path: ..\ntrain: other/images\nval: images")
    assert len(pairs(spec, "eval")[0]) == 2
    with pytest.raises(FileNotFoundError, match="other/images"):
        load_dataset(spec, "train")
    spec = yolo(tmp_path / "set", ["a", "b"], f"train: {tmp_path}/other/images")  # nothing of it: folds decide
    assert sorted(len(pairs(spec, s)[0]) for s in ("train", "eval")) == [1, 1]


@pytest.mark.parametrize("size", [(40, 60), (41, 41), (1, 7)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_photo_is_known_however_it_is_turned(size, symmetric):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    if symmetric:
        image = np.where(image > 127, image[::-1, ::-1], image[::-1])  # no symmetry of its own, but equal quarters occur
        image[: size[0] // 2] = 7
    hashes = {image_hash(turned(image, orientation)) for orientation in range(1, 9)}
    assert len(hashes) == 1
    other = image.copy()
    other[0, 0, 0] ^= 1
    assert image_hash(other) not in hashes


def test_an_option_that_turns_photos_hides_no_training_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    ramp = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.png", exif=exif)
    spec = f"images:{tmp_path}"
    learned = SeenImages(image_hashes(load_dataset(spec, "all")))
    assert seen_in(load_dataset(spec, "all", orientation="stored"), learned).all()


@pytest.mark.parametrize("depth", ["uint16", "float32", "float16"])
def test_an_option_that_scales_photos_hides_no_training_image(tmp_path, depth):
    values = np.random.default_rng(0).integers(0, 900, (2, *SIZE)).astype(depth)
    values[0, 0, 0] = np.nan if depth != "uint16" else 0
    (tmp_path / "images").mkdir()
    for k in range(2):
        tifffile.imwrite(tmp_path / f"images/{k}.tif", values[k])
        mask(tmp_path / f"masks/{k}.png", k)
    read = [load_dataset(f"mask_folder:{tmp_path}", "all", scale=scale) for scale in (None, 700, [100, 400])]
    learned = SeenImages(image_hashes(read[0]))
    assert len(learned) == 2
    assert all(seen_in(data, learned).all() for data in read)
    assert hash_in(read[1], 0) in learned
    tifffile.imwrite(tmp_path / "images/0.tif", turned(values[0], 6))
    mask(tmp_path / "masks/0.png", 0)
    assert hash_in(load_dataset(f"images:{tmp_path}/images", "all"), 0) in learned


def test_hashes_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"blake2b-64-any-way-up.*train or fit again"):
        SeenImages.from_json({**SeenImages().to_json(), "kind": "blake2b-64-any-way-up"})


@pytest.mark.parametrize("kind", ["images", "mask_folder"])
def test_copies_of_one_photo_are_on_one_side_of_every_fold(tmp_path, kind):
    grey = [0, 1, 2, 3, 4, 5, 2, 3, 2]  # all files have one size
    for k, shade in enumerate(grey):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.full((*SIZE, 3), shade, np.uint8)).save(tmp_path / f"images/{k}.bmp")
        mask(tmp_path / f"masks/{k}.png", k)
    spec = f"{kind}:{tmp_path}" + "/images" * (kind == "images")
    held_out = []
    for fold in range(3):
        sides = [load_dataset(spec, split, folds=3, fold=fold) for split in ("train", "eval")]
        shades = [sorted(int(data[i].image.max()) for i in range(len(data))) for data in sides]
        assert not set(shades[0]) & set(shades[1])
        assert sorted(shades[0] + shades[1]) == sorted(grey)
        held_out += shades[1]
    assert sorted(held_out) == sorted(grey)


def test_yolo_photos_that_share_a_label_file_are_left_out(tmp_path):
    spec = yolo(tmp_path, ["a", "b", "sub/a"])
    photo(tmp_path / "images/a.jpg", 7)
    found, skipped = pairs(spec)
    assert found == {"images/b.png": (1, 1), "images/sub/a.png": (2, 2)}
    (several,) = (names for reason, names in skipped.items() if "one label file" in reason)
    assert list(several) == ["images/a.jpg", "images/a.png"]


@pytest.mark.parametrize(
    ("line", "judged"),
    [
        ("1 0.1 0.2", [True, False]),  # too few points
        ("1 0.1 0.2 0.3 0.4 0.5 nan", [True, False]),
        ("1 100 200 300 200 300 400", [True, False]),  # pixels
        ("1 0.1 0.2 0.3 zero", [False, False]),
        ("1 0.5 0.5 0.2 0.2", [True, True]),  # a box
        ("1 1.5 1.5 1.6 1.5 1.6 1.6", [True, True]),  # outside the image
    ],
)
def test_an_object_of_yolo_that_cannot_be_read_is_no_background(tmp_path, line, judged):
    spec = yolo(tmp_path, ["a", "b"])
    (tmp_path / "data.yaml").write_text("names: [x, y]")
    with (tmp_path / "labels/a.txt").open("a") as opened:
        opened.write(line + "\n")
    sample = load_dataset(spec, "all")[0]
    for category, expected in enumerate(judged):
        valid = sample.valid_for(category)
        assert (valid is None or bool(valid[0].all())) == expected
        assert valid is None or valid[sample.target(category)].all()


@pytest.mark.parametrize(
    "what", [[[1, 2, 3]], {"size": [1, 1], "counts": "0"}, {"counts": [1]}, None, [[70, 2, 80, 2, 80, 9]]]
)
@pytest.mark.parametrize("box", [None, [30, 20, 10, 10]])
def test_an_object_of_coco_that_cannot_be_read_is_no_background(tmp_path, what, box):
    photo(tmp_path / "a.jpg", 0)
    coco(tmp_path / "a.json", ["a.jpg"], [0])
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"].append({"image_id": 0, "category_id": 1, "segmentation": what, "bbox": box})
    (tmp_path / "a.json").write_text(json.dumps(content))
    sample = load_dataset(f"coco:{tmp_path}", "all")[0]
    judged = sample.valid_for(0)
    outside = isinstance(what, list) and what[0][0] == 70
    if box is None and outside:
        assert judged is None
    else:
        assert not judged[20:30, 30:40].any()
        assert judged[35:].all() == (box is not None)
        assert judged[sample.target(0)].all()


@pytest.mark.parametrize(
    ("objects", "each"),
    [
        ([1, 1], [1, 1]),  # numbers restart in every class
        ([0, 1], [1, 1]),  # a class whose objects were not told apart
        ([(0, 0, 255), (90, 1, 3)], [1, 1]),  # this blue is 255 as a number, and no border as a colour
        ([(0, 0, 0), (224, 224, 192)], [1, 0]),  # and this is one, which counts neither way
        ([1, 255], [1, 0]),
    ],
)
def test_what_the_objects_of_voc_do_not_say_is_no_background(tmp_path, objects, each):
    places = [rows(0), np.roll(rows(4), (12, 30), (0, 1))]
    photo(tmp_path / "JPEGImages/a.jpg", 0)
    for folder, values in {"SegmentationClass": (8, 12), "SegmentationObject": objects}.items():
        image = np.zeros(SIZE + np.shape(values)[1:], np.uint8)
        for place, value in zip(places, values, strict=True):
            image[place] = value
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a.png")
    data = load_dataset(f"voc:{tmp_path}", "all", categories=["cat", "dog"] if all(each) else None)
    sample = data[0]
    for name, place, count in zip(("cat", "dog"), places, each, strict=True):
        category = data.categories.index(name) if name in data.categories else None
        if count:
            assert np.array_equal(sample.target(category), place)
            assert sample.valid_for(category) is None
        else:
            assert "border in SegmentationObject/" in str(data.skipped)
            assert category is None or not sample.valid_for(category)[place].any()


def test_polygons_of_one_image_by_several_names_are_of_one_image(tmp_path):
    photo(tmp_path / "images/a.png", 0)
    names = ["a.png", "./a.png", "images/a.png"]
    entries = [{"image": name, "mask": [np.ravel(outline(0, x)).tolist()]} for name, x in zip(names, (1, 20, 38), strict=True)]
    (tmp_path / "annotations.json").write_text(json.dumps(entries))
    data = load_dataset(f"polygons:{tmp_path}", "all")
    assert len(data) == 1
    assert len(data[0].masks) == 3


def test_images_of_one_name_in_two_splits_have_ids_of_their_own(tmp_path):
    for k, split in enumerate(("train", "val")):
        photo(tmp_path / split / "images/a.png", k)
        entry = {"image": "a.png", "mask": [np.ravel(outline(k)).tolist()]}
        (tmp_path / split / "annotations.json").write_text(json.dumps([entry]))
    found = pairs(f"polygons:{tmp_path}")[0]
    assert found == {"train/a.png": (0, 1), "val/a.png": (1, 2)}  # a row more: outlines are drawn


@pytest.mark.parametrize("kind", ["voc", "voc masks", "ade20k", "oxford_pets"])
def test_of_photos_or_masks_with_one_name_none_is_taken(tmp_path, kind):
    images, labels = {
        "ade20k": ("images/training", "annotations/training"),
        "oxford_pets": ("images", "annotations/trimaps"),
    }.get(kind, ("JPEGImages", "SegmentationClass"))
    for k, name in enumerate("Ab"):
        photo(tmp_path / f"{images}/{name}.jpg", k)
        mask(tmp_path / f"{labels}/{name}.png", k, 1)
    if kind == "voc masks":
        mask(tmp_path / f"{labels}/A.bmp", 5, 1)
    else:
        photo(tmp_path / f"{images}/A.png", 5)
    names = "".join(f"{k}\t0\t0\t0\t0\tx{k}\n" for k in range(1, 151))
    (tmp_path / "objectInfo150.txt").write_text(names)
    found, skipped = pairs(f"{kind.split()[0]}:{tmp_path}")
    assert found == {"b": (1, 1)}
    assert len(skipped["files: several have one name, and it cannot be told which is meant"]) == 2


@pytest.mark.parametrize(("other", "size", "whole"), [("./a.jpg", 1, True), ("a.jpg", 2, False)])
def test_entries_of_one_image_are_whole_or_left_out(tmp_path, other, size, whole):
    """Never an image with the objects of one of them, where those of the other are background."""
    for k, name in enumerate(["a.jpg", "b.jpg"]):
        photo(tmp_path / name, k)
    coco(tmp_path / "a.json", ["a.jpg", "b.jpg"], [0, 1])
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"].append({"id": 7, "file_name": other, "height": SIZE[0] * size, "width": SIZE[1] * size})
    content["annotations"].append({"image_id": 7, "category_id": 1, "segmentation": [np.ravel(outline(4, 33)).tolist()]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = load_dataset(f"coco:{tmp_path}", "all")
    assert [len(data[i].masks) for i in range(len(data))] == ([2, 1] if whole else [1])
    assert ("a file that several entries name" in str(data.skipped)) is not whole


def test_files_of_one_image_that_state_other_sizes_leave_it_out(tmp_path):
    for k, name in enumerate("ab"):
        photo(tmp_path / f"{name}.jpg", k)
        labelme(tmp_path / f"{name}.json", k, f"{name}.jpg")
    labelme(tmp_path / "a_2.json", 4, "a.jpg", imageHeight=SIZE[0] * 2, imageWidth=SIZE[1] * 2)
    found, skipped = pairs(f"labelme:{tmp_path}")
    assert list(found) == ["b.json"]
    assert "images: that another file labels with another size" in skipped


def test_a_rare_value_that_makes_masks_ambiguous_is_said(tmp_path):
    for k in range(60):
        photo(tmp_path / f"images/{k}.png", 0)
        mask(tmp_path / f"masks/{k}.png", 9, 2 if k == 39 else 1)
    with pytest.raises(ValueError, match=r"hold the values \[0, 1, 2\]"):
        load_dataset(f"mask_folder:{tmp_path}", "all")
