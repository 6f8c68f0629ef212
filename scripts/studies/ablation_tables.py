"""What the ablations' seeds say together: tables in the layout of AlignSAM's, comparisons seed by seed, curves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from summarise import over_seeds

from alignsam_sb3.ablation import TASKS, VARIANTS, bootstrap

Results = dict[str, list[dict[str, Any]]]
PAPER: dict[str, dict[str, tuple[float, ...]]] = {
    "full": {
        "semantic": (62.09,),
        "shadow": (30.78, 34.62),
        "blur": (68.47, 76.89),
        "glass": (45.44, 57.28),
        "saliency": (78.21, 0.082),
    },
    "random positions": {
        "semantic": (54.06,),
        "shadow": (25.62, 37.57),
        "blur": (59.75, 70.98),
        "glass": (33.41, 46.91),
        "saliency": (74.19, 0.086),
    },
    "without SRM": {
        "semantic": (27.73,),
        "shadow": (21.29, 42.72),
        "blur": (66.89, 73.15),
        "glass": (31.92, 36.76),
        "saliency": (30.52, 0.587),
    },
    "one step": {"shadow": (18.65, 42.91), "blur": (46.92, 67.02), "glass": (35.86, 47.95), "saliency": (68.59, 0.134)},
    "branches swapped": {"semantic": (46.03,), "shadow": (19.40,), "blur": (47.98,), "glass": (25.72,), "saliency": (69.31,)},
}
"""AlignSAM, Tables 2, 4 and 5: real data sets and a SAM ViT-L, so that only the order of the rows compares with ours."""
NAMES = {"iou": "mIoU", "ber": "BER", "f_beta": "Fβ", "e_measure": "E", "mae": "MAE"}
ROWS = (
    *("full", "agent labels", "paper's reward", "random positions", "imitation alone", "without SRM", "one step"),
    *("branches swapped", "oracle"),
)
AGAINST = ROWS[1:-1]
STEPS = (1, 5, 10, 15, 20)


def load(out: Path) -> Results:
    """The finished seeds of each task."""
    found: Results = {task: [] for task in TASKS}
    for task, seeds in found.items():
        for path in sorted(out.glob(f"{task}-*.json")):
            stored = json.loads(path.read_text())
            if set(VARIANTS) <= set(stored["rows"]):
                seeds.append(stored)
    budgets = {json.dumps(seed["identity"].get("budget")) for seeds in found.values() for seed in seeds}
    if len(budgets) > 1:
        raise SystemExit(f"{out} holds seeds of different budgets, which do not compare: {' and '.join(sorted(budgets))}")
    return {task: seeds for task, seeds in found.items() if seeds}


def value(seed: dict[str, Any], row: str, metric: str) -> float:
    """What a row of a seed reached after the last click; ``one step`` is the full agent's first."""
    if row == "one step":
        return float(seed["rows"]["full"][metric][0])
    return float(seed["rows"][row][metric][-1])


def main_table(results: Results) -> str:
    """Rows of the paper's tables, the paper's own numbers in brackets."""
    heads = [f"{task} {NAMES[m]}" for task in results for m in TASKS[task]["metrics"]]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row in ROWS:
        cells = []
        for task, seeds in results.items():
            for place, metric in enumerate(TASKS[task]["metrics"]):
                mean, low, high = bootstrap([[value(s, row, metric) for s in seeds]])
                scale = 1 if metric == "mae" else 100
                digits = 3 if metric == "mae" else 1
                cell = f"{mean * scale:.{digits}f} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
                theirs = PAPER.get(row, {}).get(task, ())
                cells.append(cell + (f" ({theirs[place]:g})" if place < len(theirs) else ""))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(seeds: list[dict[str, Any]], row: str) -> list[float]:
    """Dice of the full agent minus that of another row, seed by seed."""
    return [value(s, "full", "dice") - value(s, row, "dice") for s in seeds]


