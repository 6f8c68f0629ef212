"""A saved policy asked for masks of photos: the same as in evaluation, and no truth, data set or environment needed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from alignsam_sb3.envs.actions import ClickActions
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.spaces import picture_side
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from PIL import Image

from alignsam_sb3 import Predictor
from alignsam_sb3.annotate import calibrate
from alignsam_sb3.choice import ANSWERS, Choice
from alignsam_sb3.clickers import centre_click
from alignsam_sb3.datasets import UnreadableImageError, load_dataset
from alignsam_sb3.evaluation import agent_player, best_by, clip_points_player, last, play, play_answers
from alignsam_sb3.evaluation.answers import kept_rules, thresholded
from alignsam_sb3.evaluation.maps import module_map
from alignsam_sb3.evaluation.rivals import mask_prompt_player, still
from alignsam_sb3.frame import CellGrid
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.task import Task

SCENES = {"n_images": 16}


def saved(path, policy, **options):
    task = Task(dataset_kwargs=SCENES, max_steps=3, device="cpu", **options)
    model = SamMaskablePPO(policy, SamSegVecEnv.of(task, 2), n_steps=4, batch_size=4, seed=0, device="cpu")
    model.save(path)
    return model, task


@pytest.fixture(scope="module")
def explicit(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.zip"
    return (*saved(path, "ExplicitMaskablePolicy"), path)


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("ExplicitMaskablePolicy", {}),
        ("ExplicitMaskablePolicy", {"labels": "srm", "initial_pair": True}),
        ("ImplicitMaskablePolicy", {"dataset": "toy:saliency", "clip": None, "done": True}),
    ],
)
def test_its_masks_are_those_of_evaluation(tmp_path, policy, options):
    model, task = saved(tmp_path / "p.zip", policy, **options)
    batch = ClickBatch(task.for_evaluation(), 4)
    batch.recalibration = model.policy.srm
    episodes = [(int(images[0]), c) for c, images in enumerate(batch.shared.images_by_category) if len(images)][:4]
    row = play(agent_player(model), batch, episodes)
    predict = Predictor.load(tmp_path / "p.zip", device="cpu")
    for (index, category), mask, clicks in zip(episodes, row.masks, row.clicks, strict=True):
        found = predict(batch.shared.dataset[index].image, predict.categories[category])
        assert found.clicks == tuple(clicks)
        assert (found.mask != mask).mean() < 0.001


def test_images_of_any_kind_and_all_categories(explicit, tmp_path):
    *_, path = explicit
    predict = Predictor.load(path, device="cpu")
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    one = predict(image, "star")
    assert one.category == "star"
    assert one.mask.shape == (60, 90)
    assert 0 <= one.signals["stability"] <= 1
    for other in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(image)):
        assert predict(other, "star").clicks == one.clicks
    assert predict(tmp_path / "photo.png", "star").image_id.endswith("photo.png")
    assert [a.category for a in predict(image)] == list(predict.categories)
    several = predict([image, image[:30]], "disc")
    assert [a.mask.shape for a in several] == [(60, 90), (30, 90)]
    assert [[a.category for a in row] for row in predict([image, image])] == [list(predict.categories)] * 2


def test_many_at_once_are_as_each_alone(explicit):
    *_, path = explicit
    predict = Predictor.load(path, device="cpu")
    dataset = load_dataset("toy:semantic", "eval", n_images=5)
    images = [dataset[i].image for i in range(5)]
    together = predict.batch(images, ["star", "ring"])
    alone = [predict.batch([image], ["star", "ring"])[0] for image in images]
    assert [[a.clicks for a in row] for row in together] == [[a.clicks for a in row] for row in alone]


def test_what_it_cannot_do_is_said(explicit, tmp_path):
    *_, path = explicit
    predict = Predictor.load(path, device="cpu")
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(ValueError, match="did you mean 'star'"):
        predict(image, "stat")
    with pytest.raises(ValueError, match=r"uint8 RGB \(H, W, 3\), a path or a PIL image, got float64"):
        predict(np.zeros((20, 20, 3)), "star")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        predict(tmp_path / "broken.png", "star")
    with pytest.raises(FileNotFoundError, match="no policy at"):
        Predictor.load(tmp_path / "none.zip")
    assert predict(np.zeros((1, 1, 3), np.uint8), "star").mask.shape == (1, 1)


def test_an_option_that_a_later_version_adds_leaves_fingerprints_as_they_are(explicit, monkeypatch):
    path, own = explicit[2], Task.to_json
    now = Predictor.load(path, device="cpu").fingerprint
    monkeypatch.setattr(Task, "to_json", lambda task: {**own(task), "added": 0.0})
    assert Predictor.load(path, device="cpu").fingerprint == now
    monkeypatch.setattr(Task, "to_json", lambda task: {**own(task), "max_steps": 2 * own(task)["max_steps"]})
    assert Predictor.load(path, device="cpu").fingerprint != now


def test_the_same_policy_has_the_same_fingerprint_and_another_has_not(explicit, tmp_path):
    *_, path = explicit
    model, _ = saved(tmp_path / "other.zip", "ExplicitMaskablePolicy")
    assert Predictor.load(path, device="cpu").fingerprint == Predictor.load(tmp_path / "other.zip", device="cpu").fingerprint
    next(model.policy.parameters()).data.add_(1e-3)
    model.save(tmp_path / "other.zip")
    assert Predictor.load(path, device="cpu").fingerprint != Predictor.load(tmp_path / "other.zip", device="cpu").fingerprint


@pytest.mark.parametrize(
    ("policy", "options", "network", "rivals"),
    [
        ("ExplicitMaskablePolicy", {"remove": True, "done": True}, None, {"CLIP points": clip_points_player}),
        ("ImplicitMaskablePolicy", {"dataset": "toy:saliency", "clip": None}, "tiny", {}),
    ],
)
def test_what_can_be_handed_out_is_what_evaluation_shows(tmp_path, policy, options, network, rivals):
    """Each answer of a predictor gives the masks of the row of that name."""
    model, task = saved(tmp_path / "p.zip", policy, srm=True, **options)
    batch = ClickBatch(replace(task.for_evaluation(), reward_network=network), 4)
    batch.recalibration = model.policy.srm
    pairs = [(int(images[k]), c) for c, images in enumerate(batch.shared.images_by_category) for k in range(4)]
    episodes = pairs[:: len(pairs) // 4][:4]
    own = {"last": last} | {rule: best_by(score) for rule, score in kept_rules(batch).items()}
    rows = play_answers(agent_player(model), batch, episodes, own)
    rows |= {name: play(player, batch, episodes) for name, player in rivals.items()}
    rows["map as mask prompt"] = play(mask_prompt_player(module_map, 0.5), batch, episodes)
    rows |= play_answers(still, batch, episodes, {"map alone": thresholded(module_map, 0.5)})
    predict = Predictor.load(tmp_path / "p.zip", device="cpu")
    assert set(rows) <= set(predict.answers) <= set(ANSWERS)
    for k, (index, category) in enumerate(episodes):
        image, name = batch.shared.dataset[index].image, predict.categories[category]
        for answer, found in predict.compare([image], [name], tuple(rows)).items():
            assert (found[0][0].mask != rows[answer].masks[k]).mean() < 0.01, answer
    assert len({tuple(m.sum() for m in row.masks) for row in rows.values()}) > 3  # they are not all the same


def test_the_clicks_are_those_that_made_the_mask(explicit):
    *_, path = explicit
    predict, scenes = Predictor.load(path, device="cpu"), load_dataset("toy:semantic", "eval", n_images=6)
    images, names = [scenes[i].image for i in range(6)], list(predict.categories[:2])
    found = predict.compare(images, names, ("last", "best IoU"))
    pairs = [pair for rows in zip(*found.values(), strict=True) for pair in zip(*rows, strict=True)]
    assert all(best.iou_predicted >= last.iou_predicted for last, best in pairs)
    assert all(last.clicks[: len(best.clicks)] == best.clicks for last, best in pairs)
    assert any(best.iou_predicted > last.iou_predicted and len(best.clicks) < len(last.clicks) for last, best in pairs)
    assert all(best.signals["iou_predicted"] == pytest.approx(best.iou_predicted) for _, best in pairs)


def clicks_and_regrets(predict, scenes):
    """An agent that clicks into the object first, and then takes that back."""
    actions = ClickActions(CellGrid(predict.segmenter.frame, predict.task.patches), True, False, False)
    frame, clicks = predict.segmenter.frame, {}
    for sample in (scenes[i] for i in range(len(scenes))):
        place, label = centre_click(sample.target(0))
        picture = frame.picture(sample.image, picture_side(predict.segmenter))
        clicks[picture.tobytes()] = actions.at(place, label, sample.size)

    def act(observation, deterministic):
        pictures, turns = observation["image"].numpy().transpose(0, 2, 3, 1), observation["num_steps"][:, 0].tolist()
        return np.array([actions.n - 1 if t else clicks[p.tobytes()] for p, t in zip(pictures, turns, strict=True)]), None

    return SimpleNamespace(policy=predict.model.policy, predict=act)


def test_an_agent_whose_last_mask_is_worse_than_an_earlier_one_hands_that_out(tmp_path):
    saved(tmp_path / "p.zip", "ImplicitMaskablePolicy", dataset="toy:saliency", clip=None, remove=True)
    scenes, predict = load_dataset("toy:saliency", "eval", n_images=66), Predictor.load(tmp_path / "p.zip", device="cpu")
    predict.model = clicks_and_regrets(predict, scenes)
    found = calibrate(predict, scenes, progress=False)
    assert found.choice.answer in ("best IoU", "best score")
    assert found.choice.dices[found.choice.answer] > 0.7 and found.choice.dices["last"] == 0
    last = predict(scenes[0].image, "salient object")
    found.write(tmp_path / "p.zip")
    again = Predictor.load(tmp_path / "p.zip", device="cpu")
    again.model = predict.model
    kept = again(scenes[0].image, "salient object")
    assert again.answer == found.choice.answer and kept.low > 0.5
    assert last.area == 0 == len(last.clicks) and len(kept.clicks) == 1
    with_last = replace(found, choice=Choice())
    with_last.write(tmp_path / "p.zip")
    assert Predictor.load(tmp_path / "p.zip", device="cpu").answer == "last"


def test_a_policy_cannot_hand_out_what_it_has_not(explicit):
    predict = Predictor.load(explicit[2], device="cpu")
    assert "map alone" not in predict.answers
    said = r"unknown answer of this policy 'map alone'.*Known: CLIP points, best IoU"
    with pytest.raises(ValueError, match=said):
        predict.compare([np.zeros((20, 20, 3), np.uint8)], ["star"], ["map alone"])
    chosen = SimpleNamespace(choice=Choice("map alone"))
    with pytest.raises(ValueError, match=said):
        Predictor(predict.model, predict.task, predict.categories, predict.segmenter, predict.clip, calibration=chosen)
