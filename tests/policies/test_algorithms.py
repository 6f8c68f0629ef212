import io
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
from recipes import change_recipe
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule

from alignsam_sb3.policies import ImplicitExtractor, ImplicitMaskablePolicy, SamMaskablePPO, SamPPO, load_policy, read_recipe

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
        invalid.append(locals_["info"].get("invalid_action", False))

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
        data, told = (json.loads(archive.read(name)) for name in ("data", "alignsam.json"))
    rest = sum(size for name, size in sizes.items() if name not in ("policy.pth", "policy.optimizer.pth"))
    assert rest < 1e6
    assert "_last_obs" not in data
    assert not any("sam" in name or "encoder" in name for name in names)
    assert told["env"]["dataset"] == "toy:saliency"
    assert told["hyperparameters"]["n_steps"] == 6
    assert told["progress"]["num_timesteps"] == 12


@BOTH
def test_loading_unpickles_nothing(tmp_path, venv, algorithm, policy, monkeypatch):
    new(algorithm, policy, venv).save(tmp_path / "policy.zip")

    def trap(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for module, name in ((cloudpickle, "loads"), (pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (th, "load")):
        monkeypatch.setattr(module, name, trap)
    load_policy(tmp_path / "policy.zip", venv)
    algorithm.load(tmp_path / "policy.zip")
    algorithm.load(tmp_path / "policy.zip", venv)
    with pytest.raises(AssertionError, match="something was unpickled"):
        algorithm.load(tmp_path / "policy.zip", trust=True)


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


class Squared(th.nn.ReLU):
    """An activation that no file can name."""


def test_arguments_that_are_not_plain_are_given_or_trusted(tmp_path, venv, caplog):
    arguments = {"activation_fn": Squared, "net_arch": [8]}
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv, policy_kwargs=arguments).save(tmp_path / "p.zip")
    with pytest.raises(ValueError, match=r"built with activation_fn, which cannot be read without unpickling: give it, load"):
        load_policy(tmp_path / "p.zip", venv)
    given = SamMaskablePPO.load(tmp_path / "p.zip", venv, policy_kwargs={"activation_fn": Squared})
    assert given.policy.activation_fn is Squared
    assert given.policy.net_arch == [8]
    assert not caplog.text
    assert load_policy(tmp_path / "p.zip", venv, trust=True).policy.activation_fn is Squared
    assert "whatever code it brings is run" in caplog.text


def test_torchs_activations_are_named(tmp_path, venv):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv, policy_kwargs={"activation_fn": th.nn.ELU}).save(tmp_path / "p.zip")
    assert SamMaskablePPO.load(tmp_path / "p.zip").policy.activation_fn is th.nn.ELU


class OwnPolicy(ImplicitMaskablePolicy):
    """Somebody's own."""


def test_a_policy_of_ones_own_is_named_by_the_caller(tmp_path, venv):
    new(SamMaskablePPO, OwnPolicy, venv).save(tmp_path / "p.zip")
    with pytest.raises(ValueError, match="of the class 'OwnPolicy', which is none of SamMaskablePPO's: name it yourself"):
        SamMaskablePPO.load(tmp_path / "p.zip")
    assert isinstance(SamMaskablePPO.load(tmp_path / "p.zip", policy=OwnPolicy).policy, OwnPolicy)
    named = "alignsam_sb3.policies:ImplicitMaskablePolicy"
    assert type(load_policy(tmp_path / "p.zip", venv, policy=named).policy) is ImplicitMaskablePolicy
    with pytest.raises(ValueError, match=r"no policy can be imported as 'nosuch\.Policy'"):
        SamMaskablePPO.load(tmp_path / "p.zip", policy="nosuch.Policy")


@BOTH
def test_going_on_equals_never_having_stopped(tmp_path, make_env, algorithm, policy):
    """Weights, optimizer, schedules and step count are all in plain values."""

    def fresh():
        return SamSegVecEnv([lambda: Monitor(make_env(max_steps=3))] * 2)

    def go_on(model):
        model.set_random_seed(7)
        return model.learn(24, reset_num_timesteps=False)

    schedules = {"learning_rate": LinearSchedule(1e-3, 1e-4, 0.8), "clip_range": lambda left: 0.1 + 0.1 * left}
    model = new(algorithm, policy, fresh(), **schedules).learn(24)
    model.save(tmp_path / "p.zip")
    loaded = algorithm.load(tmp_path / "p.zip", fresh(), device="cpu")
    assert loaded.num_timesteps == 24
    assert loaded.learning_rate(0.5) == pytest.approx(model.learning_rate(0.5)) == pytest.approx(4.375e-4)
    assert loaded.clip_range(0.25) == pytest.approx(0.125)
    model.set_env(fresh())
    weights = [go_on(m).policy.state_dict() for m in (model, loaded)]
    assert all(th.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert model._n_updates == loaded._n_updates == 4
    assert model.num_timesteps == loaded.num_timesteps == 48


def test_without_an_environment_it_can_be_saved_again(tmp_path, venv):
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).learn(12)
    model.save(tmp_path / "a.zip")
    SamMaskablePPO.load(tmp_path / "a").save(tmp_path / "b.zip")
    again = SamMaskablePPO.load(tmp_path / "b.zip", venv)
    assert again.num_timesteps == 12
    assert again.observation_space == venv.observation_space
    with ZipFile(tmp_path / "a.zip") as one, ZipFile(tmp_path / "b.zip") as two:
        assert json.loads(one.read("alignsam.json")) == json.loads(two.read("alignsam.json"))


