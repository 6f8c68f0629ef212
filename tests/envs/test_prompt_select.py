"""PromptSelect-v0: what is seen, that a step is a look-up, that truth stays out of it."""

import json

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.prompt_select import answer_statistics, image_statistics
from gymnasium.utils.env_checker import check_env

from alignsam_sb3.prompting.bank import PROMPTS, read_prompts

TASK = {
    "dataset_kwargs": {"n_images": 6},
    "prompts": ["object", "crescent", "red object"],
    "reward": "dice",
    "device": "cpu",
}


@pytest.fixture
def env():
    return gym.make("PromptSelect-v0", **TASK).unwrapped


def test_it_is_an_environment(env):
    check_env(env, skip_render_check=True)
    assert env.observation_space.shape == (21,)
    assert env.action_space.n == 3
    assert len(PROMPTS) == len(set(PROMPTS)) == 11


def test_rewards_are_the_answers_dice_and_progress_is_seen(env):
    pairs = list(env.prompt_bank.pairs[:4])
    observation, _ = env.reset(options={"pairs": pairs})
    for k, pair in enumerate(pairs):
        assert observation[20] == pytest.approx(k / 4)
        sample = env.prompt_bank.dataset[pair[0]]
        assert (observation[:20] == image_statistics(sample.image)).all()
        observation, reward, terminated, _, info = env.step(k % 3)
        assert reward == pytest.approx(env.prompt_bank.dice(pair, sample, env.prompt_bank.probability(pair, k % 3)))
        assert info["prompt"] == TASK["prompts"][k % 3]
        assert terminated == (k == 3)


def test_a_seed_repeats_its_images(env):
    drawn = []
    for _ in range(2):
        env.reset(seed=7)
        drawn.append([env.pair] + [(env.step(0), env.pair)[1] for _ in range(5)])
    assert drawn[0] == drawn[1]


def test_truth_is_not_seen(env, monkeypatch):
    rich = gym.make("PromptSelect-v0", **TASK, observation="rich").unwrapped
    pair = rich.prompt_bank.pairs[0]
    before, _ = rich.reset(options={"pairs": [pair]})
    rich._known.clear()
    real = type(rich.prompt_bank.dataset).__getitem__

    def lied(self, index):
        sample = real(self, index)
        return type(sample)(sample.image_id, sample.image, ~sample.masks, sample.category_ids)

    monkeypatch.setattr(type(rich.prompt_bank.dataset), "__getitem__", lied)
    after, _ = rich.reset(options={"pairs": [pair]})
    assert (before == after).all()
    assert len(before) == 21 + 9


def test_clips_feature_of_the_image_can_be_seen():
    from alignsam_sb3.semantics import load_clip

    seeing = gym.make("PromptSelect-v0", **TASK, observation="clip").unwrapped
    check_env(seeing, skip_render_check=True)
    pair = seeing.prompt_bank.pairs[0]
    observation, _ = seeing.reset(options={"pairs": [pair]})
    feature = load_clip("tiny", "cpu").image_features([seeing.prompt_bank.dataset[pair[0]].image])[0, 0].numpy()
    assert np.allclose(observation[-len(feature) :], feature, atol=1e-5)
    assert len(observation) == 21 + 9 + len(feature)


def test_statistics_of_answers():
    half, whole = np.zeros((10, 10), np.float32), np.ones((10, 10), np.float32)
    half[:5] = 0.9
    found = answer_statistics([half, half, whole])
    assert found[:3] == pytest.approx([0.5, 0.5, 1.0])
    assert found[6:] == pytest.approx([1.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"reward": "dcie"}, "did you mean 'dice'"),
        ({"observation": "richer"}, "did you mean 'rich'"),
        ({"reward": "network"}, "rewards.network fit"),
        ({"images_per_episode": 0}, "at least 1"),
        ({"prompts": []}, "no prompts"),
    ],
)
def test_bad_options_say_what_to_do(wrong, says):
    with pytest.raises(ValueError, match=says):
        gym.make("PromptSelect-v0", **{**TASK, **wrong})


def test_prompts_come_from_a_file(tmp_path):
    (tmp_path / "p.txt").write_text("the {}\n\n  dark {}  \n")
    assert read_prompts(str(tmp_path / "p.txt")) == ("the {}", "dark {}")
    with pytest.raises(FileNotFoundError, match="one prompt a line"):
        read_prompts(str(tmp_path / "none.txt"))


def test_the_pictures_are_drawn(env):
    shown = gym.make("PromptSelect-v0", **TASK, render_mode="rgb_array")
    shown.reset(seed=0)
    shown.step(1)
    assert shown.render().ndim == 3


def test_a_policy_remembers_its_task(env):
    again = gym.make("PromptSelect-v0", **env.config, device="cpu").unwrapped
    assert again.config == env.config
    assert json.loads(json.dumps(env.config)) == env.config
    assert again.prompt_bank is env.prompt_bank


def test_the_network_pays_its_own_score_and_not_dice(tmp_path, tiny):
    from alignsam_sb3.rewards.network import RewardNetwork, RewardNetworkConfig, RewardScorer

    config = RewardNetworkConfig(("vessel",), "tiny", tiny.fingerprint, tiny.embedding_shape[0])
    RewardScorer(RewardNetwork(config)).save(tmp_path / "n.safetensors", {})
    options = {**TASK, "reward": "network", "reward_network": str(tmp_path / "n.safetensors")}
    scored, seen = gym.make("PromptSelect-v0", **options).unwrapped, []
    scored.reset(seed=0)
    for k in range(4):
        pair = scored.pair
        _, scores, dice = scored.look_up(pair)
        _, reward, _, _, info = scored.step(k % 3)
        assert reward == pytest.approx(scores[k % 3])
        seen.append((reward, dice[k % 3]))
        assert info["reward_net_score"] == pytest.approx(np.mean([r for r, _ in seen]))
        assert info["dice"] == pytest.approx(np.mean([d for _, d in seen]))
    assert max(abs(r - d) for r, d in seen) > 0.05  # or the two could be mixed up unseen
