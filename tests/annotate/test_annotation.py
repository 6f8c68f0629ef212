"""The result type and what it turns into."""

import numpy as np
import pytest

from alignsam_sb3.annotation import Annotation, AnnotationSet
from alignsam_sb3.encodings import from_coco_rle, run_lengths, to_coco_rle, to_cvat_points, to_label_studio_rle, to_yolo_lines


def square(name="a.png", category="dog", size=(20, 30)):
    mask = np.zeros(size, bool)
    mask[5:15, 10:25] = True
    return Annotation.of(name, category, mask, [((12, 7), 1), ((1, 1), 0)], 0.7, {"area": mask.mean()}, "hash")


def test_it_keeps_mask_box_area_and_score():
    found = square()
    assert found.mask.sum() == found.area == 150 and found.box == (10, 5, 15, 10)
    assert found.score == pytest.approx(0.7) and np.isnan(found.low) and found.found


def test_json_gives_the_same_again():
    found = square()
    again = Annotation.from_json(found.to_json())
    assert again.to_json() == found.to_json() and (again.mask == found.mask).all() and np.isnan(again.low)


def test_an_absent_category_has_an_empty_mask_and_keeps_what_was_answered():
    from dataclasses import replace

    absent = replace(square(), present=False)
    assert not absent.mask.any() and not absent.found and absent.area == 0 and absent.to_yolo() == ""
    assert from_coco_rle(absent.answered).sum() == 150
    assert absent.to_label_studio()["result"] == []


def test_coco_is_what_pycocotools_reads(tmp_path):
    import json

    from pycocotools.coco import COCO

    both = AnnotationSet((square(), square("b.png", "cat", (25, 30))), ("cat", "dog"))
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(both.to_coco()))
    coco = COCO(str(path))
    (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=[2]))
    assert (coco.annToMask(annotation).astype(bool) == square().mask).all()
    assert len(coco.imgs) == 2 and annotation["point_labels"] == [1, 0]


def test_a_set_refuses_a_category_that_it_does_not_have():
    with pytest.raises(ValueError, match="did you mean 'dig'"):
        AnnotationSet((square(),), ("cat", "dig"))


def test_supervision_takes_it():
    pytest.importorskip("supervision")
    both = AnnotationSet((square(), square(category="cat")), ("cat", "dog"))
    found = both.to_supervision()
    assert found.class_id.tolist() == [1, 0] and (found.mask[0] == square().mask).all()
    assert found.xyxy[0].tolist() == [10, 5, 25, 15] and found.area.tolist() == [150, 150]
    assert square().to_supervision(3).class_id.tolist() == [3]
    with pytest.raises(ValueError, match="image by image"):
        AnnotationSet((square(), square("b.png")), ("dog",)).to_supervision()


def masks():
    rng = np.random.default_rng(1)
    yield square().mask
    yield rng.random((31, 17)) > 0.5
    yield np.ones((3, 4), bool)
    one = np.zeros((300, 400), bool)
    one[299, 399] = True
    yield one


@pytest.mark.parametrize("mask", list(masks()), ids=["square", "noise", "full", "corner"])
def test_run_lengths_of_every_kind_give_the_mask_again(mask):
    assert (from_coco_rle(to_coco_rle(mask)) == mask).all()
    lengths = run_lengths(mask.ravel())
    assert (np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(mask.shape) == mask).all()


@pytest.mark.parametrize("mask", list(masks()), ids=["square", "noise", "full", "corner"])
def test_label_studio_reads_its_brush(mask):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    decoded = brush.decode_rle(to_label_studio_rle(mask)).reshape(*mask.shape, 4)
    assert ((decoded[..., 3] > 0) == mask).all() and set(np.unique(decoded)) <= {0, 255}


@pytest.mark.parametrize("mask", list(masks()), ids=["square", "noise", "full", "corner"])
def test_cvat_reads_its_points(mask):
    cvat = pytest.importorskip("cvat_sdk.masks")
    height, width = mask.shape
    assert to_cvat_points(mask) == cvat.encode_mask(mask)
    assert (cvat.decode_mask(to_cvat_points(mask), image_width=width, image_height=height) == mask).all()


def test_cvat_has_no_empty_mask():
    with pytest.raises(ValueError, match="leave the object out"):
        to_cvat_points(np.zeros((4, 4), bool))


def test_yolo_has_one_line_for_each_piece_within_the_image():
    import cv2

    mask = np.zeros((40, 60), bool)
    mask[0:10, 0:20] = mask[20:40, 30:60] = True
    lines = to_yolo_lines(mask, 7)
    drawn = np.zeros(mask.shape, np.uint8)
    for line in lines:
        number, *values = line.split()
        places = np.array(values, float).reshape(-1, 2)
        assert number == "7" and (places >= 0).all() and (places <= 1).all()
        cv2.fillPoly(drawn, [(places * (60, 40) - 0.5).round().astype(np.int32)], 1)
    assert len(lines) == 2 and (drawn.astype(bool) == mask).all()
