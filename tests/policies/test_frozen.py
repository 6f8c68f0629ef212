"""A policy whose frozen models have changed since its training says so, and its calibration does not count."""

import pytest
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from recipes import change_recipe

from alignsam_sb3 import Predictor
from alignsam_sb3.calibration import Calibration
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.policies.frozen import UNSAID, changed_models
from alignsam_sb3.task import Task

SAM, CLIP = "tiny-0123456789abcdef", "clip-0123456789abcdef"
CALIBRATION = Calibration(("iou",), ("star",), (0.5,), (0.1,), (), (0.0,) * 4, (), (0.5, 0.6), (0.4, 0.7))
TINY = {"segmenter": "tiny", "clip": "tiny"}


@pytest.mark.parametrize(
    ("recipe", "env", "roles"),
    [
        ({"env": TINY, "models": {"segmenter": SAM, "clip": CLIP}}, TINY, []),
        ({"env": TINY, "models": {"segmenter": SAM, "clip": "clip-fedcba9876543210"}}, TINY, ["clip"]),
        ({"env": TINY, "models": {"segmenter": "tiny-fedcba9876543210", "clip": CLIP}}, TINY, ["segmenter"]),
        ({"env": {**TINY, "clip": None}, "models": {"segmenter": SAM, "clip": ""}}, {**TINY, "clip": None}, []),
        ({"env": TINY, "models": {"segmenter": SAM, "clip": CLIP}}, {**TINY, "segmenter": "mobile_sam"}, []),
        ({"env": TINY}, TINY, ["segmenter", "clip"]),
        ({"env": {**TINY, "segmenter": "vit_b:x.pth"}}, {**TINY, "segmenter": "vit_b:x.pth"}, ["clip"]),
    ],
    ids=["same", "clip", "segmenter", "none", "transfer", "unsaid", "unsaid-file"],
)
def test_what_has_changed(recipe, env, roles):
    said = changed_models(recipe, {"segmenter": SAM, "clip": CLIP if env["clip"] else ""}, env)
    assert [sentence.split()[0] for sentence in said] == roles


def test_what_policies_leave_unsaid_are_models_of_before(tiny):
    said = changed_models({"env": {"segmenter": "tiny"}}, {"segmenter": tiny.fingerprint}, {"segmenter": "tiny"})
    assert [tiny.fingerprint in sentence and UNSAID["segmenter"] in sentence for sentence in said] == [True]
    assert not changed_models({"env": {"segmenter": "tiny"}}, {"segmenter": UNSAID["segmenter"]}, {"segmenter": "tiny"})


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.zip"
    env = SamSegVecEnv.of(Task(dataset_kwargs={"n_images": 16}, max_steps=2, device="cpu"), 2)
    SamMaskablePPO("ExplicitMaskablePolicy", env, n_steps=4, batch_size=4, seed=0, device="cpu").save(path)
    return path


def test_a_policy_says_which_models_it_was_trained_with(policy, tiny, caplog):
    found = Predictor.load(policy, device="cpu")
    assert found.recipe["models"]["segmenter"] == tiny.fingerprint
    assert found.clip is not None
    assert found.recipe["models"]["clip"] == found.clip.fingerprint
    assert "another model" not in caplog.text


def test_a_changed_model_is_told_in_prediction_and_in_training(policy, tiny, caplog):
    change_recipe(policy, lambda recipe: {**recipe, "models": {"segmenter": tiny.fingerprint, "clip": CLIP}})
    Predictor.load(policy, device="cpu")
    assert "clip 'tiny' is now another model (clip-" in caplog.text
    caplog.clear()
    env = SamSegVecEnv.of(Task(dataset_kwargs={"n_images": 16}, max_steps=2, device="cpu"), 2)
    model = SamMaskablePPO.load(policy, env=env, device="cpu")
    assert "clip 'tiny' is now another model" in caplog.text
    assert model.recipe["models"]["clip"] == env.get_attr("models")[0]["clip"]  # it goes on with today's


def test_the_calibration_of_a_changed_model_does_not_count(policy, caplog):
    CALIBRATION.write(policy)
    assert Predictor.load(policy, device="cpu").calibration == CALIBRATION
    change_recipe(policy, lambda recipe: {**recipe, "models": {"segmenter": SAM, "clip": ""}})
    assert Predictor.load(policy, device="cpu").calibration is None
    assert "calibrate it again" in caplog.text


def test_models_that_are_no_fingerprints_are_refused(policy):
    change_recipe(policy, lambda recipe: {**recipe, "models": {"clip": ["x"]}})
    with pytest.raises(ValueError, match="fingerprint for each"):
        Predictor.load(policy, device="cpu")
