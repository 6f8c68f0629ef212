"""A saved policy asked for masks of photos: the same as in evaluation, and no truth, data set or environment needed."""

import numpy as np
import pytest
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from PIL import Image

from alignsam_sb3 import Predictor
from alignsam_sb3.datasets import UnreadableImageError, load_dataset
from alignsam_sb3.evaluation import agent_player, play
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
