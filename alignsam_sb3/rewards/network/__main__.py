"""Fit a reward network, or measure one.

python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --quick --out runs/reward
python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --init runs/reward --adversarial runs/found --out runs/again
python -m alignsam_sb3.rewards.network measure --network runs/reward --dataset toy:saliency

Interrupt a fit at any time: the same command goes on from the last checkpoint in ``--out``.
"""

import argparse
import json
import sys
import time
from hashlib import sha256
from pathlib import Path

import torch as th

from alignsam_sb3.datasets import SegmentationDataset, load_dataset
from alignsam_sb3.datasets.images import file_stamp
from alignsam_sb3.features import FeatureBank, SegmenterSource, build_bank
from alignsam_sb3.files import write_json
from alignsam_sb3.rewards.network.corpus import FOUND, Corpus, build_corpus, corpus_key, found_key, require_truth
from alignsam_sb3.rewards.network.fit import Examples, Fit, FitOptions
from alignsam_sb3.rewards.network.measure import measure, plot_calibration, plot_history, table
from alignsam_sb3.rewards.network.model import RewardNetwork, RewardNetworkConfig
from alignsam_sb3.rewards.network.scorer import load_scorer
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter

SIZES = {"quick": {"images": 300, "steps": 600}, "full": {"images": 2000, "steps": 5000}}


