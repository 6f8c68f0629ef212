"""What rollouts store: rows of a bank or each episode once, and minibatches that are bit-equal to the stock buffer's."""

from functools import lru_cache

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3.policies import EpisodeMaskableRolloutBuffer, EpisodeRolloutBuffer, SamMaskablePPO, SamPPO

PAIRS = {
    "maskable": (SamMaskablePPO, "ImplicitMaskablePolicy", EpisodeMaskableRolloutBuffer, MaskableDictRolloutBuffer),
    "plain": (SamPPO, "ImplicitPolicy", EpisodeRolloutBuffer, DictRolloutBuffer),
}


@pytest.fixture(scope="module")
def trained(make_env):
    """Models after four short rollouts, by kind, buffer and environments; each trained once."""

    @lru_cache
    def train(kind, stock, venv_class):
        algorithm, policy, ours, theirs = PAIRS[kind]
        venv = venv_class([lambda: make_env(max_steps=3)] * 2)
        buffer = theirs if stock else ours
        kwargs = {"n_steps": 7, "batch_size": 5, "n_epochs": 2, "seed": 0, "device": "cpu"}
        return algorithm(policy, venv, rollout_buffer_class=buffer, **kwargs).learn(28)

    return train


def minibatch(model):
    np.random.seed(0)  # noqa: NPY002 (the buffers draw from it)
    return next(iter(model.rollout_buffer.get(6)))


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("venv_class", [SamSegVecEnv, DummyVecEnv])
def test_training_is_bit_equal_to_the_stock_buffer(trained, kind, venv_class):
    """With rows of the environment's bank, and where nobody says rows."""
    one, two = trained(kind, False, venv_class), trained(kind, True, venv_class)
    weights = two.policy.state_dict()
    assert all(th.equal(value, weights[key]) for key, value in one.policy.state_dict().items())
    mine, theirs = minibatch(one), minibatch(two)
    unseen = theirs.observations.keys() - one.policy.needs
    assert "image" in unseen  # what the policy does not look at is not gathered
    assert mine.observations.keys() == theirs.observations.keys() & (one.policy.needs | {"target_category"})
    for key, value in mine.observations.items():
        assert value.dtype == theirs.observations[key].dtype
        assert th.equal(value, theirs.observations[key])
    for name in ("actions", "old_values", "old_log_prob", "advantages", "returns"):
        assert th.equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("kind", PAIRS)
def test_training_in_a_batch_is_training_one_by_one(trained, kind):
    """Our environments and buffer against Stable-Baselines3's own, with equal seeds: the same but for the order of sums.

    The segmenter's logits for two images at once differ in the last digit from those for each alone. Adam makes full steps of
    gradients that are nearly zero, so a few weights differ by as much as such a step.
    """
    ours, stock = trained(kind, False, SamSegVecEnv), trained(kind, True, DummyVecEnv)
    weights = stock.policy.state_dict()
    apart = th.cat([(value - weights[key]).abs().flatten() for key, value in ours.policy.state_dict().items()])
    assert apart.mean() < 5e-6  # measured: 4.3e-7
    assert apart.max() < 1e-3  # measured: 1.8e-4, with a learning rate of 3e-4
    mine, theirs = ours.rollout_buffer, stock.rollout_buffer
    assert np.array_equal(mine.actions, theirs.actions)
    assert np.allclose(mine.rewards, theirs.rewards, atol=1e-5)
    assert np.allclose(mine.values, theirs.values, atol=1e-4)


def test_a_policy_that_looks_at_everything_gets_everything(make_env):
    """Stable-Baselines3's own policy says nothing of what it needs."""
    venv = SamSegVecEnv([lambda: make_env(max_steps=3, dataset_kwargs={"n_images": 4})] * 2)
    model = SamPPO("MultiInputPolicy", venv, n_steps=4, batch_size=4, n_epochs=1, seed=0, device="cpu").learn(8)
    assert isinstance(model.rollout_buffer, EpisodeRolloutBuffer)
    assert minibatch(model).observations.keys() == venv.observation_space.spaces.keys()


def test_it_stores_less(trained):
    def stored(model):
        return sum(value.nbytes for value in model.rollout_buffer.observations.values())

    stock = stored(trained("maskable", True, DummyVecEnv))
    kinds = (SamSegVecEnv, DummyVecEnv)
    rows, episodes = (trained("maskable", False, kind).rollout_buffer.nbytes for kind in kinds)
    assert rows < 0.2 * stock  # beliefs and numbers of rows
    assert rows < episodes < 0.6 * stock  # each episode's embedding once
