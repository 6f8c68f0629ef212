"""Three episodes of a policy on unseen images, click by click: its best, its median and its worst by final Dice.

python scripts/filmstrips.py --policy runs/x/SamSegSrm-v0.zip --env SamSegSrm-v0 --episodes 60 --out docs/strips.png
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.labels import held_out
from alignsam_sb3.envs.sam_seg import SamSegEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3.evaluation import agent_player, draw_episodes, play
from alignsam_sb3.pictures import GREEN, Picture, caption, panel, save_picture, stack
from alignsam_sb3.policies import load_policy, read_recipe

WIDTH = 192


def strip(env: SamSegEnv, model: BaseAlgorithm, episode: tuple[int, int], name: str) -> Picture:
    """The truth, and the mask after each click."""
    image, category = episode
    observation, info = env.reset(options={"image_index": image, "category_id": category})
    photo = env.shared.dataset[image].image
    panels = [caption(panel(photo, env.target, (), WIDTH, GREEN), f"{name}: {info['category']}")]
    for _ in range(env.max_steps):
        action, _ = model.predict({key: np.asarray(value)[None] for key, value in observation.items()}, deterministic=True)
        observation, *_, info = env.step(int(action[0]))
        panels.append(caption(panel(photo, info["mask"], env.clicks, WIDTH), f"Dice {info['dice']:.3f}"))
    return np.concatenate(panels, axis=1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("strips.png"))
    args = parser.parse_args()
    env = gym.make(args.env, **held_out(read_recipe(args.policy)["env"])).unwrapped
    assert isinstance(env, SamSegEnv)
    model = load_policy(args.policy, DummyVecEnv([lambda: env]))
    episodes = draw_episodes(env.shared.images_by_category, args.episodes, np.random.default_rng(args.seed))
    order = np.argsort(play(agent_player(model), [env], episodes).scores["dice"][:, -1])
    places = {"good": order[-1], "typical": order[len(order) // 2], "failed": order[0]}
    save_picture(stack([strip(env, model, episodes[int(k)], name) for name, k in places.items()]), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
