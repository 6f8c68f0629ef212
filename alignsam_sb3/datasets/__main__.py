"""Say what a data set holds, or write it as a list of polygons.

python -m alignsam_sb3.datasets describe mask_folder:/data/kvasir
python -m alignsam_sb3.datasets describe coco:/data/coco --split eval --dataset-kwargs folds=2 min_area=0.02
python -m alignsam_sb3.datasets describe coco:/data/export.zip --strict && echo nothing was left out
python -m alignsam_sb3.datasets export toy:vessels /data/vessels/train --dataset-kwargs n_images=100
"""

import argparse
import sys
from pathlib import Path

from alignsam_sb3.datasets import DATASETS, SegmentationDataset, load_dataset
from alignsam_sb3.datasets.finding import printable
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.datasets.outlines import write_polygons


def main(argv: list[str] | None = None, prog: str = "python -m alignsam_sb3.datasets") -> int:
    """Command line; 1 where the data set cannot be opened or, with ``--strict``, where anything was left out."""
    parser = argparse.ArgumentParser(prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    describing = commands.add_parser("describe", help="counts, sizes, skipped files")
    exporting = commands.add_parser("export", help="write annotations.json and images/, for polygons:FOLDER")
    for command in (describing, exporting):
        command.add_argument("spec", help=f"KIND:WHERE, KIND being one of {', '.join(DATASETS)}")
        command.add_argument(
            "--split", default="train", help="train (if not said), eval, all, or a split that the data set names"
        )
        add_dataset_kwargs(command)
    describing.add_argument("--sheet", type=Path, help="draw photographs with their masks into this file")
    describing.add_argument("--strict", action="store_true", help="read all images; exit with 1 if anything is left out")
    exporting.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    try:
        dataset = load_dataset(args.spec, args.split, **args.dataset_kwargs)
        if args.command == "export":
            print(f"wrote {write_polygons(dataset, args.folder)} images and their polygons to {args.folder}")
            return 0
        return _describe(dataset, args.strict, args.sheet)
    except (ValueError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1


def _describe(dataset: SegmentationDataset, strict: bool, sheet: Path | None) -> int:
    from alignsam_sb3.datasets.describe import READ, contact_sheet, describe
    from alignsam_sb3.pictures import save_picture

    found = describe(dataset, None if strict else READ)
    print(printable(str(found)))
    if sheet:
        save_picture(contact_sheet(dataset), sheet)
        print(f"wrote {sheet}")
    return int(strict and bool(found.skipped))


if __name__ == "__main__":
    raise SystemExit(main())
