"""CVAT's own package calls our function and takes what it gives."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakePredictor
from PIL import Image

from alignsam_sb3.integrations.cvat import CvatFunction

cvat = pytest.importorskip("cvat_sdk.auto_annotation")
driver = pytest.importorskip("cvat_sdk.auto_annotation.driver")


def photo():
    pixels = np.full((40, 60, 3), 20, np.uint8)
    pixels[10:30, 20:50] = 240
    return Image.fromarray(pixels)


def context(**kwargs):
    return driver._DetectionFunctionContextImpl(frame_name="a.png", **kwargs)


def test_the_spec_has_the_categories_as_masks():
    labels = CvatFunction(FakePredictor()).spec.labels
    assert [(label.name, label.id, label.type) for label in labels] == [("light", 0, "mask"), ("dark", 1, "mask")]
    assert [label.name for label in CvatFunction(FakePredictor(), ["dark"]).spec.labels] == ["dark"]


def test_masks_are_those_of_the_predictor():
    from cvat_sdk.masks import decode_mask

    shapes = CvatFunction(FakePredictor()).detect(context(), photo())
    assert [shape.label_id for shape in shapes] == [0, 1] and {str(shape.type) for shape in shapes} == {"mask"}
    truth = FakePredictor()(np.asarray(photo()))
    for shape, found in zip(shapes, truth, strict=True):
        assert (decode_mask(shape.points, image_width=60, image_height=40) == found.mask).all()


def test_polygons_where_cvat_asks_for_them():
    (shape,) = CvatFunction(FakePredictor(), ["light"]).detect(context(conv_mask_to_poly=True), photo())
    assert str(shape.type) == "polygon" and len(shape.points) == 8
    assert min(shape.points[::2]) == 20.5 and max(shape.points[::2]) == 49.5


def test_the_threshold_is_honoured():
    score = FakePredictor()(np.asarray(photo()), "light").score
    function = CvatFunction(FakePredictor(), ["light"])
    assert function.detect(context(conf_threshold=score), photo())
    assert not function.detect(context(conf_threshold=score + 1e-6), photo())


def test_what_is_not_there_is_no_shape():
    class Absent(FakePredictor):
        def batch(self, images, categories):
            return [[replace(a, present=False) for a in annotations] for annotations in super().batch(images, categories)]

    assert CvatFunction(Absent()).detect(context(), photo()) == []


def test_cvat_gives_the_shapes_the_task_s_own_labels():
    function = CvatFunction(FakePredictor())
    theirs = [cvat.label_spec(name, k, type="mask", attributes=[], sublabels=[]) for name, k in (("dark", 70), ("light", 71))]
    log = logging.getLogger("cvat")
    mapper = driver._AnnotationMapper(log, function.spec.labels, theirs, allow_unmatched_labels=False, conv_mask_to_poly=False)
    _, shapes = mapper.validate_and_remap(function.detect(context(), photo()), 5)
    assert [(shape.label_id, shape.frame) for shape in shapes] == [(71, 5), (70, 5)]


def test_an_unknown_category_is_refused():
    with pytest.raises(ValueError, match="did you mean 'light'"):
        CvatFunction(FakePredictor(), ["lite"])


def test_cvats_own_command_line_loads_a_saved_policy(policy):
    from cvat_sdk.masks import decode_mask

    from alignsam_sb3.datasets import ToyScenes
    from alignsam_sb3.predictor import Predictor

    common, parsers = (pytest.importorskip(f"cvat_cli._internal.{name}") for name in ("common", "parsers"))
    words = (f"policy=str:{policy}", "categories=str:disc, ring", "device=str:cpu")
    given = dict(map(parsers.parse_function_parameter, words))
    function = common.FunctionLoader("alignsam_sb3.integrations.cvat", None, given).load()
    assert [label.name for label in function.spec.labels] == ["disc", "ring"]
    image = ToyScenes("semantic", n_images=20)[15].image
    shapes = function.detect(context(), Image.fromarray(image))
    found = Predictor.load(policy, device="cpu").batch([image], ["disc", "ring"])[0]
    assert [s.label_id for s in shapes] == [k for k, a in enumerate(found) if a.found] and shapes
    for shape in shapes:
        assert (decode_mask(shape.points, image_width=128, image_height=128) == found[shape.label_id].mask).all()


def test_a_name_without_zip_is_one_on_the_hub(policy, monkeypatch):
    from alignsam_sb3 import hub
    from alignsam_sb3.integrations.cvat import create

    asked = []
    monkeypatch.setattr(hub, "pull", lambda repo, revision=None: asked.append(repo) or policy)
    assert len(create("user/dogs", device="cpu").spec.labels) == 8 and asked == ["user/dogs"]
