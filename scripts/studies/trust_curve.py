"""How far calibrated masks can be trusted: coverage, accepted share, and what reviewing the most doubtful brings.

python scripts/studies/trust_curve.py --policy policy.zip --dataset-kwargs n_images=450 seed=3 min_area=0.02

Every draw calibrates on some of the labelled images and is measured on all others. Writes ``trust.md`` and a curve.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.annotate.calibrating import judge_dataset
from alignsam_sb3.calibration import GOOD, Calibration, Judged, fit_calibration
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.policies.archive import PolicyArchive
from alignsam_sb3.predictor import Predictor

mpl.use("Agg")
from matplotlib import pyplot as plt

Floats = NDArray[np.float64]
SHARE = 0.05


def outcome(calibration: Calibration, judged: Sequence[Judged]) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Scores, lower bounds, the Dice of what is handed out, and whether presence was told right, each (N,)."""
    found = calibration.judge_all([j.annotation for j in judged])
    dices = [j.final(a.present) for j, a in zip(judged, found, strict=True)]
    right = [j.shown == a.present for j, a in zip(judged, found, strict=True)]
    return np.array([a.score for a in found]), np.array([a.low for a in found]), np.array(dices), np.array(right)


def draw(judged: Sequence[Judged], count: int, seed: int) -> tuple[Calibration, list[Judged]]:
    """A calibration on some of the images, and the masks of all others."""
    images = sorted({j.annotation.image_id for j in judged})
    chosen = {images[i] for i in np.random.default_rng(seed).permutation(len(images))[:count]}
    known = [j for j in judged if j.annotation.image_id in chosen]
    return fit_calibration(known, seed=seed), [j for j in judged if j.annotation.image_id not in chosen]


def row(judged: Sequence[Judged], count: int, draws: int) -> str:
    """One line of the table: means over the draws."""
    held, told, taken, wrong, broken, error = [], [], [], [], [], []
    for seed in range(draws):
        calibration, unseen = draw(judged, count, seed)
        scores, lows, dices, right = outcome(calibration, unseen)
        accepted = scores >= calibration.accept_from(SHARE)
        risk = float((dices[accepted] < GOOD).mean()) if accepted.any() else 0.0
        held.append((dices >= lows).mean())
        told.append(right.mean())
        taken.append(accepted.mean())
        wrong.append(risk)
        broken.append(risk > SHARE)
        error.append(np.abs(scores - dices).mean())
    numbers = [np.mean(held), np.std(held), np.mean(told), np.mean(error), np.mean(taken), np.mean(wrong)]
    return f"| {count} | " + " | ".join(f"{n:.3f}" for n in numbers) + f" | {sum(broken)} of {draws} |"


def curve(order: NDArray[np.int64], dices: Floats) -> Floats:
    """Mean Dice once so many masks, in that order, were made right by a person: (N + 1,)."""
    gained = np.concatenate([[0.0], np.cumsum((1 - dices)[order])])
    curve: Floats = (dices.sum() + gained) / len(dices)
    return curve


def draw_curves(judged: Sequence[Judged], count: int, path: Path) -> None:
    """The share that is reviewed against the mean Dice, for orders of review."""
    calibration, unseen = draw(judged, count, 0)
    scores, _, dices, _ = outcome(calibration, unseen)
    reported = np.array([j.annotation.iou_predicted for j in unseen])
    orders = {
        "by the calibrated score": np.argsort(scores, kind="stable"),
        "by SAM's own IoU": np.argsort(reported, kind="stable"),
        "at random": np.random.default_rng(0).permutation(len(dices)),
        "by the truth (no method can be above)": np.argsort(dices, kind="stable"),
    }
    figure, axes = plt.subplots(figsize=(6.4, 4.2), dpi=130)
    for (name, order), style in zip(orders.items(), ("-", "--", ":", "-."), strict=True):
        axes.plot(np.linspace(0, 100, len(dices) + 1), curve(order, dices), style, label=name)
    accepted = (scores >= calibration.accept_from(SHARE)).mean()
    axes.axvline(100 * (1 - accepted), color="grey", linewidth=0.8)
    axes.annotate(
        f"--accept {SHARE}", (100 * (1 - accepted) + 1, dices.mean() + 0.6 * (1 - dices.mean())), color="grey", fontsize=8
    )
    axes.set(xlabel="masks reviewed, %", ylabel="mean Dice of all masks", title=f"calibrated on {count} labelled images")
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Judge the labelled images once, then calibrate on many draws of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--labelled", default="toy:semantic", help="images that no training saw")
    parser.add_argument("--split", default="eval")
    add_dataset_kwargs(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 100, 200], help="labelled images per calibration")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("trust"))
    args = parser.parse_args()
    dataset = load_dataset(args.labelled, args.split, **args.dataset_kwargs)
    judged = judge_dataset(Predictor.load(args.policy), dataset, seen=PolicyArchive(args.policy).seen)
    head = ["images", "coverage of 0.9", "its deviation", "presence right", "error of the score", "accepted"]
    head += [f"of these below {GOOD}", f"draws above {SHARE}"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [row(judged, size, args.draws) for size in args.sizes if size < len(dataset)]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "trust.md").write_text("\n".join(lines) + "\n")
    draw_curves(judged, min(100, len(dataset) // 2), args.out / "trust_curve.png")
    print("\n".join(lines))
    print(f"Written to {args.out}: trust.md, trust_curve.png")


if __name__ == "__main__":
    main()
