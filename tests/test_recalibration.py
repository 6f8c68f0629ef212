"""The recalibration module: its shapes, its branches, that it learns, and that policies carry it."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3.callbacks import RecalibrationCallback, WarmStartCallback
from alignsam_sb3.callbacks.recalibration import turned
from alignsam_sb3.policies import SamMaskablePPO, attach_recalibration, load_policy
from alignsam_sb3.recalibration import Recalibration, dice_and_cross_entropy

KWARGS = {
    "dataset": "toy:saliency",
    "dataset_kwargs": {"n_images": 8},
    "clip": None,
    "patches": 6,
    "device": "cpu",
    "srm": True,
}


def space(channels=8, side=12, categories=3):
    maps = spaces.Box(-1, 1, (categories, side, side))
    return spaces.Dict(
        {
            "sam_image_embeddings": spaces.Box(-1, 1, (channels, side, side)),
            "sam_pred_mask_prob": spaces.Box(0, 1, (4 * side, 4 * side)),
            "image": spaces.Box(0, 255, (3, 32, 32), np.uint8),
            "target_category": spaces.Discrete(categories),
            "similarity_maps": maps,
            "cosine_maps": maps,
        }
    )


def batch(described, n=4):
    described.seed(0)
    drawn = [described.sample() for _ in range(n)]
    return {key: np.stack([np.asarray(one[key]) for one in drawn]) for key in drawn[0]}


@pytest.mark.parametrize("branch", ["implicit", "explicit"])
@pytest.mark.parametrize("side", [5, 12, 64])
def test_any_embedding_gives_a_map_of_its_cells(branch, side):
    described = space(side=side)
    srm = Recalibration(described, branch)
    drawn = srm.foreground(batch(described))
    assert drawn.shape == (4, side, side)
    assert (drawn > 0).all()
    assert (drawn < 1).all()


def test_images_of_a_batch_do_not_see_each_other():
    described = space()
    srm, many = Recalibration(described, "explicit"), batch(described)
    alone = np.concatenate([srm.foreground({k: v[i : i + 1] for k, v in many.items()}) for i in range(4)])
    assert np.allclose(srm.foreground(many), alone, atol=1e-6)


def test_the_implicit_branch_looks_and_the_explicit_one_listens():
    described, many = space(), batch(space())
    for branch, sense, other in (("implicit", "image", "cosine_maps"), ("explicit", "cosine_maps", "image")):
        srm = Recalibration(described, branch)
        for key, deaf in ((sense, False), (other, True)):
            changed = {**many, key: many[key][::-1].copy()}
            assert np.allclose(srm.foreground(many), srm.foreground(changed)) == deaf
    mute = spaces.Dict({key: described[key] for key in ("sam_image_embeddings", "sam_pred_mask_prob")})
    with pytest.raises(ValueError, match=r"implicit branch needs .*observations lack image"):
        Recalibration(mute, "implicit")
    with pytest.raises(ValueError, match=r"needs a language prior.*clip='tiny'"):
        Recalibration(mute, "explicit")
    with pytest.raises(ValueError, match="did you mean 'explicit'"):
        Recalibration(described, "explicid")


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_maps_of_a_scene_turn_together(quarters, mirrored):
    small = th.arange(2 * 3 * 16.0).reshape(2, 3, 4, 4)
    large = small.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert th.equal(turned(large, quarters, mirrored)[..., ::3, ::3], turned(small, quarters, mirrored))
    assert th.equal(turned(large[:, 0], quarters, mirrored), turned(large, quarters, mirrored)[:, 0])
    assert th.equal(turned(small, quarters, mirrored), small) == (quarters == 0 and not mirrored)
    words = th.eye(3)
    assert turned(words, quarters, mirrored) is words


def test_the_loss_leaves_out_what_nobody_knows():
    truth, known = th.zeros(1, 1, 4, 4), th.ones(1, 1, 4, 4)
    truth[..., :2] = 1
    right = th.where(truth > 0, 20.0, -20.0)
    assert float(dice_and_cross_entropy(right, truth, known)) < 1e-3
    wrong = right.clone()
    wrong[..., 0, 0] *= -1
    assert float(dice_and_cross_entropy(wrong, truth, known)) > 0.5
    known[..., 0, 0] = 0
    assert float(dice_and_cross_entropy(wrong, truth, known)) < 1e-3
    known[..., 1, 0] = truth[..., 1, 0] = 0.4  # all that is known of this cell is target
    assert float(dice_and_cross_entropy(wrong, truth, known)) < 1e-3


@pytest.fixture(scope="module")
def trained():
    venv = make_vec_env("SamSeg-v0", 4, 0, env_kwargs=KWARGS, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    untaught = {key: value.clone() for key, value in model.policy.srm.state_dict().items()}
    model.learn(32, callback=[RecalibrationCallback(steps=120, updates=4), WarmStartCallback(steps=8)])
    return model, untaught


def test_the_callback_teaches_it_and_ppo_does_not(trained):
    model, untaught = trained
    after = {key: value.clone() for key, value in model.policy.srm.state_dict().items()}
    assert any(not th.equal(after[key], untaught[key]) for key in after)
    observations = model.env.reset()
    truth = np.stack(model.env.env_method("truth_on_grid"))[:, 0] > 0.5
    found = observations["foreground_map"] > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.4  # 8 scenes, learnt by heart
    of_ppo = {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}
    assert not of_ppo & {id(p) for p in model.policy.srm.parameters()}
    assert all(p.grad is None for p in model.policy.srm.parameters())  # or PPO would clip by them, too


def test_it_is_saved_and_loaded_with_the_policy(trained, tmp_path):
    model, _ = trained
    model.save(tmp_path / "p")
    loaded = load_policy(tmp_path / "p.zip", DummyVecEnv([lambda: gym.make("SamSeg-v0", **KWARGS)]))
    for key, value in model.policy.srm.state_dict().items():
        assert th.equal(loaded.policy.srm.state_dict()[key], value)
    assert loaded.env.get_attr("recalibration")[0] is loaded.policy.srm


def test_a_module_of_another_version_says_so(trained, tmp_path):
    model, _ = trained
    model.policy.srm.extra = th.nn.Linear(2, 2)
    model.save(tmp_path / "p")
    del model.policy.srm.extra
    with pytest.raises(ValueError, match="a recalibration module of another version"):
        load_policy(tmp_path / "p.zip", DummyVecEnv([lambda: gym.make("SamSeg-v0", **KWARGS)]))


def test_all_environments_at_once_draw_what_each_alone_draws(trained):
    model, _ = trained
    batched = make_vec_env("SamSeg-v0", 3, 7, env_kwargs=KWARGS, vec_env_cls=SamSegVecEnv)
    single = make_vec_env("SamSeg-v0", 3, 7, env_kwargs=KWARGS, vec_env_cls=DummyVecEnv)
    for venv in (batched, single):
        attach_recalibration(model, venv)
        venv.seed(7)
    observations = [venv.reset() for venv in (batched, single)]
    assert not np.allclose(*observations[0]["foreground_map"][:2])  # each its own
    for _ in range(7):
        for key in ("foreground_map", "action_mask"):
            assert np.allclose(observations[0][key], observations[1][key], atol=1e-5)
        actions = [int(np.flatnonzero(mask)[5]) for mask in observations[0]["action_mask"]]
        observations = [venv.step(np.array(actions))[0] for venv in (batched, single)]


@pytest.mark.parametrize("steps", [0, 4, 8, 40])
def test_it_can_be_taught_for_as_short_as_one_likes(steps):
    venv = make_vec_env("SamSeg-v0", 4, 0, env_kwargs=KWARGS, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=2, batch_size=8, n_epochs=1, seed=0, device="cpu")
    before = model.policy.srm.last[-1].weight.clone()
    model.learn(0, callback=RecalibrationCallback(steps=steps, updates=1))
    assert th.equal(model.policy.srm.last[-1].weight, before) == (steps == 0)


def test_a_policy_without_a_module_is_told_what_to_do():
    venv = make_vec_env("SamSeg-v0", 1, 0, env_kwargs={**KWARGS, "srm": False}, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=2, batch_size=2, device="cpu")
    with pytest.raises(ValueError, match="make the environment with srm=True"):
        model.learn(2, callback=RecalibrationCallback())


def test_no_module_is_taught_where_the_reward_looks_at_no_truth(capsys):
    venv = make_vec_env("SamSeg-v0", 2, 0, env_kwargs={**KWARGS, "reward": "network"}, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=8, n_epochs=1, device="cpu")
    before = {key: value.clone() for key, value in model.policy.srm.state_dict().items()}
    model.learn(8, callback=RecalibrationCallback(steps=8))
    assert "stays as it is" in capsys.readouterr().out
    assert all(th.equal(value, before[key]) for key, value in model.policy.srm.state_dict().items())


@pytest.mark.parametrize("seed", [0, 3])
def test_the_truth_is_turned_with_the_pictures(monkeypatch, seed):
    """Each view that the module learns from lies over its own truth, and not all views are the image as it is."""
    venv = make_vec_env("SamSeg-v0", 3, 0, env_kwargs=KWARGS, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=2, batch_size=6, n_epochs=1, seed=seed, device="cpu")
    inputs, forward, pairs, untouched = Recalibration.inputs, Recalibration.forward, [], []

    def with_truth(self, observations):
        untouched.append(th.as_tensor(np.stack(venv.env_method("truth_on_grid"))))
        return {**inputs(self, observations), "told": untouched[-1]}

    def note(self, observations):
        if "told" in observations:
            pairs.append([observations["told"]])
        return forward(self, observations)

    def loss(logits, truth, known):
        pairs[-1].append(th.cat([truth, known], 1))
        return dice_and_cross_entropy(logits, truth, known)

    callback = RecalibrationCallback(steps=30, updates=1, beside=False)
    callback.init_callback(model)
    monkeypatch.setattr(Recalibration, "forward", note)
    monkeypatch.setattr("alignsam_sb3.callbacks.recalibration.dice_and_cross_entropy", loss)

    def looked_up(self, seen):
        return with_truth(self, seen) if self.training else inputs(self, seen)

    monkeypatch.setattr(Recalibration, "inputs", looked_up)
    callback.on_training_start({}, {})
    assert len(pairs) == 10
    assert all(th.equal(told, truth) for told, truth in pairs)
    assert sum(not th.equal(told, image) for (told, _), image in zip(pairs, untouched, strict=True)) >= 5


def test_environments_in_wrappers_draw_with_the_policys_module(trained):
    """gym.make and Monitor wrap environments: what is set on a wrapper stays there."""
    model, _ = trained
    venv = make_vec_env("SamSeg-v0", 2, 0, env_kwargs=KWARGS)
    attach_recalibration(model, venv)
    assert all(env.unwrapped.batch.recalibration is model.policy.srm for env in venv.envs)
    alone = gym.make("SamSeg-v0", **KWARGS)
    attach_recalibration(model, alone)
    assert not (alone.reset(seed=0)[0]["foreground_map"] == 0.5).all()
