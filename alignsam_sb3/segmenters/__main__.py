"""The table of segmenters: what a bank keeps of an image, how long they take, under which licence they come, and from where.

python -m alignsam_sb3.segmenters list
python -m alignsam_sb3.segmenters list --measure
python -m alignsam_sb3.segmenters list --measure --only tiny vit_b hf:/models/sam2.1-hiera-tiny

Times are of this machine, on one image of 1024 x 768 pixels with three clicks, and of random weights, which take as long as
any: nothing is downloaded. A large SAM takes a minute per image on one core of a CPU.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch as th

from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts, load_segmenter
from alignsam_sb3.segmenters.backbones import BACKBONES
from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS
from alignsam_sb3.segmenters.hf import RANDOM
from alignsam_sb3.segmenters.pretrained import EXTRA

SIZE = (768, 1024)
_APACHE, _SAM_LICENCE = "Apache-2.0", "SAM License, gated"
_FINE = ((32, 256, 256), (64, 128, 128), (256, 64, 64))
_SAM3 = ((32, 288, 288), (64, 144, 144), (256, 72, 72))
_COARSE = ((256, 64, 64),)
_TINY = ((16, 64, 64), (24, 32, 32), (96, 16, 16))


@dataclass(frozen=True)
class Row:
    """A segmenter.

    :param name: what ``--segmenter`` takes
    :param shapes: of the arrays that a bank keeps of each image
    :param measured: what is measured for it
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    licence: str
    source: str
    measured: str

    @property
    def megabytes(self) -> float:
        """Of one image in a bank, in half precision."""
        return sum(float(np.prod(shape)) for shape in self.shapes) * 2 / 1e6


def rows() -> dict[str, Row]:
    """Every segmenter, by name."""
    hub = "https://huggingface.co/"
    named = [Row("tiny", _TINY, "MIT", "embedded", "tiny")]
    for name in BACKBONES:
        known = CHECKPOINTS.get(name)
        licence, source = (known.licence, known.source) if known else ("?", "?")
        named.append(Row(name, _COARSE, licence, source, f"{name}:{RANDOM}"))
    for repository, shapes, licence, kind in (
        ("facebook/sam-vit-base", _COARSE, _APACHE, "sam"),
        ("facebook/sam2.1-hiera-tiny", _FINE, _APACHE, "sam2"),
        ("yonigozlan/EdgeTAM-hf", _FINE, _APACHE, "edgetam"),
        ("facebook/sam3", _SAM3, _SAM_LICENCE, "sam3_tracker"),
    ):
        named.append(Row(f"hf:{repository}", shapes, licence, hub + repository, f"hf:{kind}:{RANDOM}"))
    return {row.name: row for row in named}


def measure(segmenter: PromptableSegmenter) -> tuple[float, float]:
    """Seconds to encode an image and to decode three clicks on it: the least of a few."""
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    encode = _least(lambda: segmenter.encode([image]), 2)
    features = segmenter.encode([image])
    prompts = Prompts.of([[(300, 200), (500, 400), (900, 700)]], [[1, 1, 0]], [SIZE])
    return encode, _least(lambda: segmenter.decode(features, prompts), 5)


def _least(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        if th.cuda.is_available():
            th.cuda.synchronize()
        start = time.perf_counter()
        work()
        if th.cuda.is_available():
            th.cuda.synchronize()
        taken.append(time.perf_counter() - start)
        if taken[0] > 20:  # one look at a slow one is enough
            break
    return min(taken)


def table(chosen: Sequence[Row], measured: bool, device: str = "auto") -> str:
    """Segmenters as text, a line each."""
    times = f"{'encode s':>9}{'decode s':>9}" if measured else ""
    lines = [f"{'name':<34}{'MB/image':>9}{times}  {'licence':<36} source"]
    for row in chosen:
        took = "".join(f"{seconds:>9.3f}" for seconds in _measured(row, device)) if measured else ""
        lines.append(f"{row.name:<34}{row.megabytes:>9.2f}{took or ' ' * len(times)}  {row.licence:<36} {row.source}")
    return "\n".join(lines)


def _measured(row: Row, device: str) -> tuple[float, ...]:
    try:
        return measure(load_segmenter(row.measured, device))
    except ImportError as error:
        print(f"{row.name} is not measured: {error}", file=sys.stderr)
        return ()


def _row(name: str) -> Row:
    """A row of the table, or of any other segmenter that can be loaded.

    :raises ValueError: there is none
    """
    known = rows()
    if name in known:
        return known[name]
    if ":" not in name:
        raise ValueError(nearest("segmenter", name, known))
    shapes = tuple(load_segmenter(name).feature_shapes.values())
    return Row(name, shapes, "?", "yours", name)


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m alignsam_sb3.segmenters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listed = commands.add_parser("list", help=f"all segmenters; those that begin with hf: need {EXTRA}")
    listed.add_argument("--only", nargs="+", metavar="SEGMENTER", help="these, or any other that can be loaded")
    listed.add_argument("--measure", action="store_true", help="how long they take on this machine")
    listed.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)  # random weights are meant here
    try:
        chosen = [_row(name) for name in args.only] if args.only else list(rows().values())
        print(table(chosen, args.measure, args.device))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        logging.disable(logging.NOTSET)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
