r"""Train an agent that chooses prompts for a text segmenter by the reward network's score; compare it with simple choices.

python scripts/studies/prompt_select.py --quick --dataset toy:vessels --reward-network runs/reward --out runs/prompts
python scripts/studies/prompt_select.py --full --dataset polygons:/data/vessels --reward-network runs/reward --segmenter vit_b
python scripts/studies/prompt_select.py --full --dataset polygons:/data/v --reward dice --text-segmenter sa2va \
    --trust-remote-code

``--out`` gets ``final_model.zip``, ``checkpoints/*_1000_steps.zip``, ``logs/PPO_1`` and ``training_info.json``. The text
segmenter is asked once for each image and prompt; that can be interrupted, and goes on where it stopped.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from alignsam_sb3.envs.prompt_select import PromptSelectEnv
from tasks import add_task_arguments

from alignsam_sb3.experiments import choose, limited, look_up_all, make, train_selector
from alignsam_sb3.files import write_json
from alignsam_sb3.policies import SamPPO

SIZES = {"quick": {"images": 20, "steps": 2_000, "n_envs": 2}, "full": {"images": 100, "steps": 10_000, "n_envs": 4}}

Rows = dict[str, dict[str, float]]


def env_kwargs(args: argparse.Namespace, split: str, images: int) -> dict[str, Any]:
    """What the environment is made with."""
    return {
        "dataset": args.dataset,
        "dataset_kwargs": limited(args.dataset, args.dataset_kwargs, split, images),
        "split": split,
        "text_segmenter": args.text_segmenter,
        "segmenter": args.segmenter,
        "clip": args.clip,
        "prompts": args.prompts,
        "reward": args.reward,
        "reward_network": args.reward_network,
        "observation": args.observation,
        "trust_remote_code": args.trust_remote_code,
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help=f"{SIZES['quick']} (the default)")
    length.add_argument("--full", action="store_true", help=f"{SIZES['full']}")
    add_task_arguments(parser)
    parser.add_argument("--reward", default="network", choices=["network", "dice"])
    parser.add_argument("--reward-network", help="a folder that `python -m alignsam_sb3.rewards.network fit` wrote")
    parser.add_argument("--observation", default="statistics", choices=["statistics", "rich", "clip"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/prompt_select"))
    return parser.parse_args()


def compare(args: argparse.Namespace, model: SamPPO, training: PromptSelectEnv, held_out: PromptSelectEnv) -> Rows:
    """Mean score and Dice on images never trained on, of the agent and of simple choices."""
    scores, dice = look_up_all(held_out)
    rows = np.arange(len(dice))
    known = look_up_all(training)[0 if args.reward == "network" else 1].mean(0)
    single = int(known.argmax())
    choices = {
        "agent": choose(model, held_out),
        f"best single prompt on the training images ({training.prompt_bank.prompts[single]})": np.full(len(dice), single),
        "first prompt": np.zeros(len(dice), int),
        "random": np.random.default_rng(args.seed).integers(dice.shape[1], size=len(dice)),
        "oracle (sees the truth)": dice.argmax(1),
    }
    judged = {"score": scores, "dice": dice} if args.reward_network else {"dice": dice}
    return {
        name: {what: float(values[rows, picks].mean()) for what, values in judged.items()} for name, picks in choices.items()
    }


def main() -> None:
    """Command line."""
    args = parse()
    size = SIZES["full" if args.full else "quick"]
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    task = env_kwargs(args, "train", size["images"])
    model, training = train_selector(task, size["steps"], size["n_envs"], args.seed, args.out)
    held_out = make("PromptSelect-v0", env_kwargs(args, "eval", size["images"]))
    rows = compare(args, model, training, held_out)
    told = {
        **{key: str(value) for key, value in vars(args).items()},
        **size,
        "seconds": round(time.time() - began),
        "candidates": list(training.prompt_bank.prompts),
        "train": training.prompt_bank.dataset.fingerprint,
        "evaluation": {
            "data": held_out.prompt_bank.dataset.fingerprint,
            "pairs": len(held_out.prompt_bank.pairs),
            "rows": rows,
        },
    }
    write_json(args.out / "training_info.json", told)
    columns = list(next(iter(rows.values())))
    print(f"| {len(held_out.prompt_bank.pairs)} images never trained on | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{values[column]:.3f}" for column in columns) + " |")
    print(f"wrote {args.out}: final_model.zip, checkpoints/, logs/PPO_1, training_info.json")


if __name__ == "__main__":
    main()
