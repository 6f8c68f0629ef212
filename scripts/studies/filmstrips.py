"""Three episodes of a policy on unseen images, click by click: its best, its median and its worst by final Dice.

python scripts/studies/filmstrips.py --policy runs/x/SamSegSrm-v0.zip --env SamSegSrm-v0 --episodes 60 --out docs/strips.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from alignsam_sb3.evaluation import agent_player, draw_episodes, play
from alignsam_sb3.pictures import GREEN, Picture, caption, panel, save_picture, stack
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.task import Task

WIDTH = 192


def strip(batch: ClickBatch, model: BaseAlgorithm, episode: tuple[int, int], name: str) -> Picture:
    """The truth, and the mask after each click."""
    batch.reset(np.arange(1), [episode])
    photo, truth = batch.sample(0).image, batch.sample(0).target(episode[1])
    panels = [caption(panel(photo, truth, (), WIDTH, GREEN), f"{name}: {batch.info(0)['category']}")]
    for _ in range(batch.task.max_steps):
        batch.step(model.predict(batch.observe(), deterministic=True)[0])  # type: ignore[arg-type]
        mask, clicks = batch.sessions.masks()[0], batch.sessions.clicks(0)
        panels.append(caption(panel(photo, mask, clicks, WIDTH), f"Dice {batch.dice[0]:.3f}"))
    return np.concatenate(panels, axis=1)


def draw_films(
    batch: ClickBatch, model: BaseAlgorithm, episodes: Sequence[tuple[int, int]], dice: NDArray[np.float64], path: Path
) -> None:
    """The best, the typical and the worst of some episodes, click by click.

    :param batch: of one episode
    :param dice: for each episode what it ended with
    """
    order = np.argsort(dice)
    places = {"good": order[-1], "typical": order[len(order) // 2], "failed": order[0]}
    save_picture(stack([strip(batch, model, episodes[int(k)], name) for name, k in places.items()]), path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("strips.png"))
    args = parser.parse_args()
    given = {**(gym.spec(args.env).kwargs or {}), **read_recipe(args.policy)["env"]}
    venv = SamSegVecEnv.of(Task.from_kwargs(**given).for_evaluation(), 1)
    batch, model = venv.batch, load_policy(args.policy, venv)
    episodes = draw_episodes(batch.shared.images_by_category, args.episodes, np.random.default_rng(args.seed))
    dice = play(agent_player(model), batch, episodes).scores["dice"][:, -1]
    draw_films(batch, model, episodes, dice, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
