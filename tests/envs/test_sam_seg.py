import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.episode import Answer
from alignsam_sb3.envs.sam_seg import SamSegEnv
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from alignsam_sb3 import metrics
from alignsam_sb3.datasets import Sample, UnreadableImageError


def play(env, seed, steps=10):
    """Random allowed actions; what came back."""
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=seed)
    seen = [(observation, 0.0, info)]
    for _ in range(steps):
        action = int(rng.choice(np.flatnonzero(env.unwrapped.action_masks())))
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation, reward, info))
        if terminated or truncated:
            observation, info = env.reset()
            seen.append((observation, 0.0, info))
    return seen


@pytest.mark.parametrize("options", [{}, {"remove": True, "done": True, "reward": "shaped", "patches": 4}])
def test_the_checkers_pass(make_env, options):
    env = make_env(render_mode="rgb_array", **options).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gymnasium_check(env)
        sb3_check(env)


def test_observations_are_in_their_space_and_the_mask_is_there_twice(make_env):
    env = make_env()
    for observation, _, _ in play(env, 0):
        assert env.observation_space.contains(observation)
    assert np.array_equal(env.unwrapped.action_masks(), env.unwrapped._observe()["action_mask"].astype(bool))


def test_equal_seeds_give_equal_episodes(make_env):
    one, two, other = play(make_env(), 5), play(make_env(), 5), play(make_env(), 6)
    for (a, reward, _), (b, reward_again, _) in zip(one, two, strict=True):
        assert reward == reward_again
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert any(a[2]["image_id"] != b[2]["image_id"] for a, b in zip(one, other, strict=True))


def test_the_belief_starts_at_one_half_and_rewards_add_up_to_dice(make_env):
    env = make_env()
    observation, _ = env.reset(seed=1)
    assert (observation["sam_pred_mask_prob"] == 0.5).all()
    total, done = 0.0, False
    while not done:
        action = env.unwrapped.action_from_click((64, 64), 1)
        allowed = env.unwrapped.action_masks()
        action = action if allowed[action] else int(np.flatnonzero(allowed)[0])
        observation, reward, done, truncated, info = env.step(action)
        assert not truncated
        total += reward
    assert total == pytest.approx(info["dice"])
    assert observation["num_steps"][0] == 5
    assert info["is_success"] == (info["iou"] >= 0.8)
    assert info["best_dice"] >= info["dice"]


def test_a_forbidden_action_changes_nothing_and_is_reported(make_env):
    env = make_env()
    env.reset(seed=0)
    first, _, _, _, info = env.step(9)
    assert not info["invalid_action"]
    again, reward, _, _, info = env.step(9)
    assert info["invalid_action"]
    assert reward == 0
    assert np.array_equal(first["sam_pred_mask_prob"], again["sam_pred_mask_prob"])
    assert info["point_coords"] == [(24, 24)]


def test_remove_takes_the_last_click_back_and_done_ends(make_env):
    env = make_env(remove=True, done=True)
    env.reset(seed=0)
    env.step(10)
    one = env.unwrapped._observe()["sam_pred_mask_prob"]
    env.step(40)
    remove, done = env.action_space.n - 2, env.action_space.n - 1
    observation, _, terminated, _, info = env.step(remove)
    assert np.array_equal(observation["sam_pred_mask_prob"], one)
    assert len(info["point_coords"]) == 1
    assert not terminated
    assert env.step(done)[2]


def test_a_persons_click_becomes_the_nearest_action(make_env):
    env = make_env().unwrapped
    env.reset(seed=0)
    assert env.action_from_click((0, 0), 1) == 0
    assert env.action_from_click((127, 127), 0) == 127
    _, _, _, _, info = env.step(env.action_from_click((70, 20), 0))
    assert info["point_coords"] == [(72, 24)]
    assert info["point_labels"] == [0]


def test_the_observation_does_not_depend_on_the_truth(make_env):
    """Two episodes on one image with different truths look the same until the reward."""
    env = make_env().unwrapped
    env.reset(options={"image_index": 0, "category_id": 0})
    seen = env.step(20)
    env.reset(options={"image_index": 0, "category_id": 0})
    env.episode.truth = ~env.episode.truth
    other = env.step(20)
    assert all(np.array_equal(seen[0][key], other[0][key]) for key in seen[0])
    assert seen[1] != other[1]


def test_rendering_shows_photo_truth_and_prediction(make_env):
    env = make_env(render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(27)
    after = env.render()
    assert before.shape == (256, 768, 3)
    assert np.array_equal(before[:, :512], after[:, :512])
    assert not np.array_equal(before[:, 512:], after[:, 512:])


def test_observations_handed_out_are_never_written_to(make_env):
    env = make_env()
    first, _ = env.reset(seed=0)
    copies = {key: np.copy(value) for key, value in first.items()}
    for _ in range(7):
        if env.step(int(np.flatnonzero(env.unwrapped.action_masks())[0]))[2]:
            env.reset()
    assert all(np.array_equal(first[key], copies[key]) for key in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "dice_gian"}, "did you mean 'dice_gain'"),
        ({"segmenter": "tinny"}, "did you mean 'tiny'"),
        ({"dataset": "toy:salience"}, "did you mean 'saliency'"),
        ({"split": "evl"}, "did you mean 'eval'"),
        ({"render_mode": "rgb"}, "did you mean 'rgb_array'"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"patches": 1}, "patches must be at least 2"),
    ],
)
def test_bad_options_name_the_nearest(make_env, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(**options)


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="did you mean 'patches'"):
        gym.make("SamSeg-v0", patchs=3)


