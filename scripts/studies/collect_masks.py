r"""Collect the masks that a policy finds on its training images, for the reward network to learn from.

python scripts/studies/collect_masks.py --policy runs/agent/SamSeg-v0.zip --env SamSegImplicit-v0 --episodes 600 \
    --out runs/found
python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --init runs/reward --adversarial runs/found --out runs/again

A policy that is trained on a reward network looks for masks that the network overrates. Fitted again with these, their true
quality beside them, the network overrates them less.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from tqdm import tqdm

from alignsam_sb3.datasets import draw_episode
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.frame import Frame
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.rewards.network.corpus import FOUND, Corpus, Found, corpus_of, found_key, stack
from alignsam_sb3.rewards.network.model import RewardNetworkConfig
from alignsam_sb3.task import Task, merge_options

SIDE = RewardNetworkConfig.side
TOGETHER = 32  # episodes played at a time


def play(batch: ClickBatch, model: object, episodes: list[tuple[int, int]], deterministic: bool) -> list[list[Found]]:
    """The segmenter's answers, after each step of one episode in each place of the batch."""
    batch.reset(np.arange(batch.n), episodes + episodes[-1:] * (batch.n - len(episodes)))
    found: list[list[Found]] = [[] for _ in episodes]
    for _ in range(batch.task.max_steps):
        actions, _ = model.predict(batch.observe(), deterministic=deterministic)  # type: ignore[attr-defined]
        batch.step(actions)
        probabilities, masks = batch.sessions.probabilities.cpu().numpy(), batch.sessions.masks()
        for answers, probability, mask, iou in zip(found, probabilities, masks, batch.sessions.iou.tolist(), strict=False):
            answers.append((probability, mask, iou))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--dataset", help="labelled images, where the policy was trained without labels")
    add_dataset_kwargs(parser)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    changes: dict[str, Any] = {"reward_network": None, "reward": "dice_gain"}
    changes |= {"dataset": args.dataset} if args.dataset else {}
    learned = {**(gym.spec(args.env).kwargs or {}), **read_recipe(args.policy)["env"]}
    task = Task.from_kwargs(**merge_options(learned, {**changes, "dataset_kwargs": args.dataset_kwargs}))
    if str(task.dataset).startswith("images:"):
        raise SystemExit(f"{task.dataset} has no ground truth to learn from: name labelled images with --dataset")
    venv = SamSegVecEnv.of(task, min(TOGETHER, args.episodes))
    batch, model = venv.batch, load_policy(args.policy, venv)
    rng, frame = np.random.default_rng(args.seed), Frame(SIDE, venv.batch.shared.segmenter.frame.squash)
    parts: list[Corpus] = []
    for start in tqdm(range(0, args.episodes, batch.n), desc="episodes", unit="batch"):
        drawn = [draw_episode(batch.shared.images_by_category, rng) for _ in range(min(batch.n, args.episodes - start))]
        both = [play(batch, model, drawn, deterministic) for deterministic in (True, False)]
        for (index, category), *answers in zip(drawn, *both, strict=True):
            parts.append(corpus_of(index, category, batch.shared.sample(index), [a for one in answers for a in one], frame))
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = stack(parts)
    corpus.save(args.out / FOUND, found_key(batch.shared.dataset, batch.shared.segmenter))
    dice = corpus.targets[..., 0]
    print(f"{dice.size} masks of {len(corpus)} episodes, true Dice {dice.mean():.3f} on average, in {args.out / FOUND}")


if __name__ == "__main__":
    main()
