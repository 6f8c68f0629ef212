"""Evaluate a saved policy.

python -m alignsam_sb3.evaluation --policy X.zip --env SamSeg-v0 --episodes 200 --seed 0 --out results

All players play the same episodes, drawn from the seed on the evaluation split. The agent sees observations only, CLIP points
the similarity map of the target; the centre click and the oracle look at the truth, and say what the segmenter could do.
Rivals are fitted on the images that the policy was trained on.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th

from alignsam_sb3.commands import run_command
from alignsam_sb3.datasets.seen import hash_in
from alignsam_sb3.envs import CLICK_ENV
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from alignsam_sb3.evaluation.absence import presence_of_scores
from alignsam_sb3.evaluation.episodes import Pair
from alignsam_sb3.evaluation.players import all_players
from alignsam_sb3.evaluation.protocol import CHUNK, draw_both
from alignsam_sb3.evaluation.report import table, versions, whole_report, write_report, write_targets
from alignsam_sb3.evaluation.rivals import GRAB_CUT, RIVALS, all_rows, rivals_of
from alignsam_sb3.evaluation_options import read
from alignsam_sb3.policies import load_policy, read_recipe
from alignsam_sb3.policies.archive import PolicyArchive
from alignsam_sb3.task import Task, merge_options


def task_of(args: argparse.Namespace, learned: dict[str, Any]) -> Task:
    """The policy's task with what the command line changes, on the evaluation split.

    :param learned: the task that the policy learned, as its file says
    """
    spec = gym.spec(args.env)
    if spec.entry_point != CLICK_ENV:
        raise SystemExit(f"{args.env} is no SamSeg environment: expected one, as SamSeg-v0")
    given = {key: value for key in ("dataset", "segmenter", "clip", "reward_network") if (value := getattr(args, key))}
    given |= {key: None for key in ("clip", "reward_network") if given.get(key) == "none"}
    options = dict(args.dataset_kwargs) | ({"categories": args.categories} if args.categories else {})
    merged = merge_options({**(spec.kwargs or {}), **learned}, {**given, "dataset_kwargs": options})
    merged["reward"] = "dice_gain"  # nobody is rewarded here
    if str(merged.get("dataset", "")).startswith("images:"):
        raise SystemExit(
            f"{merged['dataset']} has no ground truth to evaluate on: name labelled images of that concept with --dataset"
        )
    if args.prompts is not None or args.dataset or args.categories:  # phrases belong to the categories they were written for
        merged["prompts"] = args.prompts or {}
    return Task.from_kwargs(**merged).for_evaluation()


def trained_task(env: str, learned: Mapping[str, Any]) -> Task:
    """The task that a policy learned, as its file says."""
    return Task.from_kwargs(**{**(gym.spec(env).kwargs or {}), **learned, "reward": "dice_gain"})


def seen_images(batch: ClickBatch, episodes: Sequence[Pair], policy: Path) -> list[str]:
    """Names of the images in some episodes that a policy was trained on, by their pixels."""
    known = PolicyArchive(policy).seen
    if known is None:
        return []
    rows = sorted({row for row, _ in episodes})
    return [batch.shared.sample(row).image_id for row in rows if hash_in(batch.shared.dataset, row) in known]


def main(argv: list[str] | None = None) -> None:
    """Evaluate, write the report and print the table."""
    run(read(argv, "python -m alignsam_sb3.evaluation"), argv)


def run(args: argparse.Namespace, argv: list[str] | None = None) -> None:
    """Evaluate as the command line says.

    :param args: what :func:`~alignsam_sb3.evaluation_options.read` gave
    :param argv: the words that it read, for the report; None for those of this process
    """
    wanted = [name for name in RIVALS if {name, "all"} & set(args.rivals)]
    recipe = read_recipe(args.policy, args.trust)
    task = task_of(args, dict(recipe["env"]))
    venv = SamSegVecEnv.of(task, min(CHUNK, max(args.episodes, 1)))
    batch = venv.batch
    data = batch.shared.dataset.fingerprint
    drawn = draw_both(batch.shared, args.episodes, task.absent, args.seed)
    seen = seen_images(batch, drawn, args.policy)
    if (seen or data == recipe["trained_on"]) and not args.allow_seen:
        raise SystemExit(
            f"{args.policy} was trained on {len(seen) or 'all'} of these {len({i for i, _ in drawn})} images "
            f"({', '.join(seen[:3]) or data}): an evaluation on them says nothing. Name others with --dataset, "
            "or pass --allow-seen, and the report will say how many"
        )
    model = load_policy(args.policy, venv, args.trust)
    taught_on = recipe["env"].get("segmenter", task.segmenter)
    named = "agent" if taught_on == task.segmenter else f"agent (trained on {taught_on})"
    players = {named if name == "agent" else name: p for name, p in all_players(model, args.seed, batch).items()}
    th.manual_seed(args.seed)
    fitted = rivals_of(wanted, task, trained_task(args.env, recipe["env"]), batch, drawn)
    rows, episodes = all_rows(players, named, fitted.rivals, GRAB_CUT in wanted, batch, drawn), drawn
    distinct = len(set(episodes))
    presence = presence_of_scores(batch, drawn, args.seed) if task.absent else {}
    described = {
        "distinct_episodes": distinct,
        "env": {**task.to_json(), "split": "eval"},
        "data": data,
        "models": batch.shared.models,
        "episodes": args.episodes,
        "seen_in_training": seen,
        "rivals": {"labelled_images": fitted.images, "left_out": dict(fitted.left_out)},
        "seed": args.seed,
        "policy": str(args.policy),
        "command": " ".join(sys.orig_argv) if argv is None else argv,
        "versions": versions(),
        "presence_by_scores": presence,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with whole_report(args.out) as folder:
        write_report(folder, rows, episodes, batch, described)
        write_targets(folder / "targets.png", players[named], batch)
    print(f"{args.episodes} episodes ({distinct} distinct) on {data}, seed {args.seed}")
    if seen:
        print(f"{len(seen)} images were seen in training: {', '.join(seen[:10])}")
    print("Means after the last click ± 95 % interval; then Dice after each click")
    print(table(rows))
    if presence:
        print("Whether the target is there, by one number alone: " + ", ".join(f"{k} {v:.3f}" for k, v in presence.items()))
    if fitted.rivals:
        print(f"Rivals of the agent were fitted on {fitted.images} images of those that it was trained on")
    for name, reason in fitted.left_out.items():
        print(f"No row of {name}: {reason}")
    print(f"Written to {args.out}: results.json, table.md, clicks.jsonl, episodes.png, overlays/ (and targets.png)")


if __name__ == "__main__":
    raise SystemExit(run_command("evaluation", main))
