"""Options that several commands share."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from alignsam_sb3.arguments import saved_policy
from alignsam_sb3.names import nearest

if TYPE_CHECKING:
    from alignsam_sb3.predictor import Predictor

POLICY = "a .zip that alignsam train or pull wrote"
FORMATS = ("coco", "png", "yolo", "label_studio", "cvat")
"""Of :data:`alignsam_sb3.annotate.formats.FORMATS`; to import these takes seconds."""


def parser_of(name: str, command: Callable[[list[str]], None]) -> argparse.ArgumentParser:
    """A parser whose help begins with the command's docstring."""
    return argparse.ArgumentParser(prog=f"alignsam {name}", description=command.__doc__)


def add_policy(parser: argparse.ArgumentParser) -> None:
    """``--policy``, and the device for its models."""
    parser.add_argument("--policy", type=saved_policy, required=True, help=POLICY)
    parser.add_argument("--device", default="auto", help="where the models run")


def add_ray(parser: argparse.ArgumentParser, what: str) -> None:
    """``--ray [ADDRESS]``, for many machines."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help=f"{what} on a Ray cluster; without ADDRESS on all cores or GPUs here",
    )


def add_formats(parser: argparse.ArgumentParser, said: str) -> None:
    """``--formats``, of :data:`FORMATS`."""
    parser.add_argument("--formats", nargs="+", default=["coco"], type=_format, metavar="FORMAT", help=said)


def _format(text: str) -> str:
    if text not in FORMATS:
        raise argparse.ArgumentTypeError(nearest("format", text, FORMATS))
    return text


def add_server(parser: argparse.ArgumentParser) -> None:
    """Where a page is served, and for whom."""
    parser.add_argument("--host", default="127.0.0.1", help="whom the page is for; by default this machine only")
    parser.add_argument("--port", type=int, help="by default the first free one from 7860 on")
    parser.add_argument("--share", action="store_true", help="let Gradio's servers pass the page on to whoever has the link")


def load(args: argparse.Namespace) -> "Predictor":
    """The policy of :func:`add_policy`, with its models."""
    from alignsam_sb3.predictor import Predictor

    return Predictor.load(args.policy, device=args.device)
