"""Which images are for training and which for evaluation, in every kind of data set."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from small_sets import in_folders

from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.__main__ import main
from alignsam_sb3.datasets.splits import plain_split, split_of

KINDS = ["images", "mask_folder", "labelme", "yolo", "polygons", "voc", "coco"]


def greys(spec, split):
    """The photos of a split, by the number that their grey value is."""
    data = load_dataset(spec, split)
    return sorted(round((float(np.median(data[i].image)) - 20) / 12) for i in range(len(data)))


@pytest.mark.parametrize(
    ("name", "word", "plain"),
    [
        ("train1", "train", "train1"),
        ("Train_02_images", "train", "train2"),
        ("validation-3", "val", "val3"),
        ("test0", "test", "test0"),
        ("train2017", "train", "train"),
        ("my-test", "test", "test"),
        ("train_val", "trainval", "trainval"),
        ("my_train-val", "trainval", "trainval"),
        ("a. Training Set", "train", "train"),  # IDRiD
        ("Hold_Out 2", "test", "test2"),
        ("trainer1", None, None),
        ("part1", None, None),
        ("traincrop", "train", "train"),  # Crack500
        ("contest2", None, None),
    ],
)
def test_names_of_splits(name, word, plain):
    assert (split_of(name), plain_split(name)) == (word, plain)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [["val1"], ["test_1", "test_2"]])
def test_numbered_folders_are_splits(tmp_path, kind, held_out):
    several = {"train1": [0, 1], "train2": [2]} if kind != "coco" else {"train1": [0, 1, 2]}
    held_out = held_out[:1] if kind == "coco" else held_out
    spec = in_folders(tmp_path, kind, several | {name: [3 + k] for k, name in enumerate(held_out)})
    if len(held_out) > 1:  # as many numbers on both sides: these may be folds
        with pytest.raises(ValueError, match="look like folds"):
            load_dataset(spec, "train")
        return
    assert greys(spec, "train") == [0, 1, 2]
    assert greys(spec, "eval") == [3]
    assert greys(f"{spec}:{held_out[0]}", "train") == [3]
    if kind != "coco":
        assert greys(f"{spec}:train_2", "train") == [2]
        with pytest.raises(FileNotFoundError, match=r"no split 'train3'|has train1, train2"):
            load_dataset(f"{spec}:train3", "train")


@pytest.mark.parametrize("kind", KINDS)
def test_folds_by_folders_are_refused_and_each_can_be_named(tmp_path, kind):
    spec = in_folders(tmp_path, kind, {"train1": [0, 1], "val1": [2], "train2": [1, 2], "val2": [0]})
    for split in ("train", "eval"):
        with pytest.raises(ValueError, match=r"look like folds.*:train1 to train and :val1 to evaluate"):
            load_dataset(spec, split)
    assert greys(f"{spec}:train2", "train") == [1, 2]
    assert greys(f"{spec}:val2", "eval") == [0]


@pytest.mark.parametrize("kind", ["images", "mask_folder", "labelme", "yolo"])
@pytest.mark.parametrize(
    ("train", "held_out"), [("a. Training Set", "b. Testing Set"), ("My train", "holdout_images"), ("Train_Val", "1-Test")]
)
def test_unlucky_names_of_folders(tmp_path, kind, train, held_out):
    spec = in_folders(tmp_path, kind, {train: [0, 1], held_out: [2]})
    assert [greys(spec, split) for split in ("train", "eval")] == [[0, 1], [2]]


@pytest.mark.parametrize("kind", ["images", "mask_folder", "labelme", "yolo"])
def test_folds_in_folders_of_their_own_are_refused(tmp_path, kind):
    folders = {"fold_1/train": [0], "fold_1/val": [1], "fold_2/train": [1], "fold_2/val": [0]}
    spec = in_folders(tmp_path, kind, folders)
    with pytest.raises(ValueError, match=r"look like folds.*/fold_1"):
        load_dataset(spec, "train")
    others = {"street/train": [0], "street/val": [1], "field/train": [2], "field/val": [3]}
    spec = in_folders(tmp_path / "other", kind, others)
    assert [greys(spec, split) for split in ("train", "eval")] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("kind", ["images", "mask_folder", "labelme", "yolo"])
def test_names_that_are_nearly_those_of_splits_are_asked_for(tmp_path, kind):
    spec = in_folders(tmp_path, kind, {"trainers_2": [0, 1, 2], "testers_2": [3]})
    with pytest.raises(ValueError, match=r"trainers_2 and testers_2.*part='all'"):
        load_dataset(spec, "train")
    assert greys(f"{spec}:trainers_2", "train") == [0, 1, 2]
    assert len(load_dataset(spec, "train", part="all", folds=2)) == 2


def test_coco_files_of_one_split_are_not_left_out_silently(tmp_path):
    spec = in_folders(tmp_path, "coco", {"train1": [0, 1], "train2": [2], "val": [3]})
    with pytest.raises(ValueError, match=r"instances_train1\.json, .*instances_train2\.json.*coco:.*:train1"):
        load_dataset(spec, "train")
    assert greys(f"{spec}:train2", "train") == [2]


@pytest.mark.parametrize("kind", ["images", "mask_folder", "labelme", "yolo"])
def test_a_link_into_the_evaluation_folder_is_not_trained_on(tmp_path, kind):
    spec = in_folders(tmp_path, kind, {"train": [0, 1], "val": [2]})
    base = tmp_path / "images" if kind == "yolo" else tmp_path
    for path in base.glob("val/2*"):
        (base / "train" / path.name).symlink_to(path)
    if kind == "yolo":
        (tmp_path / "labels/train/2.txt").symlink_to(tmp_path / "labels/val/2.txt")
    data = load_dataset(spec, "train")
    assert len(data) == 2
    assert len(data.skipped["images: for evaluation too, so not for training"]) == 1
    assert greys(spec, "eval") == [2]


@pytest.mark.parametrize("kind", ["images", "mask_folder", "labelme", "yolo", "voc"])
def test_links_that_lead_nowhere_are_counted(tmp_path, kind):
    spec = in_folders(tmp_path, kind, {"train": [0, 1], "val": [2]})
    place = {"yolo": "images/train", "voc": "JPEGImages"}.get(kind, "train")
    ending = "json" if kind == "labelme" else "png"
    (tmp_path / place / f"lost.{ending}").symlink_to(tmp_path / f"gone.{ending}")
    data = load_dataset(spec, "train")
    assert len(data) == 2
    assert [len(names) for reason, names in data.skipped.items() if "leads nowhere" in reason] == [1]


def test_a_folder_that_cannot_be_entered_is_counted(tmp_path, monkeypatch):
    import os

    spec = in_folders(tmp_path, "images", {"train": [0, 1], "train/closed": [2]})
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    data = load_dataset(spec, "train")
    assert len(data) == 2
    assert data.skipped == {"files: a folder that cannot be read (Permission denied)": ["train/closed"]}


@pytest.mark.parametrize("kind", ["images", "mask_folder"])
def test_describe_says_what_it_does_not_show(tmp_path, kind, capsys):
    spec = in_folders(tmp_path, kind, {"a": range(10)})

    def said(split):
        assert main(["describe", spec, "--split", split]) == 0
        return capsys.readouterr().out.splitlines()[:2]

    first, second = said("train")
    assert first == "8 images for training, 8 of them read"
    assert second.startswith("2 more are kept for evaluation") and "--split eval shows those, --split all" in second
    first, second = said("eval")
    assert first == "2 images for evaluation, 2 of them read" and second.startswith("8 more are kept for training")
    first, second = said("all")
    assert first == "10 images, 10 of them read" and "more are kept" not in second
    spec = in_folders(tmp_path / "named", kind, {"train": range(3), "val": range(3, 5)})
    first, second = said("train")
    assert first == "3 images for training, 3 of them read" and "more are kept" not in second
