"""The command ``alignsam``: one word for each job. Each calls what the package offers to Python."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from alignsam_sb3.arguments import run_folder, saved_policy
from alignsam_sb3.commands import run_command
from alignsam_sb3.names import nearest
from alignsam_sb3.version import __version__

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from alignsam_sb3.annotate.stream import Playing
    from alignsam_sb3.predictor import Predictor

EPILOG = """Begin:
  alignsam train --log-folder runs                        a policy on toy scenes, some minutes
  alignsam calibrate --policy policy.zip --labelled coco:LABELLED
  alignsam annotate PHOTOS --policy policy.zip --out DIR --accept 0.05
  alignsam review DIR --policy policy.zip                 in the browser: look at the doubtful ones only
  alignsam train --dataset coco:DIR/corrections --from policy.zip
"""


POLICY = "a .zip that alignsam train or pull wrote"
FORMATS = ("coco", "png", "yolo", "label_studio", "cvat")
"""Of :data:`alignsam_sb3.annotate.formats.FORMATS`; to import these takes seconds."""


def _train(argv: list[str]) -> None:
    """Train a policy with RL Zoo; --from POLICY.zip begins with one."""
    _zoo("train", argv)


def _tune(argv: list[str]) -> None:
    """Search hyperparameters with RL Zoo and Optuna."""
    _zoo("tune", ["-optimize", *argv])


def _zoo(name: str, argv: list[str]) -> None:
    from alignsam_sb3.zoo_options import translate

    sys.argv = [f"alignsam {name}", *argv]
    told = translate("train", argv)
    try:
        from alignsam_sb3 import zoo
    except ImportError as error:
        raise ImportError(
            f"training needs more packages ({error.name} is missing): pip install 'alignsam_sb3[zoo]'"
        ) from error
    zoo.run("train", *told)


def _evaluate(argv: list[str]) -> None:
    """Compare a policy with random clicks, one centre click, CLIP points and the oracle."""
    from alignsam_sb3.evaluation_options import read

    told = read(argv, "alignsam evaluate")
    importlib.import_module("alignsam_sb3.evaluation.__main__").run(told, argv)


def _describe(argv: list[str]) -> None:
    """Say what a data set holds."""
    code = importlib.import_module("alignsam_sb3.datasets.__main__").main(["describe", *argv], "alignsam")
    if code:
        raise SystemExit(code)


def _annotate(argv: list[str]) -> None:
    """Annotate a folder of images; a second call goes on where one was stopped."""
    parser = _parser("annotate", _annotate)
    parser.add_argument("folder", type=_folder, help="images, also in sub-folders")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    _add_policy(parser)
    parser.add_argument("--categories", nargs="+", default=(), metavar="NAME", help="by default all that the policy knows")
    _add_formats(parser, f"of {', '.join(FORMATS)}")
    parser.add_argument(
        "--accept", type=float, metavar="SHARE", help="at most this share of the masks that nobody reviews may be bad"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images encoded at once, at most")
    parser.add_argument("--workers", type=int, default=2, help="threads that read images ahead")
    parser.add_argument("--no-progress", action="store_true")
    _add_ray(parser, "play")
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate import annotate_folder

    predict = _load(args)
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


def _calibrate(argv: list[str]) -> None:
    """Learn on labelled images whose masks to hand out and how far to trust them; kept in the policy's zip."""
    from alignsam_sb3.choice import ANSWERS
    from alignsam_sb3.datasets import require
    from alignsam_sb3.datasets.options import add_dataset_kwargs

    parser = _parser("calibrate", _calibrate)
    _add_policy(parser)
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
    found = calibrate(_load(args), dataset, args.level, args.seed, seen=seen, answer=args.answer)
    found.write(args.policy)
    said = describe(found)
    print(found.choice)
    print(f"Calibrated on {len(dataset)} labelled images. On {said['masks']:.0f} masks that the fit did not see:")
    print(f"mean Dice {said['mean Dice']:.3f}, predicted with a mean error of {said['mean error of the score']:.3f}")
    for share in (0.02, 0.05, 0.1):
        threshold = found.accept_from(share)
        taken = sum(score >= threshold for score in found.scores) / len(found.scores)
        print(f"--accept {share}: {taken:.0%} of the masks need no review")


