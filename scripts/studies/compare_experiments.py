r"""Three experiments on one data set: choose the prompt, refine the mask, or do both by the reward network alone.

python scripts/studies/compare_experiments.py --quick --reward-network runs/reward --out runs/compare     # toy vessels
python scripts/studies/compare_experiments.py --full --reward-network runs/reward --out runs/compare
python scripts/studies/compare_experiments.py --full --dataset polygons:/data/vessels --prompts words.txt \
    --reward-network runs/reward

Experiment one chooses the prompt against ground truth, by exhaustive search (one prompt for all images) and by RL (one for
each). Experiment two refines masks against ground truth. Experiment three does both by the reward network's score. All rows
are judged on images that nothing was trained or searched on; ``--out`` gets ``table.md``, ``results.json`` and
``comparison.png``. A run that was interrupted goes on with the next seed.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from summarise import over_seeds
from tasks import add_task_arguments

from alignsam_sb3 import experiments as ex
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.datasets.images import file_stamp
from alignsam_sb3.files import write_json
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.prompting.bank import PromptBank
from alignsam_sb3.rewards.network.scorer import WEIGHTS

TOY_PROMPTS = (
    *("object", "large object", "small object", "triangle", "star", "ring", "crescent"),
    *("leafy object", "striped object", "green object", "checked object"),
)
"""Words that the embedded CLIP knows; the first is the default. Which of them find vessels was seen on training scenes."""
SIZES = {
    "quick": {"train": 40, "held_out": 40, "select_steps": 2_000, "refine_steps": 2_000, "seeds": 2},
    "full": {"train": 150, "held_out": 150, "select_steps": 10_000, "refine_steps": 8_000, "seeds": 3},
}
N_ENVS = 4
Maps = list[NDArray[np.float32]]


class Experiment:
    """Both environments on both splits, for one seed.

    :param task: what the environments have in common
    :param size: of :data:`SIZES`
    """

    def __init__(self, task: dict[str, Any], held_out: dict[str, Any], size: dict[str, int], seed: int) -> None:
        self.task, self.size, self.seed = task, size, seed
        self.training: PromptBank = ex.make("PromptSelect-v0", {**task, "reward": "dice"}).prompt_bank
        self.select_env = ex.make("PromptSelect-v0", {**held_out, "reward": "dice", "observation": "rich"})
        self.refine_env = ex.make("MaskRefine-v0", held_out)
        self.prompt_bank: PromptBank = self.select_env.prompt_bank
        self.default = np.zeros(len(self.prompt_bank.pairs), np.int64)
        self.refiners: dict[str, SamMaskablePPO] = {}
        self.operations: tuple[tuple[str, ...], ...] = ()

    def searched_prompt(self) -> NDArray[np.int64]:
        """The prompt that is best on average on the training images, for every image."""
        rows = []
        for pair in self.training.pairs:
            sample = self.training.dataset[pair[0]]
            answers = range(len(self.training.prompts))
            rows.append([self.training.dice(pair, sample, self.training.probability(pair, k)) for k in answers])
        return np.full(len(self.default), int(np.mean(rows, axis=0).argmax()))

    def chosen_prompts(self, reward: str) -> NDArray[np.int64]:
        """Trained on a reward: the agent's prompt for each image."""
        task = {**self.task, "reward": reward, "observation": "rich"}
        model, _ = ex.train_selector(task, self.size["select_steps"], N_ENVS, self.seed)
        return ex.choose(model, self.select_env)

    def refined(self, reward: str, prompts: NDArray[np.int64]) -> Maps:
        """Trained on a reward: the agent's refinements of the answers to the given prompts. One agent for each reward."""
        if reward not in self.refiners:
            task = {**self.task, "reward": reward}
            self.refiners[reward], _ = ex.train_refiner(task, self.size["refine_steps"], N_ENVS, self.seed)
        return ex.refine(self.refiners[reward], self.refine_env, prompts)

    def searched_operations(self, count: int) -> Maps:
        """The best operation, or the best two, of the training images."""
        if not self.operations:
            known = ex.answers_to(self.training, np.zeros(len(self.training.pairs), np.int64))
            self.operations = ex.search_operations(self.training, known)
        return [ex.apply(p, self.operations[count - 1]) for p in ex.answers_to(self.prompt_bank, self.default)]

    def run(self) -> dict[str, dict[str, float]]:
        """All rows of one seed: mean Dice, recall, precision and IoU, and its seconds beyond what rows before did."""
        rows: dict[str, dict[str, float]] = {}

        def add(name: str, make: Callable[[], Maps]) -> None:
            began = time.time()
            maps = make()
            rows[name] = {m: float(v.mean()) for m, v in ex.judge(self.prompt_bank, maps).items()}
            rows[name]["seconds"] = time.time() - began
            print(f"seed {self.seed}, {name}: Dice {rows[name]['dice']:.3f} ({rows[name]['seconds']:.0f} s)", flush=True)

        prompts: dict[str, NDArray[np.int64]] = {}

        def chosen(reward: str) -> Maps:
            prompts[reward] = self.chosen_prompts(reward)
            return ex.answers_to(self.prompt_bank, prompts[reward])

        scores, dice = ex.look_up_all(self.select_env)
        rng = np.random.default_rng(self.seed)
        any_prompt = rng.integers(len(self.prompt_bank.prompts), size=len(self.default))
        add("untouched: the default prompt", lambda: ex.answers_to(self.prompt_bank, self.default))
        add("a random prompt", lambda: ex.answers_to(self.prompt_bank, any_prompt))
        add("1: best prompt by exhaustive search", lambda: ex.answers_to(self.prompt_bank, self.searched_prompt()))
        add("1: prompt by RL on ground truth", lambda: chosen("dice"))
        add("2: best operation by search", lambda: self.searched_operations(1))
        add("2: best two operations by grid search", lambda: self.searched_operations(2))
        add("2: refinement by RL on ground truth", lambda: self.refined("dice_gain", self.default))
        add("3: prompt by RL on the reward network", lambda: chosen("network"))
        add("3: refinement by RL on the reward network", lambda: self.refined("network", self.default))
        add("1 + 2: both by RL on ground truth", lambda: self.refined("dice_gain", prompts["dice"]))
        add("3 + 3: both by RL on the reward network", lambda: self.refined("network", prompts["network"]))
        add("no RL: the highest score of all prompts", lambda: ex.answers_to(self.prompt_bank, scores.argmax(1)))
        best = scores.argmax(1)
        add("no RL: and greedy by score", lambda: ex.greedy_refinement(self.refine_env, best, ex.network_score))
        add("oracle prompt (sees the truth)", lambda: ex.answers_to(self.prompt_bank, dice.argmax(1)))
        greedy = dice.argmax(1)
        start = self.default
        add("oracle operations (see the truth)", lambda: ex.greedy_refinement(self.refine_env, start, ex.true_dice))
        add("oracle prompt and operations", lambda: ex.greedy_refinement(self.refine_env, greedy, ex.true_dice))
        return rows


