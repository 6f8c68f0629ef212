"""Training and judging the agents that choose prompts and refine masks, beside their baselines.

Experiment one chooses the prompt against ground truth, by search or by RL. Experiment two refines masks against ground truth.
Experiment three chooses the prompt (and refines) by the reward network alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from alignsam_sb3 import metrics
from alignsam_sb3.callbacks import SegmentationCallback
from alignsam_sb3.datasets import DATASETS, LabelledImages, ToyScenes, load_dataset
from alignsam_sb3.envs.mask_refine import STOP, MaskRefineEnv
from alignsam_sb3.envs.prompt_select import PromptSelectEnv
from alignsam_sb3.envs.vec_env import MaskRefineVecEnv
from alignsam_sb3.policies import SamMaskablePPO, SamPPO
from alignsam_sb3.prompting.bank import PromptBank
from alignsam_sb3.prompting.refinement import OPERATIONS

Map = NDArray[np.float32]
JUDGED = ("dice", "recall", "precision", "iou")

SELECT_PPO: dict[str, Any] = {
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "n_steps": 128,
    "batch_size": 64,
    "n_epochs": 10,
    "policy_kwargs": {"net_arch": [128, 64]},
}
REFINE_PPO: dict[str, Any] = {**SELECT_PPO, "gamma": 0.95, "learning_rate": 1e-3, "n_steps": 64}


def train_selector(
    env_kwargs: Mapping[str, Any], steps: int, n_envs: int, seed: int, out: Path | None = None
) -> tuple[SamPPO, PromptSelectEnv]:
    """Train PPO on ``PromptSelect-v0``.

    :param out: gets ``checkpoints/`` (every thousand steps), ``logs/PPO_1`` and ``final_model.zip``
    :return: the agent, and one of its environments
    """
    venv = make_vec_env("PromptSelect-v0", n_envs, seed, env_kwargs=dict(env_kwargs))
    model = SamPPO("MlpPolicy", venv, seed=seed, device="cpu", **SELECT_PPO)
    callbacks: list[Any] = [SegmentationCallback()]
    if out is not None:
        model.set_logger(configure(str(out / "logs" / "PPO_1"), ["csv", "tensorboard"]))
        callbacks.append(CheckpointCallback(max(1000 // n_envs, 1), str(out / "checkpoints"), name_prefix="prompt_select"))
    model.learn(steps, callback=callbacks)
    if out is not None:
        model.save(out / "final_model.zip")
    return model, first_env(venv, PromptSelectEnv)


def train_refiner(env_kwargs: Mapping[str, Any], steps: int, n_envs: int, seed: int) -> tuple[SamMaskablePPO, MaskRefineEnv]:
    """Train MaskablePPO on ``MaskRefine-v0``: the agent, and one of its environments."""
    venv = make_vec_env("MaskRefine-v0", n_envs, seed, env_kwargs=dict(env_kwargs), vec_env_cls=MaskRefineVecEnv)
    model = SamMaskablePPO("MultiInputPolicy", venv, seed=seed, device="cpu", **REFINE_PPO)
    model.learn(steps, callback=SegmentationCallback())
    return model, first_env(venv, MaskRefineEnv)


def first_env(venv: Any, kind: type[Any]) -> Any:  # noqa: ANN401
    """The first environment of a vector, without its wrappers."""
    env = venv.envs[0].unwrapped
    assert isinstance(env, kind)
    return env


def choose(model: SamPPO, env: PromptSelectEnv) -> NDArray[np.int64]:
    """The agent's prompt for each of an environment's pairs of image and category, (N,)."""
    chosen = []
    for pair in env.prompt_bank.pairs:
        observation, _ = env.reset(options={"pairs": [pair]})
        action, _ = model.predict(observation, deterministic=True)
        chosen.append(int(action))
    return np.array(chosen)


def look_up_all(env: PromptSelectEnv) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and Dice of every answer, each (N, P)."""
    found = [env.look_up(pair) for pair in env.prompt_bank.pairs]
    return np.stack([f[1] for f in found]), np.stack([f[2] for f in found])