def _review(argv: list[str]) -> None:
    """Review a run in the browser, the most doubtful mask first."""
    parser = _parser("review", _review)
    parser.add_argument("run", type=run_folder, help="the --out of alignsam annotate")
    _add_policy(parser)
    parser.add_argument(
        "--accept", type=float, metavar="SHARE", help="do not ask about the masks that this accepts; by default as annotated"
    )
    _add_formats(parser, "written again at the end")
    _add_server(parser)
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate import Run, stream
    from alignsam_sb3.annotate.corrections import write_corrections
    from alignsam_sb3.annotate.formats import write_formats
    from alignsam_sb3.annotate.review import Review

    run, predict = Run.open(args.run), _load(args)
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


def _play(argv: list[str]) -> None:
    """Upload a photo in the browser, name a target, watch the agent, click."""
    parser = _parser("play", _play)
    _add_policy(parser)
    _add_server(parser)
    args = parser.parse_args(argv)
    predict = _load(args)
    from alignsam_sb3.annotate import app
    from alignsam_sb3.annotate.play import Play

    app.serve(app.play_page(Play(predict), predict.categories), args.host, args.port, args.share)


def _export(argv: list[str]) -> None:
    """Write policy and segmenter as ONNX."""
    parser = _parser("export", _export)
    _add_policy(parser)
    parser.add_argument("--onnx", type=Path, required=True, metavar="DIR")
    parser.add_argument("--measure", type=int, metavar="N", help="say how long N photos take there and in torch")
    args = parser.parse_args(argv)
    from alignsam_sb3.export import export_onnx, measure_latency

    predict = _load(args)
    for path in export_onnx(predict, args.onnx):
        print(path)
    if args.measure:
        print(measure_latency(predict, args.onnx, args.measure))


def _push(argv: list[str]) -> None:
    """Upload a policy to the Hugging Face Hub, nothing of it pickled."""
    parser = _parser("push", _push)
    parser.add_argument("policy", type=saved_policy, help=POLICY)
    parser.add_argument("repo", help="user/name")
    parser.add_argument("--evaluation", type=Path, metavar="DIR", help="what alignsam evaluate wrote, for the model card")
    parser.add_argument("--film", type=Path, metavar="GIF", help="for the model card")
    parser.add_argument("--private", action="store_true", help="if the repository is made now: for nobody else")
    args = parser.parse_args(argv)
    from alignsam_sb3 import hub

    print(hub.push(args.policy, args.repo, args.evaluation, args.film, args.private))


def _pull(argv: list[str]) -> None:
    """Download a policy from the Hugging Face Hub."""
    parser = _parser("pull", _pull)
    parser.add_argument("repo", help="user/name")
    parser.add_argument("--out", type=Path, help="a zip; by default in the cache")
    parser.add_argument("--revision", help="a branch, tag or commit of the repository")
    args = parser.parse_args(argv)
    from alignsam_sb3 import hub

    print(hub.pull(args.repo, args.out, args.revision))


def _benchmark(argv: list[str]) -> None:
    """Measure on this machine how fast a policy annotates, and with how much memory."""
    parser = _parser("benchmark", _benchmark)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--policy", type=saved_policy, help=POLICY)
    which.add_argument("--segmenter", metavar="SPEC", help="an untrained policy with this one instead: vit_b:random")
    parser.add_argument("--device", default="auto", help="where the models run")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", default="640x480", help="width x height")
    parser.add_argument("--categories", nargs="+", default=(), metavar="NAME")
    args = parser.parse_args(argv)
    from alignsam_sb3.annotate.benchmark import benchmark, untrained

    predict = untrained(args.segmenter, args.device) if args.segmenter else _load(args)
    print(benchmark(predict, args.images, args.size, args.categories))


