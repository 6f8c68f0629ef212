"""Fit a reward network, or measure one.

python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --quick --out runs/reward
python -m alignsam_sb3.rewards.network fit --dataset toy:saliency --init runs/reward --adversarial runs/found --out runs/again
python -m alignsam_sb3.rewards.network measure --network runs/reward --dataset toy:saliency

Interrupt a fit at any time: the same command goes on from the last checkpoint in ``--out``.
"""

import argparse
import json
import shlex
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch as th

from alignsam_sb3.arguments import positive_float, positive_int
from alignsam_sb3.commands import run_command
from alignsam_sb3.datasets import SegmentationDataset, load_dataset
from alignsam_sb3.datasets.images import file_stamp
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.datasets.seen import SeenImages, hash_in
from alignsam_sb3.features import FeatureBank, SegmenterSource, build_bank
from alignsam_sb3.files import parse_json, write_json
from alignsam_sb3.fingerprints import current
from alignsam_sb3.frame import Frame
from alignsam_sb3.rewards.network.corpus import FOUND, Corpus, build_corpus, corpus_key, found_key, require_truth
from alignsam_sb3.rewards.network.fit import Examples, Fit, FitOptions
from alignsam_sb3.rewards.network.measure import measure, plot_calibration, plot_history, table
from alignsam_sb3.rewards.network.model import RewardNetwork, RewardNetworkConfig
from alignsam_sb3.rewards.network.scorer import RewardScorer, load_scorer
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics import LanguagePrior, load_clip

SEEN = "seen.json"
SIZES = {"quick": {"images": 300, "steps": 600}, "full": {"images": 2000, "steps": 5000}}


@dataclass(frozen=True)
class Material:
    """A data set with what frozen models say of its images.

    :param language: what a language prior says, for a network that sees that
    """

    dataset: SegmentationDataset
    segmenter: PromptableSegmenter
    bank: FeatureBank
    language: FeatureBank | None

    @classmethod
    def open(cls, args: argparse.Namespace, segmenter: str, clip: str | None, texts: tuple[str, ...]) -> "Material":
        """Load data set and models and describe the images (or open what was described before)."""
        dataset = load_dataset(args.dataset, args.split, **args.dataset_kwargs)
        require_truth(dataset)
        model = load_segmenter(segmenter, args.device)
        bank, language = build_bank(dataset, SegmenterSource(model), on_error="skip"), None
        if clip is not None:
            prior = LanguagePrior(load_clip(clip, args.device), texts or dataset.categories)
            language = build_bank(dataset, prior, on_error="skip")
        return cls(dataset, model, bank, language)

    def check(self, scorer: RewardScorer) -> None:
        """Refuse a network that was fitted on other concepts or models."""
        said = None if self.language is None else self.language.fingerprint
        scorer.check(self.dataset.categories, self.segmenter.fingerprint, said)


