import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.sam_seg import SamSegEnv
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from alignsam_sb3 import metrics
from alignsam_sb3.datasets import Sample, ToyScenes, UnreadableImageError
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.task import Task


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

    class Turned(ToyScenes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return replace(sample, masks=~sample.masks)

    seen = []
    for scenes in (ToyScenes, Turned):
        env = SamSegEnv(dataset=scenes("saliency", "train", 4), segmenter=load_segmenter("tiny", "cpu"), clip=None)
        first, _ = env.reset(options={"image_index": 0, "category_id": 0})
        seen.append((first, *env.step(20)))
    for a, b in zip(seen[0][:2], seen[1][:2], strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert seen[0][2] != seen[1][2]


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
        ({"max_steps": 0}, "max_steps must be a whole number between 1 and 10000"),
        ({"patches": 1}, "patches must be at least 2"),
    ],
)
def test_bad_options_name_the_nearest(make_env, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(**options)


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="did you mean 'patches'"):
        gym.make("SamSeg-v0", patchs=3)
    with pytest.raises(TypeError, match="a task or options, not both: got a Task and patches"):
        SamSegEnv(Task(), patches=3)


def test_a_step_before_the_first_reset_says_so(make_env):
    env = make_env().unwrapped
    for call in (lambda: env.step(0), env.action_masks):
        with pytest.raises(RuntimeError, match=r"call reset\(\) before"):
            call()


def test_a_click_outside_the_image_is_refused_before_it_counts(make_env):
    env = make_env().unwrapped
    env.reset(seed=0)
    for click in (((500, 5), 1), ((5, 5), 7)):
        with pytest.raises(ValueError, match=r"outside the image|1 \(foreground\) or 0"):
            env.batch.place(np.array([0]), [[((9, 9), 1), click]])
    with pytest.raises(ValueError, match="action 128 of 128"):
        env.step(128)
    assert env.clicks == []
    assert env.action_masks().all()


def test_gym_make_vec_works(make_env):
    venv = gym.make_vec("SamSeg-v0", num_envs=2, vectorization_mode="sync", dataset_kwargs={"n_images": 12}, device="cpu")
    observation, _ = venv.reset(seed=0)
    assert observation["image"].shape == (2, 3, 128, 128)
    assert venv.step(np.array([3, 4]))[1].shape == (2,)


def _cats(root, split, on_error):
    kwargs = {"categories": ["cat"]}
    return SamSegEnv(dataset=f"coco:{root}", split=split, dataset_kwargs=kwargs, device="cpu", on_error=on_error)


def test_skipped_images_are_never_drawn(coco_root):
    (coco_root / "val2017" / "001.png").write_bytes(b"")
    env = _cats(coco_root, "eval", "skip")
    drawn = {env.reset(seed=s)[1]["image_id"] for s in range(20)}
    assert drawn == {"000.png", "003.png"}


def test_an_image_that_vanishes_during_training_is_skipped_and_said(coco_root, caplog):
    env, strict = (_cats(coco_root, "train", on_error) for on_error in ("skip", "raise"))
    (coco_root / "images" / "train2017" / "001.png").unlink()
    assert {env.reset(seed=s)[1]["image_id"] for s in range(20)} == {"000.png", "003.png"}
    assert "is skipped" in caplog.text
    with pytest.raises(UnreadableImageError, match=r"001\.png: no such file"):
        for s in range(20):
            strict.reset(seed=s)


