import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv


def run(cls, make_env, steps=13, n_envs=3):
    venv = cls([lambda: Monitor(make_env(remove=True, done=True, max_steps=4)) for _ in range(n_envs)])
    venv.seed(7)
    rng = np.random.default_rng(1)
    seen = [(venv.reset(), None, None, None)]
    for _ in range(steps):
        masks = np.stack(venv.env_method("action_masks"))
        seen.append(venv.step(np.array([rng.choice(np.flatnonzero(m)) for m in masks])))
    return seen


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "t")
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and np.issubdtype(a.dtype, np.floating):
        return np.allclose(a, b, atol=1e-4)
    return np.array_equal(a, b) if not isinstance(a, float) else a == pytest.approx(b, abs=1e-4)


def test_it_is_dummy_vec_env_step_for_step(make_env):
    for ours, stock in zip(run(SamSegVecEnv, make_env), run(DummyVecEnv, make_env), strict=True):
        for a, b in zip(ours, stock, strict=True):
            assert a is b is None or same(a, b)


def test_one_decoder_call_per_vector_step(make_env, tiny, monkeypatch):
    venv = SamSegVecEnv([make_env] * 5)
    calls = []
    decode = tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda *args, **kwargs: calls.append(len(args[1])) or decode(*args, **kwargs))
    venv.reset()
    for step in range(6):
        venv.step(np.arange(5) + 10 * step)
    assert calls == [5] * 6


def test_constants_are_the_same_arrays_until_a_reset_and_are_never_overwritten(make_env):
    venv = SamSegVecEnv([lambda: make_env(max_steps=3)] * 2)
    first = venv.reset()
    kept = {key: value.copy() for key, value in first.items()}
    second = venv.step(np.array([1, 2]))[0]
    assert second["sam_image_embeddings"] is first["sam_image_embeddings"]
    assert second["sam_pred_mask_prob"] is not first["sam_pred_mask_prob"]
    for step in range(4):
        last = venv.step(np.array([10 * step + 20, 10 * step + 21]))[0]
    assert last["sam_image_embeddings"] is not first["sam_image_embeddings"]
    assert all(np.array_equal(first[key], kept[key]) for key in first)


def test_other_environments_are_refused():
    with pytest.raises(TypeError, match="use DummyVecEnv"):
        SamSegVecEnv([lambda: gym.make("CartPole-v1")])
