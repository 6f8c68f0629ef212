r"""Where RL beats imitation: PPO beside imitation of the greedy oracle, with the same steps in the same environment.

python scripts/studies/imitation.py --out runs/imitation                                      # everything: hours
python scripts/studies/imitation.py --settings stop --methods "imitation" "PPO" --seeds 0 --steps 20000 --out runs/i

All are judged on the same unseen scenes by their most probable actions. A run that was stopped goes on where it stopped.
Writes ``imitation.md`` and each training's numbers.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from kept import kept
from stable_baselines3.common.utils import LinearSchedule
from summarise import over_seeds

from alignsam_sb3.callbacks import WarmStartCallback
from alignsam_sb3.evaluation import CHUNK, agent_player, evaluate, oracle_player
from alignsam_sb3.files import write_text
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.task import Task

IMPLICIT: dict[str, Any] = {"dataset": "toy:saliency", "clip": None, "patches": 8}
EXPLICIT: dict[str, Any] = {"dataset": "toy:semantic", "clip": "tiny", "patches": 16, "dataset_kwargs": {"min_area": 0.02}}
STOP = {"max_steps": 10, "done": True, "click_cost": 0.01}
ONCE: dict[str, Any] = {"clip": None, "patches": 16, "max_steps": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "three clicks": {**IMPLICIT, "max_steps": 3},
    "ten clicks": {**IMPLICIT, "max_steps": 10},
    "stop": {**IMPLICIT, **STOP},
    "a word, stop": {**EXPLICIT, **STOP},
    **{f"one click, {name}": {**ONCE, "dataset": f"toy:{name}"} for name in ("glass", "blur", "shadow")},
    "one click, a word": {**EXPLICIT, "max_steps": 1},
    "two clicks, glass": {**ONCE, "dataset": "toy:glass", "max_steps": 2},
    "stop, glass": {**IMPLICIT, **STOP, "dataset": "toy:glass"},
    "ten clicks, glass": {**IMPLICIT, "dataset": "toy:glass", "max_steps": 10},
}
"""``stop``: up to ten clicks, each of which costs 0.01 Dice, and an action that ends the episode. ``one click``: the greedy
oracle's, at the innermost pixel, is not the best that can be made there."""
METHODS = {
    "imitation": {"imitate": 1.0, "enough": 1.0},
    "imitation, done at 0.90": {"imitate": 1.0, "enough": 0.9},
    "PPO": {"imitate": 0.0, "enough": 1.0},
    "imitation, then PPO": {"imitate": 0.5, "enough": 1.0},
    "imitation, done at 0.90, then PPO": {"imitate": 0.5, "enough": 0.9},
}
"""Share of the steps in which the oracle is imitated, and the Dice at which it says that it is done (where it may)."""
N_ENVS = 32
PPO = {"n_steps": 16, "batch_size": 256, "n_epochs": 4, "gamma": 0.9, "ent_coef": 0.005}


def train(task: Task, method: dict[str, float], steps: int, seed: int) -> SamMaskablePPO:
    """An agent of one method."""
    venv = SamSegVecEnv.of(task, N_ENVS)
    venv.seed(seed)
    policy = "ImplicitMaskablePolicy" if task.clip is None else "ExplicitMaskablePolicy"
    rate = LinearSchedule(1e-3 if method["imitate"] else 1.5e-3, 0.0, 1.0)
    model = SamMaskablePPO(policy, venv, seed=seed, device=task.device, learning_rate=rate, **PPO)
    imitated = int(steps * method["imitate"])
    lesson = [WarmStartCallback(imitated, enough=method["enough"])] if imitated else []
    return model.learn(steps - imitated, callback=lesson)


def measure(model: SamMaskablePPO, task: Task, episodes: int) -> dict[str, Any]:
    """Dice after each click of an agent and of the greedy oracle, clicks and reward, on unseen scenes."""
    batch = SamSegVecEnv.of(task.for_evaluation(), min(CHUNK, episodes)).batch
    rows, _ = evaluate({"agent": agent_player(model), "oracle": oracle_player}, batch, episodes, seed=0)
    made = float(np.mean([len(clicks) for clicks in rows["agent"].clicks]))
    dice = rows["agent"].mean("dice")
    return {"dice": dice, "clicks": made, "reward": dice[-1] - task.click_cost * made, "oracle": rows["oracle"].mean("dice")}


def one(setting: str, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The numbers of one training, kept in a file; what an earlier run has finished is read."""
    task = Task.from_kwargs(**SETTINGS[setting], device=args.device)
    identity = {"setting": setting, "method": method, "seed": seed, "steps": args.steps, "episodes": args.episodes}
    path = args.out / f"{setting}-{method}-{seed}.json".replace(" ", "-")

    def make() -> dict[str, Any]:
        began = time.time()
        model = train(task, METHODS[method], args.steps, seed)
        return {"seconds": time.time() - began, **measure(model, task, args.episodes)}

    return kept(path, identity, make)


def report(found: Sequence[dict[str, Any]]) -> str:
    """A table for each setting: means over the seeds with their 95 % intervals, and the differences from PPO."""
    parts = []
    for setting in dict.fromkeys(job["identity"]["setting"] for job in found):
        jobs = [job for job in found if job["identity"]["setting"] == setting]
        lines = ["| | seeds | Dice | clicks | Dice less the clicks' cost | PPO's lead in it |", "|---|---|---|---|---|---|"]
        for method in dict.fromkeys(job["identity"]["method"] for job in jobs):
            mine = by_seed(jobs, method)
            cells = [cell([job[what] for job in mine.values()]) for what in ("last", "clicks", "reward")]
            ours = by_seed(jobs, "PPO")
            both = [seed for seed in mine if seed in ours and method != "PPO"]
            lead = cell([ours[seed]["reward"] - mine[seed]["reward"] for seed in both]) if both else ""
            lines.append(f"| {method} | {len(mine)} | " + " | ".join([*cells, lead]) + " |")
        for method in METHODS:
            if mine := [job["dice"] for job in by_seed(jobs, method).values()]:
                curve = " ".join(f"{dice:.3f}" for dice in np.mean(mine, 0))
                lines += ["", f"{method}, Dice after each click: {curve}"]
        lines += ["", "oracle, Dice after each click: " + " ".join(f"{value:.3f}" for value in jobs[0]["oracle"])]
        parts.append(f"### {setting}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def by_seed(jobs: Sequence[dict[str, Any]], method: str) -> dict[int, dict[str, Any]]:
    """The trainings of a method by their seed."""
    mine = [job for job in jobs if job["identity"]["method"] == method]
    return {job["identity"]["seed"]: {**job, "last": job["dice"][-1]} for job in mine}


def cell(values: Sequence[float]) -> str:
    """Mean and interval over the seeds."""
    mean, half = over_seeds(list(values))
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40_000, help="environment steps of each training")
    parser.add_argument("--episodes", type=int, default=400, help="unseen ones that judge")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/imitation"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    th.set_num_threads(1)
    found = []
    for seed in args.seeds:
        for setting in args.settings:
            for method in args.methods:
                if "done" in method and not SETTINGS[setting].get("done"):
                    continue  # nobody can say so there
                found.append(one(setting, method, seed, args))
                write_text(args.out / "imitation.md", report(found))
    print(report(found))


if __name__ == "__main__":
    main()
