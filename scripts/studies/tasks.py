"""Command-line options that the scripts around a text segmenter share."""

import argparse

from alignsam_sb3.datasets.options import add_dataset_kwargs


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Data set, text segmenter and prompts."""
    parser.add_argument("--dataset", default="toy:vessels")
    add_dataset_kwargs(parser)
    parser.add_argument("--text-segmenter", default="clip_sam", help="clip_sam, or sa2va:PATH")
    parser.add_argument("--segmenter", default="tiny", help="of clip_sam")
    parser.add_argument("--clip", default="tiny", help="of clip_sam")
    parser.add_argument("--prompts", help="a file, one prompt a line, {} for the category; the first is the default")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with Sa2VA's weights")
