"""AlignSAM's ablations on the toy tasks: one seed of one task with all its variants, and what the seeds say together.

The variants of a seed share what they can. Each branch of the recalibration module is taught once, and the oracle plays
once. Random positions and single steps need no training of their own.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import trim_mean
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3.callbacks import RecalibrationCallback, WarmStartCallback
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from alignsam_sb3.evaluation import CHUNK, Player, Row, agent_player, evaluate, oracle_player, random_player
from alignsam_sb3.files import removed_on_error, write_json
from alignsam_sb3.policies import SamMaskablePPO, attach_recalibration
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.task import Task

TASKS: dict[str, dict[str, Any]] = {
    "semantic": {"branch": "explicit", "metrics": ("iou",), "env": {"dataset_kwargs": {"min_area": 0.02}}},
    "shadow": {"branch": "explicit", "metrics": ("iou", "ber"), "env": {"prompts": {"shadow": "large object"}}},
    "blur": {"branch": "implicit", "metrics": ("iou", "f_beta"), "env": {}},
    "glass": {"branch": "implicit", "metrics": ("iou", "f_beta"), "env": {}},
    "saliency": {"branch": "implicit", "metrics": ("e_measure", "mae"), "env": {}},
}
"""Branch, the paper's metrics, and options of the environment. The embedded CLIP was never taught "shadow"."""
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "imitation alone": {"ppo": False},
    "agent labels": {"labels": "agent"},
    "paper's reward": {"reward": "paper"},
    "without SRM": {"labels": "positive", "srm": False},
    "branches swapped": {"swapped": True},
    "without warm start": {"warm": False},
}
"""What is trained. ``full``: imitation, then PPO on the gain of Dice, choose positions; the module of the task's own branch
labels them. ``branches swapped`` takes the other branch: language instead of a look at the pixels, or the reverse.
``imitation alone`` leaves PPO out, ``without warm start`` the imitation. Modules are taught once for each branch
and stay as they are, in all variants.
"""


@dataclass(frozen=True)
class Budget:
    """How much of everything.

    :param images: training scenes
    :param recalibrate: environment steps in which each branch of the module is taught
    :param updates: of it, after each vector step
    :param warm: environment steps of imitation
    :param ppo: environment steps of PPO
    :param steps: clicks of an episode, in training and in the comparisons
    :param curve: clicks of the episodes that say what more clicks bring
    :param episodes: unseen ones, for the comparisons
    :param curve_episodes: for the curve
    """

    images: int = 2000
    recalibrate: int = 6000
    updates: int = 8
    warm: int = 2000
    ppo: int = 1024
    steps: int = 5
    curve: int = 20
    episodes: int = 50
    curve_episodes: int = 16
    n_envs: int = 32


SIZES = {
    "quick": Budget(100, 320, 2, 320, 256, 3, 6, 10, 5),
    "full": Budget(),
}


def env_kwargs(task: str, variant: str, budget: Budget, split: str, steps: int | None = None) -> dict[str, Any]:
    """Arguments of ``SamSeg-v0`` for a variant of a task."""
    of_env = {key: value for key, value in VARIANTS[variant].items() if key in ("labels", "srm", "reward")}
    wanted = {"labels": "srm", "srm": True, "reward": "dice_gain", **of_env}
    options = {**TASKS[task]["env"]}
    kwargs = dict(options.pop("dataset_kwargs", {}))
    if split == "train":
        kwargs["n_images"] = budget.images
    if branch(task, variant) != "explicit":
        options = {"clip": None}
    elif VARIANTS[variant].get("swapped"):
        options = {"clip": "tiny"}  # the concept by its own name
    return {
        "dataset": f"toy:{task}",
        "dataset_kwargs": kwargs,
        "split": split,
        "patches": 16,
        "max_steps": steps or budget.steps,
        "device": "cpu",
        **options,
        **wanted,
    }


def branch(task: str, variant: str) -> str:
    """The branch that a variant uses."""
    own: str = TASKS[task]["branch"]
    other = "implicit" if own == "explicit" else "explicit"
    return other if VARIANTS[variant].get("swapped") else own


