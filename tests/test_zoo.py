"""What we repair in the zoo, beside what tests/scripts runs from the command line."""

import optuna
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.zoo import FairTrialEvalCallback

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
