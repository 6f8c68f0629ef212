import json
import pickle
from zipfile import ZipFile

import cloudpickle
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.spaces import CompactBox
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from alignsam_sb3.policies import ImplicitExtractor, SamMaskablePPO, SamPPO, load_policy, read_recipe

BOTH = pytest.mark.parametrize(
    ("algorithm", "policy"), [(SamMaskablePPO, "ImplicitMaskablePolicy"), (SamPPO, "ImplicitPolicy")]
)


@pytest.fixture
def venv(make_env):
    return SamSegVecEnv([lambda: Monitor(make_env(max_steps=3))] * 2)


def new(algorithm, policy, venv, **kwargs):
    return algorithm(policy, venv, n_steps=6, batch_size=4, n_epochs=1, seed=0, device="cpu", **kwargs)


def space(channels, side, steps=5, patches=8):
    return spaces.Dict(
        {
            "action_mask": spaces.MultiBinary(2 * patches**2 + 1),
            "sam_image_embeddings": CompactBox(-np.inf, np.inf, (channels, side, side), np.float32),
            "sam_pred_mask_prob": CompactBox(0, 1, (4 * side, 4 * side), np.float32),
            "num_steps": CompactBox(0, steps, (1,), np.float32),
        }
    )


@BOTH
def test_it_runs_saves_loads_and_repeats(tmp_path, venv, make_env, algorithm, policy):
    model = new(algorithm, policy, venv).learn(12)
    model.save(tmp_path / "policy")
    observation = venv.reset()
    expected = model.predict(observation, deterministic=True)[0]
    for loaded in (algorithm.load(tmp_path / "policy.zip"), load_policy(tmp_path / "policy.zip", venv)):
        assert np.array_equal(loaded.predict(observation, deterministic=True)[0], expected)
    again = new(algorithm, policy, SamSegVecEnv([lambda: Monitor(make_env(max_steps=3))] * 2)).learn(12)
    weights = again.policy.state_dict()
    assert all(th.equal(value, weights[key]) for key, value in model.policy.state_dict().items())
    assert not list(tmp_path.glob("*.part"))
    trusted = load_policy(tmp_path / "policy.zip", venv, trust=True)
    assert type(trusted) is algorithm
    assert np.array_equal(trusted.predict(observation, deterministic=True)[0], expected)


@BOTH
def test_actions_are_masked_in_evaluate_policy(make_env, algorithm, policy):
    venv = SamSegVecEnv([lambda: Monitor(make_env(max_steps=3, patches=2))] * 2)  # unmasked, a third would be forbidden
    model = new(algorithm, policy, venv)
    invalid = []

    def look(locals_, globals_):
        invalid.append(locals_["info"]["invalid_action"])

    evaluate_policy(model, venv, n_eval_episodes=10, deterministic=False, callback=look, warn=False)
    assert len(invalid) >= 30
    assert not any(invalid)


@BOTH
def test_the_zip_holds_no_observations_and_no_frozen_weights(tmp_path, venv, algorithm, policy):
    model = new(algorithm, policy, venv).learn(12)
    model.save(tmp_path / "policy.zip")
    with ZipFile(tmp_path / "policy.zip") as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
        names = th.load(archive.open("policy.pth"), weights_only=True).keys()
        data = json.loads(archive.read("data"))
    rest = sum(size for name, size in sizes.items() if name not in ("policy.pth", "policy.optimizer.pth"))
    assert rest < 1e6
    assert "_last_obs" not in data
    assert not any("sam" in name or "encoder" in name for name in names)
    assert data["recipe"]["env"]["dataset"] == "toy:saliency"


@BOTH
def test_loading_unpickles_nothing(tmp_path, venv, algorithm, policy, monkeypatch):
    new(algorithm, policy, venv).save(tmp_path / "policy.zip")

    def trap(*args, **kwargs):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(cloudpickle, "loads", trap)
    monkeypatch.setattr(pickle, "loads", trap)
    load_policy(tmp_path / "policy.zip", venv)


def test_what_does_not_fit_is_refused(tmp_path, venv, make_env):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).save(tmp_path / "policy.zip")
    other = SamSegVecEnv([lambda: make_env(patches=4)])
    with pytest.raises(ValueError, match="do not fit this environment"):
        load_policy(tmp_path / "policy.zip", other)
    with pytest.raises(FileNotFoundError, match="no policy at"):
        load_policy(tmp_path / "nosuch.zip", venv)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(ValueError, match="is not a saved policy"):
        read_recipe(tmp_path / "text.zip")


def test_an_interrupted_save_leaves_the_old_file(tmp_path, venv, monkeypatch):
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv)
    model.save(tmp_path / "policy.zip")
    before = (tmp_path / "policy.zip").read_bytes()

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(th, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        model.save(tmp_path / "policy.zip")
    assert (tmp_path / "policy.zip").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_nan_weights_are_refused(tmp_path, venv):
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv)
    next(model.policy.parameters()).data[0] = float("nan")
    model.save(tmp_path / "policy.zip")
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        load_policy(tmp_path / "policy.zip", venv)


