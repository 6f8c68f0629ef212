"""What we repair in the zoo, beside what tests/scripts runs from the command line."""

import argparse
from pathlib import Path

import gymnasium as gym
import optuna
import pytest
import rl_zoo3.enjoy
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from huggingface_sb3 import EnvironmentName
from rl_zoo3.utils import StoreDict
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.task import Task
from alignsam_sb3.zoo import (
    WARM_START,
    FairTrialEvalCallback,
    SamExperimentManager,
    attach_when_played,
    with_earlier,
    with_warm_start,
)
from alignsam_sb3.zoo_options import add_task_options, algorithm_and_task, task_of, translate

KWARGS = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 8}, "clip": None, "patches": 6, "device": "cpu"}


def evaluations(seed):
    """What the tuner notes of a policy that does not change, at each of four evaluations."""
    venv, held_out = (
        make_vec_env("SamSeg-v0", 2, seed, env_kwargs={**KWARGS, "split": split}, vec_env_cls=SamSegVecEnv)
        for split in ("train", "eval")
    )
    model = SamMaskablePPO(
        "ImplicitMaskablePolicy", venv, n_steps=4, batch_size=8, n_epochs=1, learning_rate=0.0, seed=0, device="cpu"
    )
    study = optuna.create_study(direction="maximize")
    model.learn(32, callback=FairTrialEvalCallback(held_out, study.ask(), n_eval_episodes=4, eval_freq=4))
    return list(study.trials[0].intermediate_values.values())


def test_the_tuner_judges_all_by_the_same_episodes():
    first, other = evaluations(seed=0), evaluations(seed=7)
    assert len(first) == 4
    assert len({*first, *other}) == 1


@pytest.mark.parametrize("given", [None, WARM_START, {WARM_START: {"steps": 5}}, ["a.B", {WARM_START: {"steps": 5}}]])
def test_a_flag_sets_the_warm_start_and_takes_it_away(given):
    others = ["a.B"] if isinstance(given, list) else []
    assert with_warm_start(given, 7) == [*others, {WARM_START: {"steps": 7}}]
    assert with_warm_start(given, 0) == others


def test_a_shorter_warm_start_imitates_the_same_oracle():
    given = [{WARM_START: {"steps": 100_000, "enough": 0.9}}]
    assert with_warm_start(given, 7) == [{WARM_START: {"steps": 7, "enough": 0.9}}]
    assert given == [{WARM_START: {"steps": 100_000, "enough": 0.9}}]


def test_the_zoos_enjoy_draws_maps_with_the_policys_own_module(tmp_path, monkeypatch):
    kwargs = {**KWARGS, "srm": True}
    model = SamMaskablePPO("ImplicitMaskablePolicy", make_vec_env("SamSeg-v0", 1, env_kwargs=kwargs), device="cpu")
    model.save(tmp_path / "p.zip")
    for name in ("create_test_env", "ALGOS"):
        monkeypatch.setattr(rl_zoo3.enjoy, name, getattr(rl_zoo3.enjoy, name))
    attach_when_played(trust=False)
    made = {"env_kwargs": kwargs, "vec_env_cls": SamSegVecEnv, "hyperparams": {}, "should_render": False}
    env = rl_zoo3.enjoy.create_test_env("SamSeg-v0", **made)
    loaded = rl_zoo3.enjoy.ALGOS["ppo_mask"].load(tmp_path / "p.zip", device="cpu")
    assert env.get_attr("recalibration")[0] is loaded.policy.srm


@pytest.mark.parametrize(
    ("algorithm", "clip", "srm", "names"),
    [
        ("SamMaskablePPO", "tiny", False, ("ppo_mask", "SamSeg-v0")),
        ("SamPPO", None, True, ("ppo", "SamSegSrmImplicit-v0")),
        ("SamMaskablePPO", None, False, ("ppo_mask", "SamSegImplicit-v0")),
    ],
)
def test_a_policy_that_a_training_begins_with_says_which_one(algorithm, clip, srm, names):
    assert algorithm_and_task({"algorithm": algorithm, "env": {"clip": clip, "srm": srm}}) == names
    assert names[1] in gym.registry and algorithm_and_task({}) == ("ppo_mask", "SamSeg-v0")


def test_what_a_policy_was_trained_on_comes_first_if_it_is_there(tmp_path, capsys):
    assert (
        with_earlier({"dataset": "toy:blur", "dataset_kwargs": {"n_images": 3}}, "toy:glass+toy:blur") == "toy:blur+toy:glass"
    )
    gone = {"dataset": f"coco:{tmp_path / 'gone'}", "dataset_kwargs": {}}
    assert with_earlier(gone, "toy:glass") == "toy:glass" and "is not here" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--env", "SamSegImplicit-v0", "--dataset", "toy:blur", "--segmenter", "tiny?fuse"],
        ["--dataset-kwargs", "n_images=8", "--categories", "star", "ring", "--clip", "none", "--env-kwargs", "max_steps:7"],
        ["--env", "SamSegPaper-v0", "--env-kwargs", "dataset_kwargs:{'n_images': 9}", "on_error:'skip'"],
    ],
)
def test_a_cache_is_filled_for_the_task_that_is_trained(words):
    parser = argparse.ArgumentParser()
    add_task_options(parser)
    ours, told = translate("train", words)
    zoo = argparse.ArgumentParser()
    zoo.add_argument("--env-kwargs", nargs="+", action=StoreDict, default={})
    for name in ("--env", "--conf-file", "--algo"):
        zoo.add_argument(name)
    args = zoo.parse_args(told)
    manager = SamExperimentManager.__new__(SamExperimentManager)
    manager.config, manager.algo, manager.env_name = args.conf_file, args.algo, EnvironmentName(args.env)
    manager.args = args
    manager.storage, manager.custom_hyperparams, manager._eval_env_kwargs_args = None, None, None
    manager.ours, manager.continue_training, manager.env_kwargs = ours, False, args.env_kwargs
    manager.read_hyperparameters()
    trained = Task.from_kwargs(**{**gym.spec(args.env).kwargs, **manager.env_kwargs})
    found = task_of(parser.parse_args(words))
    assert found == trained
    judged = Task.from_kwargs(**{**gym.spec(args.env).kwargs, **manager.eval_env_kwargs})
    assert found.for_evaluation() == judged


def test_two_trainings_that_begin_at_once_have_a_folder_each(tmp_path):
    def manager():
        found = SamExperimentManager.__new__(SamExperimentManager)
        found.optimize_hyperparameters, found.log_path, found.env_name = False, str(tmp_path), "SamSeg-v0"
        found.save_path = str(tmp_path / "SamSeg-v0_1")  # both saw that there was no run yet
        found.params_path = f"{found.save_path}/SamSeg-v0"
        found.create_log_folder()
        return found

    first, second = manager(), manager()
    assert [Path(m.save_path).name for m in (first, second)] == ["SamSeg-v0_1", "SamSeg-v0_2"]
    assert all(Path(m.params_path) == Path(m.save_path, "SamSeg-v0") and Path(m.params_path).is_dir() for m in (first, second))
