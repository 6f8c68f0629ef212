"""Calibrating on a labelled data set."""

import pytest
from fakes import FakePredictor

from alignsam_sb3.annotate import calibrate
from alignsam_sb3.annotate.calibrating import judge_dataset
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.datasets.seen import SeenImages, image_hashes


class Salient(FakePredictor):
    categories = ("salient object",)

    def _one(self, image, name):
        return super()._one(image, "light").__class__(**{**vars(super()._one(image, "light")), "category": name})


def test_masks_are_judged_by_the_truth_image_by_image():
    scenes = ToyScenes("saliency", "eval", n_images=20)
    judged = judge_dataset(Salient(), scenes, progress=False)
    assert len({j.annotation.image_id for j in judged}) == 20 and all(j.shown for j in judged)
    truth, mask = scenes[0].target(0), judged[0].annotation.mask
    assert judged[0].dice == pytest.approx(2 * (truth & mask).sum() / (truth.sum() + mask.sum()))


def test_a_calibration_names_policy_and_data():
    scenes = ToyScenes("saliency", "eval", n_images=40)
    found = calibrate(Salient(), scenes, progress=False)
    assert found.policy == "abc" and found.data == scenes.fingerprint and len(found.scores) == 26


def test_images_of_the_training_are_refused():
    scenes = ToyScenes("saliency", "eval", n_images=40)
    with pytest.raises(ValueError, match=r"trained on saliency-eval-0.*held out"):
        calibrate(Salient(), scenes, progress=False, seen=SeenImages(image_hashes(ToyScenes("saliency", "eval", n_images=1))))
    with pytest.raises(ValueError, match="these very images"):
        known = Salient()
        known.recipe = {"trained_on": scenes.fingerprint}
        calibrate(known, scenes, progress=False)


def test_a_data_set_of_other_categories_is_refused():
    with pytest.raises(ValueError, match="category of this policy"):
        judge_dataset(FakePredictor(), ToyScenes("saliency", "eval", n_images=2), progress=False)