def fit(args: argparse.Namespace) -> None:
    """The command ``fit``."""
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    dataset = load_dataset(args.dataset, args.split, **args.dataset_kwargs)
    require_truth(dataset)
    segmenter = load_segmenter(args.segmenter, args.device)
    bank = build_bank(dataset, SegmenterSource(segmenter), on_error="skip")
    size = SIZES["full" if args.full else "quick"]
    steps = args.steps or size["steps"]
    start = load_scorer(args.init, args.device) if args.init else None
    names = start.config.categories if start else dataset.categories
    config = RewardNetworkConfig(tuple(names), args.segmenter, segmenter.fingerprint, segmenter.embedding_shape[0])
    th.manual_seed(args.seed)
    network = RewardNetwork(config)
    if start:
        start.check(dataset.categories, segmenter.fingerprint)
        network.load_state_dict(start.network.state_dict())
    corpus = _corpus(args.out / "corpus.npz", dataset, segmenter, bank, args.images or size["images"], args.seed, config.side)
    print(f"{len(corpus)} pairs of image and category, {corpus.masks.shape[1]} masks each")
    examples = Examples(
        corpus, bank, [names.index(c) for c in dataset.categories], _found(args.adversarial, dataset, segmenter)
    )
    options = FitOptions(steps, args.batch, args.lr, args.seed, judge_every=max(min(200, steps // 3), 1))
    fitting = Fit(network, examples, options, args.out, _origin(args, dataset, segmenter))
    fitting.run()
    plot_history(fitting.history, args.out / "curves.png")
    described = {key: str(value) for key, value in vars(args).items() if key != "command"}
    best = min(fitting.history, key=lambda entry: entry["mae"])
    write_json(
        args.out / "fit.json",
        {"best": best, "seconds": round(time.time() - began), "args": described, "history": fitting.history},
    )
    print(f"best on held-out images: MAE {best['mae']:.3f}, Spearman {best['spearman']:.3f} at step {best['step']:.0f}")
    print(f"wrote {args.out}: reward_network.safetensors, fit.json, curves.png; now measure it on other images:")
    print(f"    python -m alignsam_sb3.rewards.network measure --network {args.out} --dataset {args.dataset}")


def _origin(args: argparse.Namespace, dataset: SegmentationDataset, segmenter: PromptableSegmenter) -> str:
    """What a fit learns from, and what it starts from."""
    start = load_scorer(args.init).network.state_dict() if args.init else {}
    digest = sha256(b"".join(value.numpy().tobytes() for value in start.values()))
    for folder in args.adversarial:
        digest.update(file_stamp(folder / FOUND).encode())
    return f"{found_key(dataset, segmenter)}|{args.images}|{digest.hexdigest()[:16]}"


def _corpus(
    path: Path,
    dataset: SegmentationDataset,
    segmenter: PromptableSegmenter,
    bank: FeatureBank,
    count: int,
    seed: int,
    side: int,
) -> Corpus:
    """The masks to learn from, or what an earlier run left of exactly these."""
    key = corpus_key(dataset, segmenter, count, seed, side)
    corpus = Corpus.load(path, key)
    if corpus is None:
        corpus = build_corpus(dataset, segmenter, bank, count, seed, side)
        corpus.save(path, key)
    return corpus


def _found(folders: list[Path], dataset: SegmentationDataset, segmenter: PromptableSegmenter) -> Corpus | None:
    """Masks that policies found on the training images."""
    joined: Corpus | None = None
    for folder in folders:
        found = Corpus.load(folder / FOUND, found_key(dataset, segmenter))
        if found is None:
            raise FileNotFoundError(
                f"no masks found by a policy on {dataset.fingerprint} in {folder}: collect them with "
                "`python scripts/collect_masks.py --policy X.zip --out DIR`"
            )
        joined = found if joined is None else joined.join(found)
    return joined


def measure_command(args: argparse.Namespace) -> None:
    """The command ``measure``."""
    scorer = load_scorer(args.network, args.device)
    out = args.out or (Path(args.network) if Path(args.network).is_dir() else Path("results"))
    dataset = load_dataset(args.dataset, args.split, **args.dataset_kwargs)
    require_truth(dataset)
    segmenter = load_segmenter(args.segmenter or scorer.config.segmenter, args.device)
    scorer.check(dataset.categories, segmenter.fingerprint)
    bank = build_bank(dataset, SegmenterSource(segmenter), on_error="skip")
    corpus = build_corpus(dataset, segmenter, bank, args.images or len(dataset), args.seed, scorer.config.side)
    places = [scorer.config.categories.index(c) for c in dataset.categories]
    found = measure(scorer, corpus, bank, places, args.seed)
    out.mkdir(parents=True, exist_ok=True)
    plot_calibration(found, out / "calibration.png")
    write_json(out / "measured.json", {**found, "data": dataset.fingerprint, "seed": args.seed})
    print(f"{found['pairs']} pairs of image and category of {dataset.fingerprint}, {found['masks_each']} masks each")
    print(table(found))
    print(f"wrote {out}: measured.json, calibration.png")


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m alignsam_sb3.rewards.network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fitter = commands.add_parser("fit", help="fit a network on masks of every quality")
    fitter.add_argument("--out", type=Path, required=True)
    length = fitter.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help=f"{SIZES['quick']} (the default)")
    length.add_argument("--full", action="store_true", help=f"{SIZES['full']}")
    fitter.add_argument("--steps", type=int, help="instead of --quick's or --full's")
    fitter.add_argument("--batch", type=int, default=FitOptions.batch, help="masks in a step")
    fitter.add_argument("--lr", type=float, default=FitOptions.lr)
    fitter.add_argument("--init", help="a fitted network to start from")
    fitter.add_argument("--adversarial", type=Path, nargs="+", default=[], help="folders of masks that policies found")
    fitter.add_argument("--split", default="train")
    fitter.set_defaults(run=fit)
    measurer = commands.add_parser("measure", help="measure a network on images that it was not fitted on")
    measurer.add_argument("--network", default="tiny", help="a folder that fit wrote, or tiny")
    measurer.add_argument("--out", type=Path, help="by default the network's folder")
    measurer.add_argument("--split", default="eval")
    measurer.set_defaults(run=measure_command)
    for command in (fitter, measurer):
        command.add_argument("--dataset", required=True, help="spec string")
        command.add_argument("--dataset-kwargs", type=json.loads, default={}, help="options of the data set, as JSON")
        command.add_argument("--segmenter", default="tiny" if command is fitter else None, help="spec string")
        command.add_argument("--images", type=int, help="pairs of image and category, at most")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise SystemExit(1) from None
