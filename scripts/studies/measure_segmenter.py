"""Measure how well a segmenter follows clicks: mean IoU after 1..N oracle clicks on single objects.

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
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts, load_segmenter
from alignsam_sb3.session import ClickSessions


def click_through(segmenter: PromptableSegmenter, sample: Sample, clicks: int) -> tuple[list[list[float]], list[list[float]]]:
    """IoU after each oracle click on each object of one image: of the preferred candidate, and of the best candidate."""
    truths, valid, everyone = list(sample.masks), sample.valid, np.arange(len(sample.masks))
    sessions = ClickSessions(segmenter, len(truths))
    encoded = segmenter.encode([sample.image])
    features = {name: x.expand(len(truths), *x.shape[1:]) for name, x in encoded.items()}
    sessions.start(everyone, features, np.tile(sample.size, (len(truths), 1)))
    masks: list[NDArray[np.bool_] | None] = [None] * len(truths)
    preferred: list[list[float]] = [[] for _ in truths]
    best: list[list[float]] = [[] for _ in truths]
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
            preferred[i].append(metrics.iou(mask, truth, valid))
            best[i].append(max(metrics.iou(c, truth, valid) for c in candidates[i]))
            masks[i] = mask if valid is None else mask & valid
    return preferred, best


def measure(segmenter: PromptableSegmenter, dataset: SegmentationDataset, clicks: int) -> dict[str, list[float] | int]:
    """Mean IoU over all single objects of the data set, a list with one entry per click."""
    preferred: list[list[float]] = []
    best: list[list[float]] = []
    for index in tqdm(range(len(dataset)), desc="images", mininterval=5):
        sample = dataset[index]
        if len(sample.masks):
            one, other = click_through(segmenter, sample, clicks)
            preferred += one
            best += other
    return {
        "images": len(dataset),
        "objects": len(preferred),
        "iou": np.mean(preferred, 0).round(4).tolist(),
        "iou_best_candidate": np.mean(best, 0).round(4).tolist(),
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
