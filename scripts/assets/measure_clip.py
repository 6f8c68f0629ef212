"""Measure what a CLIP knows of a data set: are objects named rightly, do maps peak on them, is presence recognised.

python scripts/assets/measure_clip.py --clip tiny --dataset toy:semantic --scenes 500
python scripts/assets/measure_clip.py --clip ViT-B-16-quickgelu:openai --dataset coco:/data/coco --split eval
"""

import argparse
import json

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from alignsam_sb3.datasets import Sample, SegmentationDataset, load_dataset
from alignsam_sb3.semantics import ClipSurgery, load_clip, top_point


def average_precision(scores: NDArray[np.float64], shown: NDArray[np.bool_]) -> float:
    """Mean over the positives of the precision among all up to it, in order of falling score."""
    order = np.argsort(-scores, kind="stable")
    hits = shown[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def name_objects(cosines: NDArray[np.float32], sample: Sample, min_area: float = 0.02) -> list[bool]:
    """Whether the mean cosine over each object is highest for the object's own category.

    :param cosines: (N, g_h, g_w), for each category of the data set
    :param min_area: leave out smaller objects; share of the image
    """
    rightly = []
    for mask, category in zip(sample.masks, sample.category_ids, strict=True):
        if mask.mean() >= min_area:
            share = cv2.resize(mask.astype(np.float32), cosines.shape[:0:-1], interpolation=cv2.INTER_AREA)
            rightly.append(int((cosines * share).sum((1, 2)).argmax()) == category)
    return rightly


def measure(clip: ClipSurgery, dataset: SegmentationDataset, batch: int = 16) -> dict[str, object]:
    """Peaks on the object and average precision of presence, for each category and over all."""
    names = dataset.categories
    peaks: list[list[bool]] = [[] for _ in names]
    by_cosine: list[bool] = []
    named: list[bool] = []
    scores, shown = np.zeros((len(dataset), len(names))), np.zeros((len(dataset), len(names)), bool)
    for start in tqdm(range(0, len(dataset), batch), desc="images", mininterval=5):
        samples = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        found = clip.similarity([s.image for s in samples], names)
        scores[start : start + len(samples)] = found.scores.cpu().numpy()
        for i, sample in enumerate(samples):
            for category in np.unique(sample.category_ids):
                (x, y), _ = top_point(found.maps[i, category].cpu().numpy(), sample.size)
                peaks[category].append(bool(sample.target(int(category))[y, x]))
                (x, y), _ = top_point(found.cosines[i, category].cpu().numpy(), sample.size)
                by_cosine.append(bool(sample.target(int(category))[y, x]))
                shown[start + i, category] = True
            named += name_objects(found.cosines[i].cpu().numpy(), sample)
    rows = {
        name: {
            "images": len(peaks[k]),
            "peak_on_object": round(float(np.mean(peaks[k])), 4),
            "presence_ap": round(average_precision(scores[:, k], shown[:, k]), 4),
            "score_shown": round(float(scores[shown[:, k], k].mean()), 4),
            "score_absent": None if shown[:, k].all() else round(float(scores[~shown[:, k], k].mean()), 4),
        }
        for k, name in enumerate(names)
        if peaks[k]
    }
    return {
        "peak_on_object": round(float(np.mean([hit for one in peaks for hit in one])), 4),
        "cosine_peak_on_object": round(float(np.mean(by_cosine)), 4),
        "objects_named_rightly": round(float(np.mean(named)), 4),
        "objects": len(named),
        "presence_map": round(float(np.mean([row["presence_ap"] for row in rows.values()])), 4),
        "images": len(dataset),
        "categories": rows,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default="tiny")
    parser.add_argument("--dataset", default="toy:semantic")
    parser.add_argument("--split", default="eval")
    parser.add_argument("--scenes", type=int, help="number of toy scenes")
    args = parser.parse_args()
    kwargs = {"n_images": args.scenes} if args.scenes else {}
    result = measure(load_clip(args.clip), load_dataset(args.dataset, args.split, **kwargs))
    print(json.dumps({"clip": args.clip, "dataset": args.dataset, "split": args.split, **result}, indent=2))


if __name__ == "__main__":
    main()
