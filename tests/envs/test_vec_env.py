"""SamSegVecEnv is DummyVecEnv over SamSegEnv, step for step and with every option, but for one decoder call and no copies."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.task import Task

NAMED = {"dataset": "toy:semantic", "dataset_kwargs": {"n_images": 16}, "clip": "tiny"}
OPTIONS = {
    "remove and done": {"remove": True, "done": True},
    "paper": {"reward": "paper"},
    "shaped": {"reward": "shaped", "remove": True},
    "network": {"reward": "network"},
    "scored beside": {"reward_network": "tiny", "reward": "shaped"},
    "a network that hears": {**NAMED, "dataset_kwargs": {"n_images": 16, "min_area": 0.02}, "reward": "network"},
    "named": NAMED,
    "map": {"srm": True, "done": True},
    "map labels": {"labels": "srm", "initial_pair": True, "reward": "paper"},
    "pair": {"initial_pair": True},
    "maps pair": {"initial_pair": True, "srm": True, "split": "eval"},
    "named map": {**NAMED, "labels": "srm", "patches": 4},
    "positive": {"labels": "positive"},
    "truth labels": {"labels": "oracle-train-only", "done": True},
    "language's box": {**NAMED, "box": "clip"},
    "truth's box": {"box": "truth-jittered-train-only", "remove": True},
}


def module(venv):
    """An untaught recalibration module whose map is not the same everywhere."""
    th.manual_seed(0)
    branch = "explicit" if "similarity_maps" in venv.observation_space.spaces else "implicit"
    srm = Recalibration(venv.observation_space, branch).eval()
    srm.last[-1].weight.data.mul_(30)
    return srm


def run(cls, make, steps=9, n_envs=3, seed=7):
    """Random allowed actions, and some forbidden ones; what came back."""
    venv = cls([lambda: Monitor(make()) for _ in range(n_envs)])
    if "foreground_map" in venv.observation_space.spaces:
        venv.env_method("use_recalibration", module(venv))
    venv.seed(seed)
    rng = np.random.default_rng(1)
    seen = [(venv.reset(), None, None, None)]
    for _ in range(steps):
        masks = np.stack(venv.env_method("action_masks"))
        actions = [rng.choice(np.flatnonzero(mask if rng.random() < 0.9 else mask >= 0)) for mask in masks]
        seen.append(venv.step(np.array(actions)))
    return seen


TOLERANCE = 1e-4


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "t")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a), np.asarray(b)
    if np.issubdtype(a.dtype, np.floating):
        return a.shape == b.shape and np.allclose(a, b, atol=TOLERANCE, equal_nan=True)
    return np.array_equal(a, b)


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_dummy_vec_env_step_for_step(make_env, name):
    def make():
        return make_env(max_steps=4, **OPTIONS[name])

    ended = 0
    for ours, stock in zip(run(SamSegVecEnv, make), run(DummyVecEnv, make), strict=True):
        assert same(ours[0], stock[0])
        assert all(a is b is None or same(a, b) for a, b in zip(ours[1:3], stock[1:3], strict=True))
        for mine, theirs, over in zip(ours[3] or [], stock[3] or [], ours[2] if ours[2] is not None else [], strict=True):
            if over:  # everything is said at the end of an episode, the last observation too
                ended += 1
                assert mine.keys() == theirs.keys() - {"TimeLimit.truncated"}
                assert same(mine, {key: theirs[key] for key in mine})
            else:
                assert mine == ({"invalid_action": True} if theirs["invalid_action"] else {})
    assert ended >= 6


def test_the_last_observation_is_the_old_episodes_own_with_a_recalibration_module(make_env):
    """``terminal_observation`` shows the map of the episode that ended, not of the one that has begun."""
    venv = SamSegVecEnv([lambda: make_env(max_steps=2, srm=True)] * 2)
    srm = module(venv)
    venv.env_method("use_recalibration", srm)
    venv.seed(0)
    venv.reset()
    venv.step(np.array([9, 40]))
    new, _, dones, infos = venv.step(np.array([27, 60]))
    assert dones.all()
    for i, info in enumerate(infos):
        last = info["terminal_observation"]
        drawn = srm.foreground({key: value[None] for key, value in last.items()})[0]
        assert np.allclose(last["foreground_map"], drawn, atol=1e-5)
        assert not np.allclose(last["foreground_map"], new["foreground_map"][i], atol=1e-3)
        assert last["num_steps"] == 2
        assert new["num_steps"][i] == 0


def test_one_decoder_call_per_vector_step(make_env, tiny, monkeypatch):
    """Whatever the numbers of clicks, and where episodes end and begin with a pair, one more for all that begin."""
    calls, decode = [], tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda *args, **kwargs: calls.append(len(args[1])) or decode(*args, **kwargs))
    venv = SamSegVecEnv([make_env] * 5)
    venv.reset()
    for step in range(6):
        venv.step(np.arange(5) + 10 * step)
    assert calls == [5] * 6
    calls.clear()
    venv = SamSegVecEnv([lambda: make_env(initial_pair=True, max_steps=2)] * 4)
    venv.reset()
    assert calls == [4]
    for step in range(4):
        mask = np.stack(venv.env_method("action_masks"))
        venv.step(np.array([np.flatnonzero(row)[step + k] for k, row in enumerate(mask)]))
    assert calls == [4, 4, 4, 4, 4, 4, 4]


def test_new_images_are_described_together(make_env, monkeypatch):
    venv, sizes = SamSegVecEnv([lambda: make_env(dataset_kwargs={"n_images": 40})] * 4), []
    source = venv.batch.shared.bank._source
    describe = source.describe
    monkeypatch.setattr(source, "describe", lambda images: sizes.append(len(images)) or describe(images), raising=False)
    venv.seed(5)
    venv.reset()
    assert sizes == [len(set(venv.batch.rows))]
    assert sizes[0] > 1


def test_constants_are_the_same_memory_until_a_reset_and_nothing_is_overwritten(make_env):
    venv = SamSegVecEnv([lambda: make_env(max_steps=3, remove=True)] * 2)
    handed = [venv.reset()]
    kept = [{key: np.copy(value) for key, value in handed[0].items()}]
    remove = venv.action_space.n - 1
    for actions in ([1, 2], [remove, 30], [5, remove], [20, 21], [remove, 41], [30, 31], [50, 51]):
        handed.append(venv.step(np.array(actions))[0])
        kept.append({key: np.copy(value) for key, value in handed[-1].items()})
    assert np.shares_memory(handed[1]["sam_image_embeddings"], handed[0]["sam_image_embeddings"])
    assert not np.shares_memory(handed[1]["sam_pred_mask_prob"], handed[0]["sam_pred_mask_prob"])
    assert not np.shares_memory(handed[-1]["sam_image_embeddings"], handed[0]["sam_image_embeddings"])
    for observation, copy in zip(handed, kept, strict=True):
        assert all(np.array_equal(observation[key], copy[key]) for key in observation)


def test_observations_are_arrays_in_their_space_with_the_banks_rows(make_env):
    """numpy's on the CPU, as every tool around Stable-Baselines3 expects."""
    venv = SamSegVecEnv([make_env] * 3)
    observation = venv.reset()
    for key, described in venv.observation_space.spaces.items():
        assert isinstance(observation[key], np.ndarray)
        assert all(described.contains(one) for one in observation[key])
    found = observation.bank.gather(observation.rows, ["embeddings", "image"])
    assert np.array_equal(found["embeddings"], observation["sam_image_embeddings"])
    assert np.array_equal(found["image"], observation["image"])


