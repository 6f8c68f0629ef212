"""Measure how well a segmenter follows clicks: mean IoU after 1..N oracle clicks on single objects, beside GrabCut's.

python scripts/studies/measure_segmenter.py --segmenter tiny --scenes 500
python scripts/studies/measure_segmenter.py --segmenter tiny --dataset coco:/data/coco --split eval
"""

import argparse
import json

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import oracle_click
from alignsam_sb3.datasets import Sample, SegmentationDataset, load_dataset
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.evaluation.answers import grab_cut
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts, load_segmenter
from alignsam_sb3.session import ClickSessions

ROWS = ("iou", "iou_best_candidate", "iou_grab_cut")


def click_through(segmenter: PromptableSegmenter, sample: Sample, clicks: int) -> dict[str, list[list[float]]]:
    """IoU after each oracle click on each object of one image.

    :return: of the candidate that the segmenter prefers, of its best candidate, and of GrabCut from the same clicks
    """
    truths, valid, everyone = list(sample.masks), sample.valid, np.arange(len(sample.masks))
    sessions = ClickSessions(segmenter, len(truths))
    encoded = segmenter.encode([sample.image])
    features = {name: x.expand(len(truths), *x.shape[1:]) for name, x in encoded.items()}
    sessions.start(everyone, features, np.tile(sample.size, (len(truths), 1)))
    masks: list[NDArray[np.bool_] | None] = [None] * len(truths)
    found: dict[str, list[list[float]]] = {name: [[] for _ in truths] for name in ROWS}
    for _ in range(clicks):
        clicked = [[place for place, _ in sessions.clicks(i)] for i in everyone]
        made = [oracle_click(*asked) for asked in zip(truths, masks, clicked, strict=True)]
        places = [[*sessions.clicks(i), click] for i, click in enumerate(made)]
        fed = [logits if answered else None for logits, answered in zip(sessions.logits, sessions.answered, strict=True)]
        points, labels = [[p for p, _ in row] for row in places], [[label for _, label in row] for row in places]
        answer = segmenter.decode(features, Prompts.of(points, labels, [sample.size] * len(truths), fed))
        candidates = (segmenter.postprocess(answer.logits, sample.size) > 0).cpu().numpy()
        sessions.click_each(everyone, [[click] for click in made])
        for i, (truth, mask) in enumerate(zip(truths, sessions.masks(), strict=True)):
            cut = grab_cut(sample.image, sessions.clicks(i))
            answers = {"iou": [mask], "iou_best_candidate": candidates[i], "iou_grab_cut": [cut]}
            for name, some in answers.items():
                found[name][i].append(max(metrics.iou(one, truth, valid) for one in some))
            masks[i] = mask if valid is None else mask & valid
    return found


def measure(segmenter: PromptableSegmenter, dataset: SegmentationDataset, clicks: int) -> dict[str, list[float] | int]:
    """Mean IoU over all single objects of the data set, a list with one entry per click."""
    found: dict[str, list[list[float]]] = {name: [] for name in ROWS}
    for index in tqdm(range(len(dataset)), desc="images", mininterval=5):
        sample = dataset[index]
        if len(sample.masks):
            for name, rows in click_through(segmenter, sample, clicks).items():
                found[name] += rows
    return {
        "images": len(dataset),
        "objects": len(found["iou"]),
        **{name: np.mean(rows, 0).round(4).tolist() for name, rows in found.items()},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", default="tiny")
    parser.add_argument("--dataset", default="toy:semantic")
    parser.add_argument("--split", default="eval")
    parser.add_argument("--scenes", type=int, default=500, help="number of toy scenes")
    parser.add_argument("--clicks", type=int, default=5)
    add_dataset_kwargs(parser)
    args = parser.parse_args()
    options = ({"n_images": args.scenes} if args.dataset.startswith("toy:") else {}) | args.dataset_kwargs
    dataset = load_dataset(args.dataset, args.split, **options)
    print(json.dumps({"dataset": dataset.fingerprint, **measure(load_segmenter(args.segmenter), dataset, args.clicks)}))


if __name__ == "__main__":
    main()
