"""What makes a policy and measures it: ``train``, ``tune``, ``evaluate``, ``describe`` and ``cache``."""

import argparse
import importlib
import sys

from alignsam_sb3.cli.options import add_ray, parser_of


def train_command(argv: list[str]) -> None:
    """Train a policy with RL Zoo; --from POLICY.zip begins with one."""
    _zoo("train", argv)


def tune_command(argv: list[str]) -> None:
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


def evaluate_command(argv: list[str]) -> None:
    """Compare a policy with random clicks, one centre click, CLIP points and the oracle."""
    from alignsam_sb3.evaluation_options import read

    told = read(argv, "alignsam evaluate")
    importlib.import_module("alignsam_sb3.evaluation.__main__").run(told, argv)


def describe_command(argv: list[str]) -> None:
    """Say what a data set holds."""
    code = importlib.import_module("alignsam_sb3.datasets.__main__").main(["describe", *argv], "alignsam")
    if code:
        raise SystemExit(code)


def cache_command(argv: list[str]) -> None:
    """Encode a data set before training, list what the cache holds, or remove what was not used for longest."""
    from alignsam_sb3.zoo_options import add_task_options

    parser = parser_of("cache", cache_command)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    what = "let the frozen models see all images, as `alignsam train` with the same options does when it begins"
    filling = actions.add_parser("fill", help=what, description=f"{what}; a second call goes on where one was stopped")
    add_task_options(filling)
    add_ray(filling, "encode")
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
        encoded = int(shared.bank.usable.sum())
        skipped = len(shared.bank) - encoded
        print(f"{part.split}: {encoded} images are encoded, {skipped} skipped ({shared.dataset.fingerprint})")
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
