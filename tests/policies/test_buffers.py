import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer

from alignsam_sb3.policies import EpisodeMaskableRolloutBuffer, EpisodeRolloutBuffer, SamMaskablePPO, SamPPO

PAIRS = [
    (SamMaskablePPO, "ImplicitMaskablePolicy", EpisodeMaskableRolloutBuffer, MaskableDictRolloutBuffer),
    (SamPPO, "ImplicitPolicy", EpisodeRolloutBuffer, DictRolloutBuffer),
]


def trained(algorithm, policy, buffer, make_env):
    venv = SamSegVecEnv([lambda: make_env(max_steps=3)] * 2)
    model = algorithm(policy, venv, n_steps=7, batch_size=5, n_epochs=2, seed=0, device="cpu", rollout_buffer_class=buffer)
    model.learn(28)
    return model


@pytest.mark.parametrize(("algorithm", "policy", "ours", "stock"), PAIRS)
def test_training_is_bit_equal_to_the_stock_buffer(make_env, algorithm, policy, ours, stock):
    one = trained(algorithm, policy, ours, make_env)
    two = trained(algorithm, policy, stock, make_env)
    weights = two.policy.state_dict()
    assert all(th.equal(value, weights[key]) for key, value in one.policy.state_dict().items())
    np.random.seed(0)  # noqa: NPY002 (the buffers draw from it)
    mine = next(iter(one.rollout_buffer.get(6)))
    np.random.seed(0)  # noqa: NPY002 (the buffers draw from it)
    theirs = next(iter(two.rollout_buffer.get(6)))
    assert mine.observations.keys() == theirs.observations.keys() - {"image"}  # at which no policy of ours looks
    for key, value in ((k, v) for k, v in theirs.observations.items() if k != "image"):
        assert mine.observations[key].dtype == value.dtype
        assert th.equal(mine.observations[key], value)


def test_it_stores_less(make_env):
    model = trained(SamMaskablePPO, "ImplicitMaskablePolicy", None, make_env)
    stock = trained(SamMaskablePPO, "ImplicitMaskablePolicy", MaskableDictRolloutBuffer, make_env)
    assert isinstance(model.rollout_buffer, EpisodeMaskableRolloutBuffer)
    assert model.rollout_buffer.nbytes < 0.6 * sum(v.nbytes for v in stock.rollout_buffer.observations.values())