def test_it_is_saved_to_and_loaded_from_open_files(tmp_path, venv):
    file = io.BytesIO()
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv)
    model.save(file)
    file.seek(0)
    loaded = SamMaskablePPO.load(file, device="cpu")
    assert all(th.equal(v, loaded.policy.state_dict()[k]) for k, v in model.policy.state_dict().items())


def test_a_file_of_an_earlier_version_loads(tmp_path, venv):
    """Its recipe is among the attributes, and it has no plain schedules or spaces."""
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).learn(12)
    model.save(tmp_path / "new.zip")
    with ZipFile(tmp_path / "new.zip") as source, ZipFile(tmp_path / "old.zip", "w") as target:
        for name in source.namelist():
            if name == "data":
                target.writestr(name, json.dumps({**json.loads(source.read(name)), "recipe": model.recipe}))
            elif name != "alignsam.json":
                target.writestr(name, source.read(name))
    loaded = SamMaskablePPO.load(tmp_path / "old.zip", venv, n_epochs=3)
    assert (loaded.num_timesteps, loaded.n_steps, loaded.gamma, loaded.n_epochs) == (12, 6, model.gamma, 3)
    assert read_recipe(tmp_path / "old.zip")["env"] == model.recipe["env"]
    with pytest.raises(ValueError, match="does not say in plain values what it observes: give the environment"):
        SamMaskablePPO.load(tmp_path / "old.zip")


def without_format(recipe):
    """As version 0.1 wrote it."""
    return {key: value for key, value in recipe.items() if key != "format"}


def test_an_implicit_policy_of_version_0_1_plays_as_it_did(tmp_path, venv):
    first = {"width": 64, "narrow": None, "channels": [64, 128, 256, 512]}
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv, policy_kwargs={"features_extractor_kwargs": first})
    model.save(tmp_path / "old.zip")
    change_recipe(tmp_path / "old.zip", lambda recipe: {**without_format(recipe), "policy_kwargs": {}})
    loaded = SamMaskablePPO.load(tmp_path / "old.zip", venv)
    assert loaded.policy.features_extractor.narrow.state_dict() == {}
    seen = model.policy.obs_to_tensor(venv.reset())[0]
    assert th.equal(loaded.policy.predict_values(seen), model.policy.predict_values(seen))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda recipe: {**recipe, "format": 2}, "an extractor of an earlier version: train it again"),
        (
            lambda recipe: {**without_format(recipe), "policy": "ExplicitMaskablePolicy"},
            "an extractor of an earlier version: train it again",
        ),
        (lambda recipe: {**recipe, "format": 4}, "reads up to 3: upgrade"),
    ],
)
def test_extractors_of_other_versions_are_refused(tmp_path, venv, change, said):
    path = tmp_path / "old.zip"
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).save(path)
    change_recipe(path, change)
    with pytest.raises(ValueError, match=said):
        SamMaskablePPO.load(path, venv)
    with pytest.raises(ValueError, match="another version: load it without trust"):
        SamMaskablePPO.load(path, venv, trust=True)


