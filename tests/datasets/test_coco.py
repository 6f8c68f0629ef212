import json

import numpy as np
import pytest

from alignsam_sb3.datasets import CocoDataset, SegmentationDataset, draw_episode, load_dataset


def edit(root, split, change):
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_reads_polygons_and_rle_and_leaves_out_crowds_and_small_objects(coco_root):
    data = CocoDataset(coco_root, "train")
    assert isinstance(data, SegmentationDataset)
    assert data.categories == ("cat", "dog", "crowdy")
    assert [len(images) for images in data.images_by_category] == [3, 2, 0]
    assert {draw_episode(data.images_by_category, np.random.default_rng(s))[1] for s in range(20)} == {0, 1}
    assert {reason: len(names) for reason, names in data.skipped.items()} == {
        "objects: crowd": 1,
        "objects: smaller than 1.00% of the image": 1,
    }
    sample = data[0]
    assert sample.masks.shape == (2, 60, 90)
    assert sample.target(0).sum() == 800  # the RLE
    assert abs(sample.target(1).sum() - 600) < 60  # the polygon


def test_what_is_left_out_counts_neither_way_for_its_own_category(coco_root):
    def move(content):
        crowd = next(a for a in content["annotations"] if a["iscrowd"])
        crowd["segmentation"] = [[5, 30, 20, 30, 20, 50, 5, 50]]
        content["annotations"] += [{**crowd, "id": 900, "segmentation": "nonsense"}]

    edit(coco_root, "train2017", move)
    data = CocoDataset(coco_root, "train")
    crowdy, cat, dog = data.categories.index("crowdy"), data.categories.index("cat"), data.categories.index("dog")
    assert not data[0].valid_for(crowdy)[35:45, 8:18].any()
    assert data[0].valid_for(crowdy)[1:20].all()
    assert data[0].valid_for(cat) is None  # a crowd of something else is background for a cat
    assert not data[1].valid_for(dog)[2:4, 2:4].any()  # too small
    assert data[1].valid_for(cat) is None


@pytest.mark.parametrize("split", ["train", "eval", "train2017", "val2017"])
def test_finds_images_in_both_layouts(coco_root, split):
    assert len(CocoDataset(coco_root, split)) == 4


def test_the_category_filter_keeps_its_images(coco_root):
    data = load_dataset(f"coco:{coco_root}", "eval", categories=["cat"])
    assert data.categories == ("cat",)
    assert [len(i) for i in data.images_by_category] == [3]
    assert all(data[i].target(0).any() for i in range(len(data)))


def test_a_split_in_the_spec_goes_first(coco_root):
    assert "val2017" in load_dataset(f"coco:{coco_root}:val2017", "train").fingerprint


def test_at_most_k_instances_the_largest(coco_root):
    def add(content):
        for k in range(7):
            box = [[k, 40, k + 10 + k, 40, k + 10 + k, 50, k, 50]]
            area = 10 * (10 + k)
            content["annotations"].append(
                {"id": 100 + k, "image_id": 1, "category_id": 1, "segmentation": box, "area": area, "iscrowd": 0}
            )

    edit(coco_root, "train2017", add)
    data = CocoDataset(coco_root, "train", max_instances=3)
    assert (data[1].category_ids == 0).sum() == 3
    assert data[1].masks[data[1].category_ids == 0].sum((1, 2)).min() > 140
    assert len(data.skipped["objects: more than max_instances=3"]) == 5
    everything = CocoDataset(coco_root, "train", max_instances=None)[1].target(0)
    assert not data[1].valid_for(0)[everything & ~data[1].target(0)].any()
    assert data[1].valid_for(0)[~everything].all()
    assert (
        CocoDataset(coco_root, "train", max_instances=None)[1].valid_for(0, max_instances=3).sum()
        == data[1].valid_for(0).sum()
    )


def test_an_unknown_category_names_the_nearest(coco_root):
    with pytest.raises(ValueError, match="did you mean 'cat'"):
        CocoDataset(coco_root, "train", categories=["cta"])


