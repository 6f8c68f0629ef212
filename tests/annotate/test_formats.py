"""Files for other tools, read by readers that are not ours."""

import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from fakes import FakePredictor
from PIL import Image

from alignsam_sb3.annotate import FORMATS, Run, annotate_folder
from alignsam_sb3.annotate.formats import write_formats


@pytest.fixture
def run(folder, tmp_path):
    Image.new("RGB", (30, 20), (90, 90, 90)).save(folder / "nothing.png")  # neither light nor dark
    annotate_folder(FakePredictor(), folder, tmp_path / "out", formats=list(FORMATS), progress=False)
    return Run.open(tmp_path / "out")


def light(run, image):
    return next(a.mask for a in run.found(image).annotations if a.category == "light")


def test_coco_lists_images_without_objects_and_holds_the_masks(run):
    from pycocotools.coco import COCO

    coco = COCO(str(run.out / "coco.json"))
    numbers = {i["file_name"]: i["id"] for i in coco.imgs.values()}
    assert len(numbers) == 13 and not coco.getAnnIds(imgIds=[numbers["nothing.png"]])
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[numbers["more/003.png"]], catIds=[1]))
    assert (coco.annToMask(annotation).astype(bool) == light(run, "more/003.png")).all()
    assert annotation["policy"] == "abc" and annotation["score"] > 0


def test_png_masks_are_black_and_white_one_for_each_category(run):
    drawn = np.asarray(Image.open(run.out / "masks" / "light" / "more" / "003.png.png"))
    assert ((drawn == 255) == light(run, "more/003.png")).all() and set(np.unique(drawn)) == {0, 255}
    assert not np.asarray(Image.open(run.out / "masks" / "light" / "nothing.png.png")).any()


def test_yolo_has_an_empty_file_for_an_image_without_objects(run):
    assert (run.out / "yolo" / "labels" / "nothing.txt").read_text() == ""
    assert (run.out / "yolo" / "labels" / "more" / "003.txt").read_text().startswith("0 ")
    assert (run.out / "yolo" / "images" / "nothing.png").is_file()
    assert '0: "light"' in (run.out / "yolo" / "data.yaml").read_text()


def test_yolo_keeps_apart_what_differs_in_the_suffix_only(folder, tmp_path, caplog):
    Image.new("RGB", (30, 20), "white").save(folder / "001.jpg")
    annotate_folder(FakePredictor(), folder, tmp_path / "out", formats=["yolo"], progress=False)
    assert "rename it" in caplog.text


def test_cvat_masks_are_run_lengths_within_their_box(run):
    tree = ElementTree.parse(run.out / "cvat.xml")
    (image,) = [i for i in tree.iter("image") if i.get("name") == "more/003.png"]
    (mask,) = [m for m in image.iter("mask") if m.get("label") == "light"]
    left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
    lengths = [int(n) for n in mask.get("rle").split(", ")]
    inside = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(height, width).astype(bool)
    whole = np.zeros((int(image.get("height")), int(image.get("width"))), bool)
    whole[top : top + height, left : left + width] = inside
    assert (whole == light(run, "more/003.png")).all()
    assert len(list(tree.iter("image"))) == 13


def test_label_studio_has_a_task_for_each_image(run):
    tasks = json.loads((run.out / "label_studio.json").read_text())
    assert len(tasks) == 13
    (task,) = [t for t in tasks if t["data"]["image"].endswith("d=more/003.png")]
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "abc"
    assert prediction["score"] == min(a.score for a in run.found("more/003.png").annotations)
    assert {r["value"]["brushlabels"][0] for r in prediction["result"]} == {"light", "dark"}


def test_an_interrupted_export_leaves_the_earlier_one_whole(run, monkeypatch):
    before = {name: (run.out / name).read_bytes() for name in ("coco.json", "cvat.xml", "queue.csv")}
    masks = sorted(p.name for p in (run.out / "masks").rglob("*"))

    def stop(*args):
        raise KeyboardInterrupt

    import alignsam_sb3.annotate.formats as formats

    monkeypatch.setattr(formats, "to_cvat_points", stop)
    monkeypatch.setattr(formats.Annotation, "to_coco", stop)
    monkeypatch.setattr(formats.Annotation, "save_png", stop)
    for name in ("cvat", "coco", "png"):
        with pytest.raises(KeyboardInterrupt):
            write_formats(run, [name], math.inf)
    assert before == {name: (run.out / name).read_bytes() for name in before}
    assert masks == sorted(p.name for p in (run.out / "masks").rglob("*"))
    monkeypatch.undo()
    write_formats(run, ["png", "coco"], 0.8)
    assert not list(run.out.rglob("*.part"))


def test_the_sheet_shows_the_worst_and_the_best(run):
    assert Image.open(run.out / "sheet.png").size[0] == 1200
