"""Stages before PPO: a training that died in one goes on there, neither repeating nor skipping any of it."""

import json
from zipfile import ZipFile

import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3.callbacks import RecalibrationCallback, WarmStartCallback
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.policies.stages import Stage, describe_progress, read_stages

STEPS = 64


class KilledError(Exception):
    """As kill -9 would: nothing after it is run."""


def make(make_env, **kwargs):
    venv = SamSegVecEnv([lambda: make_env(max_steps=2, **kwargs)] * 4)
    return SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=8, n_epochs=1, seed=0, device="cpu")


def killed(model, callback, at, path, freq):
    """Learn until so many vector steps are done, then die."""
    callback.save_to(path, freq)
    done, count = callback._did, [0]

    def did(stage, rounds):
        done(stage, rounds)
        count[0] += 1
        if count[0] == at:
            raise KilledError

    callback._did = did
    with pytest.raises(KilledError):
        model.learn(16, callback=callback)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(("kind", "srm"), [(WarmStartCallback, False), (RecalibrationCallback, True)])
def test_a_killed_stage_goes_on_where_its_checkpoint_was(make_env, tmp_path, kind, srm, trust):
    path = tmp_path / "p.zip"
    first = make(make_env, srm=srm)
    killed(first, kind(steps=STEPS), 11, path, freq=16)  # 44 steps; the last checkpoint is at 32
    assert describe_progress(first) == f"in the {kind.stage}, after 44 of {STEPS} steps"
    loaded = SamMaskablePPO.load(path, env=first.env, device="cpu", trust=trust)
    assert (loaded.stages[kind.stage].done, loaded.num_timesteps) == (32, 0)
    callback = kind(steps=STEPS)
    rates, moments, opened = [], [], callback._did

    def did(stage, rounds):
        optimizer = stage.optimizer
        rates.append(optimizer.param_groups[0]["lr"])
        moments.append(max(float(state["step"]) for state in optimizer.state.values()))
        opened(stage, rounds)

    callback._did = did
    loaded.learn(16, callback=callback, reset_num_timesteps=False)
    assert loaded.num_timesteps == 16
    assert len(rates) == (STEPS - 32) // 4  # not repeated, not skipped
    updates = 4 if srm else 1
    assert moments == [updates * n for n in range(9, 17)]  # the optimizer knows what it had learned
    assert rates == pytest.approx(uninterrupted_rates(make_env, kind, srm)[8:])
    again = kind(steps=STEPS)
    again._did = None  # whoever calls it fails
    loaded.learn(16, callback=again, reset_num_timesteps=False)


def uninterrupted_rates(make_env, kind, srm):
    callback, rates = kind(steps=STEPS), []
    opened = callback._did

    def did(stage, rounds):
        rates.append(stage.optimizer.param_groups[0]["lr"])
        opened(stage, rounds)

    callback._did = did
    make(make_env, srm=srm).learn(0, callback=callback)
    return rates


@pytest.mark.parametrize("trust", [False, True])
def test_a_checkpoint_of_a_stage_knows_its_images(make_env, tmp_path, trust):
    path = tmp_path / "p.zip"
    model = make(make_env)
    killed(model, WarmStartCallback(steps=STEPS), 5, path, freq=16)
    played = set(model.env.get_attr("drawn")[0].tolist())
    learned = set(SamMaskablePPO.load(path, device="cpu", trust=trust).seen.hashes.tolist())
    assert learned
    assert learned <= played


def test_the_modules_optimizer_is_kept_beside_ppo_too(make_env, tmp_path):
    model = make(make_env, srm=True)
    model.learn(16, callback=RecalibrationCallback(steps=8, updates=2))
    model.save(tmp_path / "p.zip")
    loaded = SamMaskablePPO.load(tmp_path / "p.zip", env=model.env, device="cpu")
    callback = RecalibrationCallback(steps=8, updates=2)
    loaded.learn(16, callback=callback, reset_num_timesteps=False)
    assert max(float(state["step"]) for state in callback._optimizer.state.values()) == 2 * 8
    assert callback._optimizer.param_groups[0]["lr"] == pytest.approx(3e-4)


def test_a_new_training_begins_with_its_stages(make_env):
    model = make(make_env)
    model.learn(0, callback=WarmStartCallback(steps=8))
    weights = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(0, callback=WarmStartCallback(steps=8))
    assert any(not th.equal(a, b) for a, b in zip(weights, model.policy.parameters(), strict=True))


def test_stock_algorithms_save_no_stage(make_env, tmp_path):
    from sb3_contrib import MaskablePPO

    venv = DummyVecEnv([lambda: make_env(max_steps=2)] * 4)
    model = MaskablePPO("MultiInputPolicy", venv, n_steps=4, batch_size=8, n_epochs=1, seed=0, device="cpu")
    model.learn(0, callback=WarmStartCallback(steps=8))
    model.save(tmp_path / "p.zip")
    assert "stages" not in json.loads(ZipFile(tmp_path / "p.zip").read("data"))


@pytest.mark.parametrize(
    "described",
    [[], {"a": 3}, {"a": [1]}, {"a": [-1, 2]}, {"a": [1.5, 2]}, {"a": ["1", "2"]}, {str(k): [0, 1] for k in range(9)}],
)
def test_what_is_no_stage_is_refused(described):
    with pytest.raises(ValueError, match=r"'stages' should|should have steps"):
        read_stages(described, {})


def test_half_a_stage_needs_its_optimizer():
    with pytest.raises(ValueError, match="its optimizer is not in the file"):
        read_stages({"warm start": [8, 16]}, {})
    assert read_stages({"warm start": [16, 16]}, {})["warm start"].done == 16
    weight = th.nn.Parameter(th.zeros(3))
    optimizer = th.optim.AdamW([weight])
    other = th.optim.AdamW([th.nn.Parameter(th.zeros(4))])
    other.param_groups[0]["params"][0].grad = th.ones(4)
    other.step()
    with pytest.raises(ValueError, match="another shape"):
        Stage(8, 16, state=other.state_dict()).resume(optimizer)
    assert th.isfinite(weight).all()