@pytest.mark.parametrize("options", [{"categories": ["crowdy"]}, {"categories": ["dog"], "min_area": 0.5}])
def test_a_category_without_usable_objects_is_an_error_at_start(coco_root, options):
    with pytest.raises(ValueError, match="no usable image of"):
        CocoDataset(coco_root, "train", **options)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"segmentation": []}, "a box alone"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "odd number"),
        ({"segmentation": [[500, 500, 600, 500, 600, 600]]}, "without a pixel"),
        ({"segmentation": [[5, 5, 1e15, 5, 5, 50]]}, "far outside"),
        ({"segmentation": [[5, 5, float("inf"), 5, 5, 50]]}, "no finite number"),
        ({"segmentation": [[5, 5, None, 5, 5, 50]]}, "something else than numbers"),
        ({"segmentation": {"counts": [10, 20], "size": [60, 90]}}, "do not add up"),
        ({"segmentation": {"counts": [-10, 5410], "size": [60, 90]}}, "do not add up"),
        ({"segmentation": {"counts": "05", "size": [60, 90]}}, "do not add up"),
        ({"segmentation": {"counts": "05", "size": [6, 9]}}, "another size"),
        ({"segmentation": {"counts": "05"}}, "without a size"),
        ({"segmentation": "nonsense"}, "neither polygons"),
        ({"image_id": 999}, "unknown image_id"),
        ({"category_id": 999}, "does not list"),
    ],
)
def test_broken_annotations_are_counted(coco_root, damage, reason):
    edit(coco_root, "train2017", lambda content: content["annotations"][0].update(damage))
    data = CocoDataset(coco_root, "train")
    (found,) = [names for why, names in data.skipped.items() if reason in why]
    assert len(found) == 1
    assert all(data[i].masks.any((1, 2)).all() for i in range(len(data)))


@pytest.mark.parametrize(("damage", "left"), [({"height": None}, 4), ({"height": "tall"}, 4), ({"file_name": None}, 3)])
def test_a_size_that_is_not_stated_is_read_from_the_file(coco_root, damage, left):
    edit(coco_root, "train2017", lambda content: content["images"][2].update(damage))
    data = CocoDataset(coco_root, "train")
    assert len(data) == left
    assert ("images: entries without a file_name" in data.skipped) == (left == 3)


def test_missing_things_are_named(coco_root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no split 'nosuch'; it has train, val"):
        CocoDataset(coco_root, "nosuch")
    for content in (b'{"images": 3}', b"[1]", b"not json", b"\xff\xd8\xff\xe0 a picture"):
        (coco_root / "annotations" / "instances_train2017.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"instances_train2017\.json is not a COCO annotation file"):
            CocoDataset(coco_root, "train")


def test_a_missing_image_is_counted(coco_root):
    (coco_root / "val2017" / "002.png").unlink()
    data = CocoDataset(coco_root, "eval")
    assert len(data) == 3
    assert data.skipped["images: no such file"] == ["002.png"]


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_what_a_file_lacks_is_named(coco_root, key):
    edit(coco_root, "train2017", lambda content: content.pop(key))
    with pytest.raises(ValueError, match=f"it has no '{key}'"):
        CocoDataset(coco_root, "train")


def test_the_fingerprint_changes_with_the_images(coco_root):
    before = CocoDataset(coco_root, "eval").fingerprint
    (coco_root / "val2017" / "002.png").write_bytes(b"other")
    assert CocoDataset(coco_root, "eval").fingerprint != before


def test_real_photographs(photographs):
    data = load_dataset(f"coco:{photographs / 'coco_permissive'}", "eval", categories=["person"])
    assert len(data) == 4
    for i in range(len(data)):
        sample = data[i]
        assert sample.image.shape[:2] == sample.masks.shape[1:]
        assert sample.target(0).mean() >= 0.01
        assert np.issubdtype(sample.image.dtype, np.uint8)