class Clock(BaseCallback):
    """Notes when PPO began, and what finished episodes reached after so many of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.dice: list[list[float]] = []

    def _on_training_start(self) -> None:
        self.began = time.time()

    def _on_step(self) -> bool:
        done = [info["dice"] for over, info in zip(self.locals["dones"], self.locals["infos"], strict=True) if over]
        if done:
            self.dice.append([self.num_timesteps, float(np.mean(done))])
        return True


def _model(task: str, variant: str, budget: Budget, seed: int) -> SamMaskablePPO:
    th.set_num_threads(1)
    kwargs = env_kwargs(task, variant, budget, "train")
    venv = make_vec_env("SamSeg-v0", budget.n_envs, seed, env_kwargs=kwargs, vec_env_cls=SamSegVecEnv)  # type: ignore[arg-type]
    policy = f"{branch(task, variant).capitalize()}MaskablePolicy"
    fitted = {"n_steps": 16, "batch_size": 256, "n_epochs": 4, "gamma": 0.9, "learning_rate": 3e-4, "ent_coef": 0.005}
    return SamMaskablePPO(policy, venv, seed=seed, device="cpu", **fitted)  # type: ignore[arg-type]


def teach(task: str, variant: str, budget: Budget, seed: int, path: Path) -> dict[str, th.Tensor]:
    """The weights of the recalibration module of the variant's branch: taught now, or as an earlier run left them.

    :param path: where they are kept, with what they were taught
    :raises ValueError: what is there was taught something else
    """
    identity = {"taught": json.dumps([task, branch(task, variant), asdict(budget), seed])}
    if not path.is_file():
        model = _model(task, variant, budget, seed)
        model.learn(0, callback=RecalibrationCallback(budget.recalibrate, budget.updates))
        part = path.with_suffix(".part")
        with removed_on_error(part):
            save_file(module_of(model).state_dict(), part, identity)
            part.replace(path)
    with safe_open(path, "pt") as stored:
        if stored.metadata() != identity:
            raise ValueError(f"{path} was taught something else ({stored.metadata()}, not {identity}): give another --out")
    return load_file(path)


def train(
    task: str, variant: str, budget: Budget, seed: int, taught: Mapping[str, th.Tensor] | None
) -> tuple[SamMaskablePPO, dict[str, Any]]:
    """Train one variant.

    :param taught: weights of the recalibration module, where the variant has one
    :return: the model, and seconds, seconds of PPO and the training episodes' Dice over its steps
    """
    model, how = _model(task, variant, budget, seed), VARIANTS[variant]
    if taught is not None:
        module_of(model).load_state_dict(taught)
    began, clock = time.time(), Clock()
    warm: list[BaseCallback] = [WarmStartCallback(budget.warm)] if how.get("warm", True) else []
    model.learn(budget.ppo if how.get("ppo", True) else 0, callback=[*warm, clock])
    end = time.time()
    return model, {"seconds": end - began, "seconds of PPO": end - clock.began, "training dice": clock.dice}


def module_of(model: SamMaskablePPO) -> Recalibration:
    """The recalibration module that a policy holds."""
    srm = model.policy.srm
    assert isinstance(srm, Recalibration)
    return srm


def judge(
    players: Mapping[str, Player],
    model: SamMaskablePPO,
    kwargs: Mapping[str, Any],
    episodes: int,
    seed: int,
) -> dict[str, dict[str, list[float]]]:
    """Means of all metrics after each click, for each player; maps are drawn by the model's module."""
    venv = SamSegVecEnv.of(Task.from_kwargs(**kwargs), min(CHUNK, episodes))
    attach_recalibration(model, venv)
    rows, _ = evaluate(players, venv.batch, episodes, seed)
    return {name: _numbers(row) for name, row in rows.items()}


def _numbers(row: Row) -> dict[str, list[float]]:
    fell = row.scores["dice"] < row.scores["dice"][:, :1]
    return {metric: row.mean(metric) for metric in row.scores} | {"below own first click": fell.mean(0).tolist()}


def run(task: str, seed: int, budget: Budget, out: Path) -> dict[str, Any]:
    """All variants of one seed of a task; what an earlier, interrupted run has finished is kept.

    :param out: gets ``TASK-SEED.json`` after each variant
    """
    path = out / f"{task}-{seed}.json"
    stored: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    identity = json.loads(json.dumps({"task": task, "seed": seed, "budget": asdict(budget)}))
    if stored and stored["identity"] != identity:
        raise ValueError(f"{path} belongs to another budget ({stored['identity']}): give another --out")
    found: dict[str, Any] = stored or {"identity": identity, "rows": {}, "training": {}}
    for variant in VARIANTS:
        if variant in found["rows"]:
            continue
        taught = None
        if VARIANTS[variant].get("srm", True):
            weights = out / f"{task}-{seed}-{branch(task, variant)}.safetensors"
            taught = teach(task, "branches swapped" if VARIANTS[variant].get("swapped") else "full", budget, seed, weights)
        model, found["training"][variant] = train(task, variant, budget, seed, taught)
        _judge_variant(task, variant, budget, seed, model, found)
        write_json(path, found)
    return found


def _judge_variant(task: str, variant: str, budget: Budget, seed: int, model: SamMaskablePPO, found: dict[str, Any]) -> None:
    rows = found["rows"]
    players: dict[str, Player] = {variant: agent_player(model)}
    if variant == "full":
        players |= {"random positions": random_player(seed), "oracle": oracle_player}
    rows |= judge(players, model, env_kwargs(task, variant, budget, "eval"), budget.episodes, seed)
    if variant == "full":
        longer = env_kwargs(task, variant, budget, "eval", budget.curve)
        players = {name: players[name] for name in ("full", "random positions", "oracle")}
        found["curve"] = judge(players, model, longer, budget.curve_episodes, seed)


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean (Agarwal et al., NeurIPS 2021)."""
    return float(trim_mean(values, 0.25))


def bootstrap(strata: Sequence[Sequence[float]], draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean over all values, and its 95 % interval, seeds drawn anew within each task.

    :param strata: for each task its seeds' values
    """
    rng = np.random.default_rng(seed)
    means = [iqm(np.concatenate([rng.choice(values, len(values)) for values in strata]).tolist()) for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return iqm(np.concatenate([np.asarray(values) for values in strata]).tolist()), float(low), float(high)
