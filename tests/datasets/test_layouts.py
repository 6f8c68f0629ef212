"""Every kind of data set: what is right is read right, and what is wrong is named or counted."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

sys.path.insert(0, str(Path(__file__).parent))
from layouts import BOX, CATEGORY, IGNORES, LAYOUTS, SIZE, photo

from alignsam_sb3.datasets import DATASETS, SegmentationDataset, UnreadableImageError, load_dataset
from alignsam_sb3.datasets.__main__ import main


@pytest.fixture(params=LAYOUTS)
def kind(request):
    return request.param


@pytest.fixture
def written(kind, tmp_path):
    """Spec, and one training image with its labels."""
    return LAYOUTS[kind](tmp_path)


def test_every_kind_has_a_layout():
    assert set(LAYOUTS) == set(DATASETS) - {"toy", "images"}  # those have no label files


def test_images_masks_and_categories(kind, written):
    data = load_dataset(written[0], "train")
    assert isinstance(data, SegmentationDataset)
    assert len(data) == 2
    category = data.categories.index(CATEGORY[kind])
    assert 0 in data.images_by_category[category]
    sample = data[0]
    wanted = np.zeros(SIZE, bool)
    wanted[BOX] = True
    found = sample.target(category)
    assert (found & wanted).sum() / (found | wanted).sum() > 0.9  # outlines are drawn with their border
    assert sample.image.shape == (*SIZE, 3)
    if kind in IGNORES:
        assert not sample.valid[9, 14]
        assert sample.valid[20, 20]
        assert sample.valid[0, 0]
    else:
        assert sample.valid is None
    assert load_dataset(written[0], "eval").fingerprint != data.fingerprint == load_dataset(written[0]).fingerprint


def test_splits_share_no_image(written):
    train, held_out = (load_dataset(written[0], split) for split in ("train", "eval"))
    names = [{d[i].image_id for i in range(len(d))} for d in (train, held_out)]
    assert len(names[1]) == 2
    assert written[0].startswith(("coco", "polygons")) or not names[0] & names[1]  # there names repeat in other folders


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "other size"])
def test_a_broken_image_is_an_error_that_names_it(written, damage):
    spec, image, _ = written
    content = image.read_bytes()
    if damage == "missing":
        image.unlink()
    elif damage == "other size":
        photo(image, (33, 77))
    else:
        image.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"no image"}[damage])
    broken = 0
    try:
        data = load_dataset(spec, "train")
    except ValueError:
        return  # nothing else to see
    for i in range(len(data)):
        try:
            assert data[i].masks.any()
        except UnreadableImageError as error:
            broken += 1
            assert image.name in str(error)
    skipped = 2 - len(data)
    if damage == "missing":
        assert skipped == 1
        return
    allowed = spec.startswith(("polygons", "yolo")) and damage == "other size"  # these carry no size
    assert broken + skipped == 1 or allowed


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "nothing shown", "other size"])
def test_broken_labels_are_counted_and_left_out(written, damage, caplog):
    spec, image, labels = written
    if labels is None or (labels.suffix in (".json", ".txt") and damage in ("nothing shown", "other size")):
        pytest.skip("labels of all images lie in one file; tested with its kind")
    content = labels.read_bytes()
    if damage == "missing":
        labels.unlink()
    elif damage == "nothing shown":
        with Image.open(labels) as opened:
            blank = opened.point(lambda _: 0)
        blank.save(labels)
    elif damage == "other size":
        with Image.open(labels) as opened:
            resized = opened.resize((20, 90), Image.Resampling.NEAREST)
        resized.save(labels)
    else:
        labels.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"no labels"}[damage])
    data = load_dataset(spec, "train")
    if damage == "other size":
        if not data.skipped:  # where two label files differ in size, that is seen at once
            with pytest.raises(UnreadableImageError, match=image.name):
                [data[i] for i in range(len(data))]
        return
    if labels.suffix == ".json" and damage == "missing":
        assert len(data) == 1  # an image without a file is no part of the set
        return
    assert len(data) == 1
    assert sum(len(names) for reason, names in data.skipped.items() if reason.startswith(("images", "files"))) == 1
    assert labels.stem.split("_")[0] in str(data.skipped)
    assert data[0].masks.any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_images_of_other_modes_are_read_as_rgb(written, mode):
    spec, image, _ = written
    if mode in ("P", "RGBA") and image.suffix == ".jpg":
        pytest.skip("no JPEG has this mode")
    if mode == "CMYK" and image.suffix != ".jpg":
        pytest.skip("no PNG has this mode")
    with Image.open(image) as opened:
        converted = opened.convert(mode)
    converted.save(image)
    assert load_dataset(spec, "train")[0].image.shape == (*SIZE, 3)


def test_a_camera_that_was_held_upright(written):
    """The file lies on its side, as its EXIF says; labels fit what viewers show."""
    spec, image, _ = written
    if image.suffix != ".jpg":
        pytest.skip("only cameras write EXIF")
    with Image.open(image) as opened:
        lying = opened.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    lying.save(image, exif=exif)
    assert load_dataset(spec, "train")[0].image.shape == (*SIZE, 3)


def test_categories_and_areas_that_nothing_has(kind, written):
    spec = written[0]
    with pytest.raises(ValueError, match=r"unknown category .*'thinng'|unknown option"):
        load_dataset(spec, "train", categories=["thinng"])
    with pytest.raises(ValueError, match="no usable"):
        load_dataset(spec, "train", min_area=0.9, categories=[CATEGORY[kind]])


def test_a_missing_folder_and_an_odd_split(kind, tmp_path):
    with pytest.raises((FileNotFoundError, ValueError), match="nosuch"):
        load_dataset(f"{kind}:{tmp_path / 'nosuch'}", "train")
    with pytest.raises(FileNotFoundError):
        load_dataset(f"{kind}:{tmp_path}", "train")


def test_describe_prints_counts_and_draws_a_sheet(kind, written, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    written[1].write_bytes(b"damaged")
    assert main(["describe", written[0], "--sheet", str(sheet), "--dataset-kwargs", "min_area=0.02"]) == 0
    said = capsys.readouterr().out
    assert CATEGORY[kind] in said or kind == "oxford_pets"
    assert written[1].name in said or "skipped" in said or "images" in said
    with Image.open(sheet) as opened:
        assert opened.size[0] >= 200


def test_describe_names_what_is_wrong(tmp_path, capsys):
    assert main(["describe", f"voc:{tmp_path}"]) == 1
    assert "SegmentationClass" in capsys.readouterr().err
    assert main(["describe", "voc2012:x"]) == 1
    assert "did you mean 'voc'" in capsys.readouterr().err
