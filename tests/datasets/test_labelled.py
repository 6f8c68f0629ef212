"""What the data sets of label files share: folds, training images by number, and each kind's own rules."""

import json

import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import Cityscapes, MaskFolder, PolygonList, Voc, load_dataset
from alignsam_sb3.datasets.outlines import draw_polygons


def names(data):
    return {data[i].image_id for i in range(len(data))}


def fill(root, count=10, mask=None, suffix="_gt.png", size=(20, 30), folders=("image", "gt")):
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    shown = np.zeros(size, np.uint8) if mask is None else mask
    if mask is None:
        shown[5:15, 5:20] = 255
    for i in range(count):
        Image.new("RGB", size[::-1], (i, 2 * i, 3 * i)).save(root / folders[0] / f"{i}.png")
        Image.fromarray(shown).save(root / folders[1] / f"{i}{suffix}")
    return root


def test_folds_part_a_folder_without_splits(tmp_path):
    fill(tmp_path)
    seen = []
    for fold in range(5):
        train, held_out = (MaskFolder(tmp_path, split, fold=fold) for split in ("train", "eval"))
        assert (len(train), len(held_out)) == (8, 2)
        assert not names(train) & names(held_out)
        seen += names(held_out)
    assert len(set(seen)) == 10
    assert names(MaskFolder(tmp_path, "eval", seed=1)) != names(MaskFolder(tmp_path, "eval", seed=0))
    with pytest.raises(ValueError, match="cannot make fold 5 of 5 of 10 images"):
        MaskFolder(tmp_path, fold=5)
    with pytest.raises(ValueError, match="this folder has no split of its own"):
        MaskFolder(tmp_path, "val2017")


def test_fifty_for_training_as_the_paper_does(tmp_path):
    fill(tmp_path)
    train = MaskFolder(tmp_path, "train", n_train=3)
    assert len(train) == 3
    assert names(train) == names(MaskFolder(tmp_path, "train", n_train=3))
    assert len(MaskFolder(tmp_path, "eval", n_train=3)) == 2
    with pytest.raises(ValueError, match=r"n_train is 9, and .* has 8 usable training images"):
        MaskFolder(tmp_path, "train", n_train=9)


@pytest.mark.parametrize(
    ("image", "mask"),
    [("21_training.tif", "21_manual1.gif"), ("cat.jpg", "cat.png"), ("cat.jpg", "cat_mask.png"), ("a-img.png", "a-label.png")],
)
def test_pairs_by_name(tmp_path, image, mask):
    for folder, name in (("images", image), ("masks", mask)):
        (tmp_path / folder).mkdir()
        values = np.zeros((20, 30), np.uint8)
        values[5:15, 5:20] = 255
        Image.fromarray(values).save(tmp_path / folder / name)
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "alone.png")
    data = MaskFolder(tmp_path, "train", folds=2, fold=1)
    assert data.skipped == {"images: no mask of that name": ["images/alone.png"]}


def test_known_layouts_are_found(tmp_path):
    for folder in ("DUTS-TR", "DUTS-TE"):
        fill(tmp_path / folder, 3, folders=(f"{folder}-Image", f"{folder}-Mask"), suffix=".png")
    assert len(MaskFolder(tmp_path, "eval")) == 3
    with pytest.raises(FileNotFoundError, match="no split 'extra'; it has test, train"):
        MaskFolder(tmp_path, "extra")


def test_what_a_mask_means(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :10], mask[:, 10:20], mask[:, 20:] = 0, 128, 255
    fill(tmp_path, mask=mask)
    with pytest.raises(ValueError, match=r"hold the values \[0, 128, 255\]: say which is the object \(label_value=255"):
        MaskFolder(tmp_path)
    sample = MaskFolder(tmp_path, label_value=255, ignore_value=128)[0]
    assert sample.target(0)[:, 20:].all()
    assert sample.target(0).sum() == 200
    assert not sample.valid[:, 10:20].any()
    assert MaskFolder(tmp_path, threshold=100)[0].target(0).sum() == 400
    turned = MaskFolder(tmp_path, label_value=255, ignore_value=128, inverted=True)[0]
    assert turned.target(0).sum() == 200
    assert turned.target(0)[:, :10].all()
    assert MaskFolder(tmp_path, threshold=1, category="vessel").categories == ("vessel",)


