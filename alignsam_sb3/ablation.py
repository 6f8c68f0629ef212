"""AlignSAM's ablations on the toy tasks: one seed of one task with all its variants, and what the seeds say together.

The variants of a seed share what they can: each branch of the recalibration module is taught once, the oracle plays once, and
random positions and single steps need no training of their own.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from scipy.stats import trim_mean
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3.callbacks import RecalibrationCallback, WarmStartCallback
from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from alignsam_sb3.evaluation import Player, Row, agent_player, evaluate, oracle_player, random_player
from alignsam_sb3.files import write_json
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.recalibration import Recalibration

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
    "agent labels": {"labels": "agent"},
    "paper's reward": {"reward": "paper"},
    "without SRM": {"labels": "positive", "srm": False},
    "branches swapped": {"swapped": True},
}
"""What is trained. ``full``: positions by RL, labels by the module of the task's own branch, reward Dice gain."""
COST_SEED = 0
"""What a warm start saves is measured with this seed alone."""


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
    recalibrate: int = 3000
    updates: int = 8
    warm: int = 2000
    ppo: int = 1024
    steps: int = 5
    curve: int = 20
    episodes: int = 50
    curve_episodes: int = 32
    n_envs: int = 32


SIZES = {
    "quick": Budget(100, 320, 2, 320, 256, 3, 6, 10, 5),
    "full": Budget(),
}


def env_kwargs(task: str, variant: str, budget: Budget, split: str, steps: int | None = None) -> dict[str, Any]:
    """Arguments of ``SamSeg-v0`` for a variant of a task."""
    wanted = {"labels": "srm", "srm": True, "reward": "dice_gain", **VARIANTS[variant]}
    options = {**TASKS[task]["env"]}
    kwargs = dict(options.pop("dataset_kwargs", {}))
    if split == "train":
        kwargs["n_images"] = budget.images
    if branch(task, variant) != "explicit":
        options = {"clip": None}
    elif wanted.pop("swapped", False):
        options = {"clip": "tiny"}  # the concept by its own name
    wanted.pop("swapped", None)
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


def train(
    task: str, variant: str, budget: Budget, seed: int, taught: Mapping[str, th.Tensor] | None, warm: bool = True
) -> tuple[SamMaskablePPO, dict[str, Any]]:
    """Train one variant.

    :param taught: weights of a recalibration module of that branch, which is then not taught before PPO again
    :return: the model, and seconds, environment steps and the training episodes' Dice
    """
    th.set_num_threads(1)
    kwargs = env_kwargs(task, variant, budget, "train")
    venv = make_vec_env("SamSeg-v0", budget.n_envs, seed, env_kwargs=kwargs, vec_env_cls=SamSegVecEnv)
    policy = f"{branch(task, variant).capitalize()}MaskablePolicy"
    model = SamMaskablePPO(
        policy,
        venv,
        n_steps=16,
        batch_size=256,
        n_epochs=4,
        gamma=0.9,
        learning_rate=3e-4,
        ent_coef=0.005,
        seed=seed,
        device="cpu",
    )
    callbacks: list[BaseCallback] = []
    if kwargs["srm"]:
        if taught is not None:
            module_of(model).load_state_dict(taught)
        new = taught is None
        callbacks.append(RecalibrationCallback(budget.recalibrate if new else 0, budget.updates, beside=new))
    if warm:
        callbacks.append(WarmStartCallback(budget.warm))
    began, clock = time.time(), Clock()
    model.learn(budget.ppo, callback=[*callbacks, clock])
    end = time.time()
    found = {"seconds": end - began, "seconds of PPO": end - clock.began, "training dice": clock.dice}
    return model, found


def module_of(model: SamMaskablePPO) -> Recalibration:
    """The recalibration module that a policy holds."""
    srm = model.policy.srm
    assert isinstance(srm, Recalibration)
    return srm


def judge(
    players: Mapping[str, Player],
    srm: Recalibration | None,
    kwargs: Mapping[str, Any],
    episodes: int,
    seed: int,
) -> dict[str, dict[str, list[float]]]:
    """Means of all metrics after each click, for each player."""

    def make() -> SamSegEnv:
        env = gym.make("SamSeg-v0", **kwargs).unwrapped
        assert isinstance(env, SamSegEnv)
        if srm is not None:
            env.use_srm(srm)
        return env

    rows, *_ = evaluate(players, make, episodes, seed)
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
    taught: dict[str, Mapping[str, th.Tensor]] = {}
    for variant in VARIANTS:
        weights = out / f"{task}-{seed}-{branch(task, variant)}.pt"
        if variant in found["rows"]:
            continue
        if weights.is_file():
            taught[branch(task, variant)] = th.load(weights, weights_only=True)
        own = VARIANTS[variant].get("srm", True)
        model, spent = train(task, variant, budget, seed, taught.get(branch(task, variant)) if own else None)
        if own and not weights.is_file():
            th.save(module_of(model).state_dict(), weights)
        _judge_variant(task, variant, budget, seed, model, found)
        found["training"][variant] = spent
        write_json(path, found)
    if seed == COST_SEED and "without warm start" not in found["training"]:
        weights = out / f"{task}-{seed}-{branch(task, 'full')}.pt"
        model, spent = train(task, "full", budget, seed, th.load(weights, weights_only=True), warm=False)
        kwargs = env_kwargs(task, "full", budget, "eval")
        players = {"without warm start": agent_player(model)}
        found["rows"] |= judge(players, module_of(model), kwargs, budget.episodes, seed)
        found["training"]["without warm start"] = spent
        write_json(path, found)
    return found


def _judge_variant(task: str, variant: str, budget: Budget, seed: int, model: SamMaskablePPO, found: dict[str, Any]) -> None:
    srm, rows = getattr(model.policy, "srm", None), found["rows"]
    players: dict[str, Player] = {variant: agent_player(model)}
    if variant == "full":
        players |= {"without RL": random_player(seed), "oracle": oracle_player}
    rows |= judge(players, srm, env_kwargs(task, variant, budget, "eval"), budget.episodes, seed)
    if variant == "full":
        longer = env_kwargs(task, variant, budget, "eval", budget.curve)
        players = {"full": players["full"], "without RL": players["without RL"], "oracle": oracle_player}
        found["curve"] = judge(players, srm, longer, budget.curve_episodes, seed)


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
