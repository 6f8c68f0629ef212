"""What tools and publishers really write, where it gave a wrong mask, a wrong image or an error without its reason."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from layouts import LAYOUTS
from small_sets import SIZE, coco, in_folders, mask, outline, pairs, photo, rows, yolo

from alignsam_sb3.datasets import load_dataset


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bits_that_tifffile_wrote_are_as_they_were_given(tmp_path, compression):
    """It states that white is 0, and stores True as 1."""
    for k in range(2):
        photo(tmp_path / f"images/{k}.png", k)
        (tmp_path / "masks").mkdir(exist_ok=True)
        try:
            tifffile.imwrite(tmp_path / f"masks/{k}.tif", rows(k), compression=compression)
        except NotImplementedError as error:
            pytest.skip(f"this tifffile does not write it: {error}")
    assert pairs(f"mask_folder:{tmp_path}")[0] == {f"images/{k}.png": (k, k) for k in range(2)}
    shown = load_dataset(f"images:{tmp_path}/masks", "all")[1].image[..., 0]
    assert np.array_equal(shown > 0, rows(1))


def test_bits_that_others_wrote_are_read_as_their_file_says(tmp_path):
    photo(tmp_path / "images/a.png", 3)
    (tmp_path / "masks").mkdir()
    Image.fromarray(rows(3)).save(tmp_path / "masks/a.tif", compression="group4")
    assert pairs(f"mask_folder:{tmp_path}")[0] == {"images/a.png": (3, 3)}


@pytest.mark.parametrize(
    ("nothing", "stated", "dtype"),
    [
        (-9999, None, "float32"),
        (-3.4e38, None, "float32"),
        (-32768, "-32768", "int16"),
        (7, "7", "uint16"),
        (0.5, "0.5", "float32"),
    ],
)
def test_pixels_where_nothing_was_measured_are_black_and_do_not_scale(tmp_path, nothing, stated, dtype):
    ramp = np.tile(np.arange(256), (20, 1)) * 11.0 + 100
    ramp[:10] = nothing
    tags = [] if stated is None else [(42113, "s", 0, stated, True)]
    tifffile.imwrite(tmp_path / "a.tif", ramp.astype(dtype), extratags=tags)
    data = load_dataset(f"images:{tmp_path}", "all")
    image = data[0].image[..., 0].astype(int)
    assert not image[:10].any()
    assert np.abs(image[10:] - np.arange(256)).max() <= 3
    assert "black where nothing was measured" in str(data.rules)


def test_a_stack_of_pages_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, *SIZE), np.uint8), photometric="minisblack")
    data = load_dataset(f"images:{tmp_path}", "all")
    assert data[0].size == SIZE
    assert data.rules == {"pages: the first of 3": 1}


def test_panoptic_segments_that_are_not_listed_are_no_background(tmp_path):
    spec = "coco:" + str(tmp_path)
    photo(tmp_path / "val2017/a.jpg", 2)
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[rows(2), 0] = 9
    ids[30:, 30:, 1] = 1
    ids[20:25, 50:, 2] = 1
    (tmp_path / "annotations/panoptic_val2017").mkdir(parents=True)
    Image.fromarray(ids).save(tmp_path / "annotations/panoptic_val2017/a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 9, "category_id": 1}]}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}],
    }
    (tmp_path / "annotations/panoptic_val2017.json").write_text(json.dumps(content))
    data = load_dataset(spec, "eval")
    judged = data[0].valid_for(0)
    assert np.array_equal(data[0].target(0), rows(2))
    assert np.array_equal(judged, rows(2))
    assert data.skipped == {"objects: panoptic segments that the file does not list": ["a.jpg"]}
    assert data[0].left_out[-1].sum() == 10 * 30 + 5 * 10


def test_polygons_of_fractions_are_no_background(tmp_path):
    photo(tmp_path / "a.jpg", 0)
    coco(tmp_path / "a.json", ["a.jpg"], [0])
    content = json.loads((tmp_path / "a.json").read_text())
    fractions = (np.array(outline(3, 33)) / SIZE[::-1]).ravel().tolist()
    content["annotations"].append({"image_id": 0, "category_id": 1, "segmentation": [fractions]})
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = load_dataset(f"coco:{tmp_path}", "all")
    assert "objects: a polygon of fractions, where pixels are expected" in data.skipped
    assert not data[0].valid_for(0)[3:8, 33:50].any()


def test_a_file_of_annotations_and_a_folder_whose_name_has_an_at_sign(tmp_path):
    photo(tmp_path / "me@home/a.jpg", 4)
    coco(tmp_path / "me@home/notes.json", ["a.jpg"], [4])
    found, _ = pairs(f"coco:{tmp_path}/me@home/notes.json@{tmp_path}/me@home")
    assert found == {"a.jpg": (4, 4)}


def test_black_and_white_masks_in_voc_s_layout_are_not_all_border(tmp_path):
    in_folders(tmp_path, "voc", {"train": [0, 1], "val": [2]})
    for k in range(3):
        mask(tmp_path / f"SegmentationClass/{k}.png", k, 255)
    with pytest.raises(ValueError, match=r"0 and 255 alone.*mask_folder:ROOT"):
        load_dataset(f"voc:{tmp_path}", "train")
    assert pairs(f"mask_folder:{tmp_path}")[0] == {f"JPEGImages/{k}.png": (k, k) for k in range(3)}


@pytest.mark.parametrize("line", ["{}.jpg", "JPEGImages/{}.jpg", "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png", "{} 1"])
def test_lists_of_voc_with_paths_and_endings(tmp_path, line):
    in_folders(tmp_path, "voc", {"train": [0, 1], "val": [2]})
    for name, numbers in (("train", [0, 1]), ("val", [2, 1])):
        path = tmp_path / f"ImageSets/Segmentation/{name}.txt"
        path.write_text("\n".join(line.replace("{}", str(k)) for k in numbers))
    found, skipped = pairs(f"voc:{tmp_path}", "train")
    assert found == {"0": (0, 0)}
    assert list(skipped) == ["images: for evaluation too, so not for training"]


def test_cityscapes_with_photos_of_another_ending_and_with_none(tmp_path):
    spec, _, _ = LAYOUTS["cityscapes"](tmp_path)
    before = load_dataset(spec, "train")[0]
    for path in list((tmp_path / "leftImg8bit").rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    data = load_dataset(spec, "train")
    assert np.array_equal(data[0].masks, before.masks)
    for path in list((tmp_path / "leftImg8bit").rglob("*.bmp")):
        path.rename(path.with_name(path.name.replace("_leftImg8bit", "")))
    with pytest.raises(FileNotFoundError, match=r"no SPLIT/CITY/\*_leftImg8bit.png.*4 files"):
        load_dataset(spec, "train")


def test_full_ade20k_in_latin_1(tmp_path):
    spec, _, _ = LAYOUTS["ade20k_full"](tmp_path)
    for path in tmp_path.rglob("*.json"):
        path.write_bytes(path.read_text().replace("thing", "caf\u00e9").encode("latin-1"))
    assert load_dataset(spec, "train").categories == ("caf\u00e9", "sky")


def test_yolo_s_yaml_without_names_is_named(tmp_path):
    spec = yolo(tmp_path, ["a", "b"])
    (tmp_path / "data.yaml").write_text("nc: 1\ntrain: images\n")
    with pytest.raises(FileNotFoundError, match=r"data.yaml has no 'names:'"):
        load_dataset(spec, "all")


def test_a_line_of_yolo_with_a_confidence_at_its_end(tmp_path):
    spec = yolo(tmp_path, ["a", "b"])
    (tmp_path / "labels/a.txt").write_text((tmp_path / "labels/a.txt").read_text().strip() + " 0.93\n")
    assert next(iter(load_dataset(spec, "all").skipped)) == "objects: a polygon with an odd number of coordinates"


COLOURS = {"cat": (255, 0, 0), "dog": (0, 160, 60)}


def label_pictures(root, ending, colours, **how):
    """Two photos with an object of the first colour, and another of the second below it."""
    for k in range(2):
        photo(root / f"images/{k}.png", k)
        values = np.zeros((*SIZE, *np.shape(colours[0])), np.uint8)
        values[rows(k)] = colours[0]
        values[20:36, 8:40] = colours[1]
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(root / f"masks/{k}.{ending}", **how)
    return f"mask_folder:{root}"


def overlap(found, wanted):
    return (found & wanted).sum() / (found | wanted).sum()


@pytest.mark.parametrize(("ending", "how"), [("jpg", {"quality": 80}), ("webp", {"quality": 80}), ("png", {})])
def test_colours_that_a_jpeg_changed_are_the_nearest_that_are_named(tmp_path, ending, how):
    spec = label_pictures(tmp_path, ending, list(COLOURS.values()), **how)
    data = load_dataset(spec, "all", labels={name: "#" + bytes(colour).hex() for name, colour in COLOURS.items()})
    below = np.zeros(SIZE, bool)
    below[20:36, 8:40] = True
    for k in range(2):
        assert overlap(data[k].target(0), rows(k)) > 0.9
        assert overlap(data[k].target(1), below) > 0.9


@pytest.mark.parametrize(("ending", "how"), [("jpg", {"quality": 60}), ("webp", {"lossless": True}), ("png", {})])
def test_values_that_a_jpeg_changed(tmp_path, ending, how):
    spec = label_pictures(tmp_path, ending, [255, 128], **how)
    below = np.zeros(SIZE, bool)
    below[20:36, 8:40] = True
    for options in ({"label_value": 255, "ignore_value": 128}, {"labels": {"x": 255, "y": 128}}):
        sample = load_dataset(spec, "all", **options)[1]
        assert overlap(sample.target(0), rows(1)) > 0.9
        other = ~sample.valid if "ignore_value" in options else sample.target(1)
        assert overlap(other & ~rows(1), below) > 0.8


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_class_numbers_in_a_jpeg_are_refused(tmp_path, ending):
    spec = label_pictures(tmp_path, ending, [1, 2])
    options = {"labels": {"a": 1, "b": 2}}
    if ending == "png":
        assert len(load_dataset(spec, "all", **options)) == 2
        return
    with pytest.raises(ValueError, match="a JPEG keeps no values as close"):
        load_dataset(spec, "all", **options)


@pytest.mark.parametrize("kind", ["voc", "ade20k", "oxford_pets"])
def test_label_images_of_benchmarks_that_were_saved_as_jpeg_are_refused(tmp_path, kind):
    spec, _, labels = LAYOUTS[kind](tmp_path)
    for path in labels.parent.glob("*.png"):
        with Image.open(path) as opened:
            values = Image.fromarray(np.array(opened))
        path.unlink()
        values.save(path, "JPEG")  # under the name that is looked for
    with pytest.raises(ValueError, match="a JPEG keeps no"):
        load_dataset(spec, "train")


@pytest.mark.parametrize("ending", ["tif", "gif"])
def test_masks_of_several_pages_are_not_the_first_page_alone(tmp_path, ending):
    for k in range(3):
        photo(tmp_path / f"images/{k}.png", k)
        mask(tmp_path / f"masks/{k}.{ending}", k)
    first, more = (Image.fromarray(rows(k).astype(np.uint8) * 255) for k in (2, 9))
    first.save(tmp_path / f"masks/2.{ending}", save_all=True, append_images=[more])
    found, skipped = pairs(f"mask_folder:{tmp_path}")
    assert list(found) == ["images/0.png", "images/1.png"]
    assert "2 pages, where one label image is expected" in str(skipped)


def test_a_category_that_nothing_names_is_said(tmp_path, capsys):
    for k in range(2):
        photo(tmp_path / f"images/{k}.png", k)
        mask(tmp_path / f"masks/{k}.png", k)
    for options, name, said in (({}, "object", True), ({"category": "crack"}, "crack", False)):
        data = load_dataset(f"mask_folder:{tmp_path}", "all", **options)
        assert data.categories == (name,)
        assert any("called 'object'" in rule and "category=NAME" in rule for rule in data.rules) == said
