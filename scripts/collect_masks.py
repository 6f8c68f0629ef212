"""Collect the masks that a policy finds on its training images, for the reward network to learn from.

python scripts/collect_masks.py --policy runs/agent/SamSeg-v0.zip --env SamSegImplicit-v0 --episodes 600 --out runs/found
python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --init runs/reward --adversarial runs/found --out runs/again

A policy that is trained on a reward network looks for masks that the network overrates. Fitted again with these, their true
quality beside them, the network overrates them less.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.episode import decode_jobs
from alignsam_sb3.envs.sam_seg import SamSegEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from tqdm import tqdm

from alignsam_sb3.datasets import draw_episode
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.rewards.network.corpus import FOUND, Corpus, Found, corpus_of, found_key, stack
from alignsam_sb3.rewards.network.model import RewardNetworkConfig

SIDE = RewardNetworkConfig.side
TOGETHER = 32  # episodes played at a time


def play(envs: list[SamSegEnv], model: object, episodes: list[tuple[int, int]], deterministic: bool) -> list[list[Found]]:
    """The segmenter's answers, after each step of one episode in each environment."""
    observations = [e.reset(options={"image_index": i, "category_id": c})[0] for e, (i, c) in zip(envs, episodes, strict=True)]
    found: list[list[Found]] = [[] for _ in envs]
    for _ in range(envs[0].max_steps):
        batch = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
        actions, _ = model.predict(batch, deterministic=deterministic)  # type: ignore[attr-defined]
        jobs = {k: job for k, (env, a) in enumerate(zip(envs, actions, strict=True)) if (job := env.plan(int(a))) is not None}
        answers = decode_jobs(envs[0].segmenter, list(jobs.values())) if jobs else []
        for k, answer in zip(jobs, answers, strict=True):
            envs[k].supply(answer)
        for k, (env, action) in enumerate(zip(envs, actions, strict=True)):
            observations[k], _, _, _, info = env.step(int(action))
            found[k].append((observations[k]["sam_pred_mask_prob"].copy(), info["mask"], info["iou_predicted"]))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--dataset", help="labelled images, where the policy was trained without labels")
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    settings = {**read_recipe(args.policy)["env"], "split": "train", "reward_network": None, "reward": "dice_gain"}
    if args.dataset:
        settings |= {"dataset": args.dataset, "dataset_kwargs": {}}
    if str(settings.get("dataset", "")).startswith("images:"):
        raise SystemExit(f"{settings['dataset']} has no ground truth to learn from: name labelled images with --dataset")
    envs = [gym.make(args.env, **settings).unwrapped for _ in range(min(TOGETHER, args.episodes))]
    first = envs[0]
    assert isinstance(first, SamSegEnv)
    model = load_policy(args.policy, DummyVecEnv([lambda env=env: env for env in envs]))
    rng = np.random.default_rng(args.seed)
    parts: list[Corpus] = []
    for start in tqdm(range(0, args.episodes, len(envs)), desc="episodes", unit="batch"):
        active = envs[: args.episodes - start]
        drawn = [draw_episode(first.shared.images_by_category, rng) for _ in active]
        both = [play(active, model, drawn, deterministic) for deterministic in (True, False)]
        for (index, category), *answers in zip(drawn, *both, strict=True):
            sample = first.shared.dataset[index]
            parts.append(corpus_of(index, category, sample, [a for one in answers for a in one], SIDE))
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = stack(parts)
    corpus.save(args.out / FOUND, found_key(first.shared.dataset, first.segmenter))
    dice = corpus.targets[..., 0]
    print(f"{dice.size} masks of {len(corpus)} episodes, true Dice {dice.mean():.3f} on average, in {args.out / FOUND}")


if __name__ == "__main__":
    main()
