"""What a policy is for: ``calibrate``, ``annotate``, ``review``, ``play`` and ``benchmark``."""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from alignsam_sb3.arguments import image_folder, run_folder, saved_policy
from alignsam_sb3.cli import options
from alignsam_sb3.cli.options import FORMATS, POLICY, add_formats, add_policy, add_ray, add_server, parser_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from alignsam_sb3.annotate.stream import Playing
    from alignsam_sb3.predictor import Predictor


def annotate_command(argv: list[str]) -> None:
    """Annotate a folder of images; a second call goes on where one was stopped."""
    parser = parser_of("annotate", annotate_command)
    parser.add_argument("folder", type=image_folder, help="images, also in sub-folders")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    add_policy(parser)
    parser.add_argument("--categories", nargs="+", default=(), metavar="NAME", help="by default all that the policy knows")
    add_formats(parser, f"of {', '.join(FORMATS)}")
    parser.add_argument(
        "--accept", type=float, metavar="SHARE", help="at most this share of the masks that nobody reviews may be bad"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images encoded at once, at most")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images ahead")
    parser.add_argument("--no-progress", action="store_true")
    add_ray(parser, "play")
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate import annotate_folder

    predict = options.load(args)
    try:
        with _cluster(args, predict) as play:
            summary = annotate_folder(
                predict,
                args.folder,
                args.out,
                args.categories,
                args.formats,
                args.accept,
                args.batch_size,
                args.workers,
                not args.no_progress,
                play,
            )
    except KeyboardInterrupt:
        raise SystemExit(f"stopped: what was done is kept in {args.out}; the same command goes on") from None
    print(summary)
    print(f"Written to {args.out}: {', '.join(args.formats)}, queue.csv, skipped.csv, sheet.png")
    if summary.doubtful:
        print(f"Review: alignsam review {args.out} --policy {args.policy}")


def _cluster(args: argparse.Namespace, predict: "Predictor") -> "AbstractContextManager[Playing | None]":
    if args.ray is None:
        return nullcontext()
    from alignsam_sb3.annotate.cluster import players

    return players(args.policy, tuple(args.categories) or predict.categories, args.ray)


def calibrate_command(argv: list[str]) -> None:
    """Learn on labelled images whose masks to hand out and how far to trust them; kept in the policy's zip."""
    from alignsam_sb3.choice import ANSWERS
    from alignsam_sb3.datasets import require
    from alignsam_sb3.datasets.options import add_dataset_kwargs

    parser = parser_of("calibrate", calibrate_command)
    add_policy(parser)
    parser.add_argument(
        "--labelled",
        metavar="SPEC",
        help="labelled images that no training saw: coco:ROOT, mask_folder:ROOT; if not said, the policy's own data set",
    )
    parser.add_argument("--split", help="if not said, eval; and all of another folder that has no splits")
    add_dataset_kwargs(parser, help="options of the data set that differ from the policy's: min_area=0.02 category=crack")
    parser.add_argument("--level", type=float, default=0.9, help="probability with which lower bounds are to hold")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--answer", metavar="NAME", help=f"whose masks are handed out, of {', '.join(ANSWERS)}; chosen by default"
    )
    args = parser.parse_args(argv)
    if args.labelled is not None:
        require(args.labelled)
    from alignsam_sb3.annotate import calibrate, labelled_like
    from alignsam_sb3.calibration import describe
    from alignsam_sb3.policies import read_recipe
    from alignsam_sb3.policies.archive import PolicyArchive

    dataset = labelled_like(read_recipe(args.policy)["env"], args.labelled, args.split, args.dataset_kwargs)
    seen = PolicyArchive(args.policy).seen
    found = calibrate(options.load(args), dataset, args.level, args.seed, seen=seen, answer=args.answer)
    found.write(args.policy)
    said = describe(found)
    print(found.choice)
    print(f"Calibrated on {len(dataset)} labelled images. On {said['masks']:.0f} masks that the fit did not see:")
    print(f"mean Dice {said['mean Dice']:.3f}, predicted with a mean error of {said['mean error of the score']:.3f}")
    for share in (0.02, 0.05, 0.1):
        threshold = found.accept_from(share)
        taken = sum(score >= threshold for score in found.scores) / len(found.scores)
        print(f"--accept {share}: {taken:.0%} of the masks need no review")


def review_command(argv: list[str]) -> None:
    """Review a run in the browser, the most doubtful mask first."""
    parser = parser_of("review", review_command)
    parser.add_argument("run", type=run_folder, help="the --out of alignsam annotate")
    add_policy(parser)
    parser.add_argument(
        "--accept", type=float, metavar="SHARE", help="do not ask about the masks that this accepts; by default as annotated"
    )
    add_formats(parser, "written again at the end")
    add_server(parser)
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate import Run, stream
    from alignsam_sb3.annotate.corrections import write_corrections
    from alignsam_sb3.annotate.formats import write_formats
    from alignsam_sb3.annotate.review import Review

    run, predict = Run.open(args.run), options.load(args)
    if predict.fingerprint != run.identity.policy:
        raise ValueError(
            f"{args.run} was annotated by policy {run.identity.policy}, and {args.policy} is {predict.fingerprint}"
        )
    if args.accept is not None and stream.calibration_hash(predict) != run.identity.calibration:
        raise ValueError(
            f"{args.policy} was calibrated after {args.run} was made: annotate into another --out, then review that"
        )
    threshold = run.accepted_from if args.accept is None else stream.accepted_from(predict, args.accept)
    review = Review(run, predict.segmenter, threshold)
    from alignsam_sb3.annotate import app

    app.serve(app.review_page(review), args.host, args.port, args.share)
    write_formats(run, args.formats, threshold)
    count = write_corrections(run)
    if not count:
        print(f"{review.progress()}. Nothing to learn from yet")
        return
    print(f"{review.progress()}. {count} reviewed images are in {args.run / 'corrections'}")
    print(f"Learn from them: alignsam train --dataset coco:{args.run / 'corrections'} --from {args.policy}")


def play_command(argv: list[str]) -> None:
    """Upload a photo in the browser, name a target, watch the agent, click."""
    parser = parser_of("play", play_command)
    add_policy(parser)
    add_server(parser)
    args = parser.parse_args(argv)
    predict = options.load(args)
    from alignsam_sb3.annotate import app
    from alignsam_sb3.annotate.play import Play

    app.serve(app.play_page(Play(predict), predict.categories), args.host, args.port, args.share)


def benchmark_command(argv: list[str]) -> None:
    """Measure on this machine how fast a policy annotates, and with how much memory."""
    parser = parser_of("benchmark", benchmark_command)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--policy", type=saved_policy, help=POLICY)
    which.add_argument("--segmenter", metavar="SPEC", help="an untrained policy with this one instead: vit_b:random")
    parser.add_argument("--device", default="auto", help="where the models run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", default="640x480", help="width x height")
    parser.add_argument("--categories", nargs="+", default=(), metavar="NAME")
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate.benchmark import benchmark, untrained

    predict = untrained(args.segmenter, args.device) if args.segmenter else options.load(args)
    print(benchmark(predict, args.images, args.size, args.categories))
