"""The language prior in the environment: maps in the observation, the target's word decides, truth never enters."""

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import centre_click
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.evaluation import clip_points_player, clip_top_player
from alignsam_sb3.frame import PADDING, Frame
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import load_clip

SCENES = {"n_images": 16}


@pytest.fixture
def semantic():
    return gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu").unwrapped


def two_targets(env):
    """An image with objects of two categories: (image index, one category, the other)."""
    for index in range(len(env.shared.dataset)):
        shown = np.unique(env.shared.dataset[index].category_ids)
        if len(shown) > 1:
            return index, int(shown[0]), int(shown[-1])
    raise AssertionError("no scene with two categories")


def test_the_default_task_is_named_and_has_maps(semantic):
    observation, info = semantic.reset(seed=0)
    assert observation["similarity_maps"].shape == (8, 16, 16)
    assert observation["similarity_maps"].min() >= 0
    assert semantic.observation_space.contains(observation)
    assert -1 <= info["clip_score"] <= 1
    assert semantic.shared.texts == semantic.shared.dataset.categories
    check_env(semantic, skip_render_check=True)


def test_without_a_prior_there_are_no_maps(make_env):
    env = make_env(clip=None).unwrapped
    observation, info = env.reset(seed=0)
    assert "similarity_maps" not in observation
    assert "clip_score" not in info
    with pytest.raises(RuntimeError, match="no language prior: make it with clip='tiny'"):
        env.batch.similarity_map(0)


def test_maps_are_those_of_the_prior(semantic):
    observation, _ = semantic.reset(options={"image_index": 3, "category_id": 2})
    image = semantic.shared.dataset[3].image
    found = load_clip("tiny", "cpu").similarity([image], semantic.shared.dataset.categories)
    assert np.allclose(semantic.batch.similarity_map(0), found.maps[0, 2], atol=2e-3)  # a bank is kept in half precision
    for name, maps in (("similarity_maps", found.maps), ("cosine_maps", found.cosines)):
        expected = Frame(128).from_squashed(maps[0].numpy(), (128, 128), (16, 16))
        assert np.allclose(observation[name], expected, atol=2e-3)


def test_maps_do_not_depend_on_the_target_nor_on_the_truth(semantic):
    index, one, other = two_targets(semantic)
    first, _ = semantic.reset(options={"image_index": index, "category_id": one})
    second, _ = semantic.reset(options={"image_index": index, "category_id": other})
    assert np.array_equal(first["similarity_maps"], second["similarity_maps"])
    assert first["target_category"] != second["target_category"]


@pytest.mark.parametrize("player", [clip_top_player, clip_points_player])
def test_clip_points_follow_the_word(semantic, player):
    """Summed over scenes, each word's mask lies more on its own objects than on the other word's."""
    own, crossed = [], []
    for index in range(len(semantic.shared.dataset)):
        sample = semantic.shared.dataset[index]
        shown = np.unique(sample.category_ids)
        for category, other in zip(shown, np.roll(shown, 1), strict=True):
            if category != other:
                semantic.reset(options={"image_index": index, "category_id": int(category)})
                semantic.batch.place(np.array([0]), player(semantic.batch, semantic.batch.observe(), 0))
                own.append(metrics.dice(semantic.mask, sample.target(category)))
                crossed.append(metrics.dice(semantic.mask, sample.target(other)))
    assert np.mean(own) > 2 * np.mean(crossed)


def test_phrases_replace_names():
    env = gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu", prompts={"disc": "red disc"}).unwrapped
    assert env.shared.texts[:2] == ("red disc", "box")
    assert env.config["prompts"] == {"disc": "red disc"}
    with pytest.raises(ValueError, match="did you mean 'disc'"):
        gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu", prompts={"disk": "red disc"})
    with pytest.raises(ValueError, match="there is none: give clip"):
        gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu", clip=None, prompts={"disc": "red disc"})


def test_padding_is_marked_in_a_photograph_of_any_shape(coco_root, tiny):
    env = gym.make("SamSeg-v0", dataset=f"coco:{coco_root}", device="cpu").unwrapped
    observation, _ = env.reset(seed=0)
    height, width = env.batch.size(0)
    expected = np.arange(16) + 0.5 < 16 * height / max(height, width)
    assert np.array_equal((observation["similarity_maps"][0] != PADDING).any(1), expected)


def test_objects_and_names_do_not_mix(tiny):
    scenes = ToyScenes("semantic", "train", 16)
    env = SamSegEnv(dataset=scenes, segmenter=tiny, clip=load_clip("tiny", "cpu"))
    assert env.config["clip"] == "tiny"
    assert SamSegEnv(dataset=scenes, segmenter=load_segmenter("tiny", "cpu"), device="cpu").config["clip"] == "tiny"
    with pytest.raises(TypeError, match="both as objects"):
        SamSegEnv(dataset=scenes, segmenter="tiny")


def test_several_clicks_at_once_are_taken_back_at_once():
    env = gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu", remove=True).unwrapped
    before, _ = env.reset(seed=0)
    click = centre_click(env.target)
    env.batch.place(np.array([0]), [[click, ((0, 0), 0)]])
    assert env.clicks == [click, ((0, 0), 0)]
    assert env.batch.info(0)["point_labels"] == [click[1], 0]
    assert env.batch.num_steps[0] == 0
    assert env.batch.dice[0] == env.batch.best_dice[0] > 0
    assert not env.action_masks()[[0, 256]].any()  # a cell that holds a click
    after, *_ = env.step(2 * 256)  # remove
    assert env.clicks == []
    assert np.array_equal(after["action_mask"], before["action_mask"])
    assert np.array_equal(after["sam_pred_mask_prob"], before["sam_pred_mask_prob"])


def test_vec_env_hands_out_the_same_maps():
    def make():
        return gym.make("SamSeg-v0", dataset_kwargs=SCENES, device="cpu", max_steps=2)

    ours, stock = SamSegVecEnv([make] * 3), DummyVecEnv([make] * 3)
    for venv in (ours, stock):
        venv.seed(5)
    a, b = ours.reset(), stock.reset()
    for step in range(5):
        assert np.array_equal(a["similarity_maps"], b["similarity_maps"])
        actions = np.array([step, 20 + step, 40 + step])
        (a, *_), (b, *_) = ours.step(actions), stock.step(actions)


def test_maps_are_rendered_beside_the_belief(semantic):
    semantic.reset(seed=0)
    before = semantic.render_maps()
    semantic.batch.place(np.array([0]), [[centre_click(semantic.target)]])
    after = semantic.render_maps()
    assert before.shape == after.shape
    assert before.shape[1] == 2 * before.shape[0] - 2 * 22
    half = before.shape[1] // 2
    assert not np.array_equal(before[:, :half], after[:, :half])  # the belief moved
    assert np.array_equal(before[:, half:], after[:, half:])  # the prior did not