class PooledExtractor(BaseFeaturesExtractor):
    """Somebody's own: it knows nothing of half precision."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.linear = th.nn.Linear(observation_space["sam_image_embeddings"].shape[0], 4)

    def forward(self, observations):
        return self.linear(observations["sam_image_embeddings"].mean((2, 3)))


def test_an_extractor_of_ones_own_is_of_no_version(tmp_path, venv):
    own = {"features_extractor_class": PooledExtractor}
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv, policy_kwargs=own).save(tmp_path / "old.zip")
    change_recipe(tmp_path / "old.zip", lambda recipe: {**recipe, "format": 2})
    loaded = SamMaskablePPO.load(tmp_path / "old.zip", venv, policy_kwargs=own)
    assert isinstance(loaded.policy.features_extractor, PooledExtractor)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"channels": (32, 64, 128)}, "those of four convolutions, multiples of 8"),
        ({"channels": (30, 64, 128, 256)}, "multiples of 8, got"),
        ({"channels": 32}, "those of four convolutions"),
        ({"narrow": 0}, "a number of channels, or None"),
        ({"narrow": 16.0}, "a number of channels, or None"),
    ],
)
def test_channels_that_are_none_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        ImplicitExtractor(space(16, 16), **wrong)


def test_another_algorithms_file_is_named(tmp_path, venv):
    new(SamPPO, "ImplicitPolicy", venv).save(tmp_path / "p.zip")
    with pytest.raises(ValueError, match="was saved by SamPPO, not by SamMaskablePPO"):
        SamMaskablePPO.load(tmp_path / "p.zip")
    PPO("MlpPolicy", "CartPole-v1").save(tmp_path / "stock.zip")
    with pytest.raises(ValueError, match="was saved by another program, not by SamPPO"):
        SamPPO.load(tmp_path / "stock.zip")
    with pytest.raises(ValueError, match="cannot be read without unpickling it"):
        read_recipe(tmp_path / "stock.zip")


def test_a_policy_loaded_without_environment_keeps_its_recipe(tmp_path, venv):
    new(SamMaskablePPO, "ImplicitMaskablePolicy", venv).save(tmp_path / "a.zip")
    for trust in (False, True):
        SamMaskablePPO.load(tmp_path / "a.zip", trust=trust).save(tmp_path / "b.zip")
        assert read_recipe(tmp_path / "a.zip")["env"] == read_recipe(tmp_path / "b.zip")["env"] != {}


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


def convolutions_of(extractor):
    return [m for m in extractor.convolutions if isinstance(m, th.nn.Conv2d)]


def test_by_default_it_has_half_of_the_documented_networks_channels_on_few_of_the_embeddings():
    extractor = ImplicitExtractor(space(256, 64))
    assert extractor.narrow.weight.shape == (32, 256, 1, 1)
    channels = [(c.in_channels, c.out_channels) for c in convolutions_of(extractor)]
    assert channels == [(32, 32), (32, 64), (64, 128), (128, 256)]


def test_at_full_size_the_extractor_is_the_documented_network_where_that_is_asked_for():
    convolutions = convolutions_of(ImplicitExtractor(space(256, 64), narrow=None, channels=(64, 128, 256, 512)))
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
    one = extractor.cells(extractor.narrow(embedding), belief, free, steps, context).reshape(2, 8, 8)
    elsewhere = extractor.narrow(embedding.roll((2, 4), (2, 3)))
    moved = extractor.cells(elsewhere, belief, free, steps, context).reshape(2, 8, 8)
    assert th.allclose(one.roll((1, 2), (1, 2))[:, 2:6, 3:6], moved[:, 2:6, 3:6], atol=1e-4)
    assert extractor({**batch, "sam_image_embeddings": embedding}).shape == (1, 8 + 128)


def test_training_starts_from_equally_likely_actions(venv):
    model = new(SamMaskablePPO, "ImplicitMaskablePolicy", venv)
    observation, _ = model.policy.obs_to_tensor(venv.reset())
    probabilities = model.policy.get_distribution(observation).distribution.probs
    assert probabilities.max() < 1.5 / 128


@BOTH
@pytest.mark.parametrize(("steps", "wanted"), [(5, [1]), (12, [8 / 12] * 2), (20, [12 / 20, 8 / 20, 8 / 20])])
def test_no_update_is_wasted_at_the_end_of_a_schedule(venv, algorithm, policy, steps, wanted, monkeypatch):
    """Fewer steps than a rollout make one whole update, and the last rollout of more may end after the last step."""
    left = []
    monkeypatch.setattr(algorithm, "train", lambda model: left.append(model._current_progress_remaining))
    algorithm(policy, venv, n_steps=4, batch_size=8).learn(steps)
    assert left == pytest.approx(wanted)


@BOTH
def test_an_embedding_in_half_precision_is_seen_as_it_is(venv, algorithm, policy, monkeypatch):
    policy = new(algorithm, policy, venv).policy
    obs = policy.obs_to_tensor(venv.reset())[0]
    obs["sam_image_embeddings"] = obs["sam_image_embeddings"].half()
    widened = {**obs, "sam_image_embeddings": obs["sam_image_embeddings"].float()}
    seen = []
    forward = policy.features_extractor.forward
    monkeypatch.setattr(policy.features_extractor, "forward", lambda given: seen.append(given) or forward(given))
    actions = th.zeros(2, dtype=th.long)
    for mine, theirs in zip(policy.evaluate_actions(obs, actions), policy.evaluate_actions(widened, actions), strict=True):
        assert th.equal(mine, theirs)
    assert [given["sam_image_embeddings"].dtype for given in seen] == [th.float16, th.float32]
    assert th.equal(policy.predict_values(obs), policy.predict_values(widened))


@BOTH
def test_an_extractor_of_somebody_else_gets_floats(venv, algorithm, policy):
    policy = new(algorithm, policy, venv, policy_kwargs={"features_extractor_class": PooledExtractor}).policy
    obs = policy.obs_to_tensor(venv.reset())[0]
    halved = {**obs, "sam_image_embeddings": obs["sam_image_embeddings"].half()}
    actions = th.zeros(2, dtype=th.long)
    assert policy.evaluate_actions(halved, actions)[0].allclose(policy.evaluate_actions(obs, actions)[0], atol=1e-2)