def comparisons(results: Results) -> str:
    """Full minus each other row in Dice, with Student's interval over the seeds; bold where it leaves zero out."""
    lines = ["| full minus | " + " | ".join(results) + " | all tasks (IQM) |", "|---|" + "---|" * (len(results) + 1)]
    for row in AGAINST:
        cells = []
        for seeds in results.values():
            mean, half = over_seeds(differences(seeds, row))
            text = f"{mean:+.3f} ± {half:.3f}" if len(seeds) > 1 else f"{mean:+.3f}"
            cells.append(f"**{text}**" if abs(mean) > half else text)
        mean, low, high = bootstrap([differences(seeds, row) for seeds in results.values()])
        lines.append(f"| {row} | " + " | ".join([*cells, f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"]) + " |")
    return "\n".join(lines)


def steps_table(results: Results) -> str:
    """Dice of the full agent after so many clicks, in episodes of 20, and the oracle's."""
    lines = ["| clicks | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    longest = min(len(seeds[0]["curve"]["full"]["dice"]) for seeds in results.values())
    for row in ("full", "random positions", "oracle"):
        for t in (t for t in STEPS if t <= longest):
            cells = [bootstrap([[s["curve"][row]["dice"][t - 1] for s in seeds]])[0] for seeds in results.values()]
            lines.append(f"| {row}, {t} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    return "\n".join(lines)


def oracle_table(results: Results) -> str:
    """Share of the oracle's Dice, and how often an episode ends below its own first click."""
    lines = ["| | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for row in ("full", "agent labels"):
        shares = [
            bootstrap([[value(s, row, "dice") / value(s, "oracle", "dice") for s in seeds]]) for seeds in results.values()
        ]
        cells = " | ".join(f"{m:.3f} [{low:.3f}, {high:.3f}]" for m, low, high in shares)
        lines.append(f"| {row}, of the oracle's Dice | {cells} |")
        gains = [np.mean([value(s, row, "dice") - s["rows"][row]["dice"][0] for s in seeds]) for seeds in results.values()]
        lines.append(f"| {row}, Dice gained since its first click | " + " | ".join(f"{gain:+.3f}" for gain in gains) + " |")
        fell = [np.mean([value(s, row, "below own first click") for s in seeds]) for seeds in results.values()]
        lines.append(f"| {row}, episodes that end below their first click | " + " | ".join(f"{x:.1%}" for x in fell) + " |")
    return "\n".join(lines)


def reached(training: dict[str, Any], share: float = 0.9) -> int:
    """Environment steps of PPO until training episodes reach a share of their final Dice."""
    dice = np.array(training["training dice"])
    return int(dice[np.argmax(dice[:, 1] >= share * dice[-1, 1]), 0])


def cost_table(results: Results) -> str:
    """What a warm start saves: PPO with and without imitation before it, both with the same taught module.

    Seconds without those in which the module is taught; "at first" are the first training episodes of PPO.
    """
    lines = [
        "| task | warm start | seconds | of PPO | Dice at first | PPO steps to 90 % of the final | Dice, unseen |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, seeds in results.items():
        for row, label in (("full", "with"), ("without warm start", "without")):
            spent = [seed["training"][row] for seed in seeds]
            cells = [f"{np.mean([one[name] for one in spent]):.0f}" for name in ("seconds", "seconds of PPO")]
            cells.append(f"{np.mean([one['training dice'][0][1] for one in spent]):.3f}")
            cells.append(f"{np.mean([reached(one) for one in spent]):.0f}")
            cells.append(f"{np.mean([value(seed, row, 'dice') for seed in seeds]):.3f}")
            lines.append(f"| {task} | {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot_curves(results: Results, path: Path) -> None:
    """Dice over the clicks, each task a panel: full agent, random positions, oracle; the seeds' range shaded."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(results), 3), layout="constrained")
    for axes, (task, seeds) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True):
        for row, colour in (("oracle", "tab:green"), ("full", "tab:blue"), ("random positions", "tab:orange")):
            curves = np.array([seed["curve"][row]["dice"] for seed in seeds])
            clicks = np.arange(1, curves.shape[1] + 1)
            axes.plot(clicks, curves.mean(0), color=colour, label=row)
            axes.fill_between(clicks, curves.min(0), curves.max(0), color=colour, alpha=0.2)
        axes.set(title=f"{task} ({len(seeds)} seeds)", xlabel="clicks", ylim=(0, 1))
    figure.axes[0].set_ylabel("Dice, unseen scenes")
    figure.axes[-1].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def report(out: Path) -> str:
    """All tables as Markdown, written to ``report.md`` beside ``curves.png``."""
    results = load(out)
    if not results:
        raise SystemExit(f"no seed of any task is finished in {out}: run the ablation without --report first")
    seeds = ", ".join(f"{task} {len(found)}" for task, found in results.items())
    parts = {
        "After the last click, per image (interquartile mean over the seeds, 95 % bootstrap interval)": main_table(results),
        "Dice, seed by seed (mean, Student's 95 % interval)": comparisons(results),
        "Clicks (Dice, interquartile mean over the seeds)": steps_table(results),
        "Beside the oracle (shares as in the first table, the rest means)": oracle_table(results),
        "Training cost": cost_table(results),
    }
    text = f"Finished seeds: {seeds}.\n\n" + "\n\n".join(f"### {title}\n\n{body}" for title, body in parts.items()) + "\n"
    (out / "report.md").write_text(text)
    plot_curves(results, out / "curves.png")
    return text