def refine(model: SamMaskablePPO, env: MaskRefineEnv, prompts: NDArray[np.int64]) -> list[Map]:
    """The agent's masks, each begun with the answer to the given prompt: one for each of the environment's pairs."""
    refined = []
    for pair, prompt in zip(env.prompt_bank.pairs, prompts, strict=True):
        observation, _ = env.reset(options={"pair": pair, "prompt": prompt})
        over = False
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, _, over, _, _ = env.step(int(action))
        refined.append(env.probability)
    return refined


def answers_to(answered: PromptBank, prompts: NDArray[np.int64]) -> list[Map]:
    """The text segmenter's answers to one prompt for each pair."""
    return [answered.probability(pair, int(k)) for pair, k in zip(answered.pairs, prompts, strict=True)]


def judge(answered: PromptBank, maps: Sequence[Map]) -> dict[str, NDArray[np.float64]]:
    """Dice, recall, precision and IoU of a mask for each pair."""
    rows = []
    for pair, p in zip(answered.pairs, maps, strict=True):
        sample = answered.dataset[pair[0]]
        rows.append([metrics.METRICS[m](p > 0.5, sample.target(pair[1]), sample.valid_for(pair[1])) for m in JUDGED])
    return dict(zip(JUDGED, np.array(rows).T, strict=True))


def dice_after(answered: PromptBank, maps: Sequence[Map], operations: Sequence[str]) -> float:
    """Mean Dice after some operations, on images whose truth may be looked at."""
    done = [apply(p, operations) for p in maps]
    return float(judge(answered, done)["dice"].mean())


def apply(p: Map, operations: Sequence[str]) -> Map:
    """The operations one after the other."""
    for name in operations:
        p = OPERATIONS[name](p)
    return p


def search_operations(answered: PromptBank, maps: Sequence[Map]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Grid search on training images, as annotation tools offer it: the best single operation, and the best sequence of two.

    Doing nothing is among the candidates, so that neither is worse than that on the images searched.
    """
    short: list[tuple[str, ...]] = [(), *((name,) for name in OPERATIONS)]
    gains = {names: dice_after(answered, maps, names) for names in (*short, *itertools.product(OPERATIONS, repeat=2))}
    return max(short, key=lambda names: gains[names]), max(gains, key=lambda names: gains[names])


def greedy_refinement(
    env: MaskRefineEnv, prompts: NDArray[np.int64], value: Callable[[MaskRefineEnv, Map], float]
) -> list[Map]:
    """At each step the operation that raises a value most, none where none does.

    With the true Dice this is the oracle; with the reward network's score it needs no truth and no training.
    """
    refined = []
    for pair, prompt in zip(env.prompt_bank.pairs, prompts, strict=True):
        env.reset(options={"pair": pair, "prompt": prompt})
        over = False
        while not over:
            allowed = np.flatnonzero(env.action_masks()[:STOP])
            values = {int(k): value(env, env.outcomes[k]) for k in allowed}
            best = max(values, key=lambda k: values[k], default=STOP)
            worth = best != STOP and values[best] > value(env, env.probability)
            *_, over, _, _ = env.step(best if worth else STOP)
        refined.append(env.probability)
    return refined


def true_dice(env: MaskRefineEnv, p: Map) -> float:
    """For :func:`greedy_refinement`: looks at the truth."""
    return env.prompt_bank.dice(env.pair, env.sample, p)


def network_score(env: MaskRefineEnv, p: Map) -> float:
    """For :func:`greedy_refinement`: looks at no truth."""
    return float(env.prompt_bank.scores(env.pair, env.sample.image, [p])[0])


def limited(dataset: str, options: Mapping[str, Any], split: str, count: int) -> dict[str, Any]:
    """Options for at most ``count`` training images (scenes of either split, where they are drawn); given ones are kept."""
    kind = DATASETS.get(dataset.partition(":")[0])
    out = dict(options)
    if kind is ToyScenes:
        out.setdefault("n_images", count)
        return out
    countable = isinstance(kind, type) and issubclass(kind, LabelledImages) and split == "train" and "n_train" not in out
    if countable and len(load_dataset(dataset, split, **out)) > count:
        out["n_train"] = count
    return out


def make(name: str, env_kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """An environment without wrappers."""
    return gym.make(name, **env_kwargs).unwrapped
