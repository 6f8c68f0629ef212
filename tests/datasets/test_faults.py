"""Kinds of fault that public reports named: each is read right, refused with a reason, or counted."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image, UnidentifiedImageError

from alignsam_sb3.callbacks.metrics import category_key
from alignsam_sb3.datasets import UnreadableImageError, load_dataset
from alignsam_sb3.datasets.__main__ import main
from alignsam_sb3.datasets.image_files import forget_other_formats
from alignsam_sb3.datasets.images import PhotoReader
from alignsam_sb3.datasets.labels import voc_colours
from alignsam_sb3.datasets.mask_values import AmbiguousMasksError
from alignsam_sb3.datasets.options import parse_options
from alignsam_sb3.datasets.pairing import AmbiguousPairsError
from alignsam_sb3.datasets.seen import SeenImages, image_hash, image_hashes, seen_in

SIZE, BOX = (40, 60), (slice(10, 30), slice(15, 45))
POLYGON = [[15, 10, 45, 10, 45, 30, 15, 30]]


def photo(path, seed=0, size=SIZE, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **how)


def mask(path, values=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(SIZE, np.uint8)
    labels[BOX] = values
    Image.fromarray(labels).save(path)


def read(spec, split="all", **options):
    data = load_dataset(spec, split, **options)
    return {data[i].image_id: int(data[i].masks.sum()) for i in range(len(data))}


def coco(root, names, segmentation=POLYGON, **entry):
    images = [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)]
    notes = [{"id": 1, "image_id": k, "category_id": 1, "segmentation": segmentation, **entry} for k in range(len(names))]
    content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "x"}]}
    (root / "set.json").write_text(json.dumps(content))
    return f"coco:{root}"


@pytest.mark.parametrize(
    ("images", "masks", "splits"),
    [
        ("train/train_A/{}.png", "train/train_B/{}.png", "train"),
        ("ISIC2018_Task1-2_Training_Input/{}.jpg", "ISIC2018_Task1_Training_GroundTruth/{}_segmentation.png", "train"),
        ("test/images/{}_test.tif", "test/1st_manual/{}_manual1.gif", "eval"),
        ("images/val/{}.jpg", "masks/val/{}.png", "eval"),
        ("{}A.png", "{}B.png", "all"),
        ("{}.jpg", "{}.png", "all"),
        ("{}.jfif", "{}_GT.png", "all"),
        ("JPEGImages/bear/{}.jpg", "Annotations/bear/{}.png", "all"),
    ],
)
def test_masks_are_found_in_the_usual_places(tmp_path, images, masks, splits):
    for k in range(3):
        photo(tmp_path / images.format(k), k)
        mask(tmp_path / masks.format(k))
    for folder in {(tmp_path / images).parent for _ in "x" if "1st" in masks}:
        mask(folder.with_name("mask") / "0_test_mask.gif", 1)  # a field of view is no truth
    assert list(read(f"mask_folder:{tmp_path}", splits).values()) == [600] * 3


@pytest.mark.parametrize("ends, kept", [(["_fur"] * 3, 3), (["_fur", "_fur", "_hide"], 0)])
def test_masks_in_a_folder_may_all_end_with_any_one_word(tmp_path, ends, kept):
    for k, end in enumerate(ends):
        photo(tmp_path / f"pictures/cat_{k}a.jpg", k)
        photo(tmp_path / f"pictures/cat_{k}.jpg", k + 3)
        mask(tmp_path / f"drawn/cat_{k}a{end}.png")
    folders = {"images": "pictures", "masks": "drawn"}
    if kept:
        assert list(read(f"mask_folder:{tmp_path}", **folders)) == [f"pictures/cat_{k}a.jpg" for k in range(3)]
    else:
        with pytest.raises(FileNotFoundError, match=r"A mask is called as its photo, or that and a word: .*cat_mask\.png"):
            read(f"mask_folder:{tmp_path}", **folders)


def test_an_ambiguous_pair_shows_examples_and_the_option_that_settles_it(tmp_path):
    for k in range(4):
        photo(tmp_path / f"images/{k}.jpg", k)
        photo(tmp_path / f"images/{k}.png", k)
        mask(tmp_path / f"masks/{k}.png")
    with pytest.raises(AmbiguousPairsError, match=r"4 times.*masks/2.png with .*images='FOLDER'"):
        read(f"mask_folder:{tmp_path}")
    assert len(read(f"mask_folder:{tmp_path}", images="images/*.jpg", masks="masks/*")) == 4


@pytest.mark.parametrize("others", [[1, 2], [128], [0, 3]])
def test_the_first_mask_does_not_decide(tmp_path, others):
    for k in range(5):
        photo(tmp_path / f"images/{k}.png", k)
        values = np.full((20, 30), 255, np.uint8)
        if k == 4:
            values[: len(others)] = np.array(others)[:, None]
        mask(tmp_path / f"masks/{k}.png", values)
    with pytest.raises(AmbiguousMasksError, match="label_value=255"):
        read(f"mask_folder:{tmp_path}")


def test_several_values_and_several_categories(tmp_path):
    for k in range(2):
        photo(tmp_path / f"images/{k}.png", k)
        mask(tmp_path / f"masks/{k}.png", np.repeat([1, 2, 7], 10)[None])
    spec = f"mask_folder:{tmp_path}"
    assert set(read(spec, label_value=[1, 7]).values()) == {400}
    data = load_dataset(spec, "all", labels={"road": 1, "car": [2, 7]})
    assert data.categories == ("road", "car")
    assert [int(data[0].target(c).sum()) for c in (0, 1)] == [200, 400]
    with pytest.raises(ValueError, match="expected a number, or a colour"):
        load_dataset(spec, "all", labels={"road": "red"})


def test_masks_of_another_size(tmp_path):
    photo(tmp_path / "images/a.png", size=(80, 120))
    mask(tmp_path / "masks/a.png")
    spec = f"mask_folder:{tmp_path}"
    with pytest.raises(UnreadableImageError, match="resize_masks=True"):
        read(spec)
    assert read(spec, resize_masks=True) == {"images/a.png": 2400}
    photo(tmp_path / "images/a.png", size=(80, 90))
    with pytest.raises(UnreadableImageError, match="proportions differ"):
        read(spec, resize_masks=True)


def test_voc_colours_are_those_of_the_benchmark():
    table = {colour: k for colour, k in voc_colours(22).items()}
    assert (table[0x800000], table[0x008000], table[0xC08000], table[0x004080]) == (1, 2, 11, 20)
    assert voc_colours()[0xE0E0C0] == 255


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (lambda v: (v / 255).astype(np.float32), "0 to 1"),
        (lambda v: (v / 127.5 - 1).astype(np.float32), "-1 to 1"),
        (lambda v: np.where(v == 7, np.nan, v / 255).astype(np.float32), "0 to 1"),
        (lambda v: v.astype(np.uint16) * 257, "16 bits in full"),
        (lambda v: v.astype(np.uint16) * 16, "percentiles"),
        (lambda v: np.stack([v.astype(np.uint16) * 257] * 5), "16 bits in full"),
    ],
)
def test_depth(tmp_path, values, rule):
    eight = np.tile(np.arange(256, dtype=np.uint8), (20, 1))
    planes = {"photometric": "minisblack"} | ({"planarconfig": "separate"} if values(eight).ndim == 3 else {})
    tifffile.imwrite(tmp_path / "a.tif", values(eight), **planes)
    reader = PhotoReader()
    got = reader.read(tmp_path / "a.tif")[..., 0].astype(int)
    assert np.abs(got - np.where(eight == 7, got, eight)).max() <= 2
    assert rule in str(reader.rules)
    assert PhotoReader(scale=4095).limits == (0, 4095)
    with pytest.raises(ValueError, match="black < white"):
        PhotoReader(scale=[5, 5])


@pytest.mark.parametrize(("kind", "convention"), [("labelme", "turned"), ("mask_folder", "turned"), ("coco", "stored")])
@pytest.mark.parametrize("tag", [3, 2, 6])
def test_orientation_where_no_size_can_tell(tmp_path, kind, convention, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    photo(tmp_path / "images/a.png", size=(40, 40), exif=exif)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(40, dtype=bool).repeat(1, 0)).save(tmp_path / "masks/a.png")
    shape = {"label": "x", "points": [[5, 5], [20, 5], [20, 20]]}
    content = {"shapes": [shape], "imagePath": "../images/a.png", "imageHeight": 40, "imageWidth": 40}
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.json").write_text(json.dumps(content))
    if kind == "coco":
        (tmp_path / "labels/a.json").unlink()
        coco(tmp_path, ["a.png"])
        (tmp_path / "set.json").write_text((tmp_path / "set.json").read_text().replace('"width": 60', '"width": 40'))
    stored = np.asarray(Image.open(tmp_path / "images/a.png"))
    for asked, expected in ((None, convention), ("turned", "turned"), ("stored", "stored")):
        image = load_dataset(f"{kind}:{tmp_path}", "all", orientation=asked)[0].image
        assert (image == stored).all() == (expected == "stored")


def test_names_that_lead_out_are_never_followed(tmp_path):
    root = tmp_path / "set"
    photo(root / "ok.png")
    photo(tmp_path / "secret.png")
    names = ["C:\\data\\ok.png", "../secret.png", str(tmp_path / "secret.png"), "/etc/passwd"]
    data = load_dataset(coco(root, names), "all")
    assert [data[i].image_id for i in range(len(data))] == names[:1]
    assert len(data.skipped["images: file name outside the data set's folder"]) == 3


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "..\\evil.json"])
def test_an_archive_writes_nothing_outside(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, "{}")
    with pytest.raises(ValueError, match="outside its folder"):
        load_dataset(f"coco:{tmp_path / 'x.zip'}")
    assert not list(tmp_path.rglob("evil*"))


def test_an_archive_that_grows_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", b"0" * 100_000_000)
    with pytest.raises(ValueError, match="times its size"):
        load_dataset(f"coco:{tmp_path / 'x.zip'}")


def test_no_format_that_calls_another_program(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(UnreadableImageError, match="cannot identify"):
        PhotoReader().read(tmp_path / "a.png")


def test_a_server_opens_no_such_format_either(monkeypatch):
    """Gradio opens with Pillow itself what people upload."""
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert Image.open(io.BytesIO(postscript)).format == "EPS"
    forget_other_formats()
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(postscript))
    png = io.BytesIO()
    Image.new("RGB", (2, 2)).save(png, "PNG")
    assert Image.open(png).format == "PNG"


def test_links_odd_endings_and_names_that_are_not_utf8(tmp_path, capsys):
    root = tmp_path / "set"
    photo(root / "a.JFIF", format="JPEG")
    photo(tmp_path / "elsewhere/b.png", 1)
    (root / "folder.png").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "back").symlink_to(root)
    os.rename(tmp_path / "elsewhere/b.png", os.fsencode(tmp_path / "elsewhere") + b"/caf\xe9.png")  # noqa: PTH104
    data = load_dataset(f"images:{root}", "all")
    assert [data[i].image_id for i in range(len(data))] == ["a.JFIF", "linked/caf\\udce9.png"]
    assert main(["describe", f"images:{root}", "--split", "all"]) == 0


@pytest.mark.parametrize("kind", ["labelme", "mask_folder", "images"])
@pytest.mark.parametrize("held_out", ["val", "valid", "Test", "validation_images"])
def test_what_lies_outside_the_evaluation_folder_is_for_training(tmp_path, kind, held_out):
    for k, folder in enumerate(["", "", "", held_out, held_out]):
        photo(tmp_path / folder / f"{k}.jpg", k)
        mask(tmp_path / folder / f"{k}_mask.png") if kind == "mask_folder" else None
        shapes = [{"label": "x", "points": [[15, 10], [44, 10], [44, 29]]}]
        content = {"shapes": shapes, "imagePath": f"{k}.jpg", "imageHeight": 40, "imageWidth": 60}
        if kind == "labelme":
            (tmp_path / folder / f"{k}.json").write_text(json.dumps(content))
    train, evaluation = (load_dataset(f"{kind}:{tmp_path}", split) for split in ("train", "eval"))
    assert (len(train), len(evaluation)) == (3, 2)
    assert not seen_in(evaluation, SeenImages(image_hashes(train))).any()


def test_a_part_is_divided_and_options_may_differ_between_splits(tmp_path):
    for k in range(6):
        photo(tmp_path / "images/default" / f"{k}.png", k)
    spec = coco(tmp_path, [f"{k}.png" for k in range(6)])
    for more in ({}, {"part": "all"}):
        names = [set(read(spec, split, folds=3, **more)) for split in ("train", "eval")]
        assert [len(n) for n in names] == [4, 2]
        assert not names[0] & names[1]
    assert [len(read(f"{spec}:all", split, folds=2)) for split in ("train", "eval")] == [3, 3]
    small = {"min_area": {"train": 0.0, "eval": 0.9}}
    assert len(read(spec, "train", **small)) == 4
    with pytest.raises(ValueError, match="no usable image"):
        read(spec, "eval", **small)


def test_three_images_are_enough(tmp_path):
    for k in range(3):
        photo(tmp_path / f"{k}.png", k)
    assert [len(load_dataset(f"images:{tmp_path}", split)) for split in ("train", "eval", "all")] == [2, 1, 3]


def test_boxes_without_masks_are_named(tmp_path):
    photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="bbox and no segmentation"):
        load_dataset(coco(tmp_path, ["a.png"], [], bbox=[5, 5, 20, 20]), "all")


def test_seen_images_are_known_by_their_pixels(tmp_path):
    for k in range(4):
        photo(tmp_path / "one" / f"{k}.png", k)
    photo(tmp_path / "two/copy.bmp", 2)
    photo(tmp_path / "two/other.png", 9)
    (tmp_path / "two/damaged.png").write_bytes(b"no image")
    seen = SeenImages(image_hashes(load_dataset(f"images:{tmp_path / 'one'}", "all")))
    assert len(seen) == 4
    again = load_dataset(f"images:{tmp_path / 'two'}", "all")
    assert dict(zip([r.image_id for r in again._records], seen_in(again, seen).tolist(), strict=True)) == {
        "copy.bmp": True,
        "damaged.png": False,
        "other.png": False,
    }
    assert SeenImages.from_json(json.loads(json.dumps(seen.to_json()))) == seen
    assert image_hash(again[0].image) in seen
    assert len(seen.add([image_hash(again[2].image)])) == 5
    with pytest.raises(ValueError, match="no list of seen images"):
        SeenImages.from_json({**seen.to_json(), "count": 5})
    photo(tmp_path / "two/other.png", 1)  # the cache goes by the file, not by its name
    assert seen_in(load_dataset(f"images:{tmp_path / 'two'}", "all"), seen)[2]


def test_options_of_the_command_line():
    said = parse_options(["n=16", "v=[3,4]", "labels={'a': 1}", "name=it's", "yes=true", "no=None", "run=__import__('os')"])
    assert said == {
        **{"n": 16, "v": [3, 4], "labels": {"a": 1}, "name": "it's", "yes": True, "no": None, "run": "__import__('os')"},
    }
    assert parse_options(['{"folds": 2}']) == {"folds": 2}
    for bad in (["folds"], ["a=1", "a=2"], ["[1]"], ["{1: 2}"]):
        with pytest.raises(ValueError, match=r"expected|given twice"):
            parse_options(bad)


def test_describe_says_what_was_left_out_and_strict_makes_it_an_exit_code(tmp_path, capsys):
    for k in range(3):
        photo(tmp_path / f"images/{k}.png", k)
        mask(tmp_path / f"masks/{k}.png")
    command = ["describe", f"mask_folder:{tmp_path}", "--split", "all", "--strict"]
    assert main(command) == 0
    (tmp_path / "masks/2.png").unlink()
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "1 images: no mask of that name (first: images/2.png)" in said
    assert "2 x mask values: 0 is background, 255 the object" in said


def test_long_category_names_stay_apart():
    keys = [category_key(f"left ventricle of the heart, {side}cardial border") for side in ("endo", "epi")]
    assert len(set(keys)) == 2
    assert max(map(len, keys)) <= 28
    assert category_key("salient object") == "salient_object"
