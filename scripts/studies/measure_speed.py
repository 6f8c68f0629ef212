"""Measure how long segmenters take, and what their options bring and cost.

python scripts/studies/measure_speed.py                                    # tiny, with every option
python scripts/studies/measure_speed.py --segmenters tiny mobile_sam:random repvit:random vit_b:random --repeats 3

Times are minima over the repeats, in one process on as many threads as torch takes. An option's times are ratios to the same
segmenter without it, in the same run. What an option changes is measured, too: the largest error of an embedding and of a
logit, as a share of their largest value, and the share of mask pixels that flip.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th

from alignsam_sb3.datasets.toy.objects import draw_scene
from alignsam_sb3.files import write_json
from alignsam_sb3.segmenters import Prompts, SamSegmenter, load_segmenter
from alignsam_sb3.segmenters.sam import OPTIONS

Timed = dict[str, float]
POINTS = 3


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the fastest of some runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def prompts(images: int, size: tuple[int, int]) -> Prompts:
    """Three clicks on each of some images of one size."""
    rng = np.random.default_rng(0)
    coords = [(rng.uniform(0, 1, (POINTS, 2)) * size[::-1]).astype(np.float32) for _ in range(images)]
    return Prompts.of(coords, [np.array([1, 1, 0])] * images, [size] * images)


def measure(segmenter: SamSegmenter, repeats: int) -> tuple[Timed, th.Tensor, th.Tensor]:
    """Milliseconds to encode one image and to decode 1 and 16, and what came out."""
    image = draw_scene(np.random.default_rng(0)).image
    one = segmenter.encode([image])
    many = {name: x.expand(16, *x.shape[1:]) for name, x in one.items()}
    found = {"encode": fastest(lambda: segmenter.encode([image]), repeats)}
    for count, features in ((1, one), (16, many)):
        asked = prompts(count, image.shape[:2])
        found[f"decode {count}"] = fastest(lambda e=features, a=asked: segmenter.decode(e, a), repeats)  # type: ignore[misc]
    return found, one["embeddings"], segmenter.decode(one, prompts(1, image.shape[:2])).logits


def cost(found: th.Tensor, wanted: th.Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenters", nargs="+", default=["tiny"])
    parser.add_argument("--options", nargs="*", default=list(OPTIONS), choices=[*OPTIONS, []])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="also write the numbers to this JSON file")
    args = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    print("| segmenter | M parameters | encode ms | decode ms, 1 image | decode ms, 16 images |\n|---|---|---|---|---|")
    compared = []
    for spec in args.segmenters:
        load_segmenter.cache_clear()
        plain = load_segmenter(spec, args.device)
        size = sum(p.numel() for p in plain.sam.parameters()) / 1e6
        base, embedding, logits = measure(plain, args.repeats)
        rows[spec] = {"parameters": size, **base}
        print(f"| {spec} | {size:.2f} | {base['encode']:.1f} | {base['decode 1']:.1f} | {base['decode 16']:.1f} |", flush=True)
        for option in args.options:
            load_segmenter.cache_clear()
            found, other, answers = measure(load_segmenter(f"{spec}?{option}", args.device), args.repeats)
            ratios = {key: base[key] / found[key] for key in base}
            flipped = float(((answers > 0) != (logits > 0)).float().mean())
            rows[f"{spec}?{option}"] = {
                **ratios,
                "embedding": cost(other, embedding),
                "logits": cost(answers, logits),
                "flipped": flipped,
            }
            compared.append(
                f"| {spec}?{option} | {ratios['encode']:.2f} | {ratios['decode 1']:.2f} | {ratios['decode 16']:.2f} "
                f"| {cost(other, embedding):.0e} | {cost(answers, logits):.0e} | {flipped:.2%} |"
            )
    if compared:
        head = (
            "\n| option | x encode | x decode 1 | x decode 16 | embedding error | logit error | pixels flipped |\n|"
            + "---|" * 7
        )
        print("\n".join([head, *compared]))
    if args.out:
        write_json(args.out, rows)


if __name__ == "__main__":
    main()
