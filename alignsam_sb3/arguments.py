"""Values on command lines, checked as they are read. Nothing heavy is imported, so that what is wrong is said at once."""

import argparse
import ast
import math
from pathlib import Path


def positive_int(text: str) -> int:
    """A whole number above zero.

    :raises argparse.ArgumentTypeError: it is none
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text[:60]!r}")
    return value


def positive_float(text: str) -> float:
    """A finite number above zero.

    :raises argparse.ArgumentTypeError: it is none
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text[:60]!r}")
    return value


def literal(text: str) -> str:
    """``KEY:VALUE`` with the value as Python writes it: a number, a text in quotes, a list, a dict, True, False or None.

    :raises argparse.ArgumentTypeError: the value is anything else, which RL Zoo would evaluate
    """
    key, colon, value = text.partition(":")
    try:
        return f"{key}:{ast.literal_eval(value.strip())!r}"
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        given = f"{key}:{value!r}" if colon else f"{text}:..."
        raise argparse.ArgumentTypeError(
            f"{text[:200]!r} is no KEY:VALUE with a plain value (a number, a text in quotes, a list, a dict, True, False or "
            f"None; nothing is evaluated): write {given[:200]}"
        ) from None


def saved_policy(text: str) -> Path:
    """The file of a policy, with ``.zip`` added where that is left out.

    :raises FileNotFoundError: there is none
    """
    given = Path(text).expanduser()
    path = given if given.suffix or given.is_file() else given.with_suffix(".zip")
    if not path.is_file():
        raise FileNotFoundError(f"no policy at {path}: give a .zip that `alignsam train` or `alignsam pull` wrote")
    return path


def image_folder(text: str) -> Path:
    """A folder that is there.

    :raises FileNotFoundError: it is not
    """
    path = Path(text).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"no folder of images at {path}")
    return path


RUN = "run.json"
"""Says what the annotations of a folder were made with."""


def run_folder(text: str) -> Path:
    """The folder of a run of ``alignsam annotate``.

    :raises FileNotFoundError: it holds none
    """
    path = Path(text).expanduser()
    if not (path / RUN).is_file():
        raise FileNotFoundError(f"no run in {path}: make one with `alignsam annotate FOLDER --policy policy.zip --out {path}`")
    return path