def _cache(argv: list[str]) -> None:
    """Encode a data set before training, list what the cache holds, or remove what was not used for longest."""
    from alignsam_sb3.zoo_options import add_task_options

    parser = _parser("cache", _cache)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    what = "let the frozen models see all images, as `alignsam train` with the same options does when it begins"
    filling = actions.add_parser("fill", help=what, description=f"{what}; a second call goes on where one was stopped")
    add_task_options(filling)
    _add_ray(filling, "encode")
    actions.add_parser("list", help="what is there, and how large it is")
    actions.add_parser("prune", help="remove what was not used for longest, down to ALIGNSAM_CACHE_LIMIT")
    args = parser.parse_args(argv)
    if args.action == "fill":
        _fill(args)
    else:
        _tidy(args.action)


def _fill(args: argparse.Namespace) -> None:
    from alignsam_sb3.zoo_options import task_of

    task = task_of(args)
    from alignsam_sb3.filling import fill

    for part in (task, task.for_evaluation()):
        try:
            shared = fill(part, args.ray)
        except FileNotFoundError as error:
            if part is task:
                raise
            print(f"No evaluation split: {error}")
            continue
        skipped = len(shared.bank) - int(shared.bank.usable.sum())
        print(f"{part.split}: {len(shared.bank)} images are encoded, {skipped} skipped ({shared.dataset.fingerprint})")
    print("`alignsam train` with the same options uses them")


def _tidy(action: str) -> None:
    from alignsam_sb3.files import cache_folder, cache_limit, cache_list, cache_prune

    if action == "prune" and cache_limit() is None:
        raise ValueError("how much may stay? Say it as in ALIGNSAM_CACHE_LIMIT=20GB alignsam cache prune")
    entries = cache_list() if action == "list" else cache_prune()
    for entry in entries:
        print(f"{entry.size / 1e6:10.1f} MB  {entry.kind:12}  {entry.path.name}")
    done = "in" if action == "list" else "removed from"
    print(f"{sum(entry.size for entry in entries) / 1e6:10.1f} MB  {done} {cache_folder()}")


def _doctor(argv: list[str]) -> None:
    """Say what is installed here, and what would stand in the way."""
    from alignsam_sb3.doctor import report

    _parser("doctor", _doctor).parse_args(argv)
    print(report())


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train,
    "tune": _tune,
    "evaluate": _evaluate,
    "calibrate": _calibrate,
    "annotate": _annotate,
    "review": _review,
    "play": _play,
    "export": _export,
    "describe": _describe,
    "push": _push,
    "pull": _pull,
    "benchmark": _benchmark,
    "cache": _cache,
    "doctor": _doctor,
}


def _parser(name: str, command: Callable[[list[str]], None]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"alignsam {name}", description=command.__doc__)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=saved_policy, required=True, help=POLICY)
    parser.add_argument("--device", default="auto", help="where the models run")


def _add_ray(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help=f"{what} on a Ray cluster; without ADDRESS on all cores or GPUs here",
    )


def _add_formats(parser: argparse.ArgumentParser, said: str) -> None:
    parser.add_argument("--formats", nargs="+", default=["coco"], type=_format, metavar="FORMAT", help=said)


def _format(text: str) -> str:
    if text not in FORMATS:
        raise argparse.ArgumentTypeError(nearest("format", text, FORMATS))
    return text


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"no folder of images at {path}")
    return path


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="whom the page is for; by default this machine only")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="let Gradio's servers pass the page on to whoever has the link")


def _load(args: argparse.Namespace) -> "Predictor":
    from alignsam_sb3.predictor import Predictor

    return Predictor.load(args.policy, device=args.device)


def _usage() -> str:
    lines = [f"  {name:10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "usage: alignsam COMMAND ...   (alignsam COMMAND --help says more)\n\n" + "\n".join(lines) + "\n\n" + EPILOG


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 1 where something is wrong, which is said in one line. ``--debug`` shows where it was raised."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl as soon as the machine has other work
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(message)s")
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"alignsam_sb3 {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"alignsam: {nearest('command', words[0], COMMANDS)}", file=sys.stderr)
        return 2
    return run_command(f"alignsam {words[0]}", lambda: COMMANDS[words[0]](words[1:]), debug)


if __name__ == "__main__":
    sys.exit(main())
