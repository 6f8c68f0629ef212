"""The command ``alignsam``: one word for each job. Each calls what the package offers to Python."""

import logging
import os
import sys
from collections.abc import Callable, Sequence

from alignsam_sb3.cli import annotating, sharing, training
from alignsam_sb3.cli.options import parser_of
from alignsam_sb3.commands import run_command
from alignsam_sb3.names import nearest
from alignsam_sb3.version import __version__

EPILOG = """Begin:
  alignsam train --log-folder runs                        a policy on toy scenes, some minutes
  alignsam calibrate --policy policy.zip --labelled coco:LABELLED
  alignsam annotate PHOTOS --policy policy.zip --out DIR --accept 0.05
  alignsam review DIR --policy policy.zip                 in the browser: look at the doubtful ones only
  alignsam train --dataset coco:DIR/corrections --from policy.zip
"""


def _doctor(argv: list[str]) -> None:
    """Say what is installed here, and what would stand in the way."""
    from alignsam_sb3.doctor import report

    parser_of("doctor", _doctor).parse_args(argv)
    print(report())


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": training.train_command,
    "tune": training.tune_command,
    "evaluate": training.evaluate_command,
    "calibrate": annotating.calibrate_command,
    "annotate": annotating.annotate_command,
    "review": annotating.review_command,
    "play": annotating.play_command,
    "export": sharing.export_command,
    "describe": training.describe_command,
    "push": sharing.push_command,
    "pull": sharing.pull_command,
    "benchmark": annotating.benchmark_command,
    "cache": training.cache_command,
    "doctor": _doctor,
}


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
