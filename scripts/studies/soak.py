"""Does anything grow? Steps, environments made and closed, evaluated episodes; memory, open and temporary files are counted.

python scripts/studies/soak.py --steps 1000000 --makes 1000 --episodes 10000      # hours
python scripts/studies/soak.py --steps 20000 --makes 100 --episodes 400           # minutes

The first fifth warms up; growth is the slope of a line through what is measured after it, for 10^6 steps, 1,000 makes and
10,000 episodes. A short run says less: noise of 1 MB in 20,000 steps is 50 MB in 10^6.
"""

import argparse
import gc
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from stable_baselines3.common.env_util import make_vec_env
from tqdm import tqdm

import alignsam_sb3  # noqa: F401 (registers the environments)
from alignsam_sb3.evaluation.players import oracle_player, random_player
from alignsam_sb3.evaluation.protocol import evaluate
from alignsam_sb3.task import Task

MEASURED = 40  # times
COUNTED = ("MB", "open files", "temporary files")
N_ENVS = 8
KWARGS = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 32}, "clip": None, "max_steps": 5, "device": "cpu"}


def usage() -> tuple[float, float, float]:
    """Resident memory in MB, open files, files in the folder of temporary files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    opened = len(list(Path("/proc/self/fd").iterdir()))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, opened, sum(1 for _ in Path(tempfile.gettempdir()).iterdir())


def growth(work: Callable[[], int], total: int, unit: int) -> dict[str, float]:
    """Work, measure on the way, and say what grows in so many units of it.

    :param work: does some, and returns how much
    """
    done, next_time, seen = 0, 0.0, []
    with tqdm(total=total, mininterval=10) as bar:
        while done < total:
            did = work()
            done += did
            bar.update(did)
            if done >= next_time:
                seen.append((done, *usage()))
                next_time = done + total / MEASURED
                bar.set_postfix({name: f"{value:.0f}" for name, value in zip(COUNTED, seen[-1][1:], strict=True)})
    late = np.array([row for row in seen if row[0] > total / 5], float)
    slopes = [float(np.polyfit(late[:, 0], late[:, k], 1)[0]) * unit for k in (1, 2, 3)]
    return {
        "done": done,
        "MB after the warm-up": late[0, 1],
        "MB at the end": late[-1, 1],
        **dict(zip(COUNTED, slopes, strict=True)),
    }


def steps() -> Callable[[], int]:
    """Random clicks in eight environments."""
    venv = make_vec_env("SamSeg-v0", N_ENVS, 0, env_kwargs=KWARGS, vec_env_cls=SamSegVecEnv)  # type: ignore[arg-type]
    venv.reset()
    rng = np.random.default_rng(0)

    def work() -> int:
        masks = venv.env_method("action_masks")
        venv.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))
        return N_ENVS

    return work


def makes() -> Callable[[], int]:
    """An environment made, reset and closed."""

    def work() -> int:
        env = gym.make("SamSeg-v0", **KWARGS)
        env.reset(seed=0)
        env.close()
        return 1

    return work


def episodes() -> Callable[[], int]:
    """Episodes of an evaluation, of two players."""
    batch = ClickBatch(Task.from_kwargs(split="eval", **KWARGS), N_ENVS)
    players, seeds = {"random clicks": random_player(0), "oracle": oracle_player}, itertools.count()

    def work() -> int:
        evaluate(players, batch, N_ENVS, next(seeds))
        return N_ENVS

    return work


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--makes", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # of nobody else's files
        for unit, begin, total, each in (
            ("10^6 steps", steps, args.steps, 10**6),
            ("1,000 makes", makes, args.makes, 10**3),
            ("10,000 evaluated episodes", episodes, args.episodes, 10**4),
        ):
            grown = found[unit] = growth(begin(), total, each)
            named = ", ".join(f"{grown[name]:+.1f} {name}" for name in COUNTED)
            resident = f"{grown['MB after the warm-up']:.1f} MB after the warm-up, {grown['MB at the end']:.1f} at the end"
            print(f"per {unit}: {named} (from {grown['done']} done; {resident})", flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