def table(seeds: list[dict[str, dict[str, float]]]) -> str:
    """Means over the seeds with 95 % intervals."""
    columns = (*ex.JUDGED, "seconds")
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name in seeds[0]:
        cells = []
        for column in columns:
            mean, half = over_seeds([rows[name][column] for rows in seeds])
            cells.append(f"{mean:.0f}" if column == "seconds" else f"{mean:.3f} ± {half:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(seeds: list[dict[str, dict[str, float]]], path: Path) -> None:
    """Dice of every row with its interval."""
    from matplotlib.figure import Figure

    names = list(seeds[0])
    told = [over_seeds([rows[name]["dice"] for rows in seeds]) for name in names]
    figure = Figure(figsize=(8, 0.35 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    colours = ["tab:grey" if not name[0].isdigit() else f"C{int(name[0]) - 1}" for name in names]
    axes.barh(names, [t[0] for t in told], xerr=[np.nan_to_num(t[1]) for t in told], color=colours)
    axes.invert_yaxis()
    axes.set(xlabel=f"Dice on images never trained on, {len(seeds)} seeds, 95 % intervals", xlim=(0, 1))
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help=f"{SIZES['quick']} (the default)")
    length.add_argument("--full", action="store_true", help=f"{SIZES['full']}")
    add_task_arguments(parser)
    parser.add_argument("--reward-network", required=True, help="`python -m alignsam_sb3.rewards.network fit` wrote it")
    parser.add_argument("--seeds", type=int, help="how many, from 0 on")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    return parser.parse_args()


def main() -> None:
    """Command line."""
    args = parse()
    size = dict(SIZES["full" if args.full else "quick"])
    size["seeds"] = args.seeds or size["seeds"]
    toy = args.dataset.startswith("toy:")
    shared = {
        key: getattr(args, key)
        for key in ("dataset", "text_segmenter", "segmenter", "clip", "reward_network", "trust_remote_code")
    }
    shared["prompts"] = args.prompts or (TOY_PROMPTS if toy else None)
    tasks = []
    stamps = [file_stamp(p) for p in (Path(args.reward_network) / WEIGHTS, Path(args.prompts or "")) if p.is_file()]
    for split, count in (("train", "train"), ("eval", "held_out")):
        data = ex.limited(args.dataset, args.dataset_kwargs, split, size[count])
        stamps.append(load_dataset(args.dataset, split, **data).fingerprint)
        tasks.append({**shared, "dataset_kwargs": data, "split": split})
    (args.out / "seeds").mkdir(parents=True, exist_ok=True)
    seeds = []
    for seed in range(size["seeds"]):
        path = args.out / "seeds" / f"{seed}.json"
        kept = {k: v for k, v in size.items() if k != "seeds"}
        described = {"tasks": json.loads(json.dumps(tasks)), "size": kept, "stamps": stamps}
        if path.is_file() and json.loads(path.read_text())["of"] == described:
            print(f"seed {seed}: done before")
        else:
            write_json(path, {"of": described, "rows": Experiment(*tasks, size, seed).run()})
        seeds.append(json.loads(path.read_text())["rows"])
    (args.out / "table.md").write_text(table(seeds) + "\n")
    write_json(args.out / "results.json", {"tasks": tasks, "size": size, "seeds": seeds})
    plot(seeds, args.out / "comparison.png")
    print(table(seeds))
    print(f"wrote {args.out}: table.md, results.json, comparison.png")


if __name__ == "__main__":
    main()