def fit(args: argparse.Namespace) -> None:
    """The command ``fit``."""
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    start = load_scorer(args.init, args.device) if args.init else None
    if start and args.clip and not start.config.clip:
        raise ValueError(f"{args.init} was fitted without a CLIP: leave out --clip, or leave out --init")
    if start and args.texts:
        raise ValueError("a fit that starts from --init keeps the texts of that network: leave out --texts")
    clip, texts = (args.clip or start.config.clip, start.config.texts) if start else (args.clip, tuple(args.texts))
    material = Material.open(args, args.segmenter, clip, texts)
    dataset, segmenter = material.dataset, material.segmenter
    size = SIZES["full" if args.full else "quick"]
    steps = args.steps or size["steps"]
    names = start.config.categories if start else dataset.categories
    config = _kept(start, args, material) if start else _config(args, material)
    th.manual_seed(args.seed)
    network = RewardNetwork(config)
    if start:
        network.load_state_dict(start.network.state_dict())
    key = found_key(dataset, segmenter)
    corpus = _corpus(args.out / "corpus.npz", key, material, args.images or size["images"], args.seed, config.frame)
    print(f"{len(corpus)} pairs of image and category, {corpus.masks.shape[1]} masks each")
    found = _found(args.adversarial, dataset, key)
    places = [names.index(c) for c in dataset.categories]
    examples = Examples(corpus, material.bank, places, config.frame, found, material.language)
    options = FitOptions(steps, args.batch, args.lr, args.seed, judge_every=max(min(200, steps // 3), 1))
    fitting = Fit(network, examples, options, args.out, _origin(args, key))
    fitting.run()
    plot_history(fitting.history, args.out / "curves.png")
    learned = SeenImages(hash_in(dataset, int(i)) for i in np.unique(corpus.images))
    write_json(args.out / SEEN, (learned.add(_seen_by(args.init).hashes) if args.init else learned).to_json())
    described = {key: str(value) for key, value in vars(args).items() if key != "command"}
    best = min(fitting.history, key=lambda entry: entry["mae"])
    write_json(
        args.out / "fit.json",
        {"best": best, "seconds": round(time.time() - began), "args": described, "history": fitting.history},
    )
    print(f"best on held-out images: MAE {best['mae']:.3f}, Spearman {best['spearman']:.3f} at step {best['step']:.0f}")
    print(f"wrote {args.out}: reward_network.safetensors, fit.json, curves.png; now measure it on other images:")
    more = f" --dataset-kwargs {shlex.quote(json.dumps(args.dataset_kwargs))}" if args.dataset_kwargs else ""
    print(f"    python -m alignsam_sb3.rewards.network measure --network {args.out} --dataset {args.dataset}{more}")


def _config(args: argparse.Namespace, material: Material) -> RewardNetworkConfig:
    """What a new network is built for."""
    names, segmenter = tuple(material.dataset.categories), material.segmenter
    language = None if material.language is None else material.language.fingerprint
    texts = (tuple(args.texts) or names) if language else ()
    return RewardNetworkConfig(
        names,
        args.segmenter,
        segmenter.fingerprint,
        segmenter.embedding_shape[0],
        clip=args.clip,
        texts=texts,
        language=language,
        squash=segmenter.frame.squash,
    )


def _kept(start: RewardScorer, args: argparse.Namespace, material: Material) -> RewardNetworkConfig:
    """What a network goes on with: its own models, or the segmenter or CLIP that is there now; it learns them anew."""
    own, fingerprint = start.config, material.segmenter.fingerprint
    language = None if material.language is None else material.language.fingerprint
    start.check(material.dataset.categories, own.fingerprint, own.language if args.clip else language)
    if current(fingerprint) != current(own.fingerprint):
        print(f"{args.init} was fitted on embeddings of {own.fingerprint}: it goes on with those of {fingerprint}")
    clip = args.clip or own.clip
    return replace(own, segmenter=args.segmenter, fingerprint=fingerprint, clip=clip, language=language)


def _origin(args: argparse.Namespace, found: str) -> str:
    """What a fit learns from, and what it starts from."""
    start = load_scorer(args.init).network.state_dict() if args.init else {}
    digest = sha256(b"".join(value.numpy().tobytes() for value in start.values()))
    for folder in args.adversarial:
        digest.update(file_stamp(folder / FOUND).encode())
    return f"{found}|{args.images}|{digest.hexdigest()[:16]}"


def _corpus(path: Path, found: str, material: Material, count: int, seed: int, frame: Frame) -> Corpus:
    """The masks to learn from, or what an earlier run left of exactly these."""
    key = corpus_key(found, count, seed, frame.side)
    corpus = Corpus.load(path, key)
    if corpus is None:
        corpus = _collect(material, count, seed, frame)
        corpus.save(path, key)
    return corpus


def _collect(material: Material, count: int, seed: int, frame: Frame) -> Corpus:
    bank, language = material.bank, material.language
    usable = bank.usable if language is None else bank.usable & language.usable
    return build_corpus(material.dataset, material.segmenter, bank, count, seed, frame, usable)


def _found(folders: list[Path], dataset: SegmentationDataset, key: str) -> Corpus | None:
    """Masks that policies found on the training images."""
    joined: Corpus | None = None
    for folder in folders:
        found = Corpus.load(folder / FOUND, key)
        if found is None:
            raise FileNotFoundError(
                f"no masks found by a policy on {dataset.fingerprint} in {folder}: collect them with "
                "`python scripts/studies/collect_masks.py --policy X.zip --out DIR`"
            )
        joined = found if joined is None else joined.join(found)
    return joined


def measure_command(args: argparse.Namespace) -> None:
    """The command ``measure``."""
    scorer = load_scorer(args.network, args.device)
    out = args.out or (Path(args.network) if Path(args.network).is_dir() else Path("results"))
    config = scorer.config
    material = Material.open(args, args.segmenter or config.segmenter, config.clip, config.texts)
    material.check(scorer)
    dataset, bank = material.dataset, material.bank
    corpus = _collect(material, args.images or len(dataset), args.seed, config.frame)
    _refuse_seen(_seen_by(args.network), dataset, corpus, args.allow_seen)
    places = [config.categories.index(c) for c in dataset.categories]
    found = measure(scorer, Examples(corpus, bank, places, config.frame, language=material.language), args.seed)
    out.mkdir(parents=True, exist_ok=True)
    plot_calibration(found, out / "calibration.png")
    write_json(out / "measured.json", {**found, "data": dataset.fingerprint, "seed": args.seed})
    print(f"{found['pairs']} pairs of image and category of {dataset.fingerprint}, {found['masks_each']} masks each")
    print(table(found))
    print(f"wrote {out}: measured.json, calibration.png")


def _seen_by(network: str | Path) -> SeenImages:
    """The images that a network was fitted on, as far as its folder says."""
    path = (Path(network) if Path(network).is_dir() else Path(network).parent) / SEEN
    return SeenImages.from_json(parse_json(path.read_text())) if path.is_file() else SeenImages()


def _refuse_seen(seen: SeenImages, dataset: SegmentationDataset, corpus: Corpus, allowed: bool) -> None:
    """Refuse to measure a network on what it was fitted on."""
    rows = np.unique(corpus.images)
    found = [int(i) for i in rows if len(seen) and hash_in(dataset, int(i)) in seen]
    if found and not allowed:
        raise ValueError(
            f"the network was fitted on {len(found)} of these {len(rows)} images (first {dataset[found[0]].image_id}): "
            "measure it on others, with the same --dataset-kwargs as in the fit, or pass --allow-seen"
        )
    if found:
        print(f"{len(found)} of {len(rows)} images were seen in the fit")


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
    fitter.add_argument("--steps", type=positive_int, help="instead of --quick's or --full's")
    fitter.add_argument("--batch", type=positive_int, default=FitOptions.batch, help="masks in a step")
    fitter.add_argument("--lr", type=positive_float, default=FitOptions.lr)
    fitter.add_argument("--clip", help="let it see what this CLIP says of the categories: worth it for named concepts")
    fitter.add_argument(
        "--texts", nargs="+", default=[], help="what to ask that for, one text a category; by default its name"
    )
    fitter.add_argument("--init", help="a fitted network to start from; it learns the models that are named beside it")
    fitter.add_argument("--adversarial", type=Path, nargs="+", default=[], help="folders of masks that policies found")
    fitter.add_argument("--split", default="train")
    fitter.set_defaults(run=fit)
    measurer = commands.add_parser("measure", help="measure a network on images that it was not fitted on")
    measurer.add_argument("--network", default="tiny", help="a folder that fit wrote, tiny or tiny_named")
    measurer.add_argument("--out", type=Path, help="by default the network's folder")
    measurer.add_argument("--split", default="eval")
    measurer.add_argument("--allow-seen", action="store_true", help="measure on images of the fit, and say how many")
    measurer.set_defaults(run=measure_command)
    for command in (fitter, measurer):
        command.add_argument("--dataset", required=True, help="spec string")
        add_dataset_kwargs(command)
        command.add_argument("--segmenter", default="tiny" if command is fitter else None, help="spec string")
        command.add_argument("--images", type=positive_int, help="pairs of image and category, at most")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    raise SystemExit(run_command("error", main))
