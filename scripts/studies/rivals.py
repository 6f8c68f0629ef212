r"""Learning curves: what an agent and its rivals make of the same 1 to 500 labelled images and the same frozen segmenter.

python scripts/studies/rivals.py --tasks toy:semantic toy:saliency --labelled 5 20 50 --seeds 0 1 --agent quick
python scripts/studies/rivals.py --tasks mask_folder:/data/SBU --segmenter vit_b --agent full --out runs/rivals

All rows are judged on the same unseen images. A run that was stopped goes on where it stopped. Writes ``rivals.md`` and
``rivals.png``; ``--agent none`` trains nothing, and the map is then the language prior's.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from kept import kept

from alignsam_sb3.ablation import TASKS
from alignsam_sb3.callbacks import RecalibrationCallback, WarmStartCallback
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.evaluation import (
    CHUNK,
    Player,
    Row,
    agent_player,
    all_rows,
    centre_player,
    clip_points_player,
    draw_episodes,
    oracle_player,
    random_player,
    rivals_of,
)
from alignsam_sb3.evaluation.rivals import RIVALS
from alignsam_sb3.files import write_text
from alignsam_sb3.policies import SamMaskablePPO, attach_recalibration
from alignsam_sb3.task import Task

BUDGETS = {
    "none": None,
    "quick": {"teach": 1600, "updates": 4, "imitate": 800, "ppo": 512},
    "full": {"teach": 6000, "updates": 8, "imitate": 2000, "ppo": 2048},
}
"""Environment steps of the recalibration module, of imitation and of PPO."""
N_ENVS = 32
STYLES = {"agent": "-", "oracle": ":", "random": ":", "centre": ":", "CLIP points": ":"}


def tasks_of(spec: str, labelled: int, seed: int, args: argparse.Namespace) -> tuple[Task, Task, str]:
    """The task on so many labelled images, the same on unseen ones, and the branch of its policy.

    :raises ValueError: there are not so many images, or they do not show all categories
    """
    own = TASKS.get(spec.removeprefix("toy:"), {"branch": "explicit" if args.clip else "implicit", "env": {}})
    options = {"clip": args.clip or "tiny" if own["branch"] == "explicit" else None, **own["env"]}
    given = {**options.pop("dataset_kwargs", {}), **args.dataset_kwargs}
    chosen = {"n_train": labelled, "seed": seed}
    if spec.startswith("toy:"):
        chosen = {"n_images": labelled, "seed": drawn_seed(spec, labelled, seed, given)}
    fixed = {"dataset": spec, "segmenter": args.segmenter, "patches": 16, "max_steps": args.clicks, "device": args.device}
    srm = {"labels": "srm", "srm": True} if args.agent != "none" else {}
    train = Task.from_kwargs(**fixed, **options, **srm, dataset_kwargs={**given, **chosen})
    load_dataset(spec, "train", **train.dataset_kwargs)  # says what is wrong before anything is trained
    held_out = given if spec.startswith("toy:") else {**given, "seed": seed}
    return train, Task.from_kwargs(**fixed, **options, **srm, dataset_kwargs=held_out, split="eval"), own["branch"]


def drawn_seed(spec: str, labelled: int, seed: int, given: dict[str, Any]) -> int:
    """Of fifty draws of so many toy scenes, the first that shows all categories."""
    for one in range(1 + 100 * seed, 51 + 100 * seed):  # 0 is what the segmenter was fitted on
        try:
            _ = load_dataset(spec, "train", n_images=labelled, seed=one, **given).images_by_category
        except ValueError as error:
            said = error
        else:
            return one
    raise said


def train_agent(task: Task, branch: str, budget: dict[str, int], seed: int) -> SamMaskablePPO:
    """An agent with a recalibration module, taught on the labelled images alone."""
    venv = SamSegVecEnv.of(task, N_ENVS)
    venv.seed(seed)
    fitted: dict[str, Any] = {"n_steps": 16, "batch_size": 256, "gamma": 0.9, "learning_rate": 3e-4, "ent_coef": 0.005}
    model = SamMaskablePPO(f"{branch.capitalize()}MaskablePolicy", venv, seed=seed, n_epochs=4, device=task.device, **fitted)
    lessons = [RecalibrationCallback(budget["teach"], budget["updates"]), WarmStartCallback(budget["imitate"])]
    return model.learn(budget["ppo"], callback=lessons)


def players_of(
    venv: SamSegVecEnv, task: Task, branch: str, agent: str, seed: int, seers: dict[str, Player]
) -> tuple[dict[str, Player], SamMaskablePPO | None]:
    """Who plays unseen images, and the agent among them, if there is to be one.

    :param venv: of the unseen images
    :param task: of the labelled ones
    :param agent: of :data:`BUDGETS`
    :param seers: players who see the truth
    """
    players: dict[str, Player] = {"random": random_player(seed), **seers}
    if venv.batch.task.clip is not None:
        players["CLIP points"] = clip_points_player
    budget = BUDGETS[agent]
    if budget is None:
        return players, None
    model = train_agent(task, branch, budget, seed)
    attach_recalibration(model, venv)
    return players | {"agent": agent_player(model)}, model


def judged(
    players: dict[str, Player], batch: ClickBatch, task: Task, episodes: Sequence[tuple[int, int]]
) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows of players and of rivals that learn from the labelled images, and why rivals are left out."""
    fitted = rivals_of(RIVALS, batch.task, task, batch, episodes)
    return all_rows(players, "agent", fitted.rivals, "agent" in players, batch, episodes), dict(fitted.left_out)


