"""Imitating the oracle: it learns, touches nothing frozen, counts no steps, and happens once."""

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3.callbacks import WarmStartCallback
from alignsam_sb3.clickers import centre_click
from alignsam_sb3.policies import SamMaskablePPO, SamPPO


def test_the_oracles_action_is_the_nearest_allowed_cell(make_env):
    env = make_env(patches=16).unwrapped
    env.reset(seed=0)
    (x, y), _ = centre_click(env.target)
    action = env.oracle_action()
    assert action == env.action_from_click((x, y), 1)
    env.step(action)
    for _ in range(3):
        action = env.oracle_action()
        assert env.action_masks()[action]  # never where a click already is
        env.step(action)


@pytest.mark.parametrize(("algorithm", "policy"), [(SamMaskablePPO, "ImplicitMaskablePolicy"), (SamPPO, "ImplicitPolicy")])
def test_it_learns_before_the_first_step_and_only_then(make_env, algorithm, policy):
    venv = SamSegVecEnv([lambda: make_env(max_steps=2)] * 4)
    model = algorithm(policy, venv, n_steps=4, batch_size=8, n_epochs=1, learning_rate=1e-9, seed=0, device="cpu")
    before = agreement(model, make_env)
    model.learn(16, callback=WarmStartCallback(steps=240, learning_rate=2e-3))
    assert model.num_timesteps == 16  # its steps are not the training's
    assert agreement(model, make_env) > before + 0.3  # on the scenes it saw: twelve of them
    weights = {key: value.clone() for key, value in model.policy.state_dict().items()}
    model.learn(16, reset_num_timesteps=False, callback=WarmStartCallback(steps=240))
    assert all(th.allclose(weights[key], value, atol=1e-5) for key, value in model.policy.state_dict().items())


def agreement(model, make_env):
    """Share of first clicks on the object."""
    env, hits = make_env().unwrapped, []
    for index in range(len(env.shared.dataset)):
        observation, _ = env.reset(options={"image_index": index, "category_id": 0})
        action, _ = model.predict({key: np.asarray(value)[None] for key, value in observation.items()}, deterministic=True)
        x, y = env.batch.grid.centres(env.batch.size(0))[env.batch.actions.cells(action)[0]]
        hits.append(bool(env.batch.actions.labels(action)[0] and env.target[y, x]))
    return np.mean(hits)


def test_what_is_enough_is_a_dice():
    with pytest.raises(ValueError, match=r"from 0 to 1 .* got 90"):
        WarmStartCallback(enough=90)