def test_masks_of_zero_and_one_and_blurred_ones(tmp_path):
    ones = np.zeros((20, 30), np.uint8)
    ones[5:15] = 1
    assert MaskFolder(fill(tmp_path / "a", mask=ones))[0].target(0).sum() == 300
    blurred = np.tile(np.linspace(0, 255, 30).astype(np.uint8), (20, 1))
    assert MaskFolder(fill(tmp_path / "b", mask=blurred))[0].target(0)[:, 15:].all()


def test_polygons_are_drawn_where_they_are(tmp_path):
    mask = draw_polygons([[2, 3, 8, 3, 8, 9, 2, 9]], (12, 12))
    wanted = np.zeros((12, 12), bool)
    wanted[3:9, 2:8] = True
    assert (mask & wanted).sum() == 36
    assert mask.sum() <= 49  # with the border that drawing adds
    for bad, said in (
        ([1, 2, 3, 4], "fewer than three"),
        ([1, 2, 3, 4, 5], "odd"),
        ([float("nan")] * 6, "no finite"),
        ([1e15] * 6, "far"),
    ):
        with pytest.raises(ValueError, match=said):
            draw_polygons([bad], (9, 9))


def test_polygon_lists_count_what_they_cannot_use(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    good = {"image": "a.png", "mask": [[2, 2, 20, 2, 20, 15]], "category": "vessel"}
    again = {"image": "a.png", "mask": [[22, 2, 29, 2, 29, 18]]}
    bad = [{"image": "b.png", "mask": [[1, 1, 2]]}, {"mask": []}, 7]
    (tmp_path / "annotations.json").write_text(json.dumps([good, again, *bad]))
    data = PolygonList(tmp_path)
    sample = data[0]
    assert sorted(data.categories[c] for c in sample.category_ids) == ["object", "vessel"]
    assert data.skipped["objects: entries without image or mask"] == ["entry 3", "entry 4"]
    assert data.skipped["images: no such file"] == ["b.png"]
    (tmp_path / "annotations.json").write_text('{"image": 1}')
    with pytest.raises(ValueError, match="is no list of"):
        PolygonList(tmp_path)


def test_voc_instances_and_classes(tmp_path):
    base = tmp_path
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/trainval.txt").write_text("a\n")
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (base / folder).mkdir()
    Image.new("RGB", (30, 20)).save(base / "JPEGImages/a.jpg")
    classes, objects = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    classes[2:9, 2:9], objects[2:9, 2:9] = 15, 1
    classes[2:9, 12:20], objects[2:9, 12:20] = 15, 2
    classes[12:18, 2:9], objects[12:18, 2:9] = 8, 3
    Image.fromarray(classes).save(base / "SegmentationClass/a.png")
    Image.fromarray(objects).save(base / "SegmentationObject/a.png")
    data = load_dataset(f"voc:{base}:trainval")
    assert [Voc(base, "trainval").categories[c] for c in data[0].category_ids] == ["person", "person", "cat"]
    (base / "SegmentationObject/a.png").unlink()
    assert len(Voc(base, "trainval")[0].masks) == 2
    with pytest.raises(FileNotFoundError, match="has trainval"):
        Voc(base, "eval")


def test_cityscapes_groups_stay_whole(tmp_path):
    for folder in ("leftImg8bit/train/ulm", "gtFine/train/ulm"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "leftImg8bit/train/ulm/u_0_0_leftImg8bit.png")
    ids, instances = np.full((20, 30), 7, np.uint8), np.full((20, 30), 7, np.uint16)
    ids[2:9, 2:20] = 26
    instances[2:9, 2:9], instances[2:9, 9:20] = 26001, 26002
    ids[12:18, 2:9] = instances[12:18, 2:9] = 4
    Image.fromarray(ids).save(tmp_path / "gtFine/train/ulm/u_0_0_gtFine_labelIds.png")
    Image.fromarray(instances).save(tmp_path / "gtFine/train/ulm/u_0_0_gtFine_instanceIds.png")
    data = Cityscapes(tmp_path, "train")
    sample = data[0]
    assert [data.categories[c] for c in sample.category_ids] == ["road", "car", "car"]
    assert not sample.valid[12:18, 2:9].any()
    assert sample.valid.sum() == 600 - 42


def test_real_pets(photographs):
    train, held_out = (load_dataset(f"oxford_pets:{photographs / 'oxford_pets26'}", split) for split in ("train", "eval"))
    assert len(train) + len(held_out) == 26
    assert not names(train) & names(held_out)
    sample = train[0]
    assert 0.02 < sample.target(int(sample.category_ids[0])).mean() < 0.9
    assert 0.0 < (~sample.valid).mean() < 0.3
