"""Masks in one folder for each category, and the names of categories in every kind of data set."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from small_sets import SIZE, coco, labelme, mask, outline, pairs, photo, rows, yolo

from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.__main__ import main
from alignsam_sb3.datasets.mask_values import AmbiguousMasksError
from alignsam_sb3.datasets.pairing import AmbiguousPairsError


def heights(data):
    """For each image the height of its mask of each category, 0 for none."""
    samples = [data[i] for i in range(len(data))]
    return {
        Path(s.image_id).stem: [max(int(s.target(c).any(1).sum()) - 4, 0) for c in range(len(data.categories))]
        for s in samples
    }


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        ("images/{}.jpg", "masks/{category}/{}.png"),
        ("images/{}.jpg", "masks/{category}/{}_mask.png"),
        ("images/{}.jpg", "gt/{category}/{}.jpg.png"),
        ("train/images/{}.jpg", "train/masks/{category}/{}.png"),
        ("images/train/{}.jpg", "masks/train/{category}/{}.png"),
        ("images/train/{}.jpg", "masks/{category}/train/{}.png"),
        ("images/site 1/{}.jpg", "masks/site 1/{category}/{}.png"),
    ],
)
def test_folders_of_masks_are_categories(tmp_path, photos, masks):
    for k in range(3):
        photo(tmp_path / photos.format(k), k)
    shown = {"cat": [0, 1], "dog": [1, 2]}
    for category, numbers in shown.items():
        for k in numbers:
            mask(tmp_path / masks.format(k, category=category), 2 * k + (category == "dog"))
    data = load_dataset(f"mask_folder:{tmp_path}", "all")
    assert data.categories == ("cat", "dog")
    assert heights(data) == {"0": [0, 0], "1": [2, 3], "2": [0, 5]}
    assert "named by the masks' folders" in str(data.rules)
    united = load_dataset(f"mask_folder:{tmp_path}", "all", category="animal")
    assert (united.categories, heights(united)) == (("animal",), {"0": [0], "1": [3], "2": [5]})


def test_folders_that_photos_have_too_are_no_categories(tmp_path):
    for k, folder in enumerate(["cam1", "cam2"]):
        photo(tmp_path / f"images/{folder}/{k}.jpg", k)
        mask(tmp_path / f"masks/{folder}/{k}.png", k)
    assert load_dataset(f"mask_folder:{tmp_path}", "all").categories == ("object",)


def test_masks_in_folders_of_categories_and_beside_them_are_asked_for(tmp_path):
    for k in range(2):
        photo(tmp_path / f"images/{k}.jpg", k)
    for place in ("cat/0", "dog/0", "1"):
        mask(tmp_path / f"masks/{place}.png", 0)
    with pytest.raises(AmbiguousPairsError, match=r"images/0.jpg .* cat, dog.*masks/1.png lies in none: category='NAME'"):
        load_dataset(f"mask_folder:{tmp_path}", "all")
    mask(tmp_path / "masks/0.png", 0)  # this one is the photo's by its place, the others are counted
    assert len(load_dataset(f"mask_folder:{tmp_path}", "all").skipped["files: masks without a photo"]) == 2


def test_supervisely_s_masks_one_level_down(tmp_path):
    """A project of data sets, each with ``img/``, ``masks_machine/`` (values) and ``masks_human/`` (for the eye)."""
    for k in range(3):
        base = tmp_path / f"ds{k % 2}"
        photo(base / f"img/{k}.jpg", k)
        for folder, value in (("masks_machine", 1 + k % 2), ("masks_human", 200)):
            mask(base / folder / f"{k}.png", k, value)
        (base / "ann").mkdir(exist_ok=True)
        (base / f"ann/{k}.jpg.json").write_text(json.dumps({"objects": []}))
    (tmp_path / "obj_class_to_machine_color.json").write_text(json.dumps({"cat": [1, 1, 1], "dog": [2, 2, 2]}))
    data = load_dataset(f"mask_folder:{tmp_path}", "all")
    assert data.categories == ("cat", "dog")
    found, skipped = pairs(f"mask_folder:{tmp_path}")
    assert sorted(found.values()) == [(0, 0), (1, 1), (2, 2)]
    assert not skipped


NAMES = ["cat ", " cat", "sea  cow", "sea cow", "cafe\u0301", "caf\u00e9"]
PLAIN = {"cat", "sea cow", "caf\u00e9"}


def named_set(root, kind, names):
    """A set whose images show one object each, called so."""
    numbers = range(len(names))
    if kind == "labelme":
        for k, name in enumerate(names):
            photo(root / f"{k}.jpg", k)
            labelme(root / f"{k}.json", k, f"{k}.jpg")
            content = json.loads((root / f"{k}.json").read_text())
            content["shapes"][0]["label"] = name
            (root / f"{k}.json").write_text(json.dumps(content))
    elif kind == "coco":
        coco(root / "a.json", [f"{k}.jpg" for k in numbers], list(numbers))
        content = json.loads((root / "a.json").read_text())
        content["categories"] = [{"id": k, "name": name} for k, name in enumerate(names)]
        for k, note in enumerate(content["annotations"]):
            photo(root / f"{k}.jpg", k)
            note["category_id"] = k
        (root / "a.json").write_text(json.dumps(content))
    elif kind == "yolo":
        yolo(root, [str(k) for k in numbers])
        (root / "data.yaml").write_text(f"names: {json.dumps(names)}")
        for k in numbers:
            path = root / f"labels/{k}.txt"
            path.write_text(f"{k}{path.read_text()[1:]}")
    elif kind == "polygons":
        for k in numbers:
            photo(root / f"{k}.jpg", k)
        entries = [{"image": f"{k}.jpg", "category": n, "mask": [np.ravel(outline(k)).tolist()]} for k, n in enumerate(names)]
        (root / "annotations.json").write_text(json.dumps(entries))
    else:
        for k in numbers:
            photo(root / f"images/{k}.jpg", k)
            mask(root / f"masks/{k}.png", k, k + 1)
        (root / "_classes.csv").write_text("\n".join(["Pixel Value, Class", *(f"{k + 1},{n}" for k, n in enumerate(names))]))
    return f"{kind}:{root}"


KINDS = ["labelme", "coco", "yolo", "polygons", "mask_folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_by_blanks_or_by_spelling_of_letters_are_one(tmp_path, kind):
    data = load_dataset(named_set(tmp_path, kind, NAMES), "all")
    assert set(data.categories) == PLAIN
    assert len(data.categories) == 3
    shown = [data.categories[int(data[i].category_ids[0])] for i in range(6)]
    assert sorted(shown) == sorted([*PLAIN, *PLAIN])
    assert len(load_dataset(f"{kind}:{tmp_path}", "all", categories=["sea cow "])) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_differ_by_case_alone_are_said_loudly(tmp_path, kind, capsys):
    more = ["cat"] if kind in ("labelme", "polygons") else []
    spec = named_set(tmp_path, kind, ["Cat", "cat", *more, "dog"])
    assert main(["describe", spec, "--split", "all"]) == 0
    said = capsys.readouterr().out
    assert f"'Cat' (1 images), 'cat' ({1 + len(more)} images)" in said
    assert "dog' (" not in said


def test_grey_areas_beyond_the_masks_that_were_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr("alignsam_sb3.datasets.mask_folder.SURVEYED", 2)
    for k in range(4):
        photo(tmp_path / f"images/{k}.jpg", k)
        values = rows(k).astype(np.uint8) * 255
        if k == 3:
            values[30:, 30:] = 128
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).resize((120, 80), Image.Resampling.BILINEAR).resize((60, 40)).save(tmp_path / f"masks/{k}.png")
    spec = f"mask_folder:{tmp_path}"
    found, skipped = pairs(spec)
    assert len(found) == 3
    (names,) = (names for reason, names in skipped.items() if "other values than the rest ([128])" in reason)
    assert list(names) == ["images/3.jpg"]
    assert len(load_dataset(spec, "all", ignore_value=128)) == 4
    assert len(load_dataset(spec, "all", threshold=100)) == 4


def test_noise_of_jpeg_masks_beyond_those_that_were_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr("alignsam_sb3.datasets.mask_folder.SURVEYED", 2)
    (tmp_path / "masks").mkdir()
    for k in range(4):
        photo(tmp_path / f"images/{k}.jpg", k)
        values = np.zeros(SIZE, np.uint8)
        values[8:16] = 255  # whole blocks of a JPEG, which keeps them
        if k % 2:
            values[20:29, 20:33] = 255 if k == 1 else 128
        Image.fromarray(values).save(tmp_path / f"masks/{k}.jpg", quality=60)
    data = load_dataset(f"mask_folder:{tmp_path}", "all")
    assert len(data) == 3
    assert abs(int(data[1].masks.sum()) - 8 * 60 - 9 * 13) <= 6
    assert "other values than the rest" in str(data.skipped)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_three_greys_of_jpeg_masks_are_asked_for_without_their_noise(tmp_path, quality):
    (tmp_path / "masks").mkdir()
    for k in range(2):
        photo(tmp_path / f"images/{k}.jpg", k)
        values = rows(k).astype(np.uint8) * 255
        values[20:37, 20:53] = 128
        Image.fromarray(values).save(tmp_path / f"masks/{k}.jpg", quality=quality)
    with pytest.raises(AmbiguousMasksError, match=r"hold the values \[0, 128, 255\]"):
        load_dataset(f"mask_folder:{tmp_path}", "all")
    sample = load_dataset(f"mask_folder:{tmp_path}", "all", ignore_value=128)[1]
    assert (sample.target(0) ^ rows(1))[:18].sum() <= 8
    assert not sample.valid[22:35, 22:51].any()


@pytest.mark.parametrize("second", ["labels/train/0.txt", "labels/0.txt"])
def test_two_label_files_of_one_photo_are_refused(tmp_path, second):
    spec = yolo(tmp_path, ["0", "1"] if second == "labels/0.txt" else ["train/0", "val/1"])
    first = tmp_path / ("labels/0.txt" if second == "labels/0.txt" else "labels/train/0.txt")
    other = tmp_path / ("0.txt" if second == "labels/0.txt" else "train/labels/0.txt")
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text(first.read_text())
    assert len(load_dataset(spec, "all")) == 2  # a copy says nothing else
    other.write_text("0 0.1 0.1 0.9 0.1 0.9 0.9")
    with pytest.raises(ValueError, match=r"0\.txt and .*0\.txt are labels of one image"):
        load_dataset(spec, "all")


def test_yolo_labels_without_an_image_are_counted(tmp_path):
    spec = yolo(tmp_path, ["a", "b"])
    (tmp_path / "images/b.png").unlink()
    (tmp_path / "README.roboflow.txt").write_text("no labels")
    assert load_dataset(spec, "all").skipped == {"files: labels without an image": ["labels/b.txt"]}


@pytest.mark.parametrize(
    ("photos", "masks"),
    [
        ("701_StillsRaw_full/f{}.png", "LabeledApproved_full/f{}_L.png"),  # CamVid
        ("images/{}.jpg", "labels/lab-{}.png"),
        ("images/site/{}.jpg", "Ground truth/site/{}_P.png"),
        ("original/{}.jpg", "segmented/{}.jpg.png"),
        ("stage1_train/p{0}/images/p{0}.png", "stage1_train/p{0}/masks/af3{0}.png"),  # Data Science Bowl 2018
        ("img_dir/train/{}.jpg", "ann_dir/train/{}.png"),  # MMSegmentation
        ("Train/Image/{}.jpg", "Train/GT_Object/{}.png"),  # COD10K
        ("Train/Rural/images_png/{}.png", "Train/Rural/masks_png/{}.png"),  # LoveDA
        ("PNGImages/FudanPed{}.png", "PedMasks/FudanPed{}_mask.png"),  # Penn-Fudan
        ("p{0}/p{0}_Dermoscopic_Image/p{0}.bmp", "p{0}/p{0}_lesion/p{0}_lesion.bmp"),  # PH2
        ("Images/Train/{}.jpg", "GT/{}.png"),  # CAMO: folders of photos alone say the splits
        ("images/image{}.png", "masks/mask{}.png"),
    ],
)
def test_names_that_masks_are_given(tmp_path, photos, masks):
    for k in (1, 2, 10):
        photo(tmp_path / photos.format(k), k)
        mask(tmp_path / masks.format(k), k)
    options = {"images": "701_StillsRaw_full", "masks": "LabeledApproved_full"} if "701" in photos else {}
    found, skipped = pairs(f"mask_folder:{tmp_path}", **options)
    assert sorted(found.values()) == [(1, 1), (2, 2), (10, 10)]
    assert not skipped


@pytest.mark.parametrize("names", [["1_L", "2_L", "7_R"], ["1_L", "2_R"], ["1_1", "2_1"], ["1L", "2L"], ["21_L", "22_L"]])
def test_letters_that_not_all_masks_have_are_no_affix(tmp_path, names):
    for k in (1, 2):
        photo(tmp_path / f"images/{k}.png", k)
    for name in names:
        mask(tmp_path / f"masks/{name}.png", 3)
    if names == ["1_1", "2_1"]:  # a second mask by number
        assert len(pairs(f"mask_folder:{tmp_path}")[0]) == 2
        return
    with pytest.raises(FileNotFoundError, match=r"masks without a photo"):
        load_dataset(f"mask_folder:{tmp_path}", "all")


@pytest.mark.parametrize(
    ("photos", "masks", "view"),
    [
        ("images/{}_dr.JPG", "manual1/{}_dr.tif", "mask/{}_dr_mask.tif"),  # HRF
        ("training/images/{}_training.tif", "training/1st_manual/{}_manual1.gif", "training/mask/{}_training_mask.gif"),
    ],
)
def test_the_field_of_view_is_no_mask(tmp_path, photos, masks, view):
    for k in (1, 2):
        photo(tmp_path / photos.format(k), k)
        mask(tmp_path / masks.format(k), k)
        mask(tmp_path / view.format(k), 30)
    assert sorted(pairs(f"mask_folder:{tmp_path}")[0].values()) == [(1, 1), (2, 2)]


def test_two_folders_that_may_be_the_masks_are_asked_for(tmp_path):
    """As in Agriculture-Vision, whose ``masks`` say where a field is, and ``labels`` what is in it."""
    for k in (1, 2):
        photo(tmp_path / f"train/images/rgb/{k}.jpg", k)
        mask(tmp_path / f"train/masks/{k}.png", 30)
        for category in ("weed", "water"):
            mask(tmp_path / f"train/labels/{category}/{k}.png", k)
    with pytest.raises(AmbiguousPairsError, match=r"train/masks/1.png and .*train/labels/water/1.png.*masks='FOLDER'"):
        load_dataset(f"mask_folder:{tmp_path}", "all")
    data = load_dataset(f"mask_folder:{tmp_path}", "all", masks="labels")
    assert data.categories == ("water", "weed")
    assert heights(data) == {"1": [1, 1], "2": [2, 2]}


def test_photos_in_a_second_folder_are_counted(tmp_path):
    for k in (1, 2):
        photo(tmp_path / f"images/{k}.jpg", k)
        photo(tmp_path / f"original/{k}.jpg", 9)
        mask(tmp_path / f"masks/{k}.png", k)
    found, skipped = pairs(f"mask_folder:{tmp_path}")
    assert sorted(found.values()) == [(1, 1), (2, 2)]
    assert len(skipped["images: in another folder than most photos"]) == 2
