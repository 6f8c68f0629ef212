"""Calibrating on a labelled data set."""

import numpy as np
import pytest
from fakes import FakePredictor
from PIL import Image

from alignsam_sb3.annotate import calibrate
from alignsam_sb3.annotate.calibrating import judge_dataset, labelled_like
from alignsam_sb3.annotation import Annotation
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


def folder_of(root, count, value=7):
    """Photos and masks, the object being called 1 in masks that have two values more."""
    for k in range(count):
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 60, 3), 10 * k, np.uint8)).save(root / "images" / f"{k}.png")
        values = np.zeros((40, 60), np.uint8)
        values[5:15, 5:25], values[20:30, 5 : 10 + k] = value, 9
        Image.fromarray(values).save(root / "masks" / f"{k}.png")
    return f"mask_folder:{root}"


def test_labelled_images_are_read_as_those_of_the_training(tmp_path):
    mine, others = folder_of(tmp_path / "mine", 10), folder_of(tmp_path / "others", 6)
    reading = {"label_value": {"train": 9, "eval": 7}, "category": "crack"}
    task = {"dataset": mine, "dataset_kwargs": {**reading, "folds": 2, "n_train": 3, "categories": ["crack"]}}
    own = labelled_like(task)
    assert (own.split, len(own), own.categories) == ("eval", 5, ("crack",))  # of two folds
    found = labelled_like(task, others)
    assert (found.split, len(found), found.categories) == ("all", 6, ("crack",))  # it has no splits: none of it was seen
    assert found[0].target(0).sum() == 200
    assert len(labelled_like(task, others, "eval")) == 2  # of five folds: another folder is divided by itself
    told = labelled_like(task, others, options={"category": "gap", "label_value": 9})
    assert told.categories == ("gap",) and told[0].target(0).sum() == 50
    assert labelled_like(task, "toy:saliency", options={"n_images": 2}).split == "eval"  # of another kind: nothing applies


def test_a_folder_with_splits_is_calibrated_on_its_evaluation(tmp_path):
    folder_of(tmp_path / "train", 3)
    folder_of(tmp_path / "val", 2)
    task = {"dataset": "mask_folder:elsewhere", "dataset_kwargs": {"label_value": 7}}
    found = labelled_like(task, f"mask_folder:{tmp_path}")
    assert (found.split, len(found)) == ("eval", 2)


class Several(Salient):
    """Its last mask is a corner, and the others are those of its truth, moved by so many pixels."""

    answers = ("last", "best IoU", "map alone")

    def __init__(self, dataset, shifts, **options):
        super().__init__(**options)
        self.truths = {scene.image.tobytes(): scene.target(0) for scene in map(dataset.__getitem__, range(len(dataset)))}
        self.shifts, self.asked = shifts, {name: 0 for name in self.answers}

    def compare(self, images, categories, answers):
        for name in answers:
            self.asked[name] += len(images)
        return {name: [[self._answer(image, name)] for image in images] for name in answers}

    def _answer(self, image, name):
        truth, shift = self.truths[image.tobytes()], self.shifts.get(name)
        mask = np.zeros_like(truth) if shift is None else np.roll(truth, shift, 1)
        mask[:4, :4] = True
        signals = {"area": float(mask.mean()), "contrast": float(image.std())}
        return Annotation.of("0", "salient object", mask, [], 0.5, signals, self.fingerprint)


@pytest.fixture(scope="module")
def scenes():
    return ToyScenes("saliency", "eval", n_images=66)


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [
        ({"best IoU": 3}, "best IoU"),
        ({"best IoU": 12, "map alone": 3}, "map alone"),
        ({"last": 3, "best IoU": 3, "map alone": 12}, "last"),
    ],
)
def test_better_masks_are_handed_out_and_calibrated(scenes, shifts, expected):
    predict = Several(scenes, shifts)
    found = calibrate(predict, scenes, progress=False)
    assert found.choice.answer == expected and found.choice.images == 22
    assert found.choice.dices[expected] == max(found.choice.dices.values()) > 0.6
    assert np.mean(found.dices) == pytest.approx(found.choice.dices[expected], abs=0.1)  # those of what was chosen, elsewhere
    assert predict.asked == {name: 66 if name == expected else 22 for name in predict.answers}  # the rest chooses nothing


def test_whose_masks_are_handed_out_can_be_said(scenes):
    predict = Several(scenes, {"best IoU": 3})
    found = calibrate(predict, scenes, progress=False, answer="last")
    assert found.choice.answer == "last" and np.mean(found.dices) < 0.1 and predict.asked["best IoU"] == 0
    with pytest.raises(ValueError, match=r"unknown answer 'best Iou': did you mean 'best IoU'"):
        calibrate(predict, scenes, progress=False, answer="best Iou")
    with pytest.raises(ValueError, match=r"this policy has no 'CLIP points'"):
        calibrate(predict, scenes, progress=False, answer="CLIP points")


def test_few_images_change_nothing():
    few = ToyScenes("saliency", "eval", n_images=45)
    found = calibrate(Several(few, {"best IoU": 3}), few, progress=False)
    assert found.choice.answer == "last" and found.choice.dices["best IoU"] > 0.6 > found.choice.dices["last"]


def test_what_was_chosen_is_kept_with_the_calibration(scenes):
    found = calibrate(Several(scenes, {"best IoU": 3}), scenes, progress=False)
    again = found.from_json(found.to_json())
    assert again == found and FakePredictor(calibration=again).answer == "best IoU"
    with pytest.raises(ValueError, match=r"unknown answer 'luck'.*run `alignsam calibrate` again"):
        found.from_json(found.to_json().replace('"answer": "best IoU"', '"answer": "luck"'))


def test_a_calibration_without_a_choice_is_as_it_was(scenes):
    """Its JSON does not change: a run that began with it goes on."""
    found = calibrate(Several(scenes, {}), scenes, progress=False, answer="last")
    assert "choice" not in found.to_json() and found.from_json(found.to_json()) == found
