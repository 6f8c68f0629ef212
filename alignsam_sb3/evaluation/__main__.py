"""Evaluate a saved policy.

python -m alignsam_sb3.evaluation --policy X.zip --env SamSeg-v0 --episodes 200 --seed 0 --out results

All players play the same episodes, drawn from the seed on the evaluation split. The agent sees observations only, CLIP points
the similarity map of the target; the centre click and the oracle look at the truth, and say what the segmenter could do.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th

from alignsam_sb3.envs import CLICK_ENV
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from alignsam_sb3.evaluation.players import all_players
from alignsam_sb3.evaluation.protocol import CHUNK, evaluate
from alignsam_sb3.evaluation.report import table, versions, write_report, write_targets
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.task import Task, merge_options


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(
        prog="python -m alignsam_sb3.evaluation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    out.add_argument("--env", default="SamSeg-v0")
    out.add_argument("--episodes", type=int, default=200)
    out.add_argument("--seed", type=int, default=0)
    out.add_argument("--out", type=Path, default=Path("results"))
    out.add_argument("--dataset", help="another data set than the policy's own, by spec string")
    out.add_argument("--segmenter", help="another checkpoint of the policy's segmenter, by spec string")
    out.add_argument("--clip", help="another language prior than the policy's own, by spec string")
    out.add_argument("--reward-network", help="score the masks with this one, and say how far from Dice that is; or none")
    out.add_argument("--prompts", type=json.loads, help="phrases for categories, as JSON")
    out.add_argument("--categories", nargs="+", help="names to keep")
    out.add_argument("--dataset-kwargs", type=json.loads, help="options of the data set, as JSON")
    out.add_argument("--trust", action="store_true", help="unpickle the policy: only for a file whose origin you trust")
    return out


def task_of(args: argparse.Namespace, learned: dict[str, Any]) -> Task:
    """The policy's task with what the command line changes, on the evaluation split.

    :param learned: the task that the policy learned, as its file says
    """
    spec = gym.spec(args.env)
    if spec.entry_point != CLICK_ENV:
        raise SystemExit(f"{args.env} is no SamSeg environment: expected one, as SamSeg-v0")
    given = {key: value for key in ("dataset", "segmenter", "clip", "reward_network") if (value := getattr(args, key))}
    given |= {key: None for key in ("clip", "reward_network") if given.get(key) == "none"}
    options = dict(args.dataset_kwargs or {}) | ({"categories": args.categories} if args.categories else {})
    merged = merge_options({**(spec.kwargs or {}), **learned}, {**given, "dataset_kwargs": options})
    merged["reward"] = "dice_gain"  # nobody is rewarded here
    if str(merged.get("dataset", "")).startswith("images:"):
        raise SystemExit(
            f"{merged['dataset']} has no ground truth to evaluate on: name labelled images of that concept with --dataset"
        )
    if args.prompts is not None or args.dataset or args.categories:  # phrases belong to the categories they were written for
        merged["prompts"] = args.prompts or {}
    return Task.from_kwargs(**merged).for_evaluation()


def main(argv: list[str] | None = None) -> None:
    """Evaluate, write the report and print the table."""
    args = parser().parse_args(argv)
    recipe = read_recipe(args.policy, args.trust)
    task = task_of(args, dict(recipe["env"]))
    venv = SamSegVecEnv.of(task, min(CHUNK, max(args.episodes, 1)))
    batch = venv.batch
    data = batch.shared.dataset.fingerprint
    if data == recipe["trained_on"]:
        raise SystemExit(
            f"{args.policy} was trained on these very images ({data}): an evaluation on them says nothing. "
            "Name another split, or none, with --dataset"
        )
    model = load_policy(args.policy, venv, args.trust)
    players = all_players(model, args.seed, batch.shared.language is not None)
    th.manual_seed(args.seed)
    rows, episodes = evaluate(players, batch, args.episodes, args.seed)
    distinct = len(set(episodes))
    described = {
        "distinct_episodes": distinct,
        "env": {**task.to_json(), "split": "eval"},
        "data": data,
        "episodes": args.episodes,
        "seed": args.seed,
        "policy": str(args.policy),
        "command": " ".join(sys.orig_argv) if argv is None else argv,
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_report(args.out, rows, episodes, batch, described)
    write_targets(args.out / "targets.png", players["agent"], batch)
    print(f"{args.episodes} episodes ({distinct} distinct) on {data}, seed {args.seed}")
    print("Means after the last click ± 95 % interval; then Dice after each click")
    print(table(rows))
    print(f"Written to {args.out}: results.json, table.md, clicks.jsonl, episodes.png, overlays/ (and targets.png)")


if __name__ == "__main__":
    main()