def test_photographs_of_any_shape_are_played_in_one_frame(photographs):
    kwargs = {"dataset_kwargs": {"categories": ["person"]}, "device": "cpu"}
    env = SamSegEnv(dataset=f"coco:{photographs / 'coco_permissive'}", split="eval", **kwargs)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        assert env.observation_space.contains(observation)
        allowed = np.flatnonzero(env.action_masks())
        env.step(int(allowed[len(allowed) // 4]))
        assert env.mask.shape == env.target.shape == env.batch.sample(0).size


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
def test_what_the_annotation_leaves_out_counts_neither_way(tiny, answering, reward):
    env = SamSegEnv(dataset=HalfSaid(), segmenter=tiny, clip=None, reward=reward, max_steps=3)
    env.reset(seed=0)
    answer = th.full((64, 64), -9.0)
    answer[8:24, 8:24] = 9.0
    answering(answer)
    *_, info = env.step(env.action_from_click((16, 16), 1))
    assert info["dice"] > 0.95
    answer = answer.clone()
    answer[32:] = 9.0  # all of what nothing is said of, too
    answering(answer)
    _, gained, *_, after = env.step(env.action_from_click((16, 50), 1))
    assert after["dice"] == info["dice"]
    assert after["iou"] == info["iou"]
    assert gained == 0
    kind, cell = divmod(env.oracle_action(), env.batch.grid.n_cells)
    assert kind == 0 or cell // env.batch.grid.patches < 4  # nothing there is worth a negative click
    valid = env.batch.sample(0).valid_for(0)
    assert valid is not None
    assert metrics.dice(env.mask, env.target) < 0.5 < metrics.dice(env.mask, env.target, valid)
    covered, known = env.truth_on_grid()
    assert known[:8].all()
    assert not known[8:].any()
    assert not covered[8:].any()


def clicked(env, action):
    """Where an action clicks, and with which label."""
    actions, size = env.batch.actions, env.batch.size(0)
    x, y = env.batch.grid.centres(size)[actions.cells(np.array([action]))[0]]
    return (int(x), int(y)), int(actions.labels(np.array([action]))[0])


def test_the_oracle_prefers_the_depth_of_what_is_wrong(make_env, answering):
    env = make_env(patches=16).unwrapped
    env.reset(seed=3)
    liked = env.oracle_preference()
    assert liked.shape == (env.batch.actions.n,)
    assert liked.sum() == pytest.approx(1, abs=1e-5)
    (x, y), label = clicked(env, liked.argmax())
    assert label == 1
    assert env.target[y, x]
    for action in np.flatnonzero(liked):
        (x, y), label = clicked(env, action)
        assert label == 1
        assert env.target[y, x]
    answering(th.full((64, 64), 9.0))  # the mask takes everything: only negative clicks off the target can help
    env.step(int(liked.argmax()))
    for action in np.flatnonzero(env.oracle_preference()):
        (x, y), label = clicked(env, action)
        assert label == 0
        assert not env.target[y, x]
        assert env.action_masks()[action]


def test_where_nothing_is_wrong_the_oracle_confirms(make_env, answering):
    env = make_env().unwrapped
    env.reset(seed=3)
    cells = th.from_numpy((env.batch.judge.share[0] > 127).numpy().astype(np.float32))
    answering(18 * th.nn.functional.max_pool2d(cells[None], 2)[0] - 9)
    env.step(env.oracle_action())
    env.batch.judge.share[0] = 255 * env.batch.judge.masks(env.batch.sessions.logits)[0]  # the truth is what was answered
    liked = env.oracle_preference()
    assert liked.max() == 1
    assert liked.argmax() == env.oracle_action()
    assert clicked(env, liked.argmax())[1] == 1


def test_clicks_cost_and_stopping_does_not(make_env):
    env = make_env(remove=True, done=True, click_cost=0.25)
    free = make_env(remove=True, done=True)
    remove, done = env.action_space.n - 2, env.action_space.n - 1
    click = env.unwrapped.batch.actions.at((64, 64), 1, (128, 128))
    env.reset(seed=3), free.reset(seed=3)
    for action, cost in ((click, 0.25), (remove, 0.25), (click, 0.25), (done, 0.0)):
        assert env.step(action)[1] == pytest.approx(free.step(action)[1] - cost)
    env.reset(seed=3), free.reset(seed=3)
    env.step(click), free.step(click)
    assert not env.unwrapped.action_masks()[click]
    assert env.step(click)[1] == free.step(click)[1] == 0  # what the mask forbids changes nothing, and costs nothing
    with pytest.raises(ValueError, match=r"click_cost .* at least 0 and below 1, got 1"):
        make_env(click_cost=1)
    with pytest.raises(ValueError, match=r"click_cost .* got 'a'"):
        make_env(click_cost="a")


def test_the_oracle_is_done_from_enough_dice_on(make_env):
    env = make_env(done=True).unwrapped
    env.reset(seed=3)
    done = env.action_space.n - 1
    assert env.oracle_preference(0.0)[done] == 0  # there is nothing to stop after yet
    env.step(env.oracle_action())
    reached = float(env.batch.dice[0])
    assert 0 < reached < 1
    assert env.oracle_preference(reached)[done] == 1
    assert env.oracle_preference(reached + 1e-6)[done] == 0
    assert env.oracle_preference()[done] == 0  # without a word it goes on to the last click
    endless = make_env().unwrapped
    endless.reset(seed=3)
    endless.step(endless.oracle_action())
    assert (endless.oracle_preference(0.0) == endless.oracle_preference()).all()  # where the task offers no end, it clicks
