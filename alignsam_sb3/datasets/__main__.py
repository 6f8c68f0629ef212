"""Say what a data set holds, or write it as a list of polygons.

python -m alignsam_sb3.datasets describe mask_folder:/data/kvasir
python -m alignsam_sb3.datasets describe coco:/data/coco --split eval --options "categories=['dog','cat']" --sheet sheet.png
python -m alignsam_sb3.datasets export toy:vessels /data/vessels/train --options n_images=100
"""

import argparse
import ast
import sys
from pathlib import Path

from alignsam_sb3.datasets import DATASETS, load_dataset
from alignsam_sb3.datasets.describe import contact_sheet, describe
from alignsam_sb3.datasets.outlines import write_polygons
from alignsam_sb3.pictures import save_picture


def _option(text: str) -> tuple[str, object]:
    """``name=value`` with a Python value; a bare word is a string."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 where the data set cannot be opened."""
    parser = argparse.ArgumentParser(
        prog="python -m alignsam_sb3.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    describing = commands.add_parser("describe", help="counts, sizes, skipped files")
    exporting = commands.add_parser("export", help="write annotations.json and images/, for polygons:FOLDER")
    for command in (describing, exporting):
        command.add_argument("spec", help=f"KIND:WHERE, KIND being one of {', '.join(DATASETS)}")
        command.add_argument("--split", default="train")
        command.add_argument(
            "--options", type=_option, nargs="*", default=[], metavar="NAME=VALUE", help="of that kind of data set"
        )
    describing.add_argument("--sheet", type=Path, help="draw photographs with their masks into this file")
    exporting.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    try:
        dataset = load_dataset(args.spec, args.split, **dict(args.options))
        if args.command == "export":
            print(f"wrote {write_polygons(dataset, args.folder)} images and their polygons to {args.folder}")
            return 0
        print(describe(dataset))
        if args.sheet:
            save_picture(contact_sheet(dataset), args.sheet)
            print(f"wrote {args.sheet}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
