r"""What a segmenter, an agent and its rivals make of a set of real photographs, each held-out target judged once.

python scripts/studies/photographs.py --dataset oxford_pets:/data/oxford_pets26 --folds 5 --out runs/pets
python scripts/studies/photographs.py --dataset coco:/data/coco --categories person --segmenter mobile_sam --out runs/coco

With ``--folds`` every image is held out once, and the agent and the rivals learn from the others; else the data set's own
splits hold. Writes ``photographs.md``, each fold's numbers, and films of the agent's best, typical and worst targets. A run
that was stopped goes on with the next fold.
"""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from filmstrips import draw_films
from kept import kept
from rivals import BUDGETS, judged, players_of

from alignsam_sb3.arguments import positive_int
from alignsam_sb3.datasets import UnreadableImageError, load_dataset
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.evaluation import CHUNK, Player, centre_player, oracle_player
from alignsam_sb3.evaluation.players import truth_box_player
from alignsam_sb3.files import write_text
from alignsam_sb3.policies import attach_recalibration
from alignsam_sb3.task import Task


def task_of(args: argparse.Namespace, fold: int | None) -> Task:
    """The task on the training images of a fold."""
    chosen = {**args.dataset_kwargs, **({} if fold is None else {"folds": args.folds, "fold": fold})}
    if args.categories:
        chosen["categories"] = args.categories
    options: dict[str, Any] = {"segmenter": args.segmenter, "clip": args.clip, "patches": 16, "max_steps": args.clicks}
    srm = {"labels": "srm", "srm": True} if args.agent != "none" else {}
    options |= {"device": args.device, "on_error": "skip"}
    return Task.from_kwargs(dataset=args.dataset, dataset_kwargs=chosen, **options, **srm)


def targets(batch: ClickBatch) -> list[tuple[int, int]]:
    """Every image that can be read with every category that it shows, once."""
    shown, readable = batch.shared.images_by_category, set()
    for row in np.unique(np.concatenate(shown)):
        try:
            batch.shared.sample(int(row))
        except UnreadableImageError as error:
            print(f"left out: {error}")
        else:
            readable.add(row)
    return [(int(row), category) for category, rows in enumerate(shown) for row in rows if row in readable]


def run(args: argparse.Namespace, fold: int | None) -> dict[str, Any]:
    """All rows on the held-out images of one fold: IoU and Dice of each target after each click."""
    began, task = time.time(), task_of(args, fold)
    labelled = len(load_dataset(args.dataset, "train", **task.dataset_kwargs))
    unseen = task.for_evaluation()
    venv = SamSegVecEnv.of(unseen, CHUNK)
    batch, episodes = venv.batch, targets(venv.batch)
    box: dict[str, Player] = {"box around the truth": truth_box_player} if batch.segmenter.learned_boxes else {}
    seers: dict[str, Player] = {"one centre click": centre_player, **box, "oracle": oracle_player}
    players, model = players_of(venv, task, "implicit" if args.clip is None else "explicit", args.agent, args.seed, seers)
    rows, left_out = judged(players, batch, task, episodes)
    if model is not None:
        alone = SamSegVecEnv.of(unseen, 1)
        attach_recalibration(model, alone)
        path = args.out / f"films{'' if fold is None else fold}.png"
        draw_films(alone.batch, model, episodes, rows["agent"].scores["dice"][:, -1], path)
    return {
        "labelled": labelled,
        "targets": len(episodes),
        "rows": {name: {m: row.scores[m].tolist() for m in ("dice", "iou")} for name, row in rows.items()},
        "left out": left_out,
        "models": {"segmenter": batch.segmenter.fingerprint},
        "seconds": time.time() - began,
    }


def table(folds: Sequence[dict[str, Any]], seed: int = 0) -> str:
    """Dice after the first and the last click and IoU after the last, with the 95 % bootstrap interval over the targets."""
    rng, lines = np.random.default_rng(seed), ["| | Dice@1 | Dice | IoU |", "|---|---|---|---|"]
    for name in dict.fromkeys(name for fold in folds for name in fold["rows"]):
        found = {m: np.concatenate([f["rows"][name][m] for f in folds if name in f["rows"]]) for m in ("dice", "iou")}
        n = len(found["dice"])
        drawn = rng.integers(n, size=(2000, n))
        cells = []
        for values in (found["dice"][:, 0], found["dice"][:, -1], found["iou"][:, -1]):
            low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
            cells.append(f"{values.mean():.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    head = f"{sum(f['targets'] for f in folds)} targets, {folds[0]['models']['segmenter']}, learned from " + (
        f"{min(f['labelled'] for f in folds)} to {max(f['labelled'] for f in folds)} images"
    )
    missing: dict[str, set[str]] = {}
    for name, why in [pair for fold in folds for pair in fold["left out"].items()]:
        missing.setdefault(why, set()).add(name)
    left_out = [f"\nNo row of {', '.join(sorted(names))}: {why}" for why, names in missing.items()]
    return "\n".join([head, "", *lines, *left_out]) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="SPEC")
    parser.add_argument("--categories", nargs="+", help="only these")
    parser.add_argument("--folds", type=positive_int, help="hold out each image once, in so many parts")
    parser.add_argument("--segmenter", default="tiny")
    parser.add_argument("--clip", help="the language prior, where it knows the categories by name")
    parser.add_argument("--agent", choices=BUDGETS, default="quick", help="how long it is trained in each fold")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    add_dataset_kwargs(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    th.set_num_threads(1)
    identity = {k: v for k, v in vars(args).items() if k not in ("out", "device")}
    found = []
    for fold in range(args.folds) if args.folds else [None]:
        path = args.out / f"fold{'' if fold is None else fold}.json"
        found.append(kept(path, identity, partial(run, args, fold)))
        write_text(args.out / "photographs.md", table(found))
    print(table(found))
    films = "" if args.agent == "none" else "films*.png, "
    print(f"Written to {args.out}: photographs.md, {films}and each fold's numbers")


if __name__ == "__main__":
    main()
