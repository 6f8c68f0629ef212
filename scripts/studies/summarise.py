"""Mean and 95 % interval over the seeds of several evaluations of one task.

python scripts/studies/summarise.py runs/seed*/ppo_mask/SamSeg-v0_1/evaluation/results.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats


def over_seeds(values: list[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t over the seeds)."""
    n = len(values)
    spread = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return float(np.mean(values)), spread


def summarise(results: list[dict[str, Any]]) -> str:
    """A Markdown table of all players: Dice after each click and the other metrics after the last, over the seeds."""
    for what, key in (("tasks", "env"), ("frozen models", "models")):
        found = {json.dumps(one.get(key), sort_keys=True) for one in results}
        if len(found) > 1:
            raise SystemExit(f"the evaluations are of different {what}: " + " | ".join(sorted(found)))
    rows = results[0]["rows"]
    turns = len(rows["agent"]["dice"])
    titles = ["", *(f"Dice@{k + 1}" for k in range(turns)), "IoU", "of the oracle's Dice"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name in rows:
        cells = [over_seeds([one["rows"][name]["dice"][k] for one in results]) for k in range(turns)]
        cells.append(over_seeds([one["rows"][name]["iou"][-1] for one in results]))
        cells.append(over_seeds([one["rows"][name]["dice"][-1] / one["rows"]["oracle"]["dice"][-1] for one in results]))
        lines.append("| " + " | ".join([name, *(f"{mean:.3f} ± {half:.3f}" for mean, half in cells)]) + " |")
    for name in [n for n in rows if n not in ("agent", "random", "centre", "oracle")]:
        mean, half = over_seeds([one["rows"]["agent"]["dice"][-1] - one["rows"][name]["dice"][-1] for one in results])
        lines.append(f"\nagent minus {name}, Dice after the last click: {mean:+.3f} ± {half:.3f}")
    seeds = ", ".join(str(one["seed"]) for one in results)
    models = ", ".join(name for name in results[0].get("models", {}).values() if name) or "not said"
    head = (
        f"{len(results)} evaluations, seeds {seeds}, {results[0]['episodes']} episodes each; ± 95 % interval; models {models}"
    )
    return "\n".join([head, *lines])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="results.json of each seed")
    args = parser.parse_args()
    print(summarise([json.loads(path.read_text()) for path in args.results]))


if __name__ == "__main__":
    main()
