"""Toy vessels, the polygons that they are written as, and images without any labels."""

import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import ToyScenes, UnreadableImageError, load_dataset
from alignsam_sb3.datasets.__main__ import main
from alignsam_sb3.datasets.outlines import draw_polygons, polygons_of


def test_vessels_are_thin_connected_to_the_border_and_repeat():
    scenes = ToyScenes("vessels", "train", n_images=20)
    assert scenes.categories == ("vessel",)
    for i in range(20):
        mask = scenes[i].target(0)
        if mask.any():
            border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
            assert border.any()
            assert mask.mean() < 0.45
    again, other = (ToyScenes("vessels", split, n_images=20) for split in ("train", "eval"))
    assert (scenes[3].image == again[3].image).all()
    assert (scenes[3].image != other[3].image).any()


def test_polygons_draw_the_very_mask():
    masks = [ToyScenes("vessels", "train", n_images=8)[i].target(0) for i in range(8)]
    ring = np.zeros((40, 50), bool)
    ring[5:30, 5:40], ring[10:20, 10:20], ring[12:15, 25:35], ring[14, 15] = True, False, False, True
    dots = np.zeros((9, 9), bool)
    dots[0, 0], dots[8, 3:6], dots[4:7, 8] = True, True, True
    for mask in (*masks, ring, dots, ~dots, np.ones((5, 7), bool)):
        assert (draw_polygons(polygons_of(mask), mask.shape) == mask).all()
    assert polygons_of(np.zeros((5, 5), bool)) == []


def test_export_is_read_by_our_loader(tmp_path, capsys):
    assert main(["export", "toy:vessels", str(tmp_path / "train"), "--dataset-kwargs", "n_images=6"]) == 0
    assert "6 images" in capsys.readouterr().out
    written, scenes = load_dataset(f"polygons:{tmp_path}", "train"), ToyScenes("vessels", "train", n_images=6)
    assert written.categories == ("vessel",)
    for i in range(len(written)):
        sample = written[i]
        original = scenes[int(sample.image_id.removesuffix(".png").rpartition("-")[2])]
        assert (sample.image == original.image).all()
        assert (sample.target(0) == original.target(0)).all()


def test_a_folder_of_images_is_a_data_set(tmp_path):
    for i in range(10):
        Image.fromarray(np.full((20 + i, 30, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    spec = f"images:{tmp_path}"
    train, held_out = (load_dataset(spec, split, categories=["crack", "stain"]) for split in ("train", "eval"))
    names = [{data[i].image_id for i in range(len(data))} for data in (train, held_out)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 10
    sample = train[0]
    assert not sample.labelled
    assert not train.labelled
    assert sample.masks.shape == (0, *sample.size)
    assert [len(images) for images in train.images_by_category] == [len(train)] * 2
    before = train.fingerprint
    Image.fromarray(np.zeros((99, 30, 3), np.uint8)).save(tmp_path / f"{train[0].image_id}")
    assert load_dataset(spec, "train", categories=["crack", "stain"]).fingerprint != before


def test_split_folders_are_used_and_empty_ones_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "train" / "a.png")
    assert len(load_dataset(f"images:{tmp_path}", "train")) == 1
    with pytest.raises(FileNotFoundError, match="none that can be used for split 'eval'"):
        load_dataset(f"images:{tmp_path}", "eval")
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        load_dataset(f"images:{tmp_path / 'none'}")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content):
    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
    parts = [load_dataset(f"images:{tmp_path}", split, folds=2) for split in ("train", "eval")]
    broken = next(data for data in parts if data._records[0].image.name == "b.png")
    with pytest.raises(UnreadableImageError, match=r"b\.png"):
        _ = broken[0]


def test_one_split_alone_is_not_folded_into_the_other(tmp_path):
    (tmp_path / "train").mkdir()
    for i in range(10):
        Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "train" / f"{i}.png")
    with pytest.raises(FileNotFoundError, match="none that can be used for split 'eval'"):
        load_dataset(f"images:{tmp_path}", "eval")
