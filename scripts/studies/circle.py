"""Does it pay to correct what the policy doubts? The circle of annotating, correcting and learning, simulated.

python scripts/studies/circle.py --out circle

A policy learns from 20 labelled scenes and annotates a folder. Somebody who knows the truth corrects 20 masks: the
first of the queue, or 20 drawn at random. The policy learns from old and corrected scenes together (``alignsam train
--from``), and so on. Its Dice is measured on scenes that neither it nor anybody else has seen. Rounds that are done
are kept in ``--out``: the same command goes on. Writes ``circle.md`` and ``circle.png``.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from alignsam_sb3 import cli
from alignsam_sb3.annotate import Run, annotate_folder
from alignsam_sb3.annotate.calibrating import judge_dataset
from alignsam_sb3.annotate.corrections import FOLDER, write_corrections
from alignsam_sb3.annotate.decisions import Decisions, Key
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.encodings import Mask
from alignsam_sb3.policies.archive import PolicyArchive
from alignsam_sb3.predictor import Predictor

mpl.use("Agg")
from matplotlib import pyplot as plt

ORDERS = ("queue", "random")
Record = dict[str, Any]


class Circle:
    """One seed: its scenes and policies.

    :param args: of the command line
    :param seed: of scenes, trainings and random orders
    """

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed, self.folder = args, seed, args.out / f"seed{seed}"
        self.scenes = ToyScenes(args.task, "train", args.labelled + args.photos, seed)
        self.unseen = ToyScenes(args.task, "eval", args.unseen, seed)

    def write_photos(self) -> Path:
        """The folder that is to be annotated: scenes that come after the labelled ones."""
        photos = self.folder / "photos"
        photos.mkdir(parents=True, exist_ok=True)
        for k in range(self.args.labelled, len(self.scenes)):
            Image.fromarray(self.scenes[k].image).save(photos / f"{k:06d}.png")
        return photos

    def train(self, folder: Path, steps: int, *words: object) -> None:
        """Run ``alignsam train``; its policy is then ``folder/policy.zip``.

        :param steps: of its warm start
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        sizes = ["-n", self.args.n_timesteps, "--warm-start", steps]
        where = ["--env", self.args.env, "--seed", self.seed, "--eval-freq", -1, "--log-folder", folder]
        with (folder / "log.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            failed = cli.main(["train", *map(str, [*where, *sizes, *words])])
        if failed:
            raise RuntimeError(f"training failed: {folder / 'log.txt'} says why")
        (trained,) = folder.glob(f"*/*/{self.args.env}.zip")
        shutil.copyfile(trained, folder / "policy.zip")

    def start(self) -> float:
        """Learn from the labelled scenes; the Dice on unseen ones."""
        folder, labelled = self.folder / "start", ["--dataset", f"toy:{self.args.task}", "--dataset-kwargs"]
        labelled += [f"n_images={self.args.labelled}", f"seed={self.seed}"]
        self.train(folder, self.args.steps_first, *labelled)
        return self.measure(folder)

    def go_round(self, order: str, k: int, known: set[Key]) -> tuple[Record, list[Key]]:
        """Annotate, correct, learn; what came of it, and which masks were corrected.

        :param known: masks that were corrected in earlier rounds
        """
        before = self.folder / "start" if k == 1 else self.folder / f"{order}{k - 1}"
        policy, out = before / "policy.zip", self.folder / f"{order}{k}-run"
        annotate_folder(Predictor.load(policy), self.folder / "photos", out, progress=False)
        run = Run.open(out)
        chosen = [key for key in self.ordered(run, order, k) if key not in known][: self.args.corrections]
        dice = self.correct(run, chosen)
        after = self.folder / f"{order}{k}"
        self.train(after, self.args.steps, "--dataset", f"coco:{out / FOLDER}", "--from", policy)
        return {"dice": self.measure(after), "corrected": dice}, chosen

    def ordered(self, run: Run, order: str, k: int) -> Iterator[Key]:
        """All masks of a run, as the queue has them or at random."""
        with (run.out / "queue.csv").open(newline="") as file:
            keys = [(row["image"], row["category"]) for row in csv.DictReader(file)]
        places = range(len(keys))
        rng = np.random.default_rng([self.seed, k])
        return (keys[i] for i in (places if order == "queue" else rng.permutation(len(keys))))

    def correct(self, run: Run, keys: list[Key]) -> float:
        """Say what the truth is, as the review page does; the mean Dice of what stood there before."""
        decisions, dices = Decisions(run), []
        for image, category in keys:
            found = next(a for a in run.found(image).annotations if a.category == category)
            decisions.decide(found, "correct", mask=self.truth(found))
            dices.append(self.dice(found))
        write_corrections(run)
        return float(np.mean(dices))

    def truth(self, found: Annotation) -> Mask:
        """What a mask of the folder should be."""
        return self.scenes[int(Path(found.image_id).stem)].target(self.scenes.categories.index(found.category))

    def dice(self, found: Annotation) -> float:
        """Of a mask of the folder; 1 where both are empty."""
        total = found.mask.sum() + self.truth(found).sum()
        return float(2 * (found.mask & self.truth(found)).sum() / total) if total else 1.0

    def in_folder(self, order: str, k: int, known: set[Key]) -> float:
        """Mean Dice of all masks of a round's run, those that people have corrected so far counted as right."""
        run = Run.open(self.folder / f"{order}{k}-run")
        found = [a for each in run for a in each.annotations]
        return float(np.mean([1.0 if (a.image_id, a.category) in known else self.dice(a) for a in found]))

    def measure(self, folder: Path) -> float:
        """Mean Dice of a policy's masks on unseen scenes, of the categories that are there."""
        policy = folder / "policy.zip"
        judged = judge_dataset(Predictor.load(policy), self.unseen, False, PolicyArchive(policy).seen)
        return float(np.mean([j.dice for j in judged if j.shown]))


def go_on(args: argparse.Namespace) -> list[Record]:
    """All rounds that are not done yet; each is kept when it ends."""
    kept = args.out / "rounds.jsonl"
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []

    def keep(*records: Record) -> None:
        done.extend(records)
        with kept.open("a") as file:
            file.write("".join(json.dumps(r) + "\n" for r in records))
        for r in records:
            print(f"seed {r['seed']}, {r['order']}, round {r['round']}: Dice {r['dice']:.3f}", flush=True)

    for seed in range(args.seeds):
        circle = Circle(args, seed)
        mine = [r for r in done if r["seed"] == seed]
        if not mine:
            circle.write_photos()
            dice = circle.start()
            keep(*({"seed": seed, "order": order, "round": 0, "dice": dice, "keys": []} for order in ORDERS))
        for k in range(1, args.rounds + 1):
            for order in ORDERS:
                mine = [r for r in done if (r["seed"], r["order"]) == (seed, order)]
                if k < len(mine):
                    continue
                known = {(image, category) for r in mine for image, category in r["keys"]}
                found, chosen = circle.go_round(order, k, known)
                keep({"seed": seed, "order": order, "round": k, **found, "keys": chosen})
    return done


def table(done: list[Record], args: argparse.Namespace) -> str:
    """Means over seeds after each round, with the range of the Dice on unseen scenes."""
    told = ("Dice, unseen", "of what was corrected", "of the folder, with corrections")
    lines = ["| corrections | " + " | ".join(f"{order}: {name}" for order in ORDERS for name in told) + " |"]
    lines.append("|" + "---|" * (1 + len(told) * len(ORDERS)))
    for k in range(args.rounds + 1):
        cells = []
        for order in ORDERS:
            mine = [r for r in done if (r["order"], r["round"]) == (order, k)]
            dices = [r["dice"] for r in mine]
            cells.append(f"{np.mean(dices):.3f} ({min(dices):.3f} to {max(dices):.3f})")
            cells.append(f"{np.mean([r['corrected'] for r in mine]):.3f}" if k else "")
            folders = [Circle(args, r["seed"]).in_folder(order, k, keys_until(done, r)) for r in mine if k]
            cells.append(f"{np.mean(folders):.3f}" if k else "")
        lines.append(f"| {k * args.corrections} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def keys_until(done: list[Record], record: Record) -> set[Key]:
    """What was corrected up to a round of a seed and an order, that round included."""
    mine = [r for r in done if (r["seed"], r["order"]) == (record["seed"], record["order"])]
    return {(image, category) for r in mine if r["round"] <= record["round"] for image, category in r["keys"]}


def draw(done: list[Record], args: argparse.Namespace, path: Path) -> None:
    """Dice on unseen scenes against the number of corrections: thick the mean, thin each seed."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=130)
    for order, colour in zip(ORDERS, ("tab:blue", "tab:orange"), strict=True):
        seeds = [[r["dice"] for r in done if (r["seed"], r["order"]) == (s, order)] for s in range(args.seeds)]
        places = np.arange(args.rounds + 1) * args.corrections
        for dices in seeds:
            axes.plot(places, dices, color=colour, linewidth=0.8, alpha=0.5)
        name = "first of the queue" if order == "queue" else "at random"
        axes.plot(places, np.mean(seeds, 0), color=colour, linewidth=2.2, marker="o", label=name)
    title = f"{args.labelled} labelled, then corrections"
    axes.set(xlabel="corrected masks", ylabel="mean Dice, unseen scenes", title=title)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="SamSegImplicit-v0")
    parser.add_argument("--task", default="saliency", help="of toy scenes")
    parser.add_argument("--labelled", type=int, default=20, help="scenes to begin with")
    parser.add_argument("--photos", type=int, default=200, help="scenes in the folder that is annotated")
    parser.add_argument("--unseen", type=int, default=200, help="scenes to measure on")
    parser.add_argument("--corrections", type=int, default=20, help="masks in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps-first", type=int, default=6000, help="of imitation, in the first training")
    parser.add_argument("--steps", type=int, default=1600, help="of imitation, in each later training")
    parser.add_argument("-n", "--n-timesteps", type=int, default=512, help="of PPO, in each training")
    parser.add_argument("--out", type=Path, default=Path("circle"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    done = go_on(args)
    (args.out / "circle.md").write_text(table(done, args) + "\n")
    draw(done, args, args.out / "circle.png")
    print(table(done, args))
    print(f"Written to {args.out}: circle.md, circle.png")


if __name__ == "__main__":
    main()