def test_episodes_can_be_chosen_and_are_told_of(make_env):
    venv = SamSegVecEnv([lambda: make_env(dataset="toy:semantic", dataset_kwargs={"n_images": 16})] * 2)
    shown = [int(venv.batch.shared.dataset[index].category_ids[0]) for index in (4, 7)]
    venv.set_options([{"image_index": 4, "category_id": shown[0]}, {"image_index": 7, "category_id": shown[1]}])
    observation = venv.reset()
    assert observation.rows.tolist() == [4, 7]
    assert observation["target_category"].tolist() == shown
    assert [info["image_id"] for info in venv.reset_infos] == [venv.batch.sample(i).image_id for i in range(2)]


def test_monitors_files_are_written(make_env, tmp_path):
    venv = SamSegVecEnv([lambda: Monitor(make_env(max_steps=2), str(tmp_path / "m"), info_keywords=("dice",))])
    venv.reset()
    infos = [venv.step(np.array([k]))[3][0] for k in (3, 30, 4, 40)]
    venv.close()
    lines = (tmp_path / "m.monitor.csv").read_text().splitlines()
    assert lines[1] == "r,l,t,dice"
    told = [line.split(",") for line in lines[2:]]
    assert [float(row[0]) for row in told] == [infos[k]["episode"]["r"] for k in (1, 3)]
    assert [int(row[1]) for row in told] == [2, 2]
    assert [float(row[3]) for row in told] == pytest.approx([infos[k]["dice"] for k in (1, 3)])


def test_what_stable_baselines_asks_is_answered(make_env):
    venv = SamSegVecEnv([lambda: Monitor(make_env(render_mode="rgb_array"))] * 2)
    venv.reset()
    assert venv.has_attr("action_masks")
    assert not venv.has_attr("nonsense")
    assert venv.env_is_wrapped(Monitor) == [True, True]
    assert venv.get_attr("render_mode") == ["rgb_array"] * 2
    assert len(venv.env_method("oracle_action", indices=[1])) == 1
    by_word, by_place = venv.env_method("oracle_preference", enough=0.5), venv.env_method("oracle_preference", 0.5)
    assert np.array_equal(by_word, by_place)
    assert np.stack(venv.env_method("truth_on_grid")).shape == (2, 2, 16, 16)
    assert [picture.shape for picture in venv.get_images()] == [(256, 768, 3)] * 2
    with pytest.raises(AttributeError, match=r"answer action_masks, fill, oracle_action.*not 'fly'"):
        venv.env_method("fly")
    with pytest.raises(AttributeError, match="'max_steps' of the environments of a batch cannot be set"):
        venv.set_attr("max_steps", 3)


def test_other_environments_and_mixtures_are_refused(make_env):
    with pytest.raises(TypeError, match=r"batches SamSegEnv, got CartPoleEnv: use DummyVecEnv"):
        SamSegVecEnv([lambda: gym.make("CartPole-v1").unwrapped])
    with pytest.raises(TypeError, match="cannot batch environments in a TimeLimit: use DummyVecEnv"):
        SamSegVecEnv([lambda: TimeLimit(make_env(), 2)])
    for other in ({"patches": 4}, {"split": "eval"}):
        with pytest.raises(ValueError, match="have different tasks"):
            SamSegVecEnv([make_env, lambda other=other: make_env(**other)])


def test_a_batch_of_a_task_needs_no_makers():
    task = Task(dataset="toy:saliency", dataset_kwargs={"n_images": 12}, clip=None, device="cpu")
    venv = SamSegVecEnv.of(task, 4)
    assert venv.num_envs == 4
    assert venv.batch.task == task
    assert venv.reset()["image"].shape == (4, 3, 128, 128)
