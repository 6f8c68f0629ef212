"""Environments are copied, pickled, and run in other processes, as Gymnasium's and Stable-Baselines3's tools do."""

import copy
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.sam_seg import SamSegEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from alignsam_sb3.compiling import compiled_for_shapes
from alignsam_sb3.policies import SamMaskablePPO

KWARGS = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 12}, "patches": 6, "max_steps": 3, "device": "cpu"}
COPIERS = {"deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}


@pytest.mark.parametrize("how", COPIERS)
@pytest.mark.parametrize(
    "options", [{"clip": None}, {"clip": "tiny", "dataset": "toy:semantic", "reward": "network"}], ids=str
)
def test_a_copy_in_the_middle_of_an_episode_goes_on_alike(how, options):
    env = gym.make("SamSeg-v0", **{**KWARGS, "dataset_kwargs": {"n_images": 12, "min_area": 0.02}, **options})
    env.reset(seed=0)
    env.step(10)
    other = COPIERS[how](env)
    assert other.unwrapped.shared is env.unwrapped.shared  # no second data set, no second bank
    ours, theirs = env.step(20), other.step(20)
    assert ours[1] == theirs[1]
    assert all(np.array_equal(ours[0][key], theirs[0][key]) for key in ours[0])
    env.step(30)
    assert env.unwrapped.batch.num_steps[0] == 3
    assert other.unwrapped.batch.num_steps[0] == 2


def test_a_copy_of_an_environment_of_objects_opens_their_banks_again(tiny):
    dataset = SamSegEnv(**KWARGS, clip=None).shared.dataset
    env = SamSegEnv(dataset=dataset, segmenter=tiny, clip=None, patches=6)
    env.reset(seed=0)
    other = pickle.loads(pickle.dumps(env))
    assert all(np.array_equal(a, b) for a, b in zip(env.step(10)[0].values(), other.step(10)[0].values(), strict=True))


FORKING = f"""
import gymnasium as gym, torch as th, alignsam_sb3.envs.shared
th.set_num_threads(2)
th.ones(3_000_000).clone().mul_(2).sum()  # wakes the parent's threads
venv = gym.make_vec("SamSeg-v0", num_envs=2, vectorization_mode="async", clip=None, **{KWARGS})
venv.reset_async(seed=0)
print(venv.reset_wait(timeout=60)[0]["image"].shape[0])
venv.close(terminate=True)
"""


def test_a_forked_process_does_not_wait_for_its_parents_threads():
    """It did for ever, in the first large copy of a tensor, wherever the parent had used more than one thread."""
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "2", done.stderr[-2000:]


def test_a_policy_of_subprocesses_knows_what_each_of_them_drew():
    venv = make_vec_env("alignsam_sb3:SamSeg-v0", 2, seed=0, env_kwargs={**KWARGS, "clip": None}, vec_env_cls=SubprocVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=6, batch_size=6, n_epochs=1, seed=0, device="cpu")
    model.learn(12)
    drawn = [set(hashes.tolist()) for hashes in venv.get_attr("drawn")]
    assert drawn[0] != drawn[1]
    assert set(model.seen.hashes.tolist()) == drawn[0] | drawn[1]
    assert model.recipe["categories"] == ["salient object"]
    assert model.recipe["trained_on"] == SamSegEnv(**KWARGS, clip=None).dataset_fingerprint
    venv.close()


def test_a_compiled_function_is_copied_as_the_function():
    call = compiled_for_shapes(np.square)
    call._compiled = lambda x: x  # never to be pickled
    assert pickle.loads(pickle.dumps(call))._compiled is None
    assert copy.deepcopy(call).function is np.square