def run(task: Task, unseen: Task, branch: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """All rows of one draw of labelled images: Dice and IoU after each click."""
    began = time.time()
    venv = SamSegVecEnv.of(unseen, min(CHUNK, args.episodes))
    seers = {"centre": centre_player, "oracle": oracle_player}
    players, _ = players_of(venv, task, branch, args.agent, seed, seers)
    trained = time.time()
    episodes = draw_episodes(venv.batch.shared.images_by_category, args.episodes, np.random.default_rng(seed))
    rows, left_out = judged(players, venv.batch, task, episodes)
    numbers = {name: {m: row.mean(m) for m in ("dice", "iou")} for name, row in rows.items()}
    seconds = {"agent": trained - began, "the rest": time.time() - trained}
    return {"rows": numbers, "left out": left_out, "images": task.dataset_kwargs, "seconds": seconds}


def one(spec: str, labelled: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The same, kept in a file; what an earlier run has finished is read."""
    identity = {name: getattr(args, name) for name in ("agent", "episodes", "clicks", "segmenter", "clip", "dataset_kwargs")}
    identity |= {"task": spec, "labelled": labelled, "seed": seed}
    path = args.out / f"{''.join(c if c.isalnum() else '-' for c in spec)}-{labelled}-{seed}.json"

    def make() -> dict[str, Any]:
        try:
            tasks = tasks_of(spec, labelled, seed, args)
        except ValueError as error:
            return {"rows": {}, "left out": {"all": str(error)}}
        return run(*tasks, seed, args)

    return kept(path, identity, make)


def table(found: Sequence[dict[str, Any]], labelled: Sequence[int], metric: str = "dice") -> str:
    """Rows against numbers of labelled images: the mean over the seeds after the last click, the least and the most."""
    lines = ["| | " + " | ".join(map(str, labelled)) + " |", "|---|" + "---|" * len(labelled)]
    for name in dict.fromkeys(name for job in found for name in job["rows"]):
        cells = []
        for count in labelled:
            values = values_of(found, name, count, metric)
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}" if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def values_of(found: Sequence[dict[str, Any]], name: str, count: int, metric: str = "dice") -> list[float]:
    """What a row reached in each seed."""
    jobs = [job for job in found if job["identity"]["labelled"] == count and name in job["rows"]]
    return [job["rows"][name][metric][-1] for job in jobs]


def report(found: dict[str, list[dict[str, Any]]], labelled: Sequence[int]) -> str:
    """A table for each task, and why some rows are not in it."""
    parts = [f"### {spec}\n\n{table(jobs, labelled)}" for spec, jobs in found.items() if jobs]
    missing: dict[tuple[str, str], tuple[set[str], set[int]]] = {}
    for spec, jobs in found.items():
        for job in jobs:
            for name, why in job["left out"].items():
                names, counts = missing.setdefault((spec, why), (set(), set()))
                names.add(name)
                counts.add(job["identity"]["labelled"])
    for (spec, why), (names, counts) in missing.items():
        of = ", ".join(map(str, sorted(counts)))
        parts.append(f"No row of {', '.join(sorted(names))} ({spec}, {of} labelled images): {why}")
    return "\n\n".join(parts) + "\n"


def draw(found: dict[str, list[dict[str, Any]]], labelled: Sequence[int], path: Path) -> None:
    """Dice over the number of labelled images, each task a panel, each row a line; the seeds' range shaded."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for jobs in found.values() for job in jobs for name in job["rows"]))
    names = [name for name in names if not name.startswith("agent,")]
    figure = Figure(figsize=(4.4 * len(found) + 2, 4), layout="constrained")
    for axes, (task, jobs) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for k, name in enumerate(names):
            points = [(count, values) for count in labelled if (values := values_of(jobs, name, count))]
            colour = "black" if name == "agent" else colormaps["tab20"](k / 20)
            counts = [count for count, _ in points]
            style, width = STYLES.get(name, "--"), 2 if name == "agent" else 1.2
            axes.plot(counts, [np.mean(v) for _, v in points], style, color=colour, label=name, linewidth=width, marker=".")
            axes.fill_between(counts, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.12)
        axes.set(title=task, xlabel="labelled images", ylim=(0, 1), xscale="log")
        axes.set_xticks(labelled, [str(count) for count in labelled])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("Dice after the last click, unseen images")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=[f"toy:{task}" for task in TASKS], metavar="SPEC")
    parser.add_argument("--labelled", type=int, nargs="+", default=[1, 5, 20, 50, 500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--agent", choices=BUDGETS, default="full", help="how long one is trained for each draw of images")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--segmenter", default="tiny")
    parser.add_argument("--clip", help="the language prior, for data sets whose categories it knows by name")
    parser.add_argument("--device", default="auto")
    add_dataset_kwargs(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    th.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in args.tasks}
    for seed in args.seeds:
        for task in args.tasks:
            for count in args.labelled:
                found[task].append(one(task, count, seed, args))
                write_text(args.out / "rivals.md", report(found, args.labelled))
    draw(found, args.labelled, args.out / "rivals.png")
    print((args.out / "rivals.md").read_text())
    print(f"Written to {args.out}: rivals.md, rivals.png, and each draw's numbers")


if __name__ == "__main__":
    main()
