"""Measure how well a segmenter follows clicks: mean IoU after 1..N oracle clicks on single objects.

python scripts/measure_segmenter.py --segmenter tiny --scenes 500
python scripts/measure_segmenter.py --segmenter tiny --dataset coco:/data/coco --split eval
"""

import argparse
import json

import numpy as np
import torch as th
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import Click, oracle_click
from alignsam_sb3.datasets import SegmentationDataset, load_dataset
from alignsam_sb3.segmenters import PointPrompts, PromptableSegmenter, load_segmenter


def click_through(
    segmenter: PromptableSegmenter,
    embedding: th.Tensor,
    truths: list[NDArray[np.bool_]],
    valid: NDArray[np.bool_] | None,
    clicks: int,
) -> tuple[list[list[float]], list[list[float]]]:
    """IoU after each oracle click for each target of one image: of the preferred candidate, and of the best candidate."""
    size = (truths[0].shape[0], truths[0].shape[1])
    rows: list[list[Click]] = [[] for _ in truths]
    fed: list[th.Tensor | None] = [None] * len(truths)
    masks: list[NDArray[np.bool_] | None] = [None] * len(truths)
    preferred: list[list[float]] = [[] for _ in truths]
    best: list[list[float]] = [[] for _ in truths]
    for _ in range(clicks):
        for row, truth, mask in zip(rows, truths, masks, strict=True):
            row.append(oracle_click(truth, mask))
        prompts = PointPrompts(
            [np.array([c[0] for c in row], np.float32) for row in rows],
            [np.array([c[1] for c in row], np.int64) for row in rows],
            [size] * len(rows),
            fed,
        )
        answer = segmenter.decode(embedding.expand(len(rows), -1, -1, -1), prompts)
        logits, _ = answer.best()
        candidates = (segmenter.postprocess(answer.logits, size) > 0).cpu().numpy()
        chosen = (segmenter.postprocess(logits, size) > 0).cpu().numpy()
        for i, truth in enumerate(truths):
            preferred[i].append(metrics.iou(chosen[i], truth, valid))
            best[i].append(max(metrics.iou(c, truth, valid) for c in candidates[i]))
        fed, masks = list(logits.cpu()), list(chosen if valid is None else chosen & valid)
    return preferred, best


def measure(segmenter: PromptableSegmenter, dataset: SegmentationDataset, clicks: int) -> dict[str, list[float] | int]:
    """Mean IoU over all single objects of the data set, a list with one entry per click."""
    preferred: list[list[float]] = []
    best: list[list[float]] = []
    for index in tqdm(range(len(dataset)), desc="images", mininterval=5):
        sample = dataset[index]
        if len(sample.masks):
            embedding = segmenter.encode([sample.image])
            one, other = click_through(segmenter, embedding, list(sample.masks), sample.valid, clicks)
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
    args = parser.parse_args()
    options = {"n_images": args.scenes} if args.dataset.startswith("toy:") else {}
    dataset = load_dataset(args.dataset, args.split, **options)
    print(json.dumps({"dataset": dataset.fingerprint, **measure(load_segmenter(args.segmenter), dataset, args.clicks)}))


if __name__ == "__main__":
    main()