def test_arguments_that_are_not_plain_need_trust(tmp_path, venv):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv, policy_kwargs={"activation_fn": th.nn.ReLU}).save(tmp_path / "p.zip")
    with pytest.raises(ValueError, match="built with activation_fn, which cannot be read without unpickling"):
        load_policy(tmp_path / "p.zip", venv)
    assert load_policy(tmp_path / "p.zip", venv, trust=True).policy.activation_fn is th.nn.ReLU


def test_a_policy_loaded_without_environment_keeps_its_recipe(tmp_path, venv):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).save(tmp_path / "a.zip")
    SamMaskablePPO.load(tmp_path / "a.zip").save(tmp_path / "b.zip")
    assert read_recipe(tmp_path / "a.zip") == read_recipe(tmp_path / "b.zip")


def test_another_process_data_set_loads_it(tmp_path, venv, coco_root, make_env):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).save(tmp_path / "policy.zip")
    photos = SamSegVecEnv(
        [lambda: make_env(dataset=f"coco:{coco_root}", split="eval", dataset_kwargs={"categories": ["cat"]}, max_steps=3)]
    )
    model = load_policy(tmp_path / "policy.zip", photos)
    assert model.predict(photos.reset())[0].shape == (1,)


def test_gradients_and_ortho_init_leave_the_segmenter_alone(venv, tiny):
    before = {key: value.clone() for key, value in tiny.sam.state_dict().items()}
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).learn(12)
    assert all(th.equal(value, before[key]) for key, value in tiny.sam.state_dict().items())


@pytest.mark.parametrize(("channels", "side", "patches"), [(256, 64, 32), (96, 16, 8), (8, 4, 5), (32, 9, 3)])
def test_the_extractor_adapts_to_any_embedding_and_grid(channels, side, patches):
    extractor = ImplicitExtractor(space(channels, side, patches=patches), global_dim=32)
    batch = {
        "action_mask": th.ones(3, 2 * patches**2 + 1),
        "sam_image_embeddings": th.randn(3, channels, side, side),
        "sam_pred_mask_prob": th.rand(3, 4 * side, 4 * side),
        "num_steps": th.tensor([[0.0], [1.0], [5.0]]),
    }
    assert extractor(batch).shape == (3, extractor.features_dim) == (3, 32 + 2 * patches**2)


def test_at_full_size_the_extractor_is_the_documented_network():
    convolutions = [m for m in ImplicitExtractor(space(256, 64)).convolutions if isinstance(m, th.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [
        (256, 64, 8, 2, 0),
        (64, 128, 5, 2, 0),
        (128, 256, 3, 2, 0),
        (256, 512, 3, 1, 0),
    ]


def test_a_samples_features_do_not_depend_on_its_neighbours():
    extractor = ImplicitExtractor(space(16, 16), global_dim=32)
    batch = {
        "action_mask": th.ones(4, 129),
        "sam_image_embeddings": th.randn(4, 16, 16, 16),
        "sam_pred_mask_prob": th.rand(4, 64, 64),
        "num_steps": th.ones(4, 1),
    }
    alone = extractor({key: value[:1] for key, value in batch.items()})
    for mode in (True, False):
        assert th.allclose(extractor.train(mode)(batch)[0], alone[0], atol=1e-5)


def test_a_cells_logit_follows_its_place():
    """What the cell head says of a cell moves with the embedding, and enters the action logits unmixed."""
    extractor = ImplicitExtractor(space(16, 16), global_dim=8)
    embedding = th.zeros(1, 16, 16, 16)
    embedding[..., 4:6, 4:6] = 3.0  # cell (2, 2) of 8 x 8
    batch = {"sam_pred_mask_prob": th.full((1, 64, 64), 0.5), "num_steps": th.zeros(1, 1), "action_mask": th.ones(1, 129)}
    context, steps = th.zeros(1, 8), th.zeros(1, 1)
    free = th.ones(1, 1, 8, 8)
    belief = th.zeros(1, 1, 16, 16)
    one = extractor.cells(embedding, belief, free, steps, context).reshape(2, 8, 8)
    moved = extractor.cells(embedding.roll((2, 4), (2, 3)), belief, free, steps, context).reshape(2, 8, 8)
    assert th.allclose(one.roll((1, 2), (1, 2))[:, 2:6, 3:6], moved[:, 2:6, 3:6], atol=1e-4)
    assert extractor({**batch, "sam_image_embeddings": embedding}).shape == (1, 8 + 128)


def test_training_starts_from_equally_likely_actions(venv):
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv)
    observation, _ = model.policy.obs_to_tensor(venv.reset())
    probabilities = model.policy.get_distribution(observation).distribution.probs
    assert probabilities.max() < 1.5 / 128
