"""MaskRefine-v0 and its operations."""

import json

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.mask_refine import STOP, MaskRefineEnv
from alignsam_sb3.envs.vec_env import MaskRefineVecEnv
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3 import metrics
from alignsam_sb3.prompting.refinement import OPERATIONS, describe

TASK = {"dataset_kwargs": {"n_images": 6}, "prompts": ["object", "crescent"], "device": "cpu"}


@pytest.fixture
def env() -> MaskRefineEnv:
    return gym.make("MaskRefine-v0", **TASK).unwrapped


def test_it_is_an_environment(env):
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert (observation["action_mask"].astype(bool) == env.action_masks()).all()


def test_gains_add_up_to_the_final_dice_and_stop_ends(env):
    pair = env.prompt_bank.pairs[0]
    _, info = env.reset(options={"pair": pair, "prompt": 1})
    start, total = info["dice"], 0.0
    for k in np.flatnonzero(env.action_masks())[:3]:
        _, reward, over, _, info = env.step(int(k))
        total += reward
    assert not over
    assert start + total == pytest.approx(info["dice"])
    sample = env.prompt_bank.dataset[pair[0]]
    assert info["dice"] == pytest.approx(metrics.dice(env.probability > 0.5, sample.target(pair[1])))
    _, reward, over, _, _ = env.step(STOP)
    assert over
    assert reward == 0


def test_forbidden_operations_are_those_that_change_nothing(env):
    env.reset(seed=1)
    mask = env.probability > 0.5
    for allowed, operate in zip(env.action_masks(), OPERATIONS.values(), strict=False):
        assert allowed == bool(((operate(env.probability) > 0.5) != mask).any())
    assert env.action_masks()[STOP]


def test_the_reward_network_rewards_too_and_is_asked_once_per_vector_step(env, tmp_path, monkeypatch):
    from alignsam_sb3.rewards.network import RewardNetwork, RewardNetworkConfig, RewardScorer
    from alignsam_sb3.segmenters import load_segmenter

    tiny = load_segmenter("tiny", "cpu")
    config = RewardNetworkConfig(("vessel",), "tiny", tiny.fingerprint, tiny.embedding_shape[0])
    RewardScorer(RewardNetwork(config)).save(tmp_path / "n.safetensors", {})
    scored = gym.make("MaskRefine-v0", **TASK, reward="network", reward_network=str(tmp_path / "n.safetensors")).unwrapped
    _, info = scored.reset(seed=0)
    before = info["reward_net_score"]
    _, reward, _, _, info = scored.step(int(np.flatnonzero(scored.action_masks())[0]))
    assert reward == pytest.approx(info["reward_net_score"] - before)
    assert 0 <= info["dice"] <= 1
    kwargs = {**TASK, "reward": "network", "reward_network": str(tmp_path / "n.safetensors")}
    together, singly = (
        make_vec_env("MaskRefine-v0", 3, 0, env_kwargs=kwargs, vec_env_cls=c) for c in (MaskRefineVecEnv, None)
    )
    calls, real = [], RewardScorer.score
    masks = [venv.reset()["action_mask"] for venv in (together, singly)]
    actions = np.array([np.flatnonzero(mask)[0] for mask in masks[0]])
    monkeypatch.setattr(RewardScorer, "score", lambda self, asked: calls.append(len(asked)) or real(self, asked))
    rewards = together.step(actions)[1]
    assert calls == [3]
    assert np.allclose(rewards, singly.step(actions)[1], atol=1e-5)
    with pytest.raises(ValueError, match="needs reward_network"):
        gym.make("MaskRefine-v0", **TASK, reward="network")


def blobs():
    p = np.full((60, 60), 0.1, np.float32)
    p[10:40, 10:40] = 0.9
    p[20:30, 20:30] = 0.2  # a hole
    p[50:52, 50:52] = 0.8  # a speck
    p[10:40, 40:44] = 0.45  # nearly
    return p


def test_operations_do_what_they_say():
    p = blobs()
    mask = p > 0.5
    done = {name: operate(p) > 0.5 for name, operate in OPERATIONS.items()}
    assert done["threshold down"][20, 42]
    assert not done["threshold up"][20, 42]
    assert done["fill holes"][25, 25]
    assert (done["fill holes"] & mask == mask).all()
    for name in ("drop small parts", "keep largest part", "open large"):
        assert not done[name][50:52, 50:52].any()
    assert done["close large"].sum() >= mask.sum()
    assert (done["dilate small"] & mask == mask).all()
    assert (done["erode large"] & ~mask).sum() == 0
    assert done["dilate large"].sum() > done["dilate small"].sum() > mask.sum()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (64, 64)])
def test_operations_take_empty_full_and_tiny_masks(name, fill, size):
    p = np.full(size, fill, np.float32)
    out = OPERATIONS[name](p)
    assert out.shape == size
    assert np.isfinite(out).all()
    assert out.dtype == np.float32
    described = describe(out, np.zeros((*size, 3), np.uint8))
    assert described.shape == (10,)
    assert np.isfinite(described).all()


def test_operations_do_not_change_what_they_are_given():
    p = blobs()
    before = p.copy()
    for operate in OPERATIONS.values():
        operate(p)
    assert (p == before).all()


def test_a_policy_remembers_its_task(env):
    again = gym.make("MaskRefine-v0", **env.config, device="cpu").unwrapped
    assert again.config == env.config
    assert json.loads(json.dumps(env.config)) == env.config
    assert again.prompt_bank is env.prompt_bank