def test_a_click_outside_the_image_is_refused_before_it_counts(make_env):
    env = make_env().unwrapped
    env.reset(seed=0)
    for click in (((500, 5), 1), ((5, 5), 7)):
        with pytest.raises(ValueError, match=r"outside the image|1 \(foreground\) or 0"):
            env.step(click)
    assert env.clicks == []


def test_gym_make_vec_works(make_env):
    venv = gym.make_vec("SamSeg-v0", num_envs=2, vectorization_mode="sync", dataset_kwargs={"n_images": 12}, device="cpu")
    observation, _ = venv.reset(seed=0)
    assert observation["image"].shape == (2, 3, 128, 128)
    assert venv.step(np.array([3, 4]))[1].shape == (2,)


def test_skipped_images_are_never_drawn(coco_root):
    (coco_root / "val2017" / "001.png").write_bytes(b"")
    env = SamSegEnv(f"coco:{coco_root}", "eval", {"categories": ["cat"]}, device="cpu", on_error="skip")
    drawn = {env.reset(seed=s)[1]["image_id"] for s in range(20)}
    assert drawn == {"000.png", "003.png"}


def test_an_image_that_vanishes_during_training_is_skipped_and_said(coco_root, caplog):
    spec = f"coco:{coco_root}"
    env = SamSegEnv(spec, "train", {"categories": ["cat"]}, device="cpu", on_error="skip")
    strict = SamSegEnv(spec, "train", {"categories": ["cat"]}, device="cpu")
    (coco_root / "images" / "train2017" / "001.png").unlink()
    assert {env.reset(seed=s)[1]["image_id"] for s in range(20)} == {"000.png", "003.png"}
    assert "is skipped" in caplog.text
    with pytest.raises(UnreadableImageError, match=r"001\.png: no such file"):
        for s in range(20):
            strict.reset(seed=s)


def test_photographs_of_any_shape_are_played_in_one_frame(photographs):
    env = SamSegEnv(f"coco:{photographs / 'coco_permissive'}", "eval", {"categories": ["person"]}, device="cpu")
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        allowed = np.flatnonzero(env.action_masks())
        _, _, _, _, info = env.step(int(allowed[len(allowed) // 4]))
        assert info["mask"].shape == env.episode.sample.size


class HalfSaid:
    """One image whose annotation says nothing of its lower half."""

    categories = ("thing",)
    fingerprint = "half-said"
    images_by_category = (np.array([0]),)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        masks, valid = np.zeros((1, 64, 64), bool), np.ones((64, 64), bool)
        masks[0, 8:24, 8:24] = True
        valid[32:] = False
        return Sample("0", np.full((64, 64, 3), 90, np.uint8), masks, np.zeros(1, np.int64), valid)


@pytest.mark.parametrize("reward", ["dice_gain", "paper", "shaped"])
def test_what_the_annotation_leaves_out_counts_neither_way(tiny, reward):
    env = SamSegEnv(HalfSaid(), segmenter=tiny, clip=None, reward=reward, max_steps=3)
    env.reset(seed=0)
    answer = th.full((64, 64), -9.0)
    answer[8:24, 8:24] = 9.0
    env.supply(Answer(answer, 1.0))
    *_, info = env.step(((16, 16), 1))
    assert info["dice"] > 0.95
    answer = answer.clone()
    answer[32:] = 9.0  # all of what nothing is said of, too
    env.supply(Answer(answer, 1.0))
    _, gained, *_, after = env.step(((16, 50), 1))
    assert after["dice"] == info["dice"]
    assert after["iou"] == info["iou"]
    assert gained == 0
    assert env.valid is not None
    kind, cell = divmod(env.oracle_action(), env.grid.n_cells)
    assert kind == 0 or cell // env.grid.patches < 4  # nothing there is worth a negative click
    assert metrics.dice(env.mask, env.target) < 0.5 < metrics.dice(env.mask, env.target, env.valid)


def test_the_oracle_prefers_the_depth_of_what_is_wrong(make_env):
    env = make_env(patches=16).unwrapped
    env.reset(seed=3)
    liked = env.oracle_preference()
    assert liked.shape == (env.grid.n_actions,)
    assert liked.sum() == pytest.approx(1, abs=1e-5)
    (x, y), label = env.grid.click(int(liked.argmax()), env.image_size)
    assert label == 1
    assert env.target[y, x]
    for action in np.flatnonzero(liked):
        (x, y), label = env.grid.click(int(action), env.image_size)
        assert label == 1
        assert env.target[y, x]
    answer = th.full((64, 64), 9.0)  # the mask takes everything: only negative clicks off the target can help
    env.supply(Answer(answer, 1.0))
    env.step(int(liked.argmax()))
    for action in np.flatnonzero(env.oracle_preference()):
        (x, y), label = env.grid.click(int(action), env.image_size)
        assert label == 0
        assert not env.target[y, x]
        assert env.action_masks()[action]


def test_where_nothing_is_wrong_the_oracle_confirms(make_env):
    env = make_env().unwrapped
    env.reset(seed=3)
    full = th.nn.functional.interpolate(th.from_numpy(env.target.astype(np.float32))[None, None], (64, 64))[0, 0]
    env.supply(Answer(18 * full - 9, 1.0))
    env.step(env.oracle_action())
    env.episode.beliefs[-1] = replace(env.episode.beliefs[-1], mask=env.target.copy())
    liked = env.oracle_preference()
    assert liked.max() == 1
    assert liked.argmax() == env.oracle_action()
