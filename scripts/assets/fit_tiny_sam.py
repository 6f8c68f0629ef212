r"""Fit the embedded tiny SAM on toy scenes and composites of photographs with SAM's own recipe; interrupted, it goes on.

python scripts/assets/fit_tiny_sam.py --init alignsam_sb3/assets/tiny_sam.safetensors --photos coco:/data/coco \
    --out runs/tiny_sam

The same command goes on from the last checkpoint in ``--out``. Measure what it wrote with
``scripts/studies/measure_segmenter.py``, on scenes and photographs that were not trained on.
"""

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch as th
from composites import Drawn, draw_composite, photographs
from fitting import augment, draw_pool
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from stable_baselines3.common.utils import get_device
from torch.nn import functional as F
from tqdm import tqdm

from alignsam_sb3.clickers import oracle_click
from alignsam_sb3.datasets.toy.objects import draw_scene
from alignsam_sb3.files import write_json
from alignsam_sb3.fitting import cosine_schedule, read_checkpoint, write_checkpoint
from alignsam_sb3.segmenters.fine import FINE, FineMaskDecoder
from alignsam_sb3.segmenters.tiny import TinySamConfig, build_tiny_sam, save_tiny_sam
from alignsam_sb3.weights import read_embedded

POOL_KEY = 77  # training scenes of this script: default_rng([POOL_KEY, seed, index]); evaluation uses ToyScenes(split="eval")
MIN_AREA = 0.01
FINE_CHANS = (16, 24)
BOXES = 0.15
"""Share of the steps whose episodes begin with a box."""
Pool = tuple[NDArray[np.uint8], NDArray[np.uint8], list[tuple[str, ...]]]
"""Images (N, S, S, 3), label maps (N, S, S) and the objects' shapes."""


def _scene(job: tuple[int, int, int], photos: str | None, share: float) -> Drawn:
    seed, index, size = job
    cv2.setNumThreads(1)
    rng = np.random.default_rng([POOL_KEY, seed, index])
    if photos and rng.random() < share:
        return draw_composite(rng, size, photographs(photos))
    scene = draw_scene(rng, size, salient=index % 3 == 0)
    return scene.image, scene.labels, scene.shapes


def draw_scenes(args: argparse.Namespace, size: int) -> Pool:
    """Draw the training scenes once."""
    drawn = draw_pool(partial(_scene, photos=args.photos, share=args.share), args.seed, args.scenes, size)
    return np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn]), [d[2] for d in drawn]


def draw_target(rng: np.random.Generator, labels: NDArray[np.uint8], shapes: tuple[str, ...]) -> NDArray[np.bool_]:
    """One object (4 of 5 times), or all objects of its shape."""
    areas = np.bincount(labels.ravel(), minlength=len(shapes) + 1) / labels.size
    large = [k for k in range(1, len(shapes) + 1) if areas[k] >= MIN_AREA]
    k = int(rng.choice(large)) if large else int(areas[1:].argmax()) + 1
    if rng.random() < 0.8:
        return labels == k
    return np.isin(labels, [j for j in range(1, len(shapes) + 1) if shapes[j - 1] == shapes[k - 1]])


def draw_click(
    rng: np.random.Generator, truth: NDArray[np.bool_], predicted: NDArray[np.bool_] | None
) -> tuple[tuple[int, int], int]:
    """The oracle's click, a random pixel of the error, or (rarely) any rightly labelled pixel."""
    if rng.random() < 0.5:
        return oracle_click(truth, predicted)
    wrong = truth if predicted is None else truth ^ predicted
    if not wrong.any() or (predicted is not None and rng.random() < 0.3):
        wrong = np.ones_like(truth)
    places = np.flatnonzero(wrong)
    y, x = divmod(int(places[rng.integers(len(places))]), truth.shape[1])
    return (x, y), int(truth[y, x])


def draw_box(rng: np.random.Generator, truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A box around a target, (x0, y0, x1, y1), each side moved by a tenth of its length, as SAM's recipe has it."""
    ys, xs = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    box = np.array([xs[0], ys[0], xs[-1], ys[-1]], float)
    long = np.tile(box[2:] - box[:2] + 1, 2)
    return np.clip(box + np.clip(0.1 * long * rng.normal(size=4), -20, 20), 0, truth.shape[1] - 1)


def decode(
    sam: Sam,
    features: dict[str, th.Tensor],
    clicks: list[list[tuple[tuple[int, int], int]]],
    boxes: th.Tensor | None,
    fed: th.Tensor | None,
) -> tuple[th.Tensor, th.Tensor]:
    """All four mask tokens for every target, with gradients: logits (B, 4, S, S) and predicted IoU (B, 4)."""
    device = features["embeddings"].device
    coords = th.tensor([[c[0] for c in row] for row in clicks], dtype=th.float32, device=device)
    labels = th.tensor([[c[1] for c in row] for row in clicks], device=device)
    points = (coords, labels) if labels.numel() else None
    masks = None if fed is None else F.avg_pool2d(fed[:, None], 2)
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
    pe, fine = sam.prompt_encoder.get_dense_pe(), (features[FINE[0]], features[FINE[1]])
    decoder: FineMaskDecoder = sam.mask_decoder
    return decoder.masks_of(pe, sparse, dense + features["embeddings"], fine)


def mask_loss(logits: th.Tensor, truth: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """20 x focal + Dice for each candidate (B, M), and the candidates' true IoU (B, M).

    :param truth: (B, S, S) masks
    """
    target = truth[:, None].expand_as(logits)
    prob = logits.sigmoid()
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = ((prob - target).square() * bce).mean((2, 3))
    dice = 1 - (2 * (prob * target).sum((2, 3)) + 1) / (prob.sum((2, 3)) + target.sum((2, 3)) + 1)
    taken, wanted = logits.detach() > 0, target > 0.5
    inter = (taken & wanted).sum((2, 3))
    return 20 * focal + dice, inter / (taken | wanted).sum((2, 3)).clamp(min=1)


def round_loss(logits: th.Tensor, iou: th.Tensor, truth: th.Tensor, first: bool) -> th.Tensor:
    """A click alone: the best of the three candidates and the single token; a box or further clicks are clear: all tokens."""
    loss, true_iou = mask_loss(logits, truth)
    masks = loss[:, 0] + loss[:, 1:].min(1).values if first else 2 * loss.mean(1)
    return masks.mean() + F.mse_loss(iou, true_iou.float())


def pick(logits: th.Tensor, iou: th.Tensor) -> th.Tensor:
    """Logits (B, S, S) of the candidate that the model itself prefers among the three."""
    return logits[th.arange(len(iou)), 1 + iou[:, 1:].argmax(1)].detach()


def train_step(
    sam: Sam,
    images: th.Tensor,
    truths: NDArray[np.bool_],
    owner: th.Tensor,
    rng: np.random.Generator,
    rounds: int,
    threads: ThreadPoolExecutor,
) -> float:
    """One step: the first click and one random later round carry gradients, those between only move the episode on."""
    seen = sam.image_encoder.features((images - sam.pixel_mean) / sam.pixel_std)
    features = {name: x[owner] for name, x in seen.items()}
    truth = th.from_numpy(truths).to(images.device).float()
    last = int(rng.integers(2, rounds + 1))
    graded = {0, last - 1}
    boxes = None
    if rng.random() < BOXES:
        boxes = th.tensor(np.stack([draw_box(rng, target) for target in truths]), dtype=th.float32, device=images.device)
    clicks: list[list[tuple[tuple[int, int], int]]] = [[] for _ in truths]
    fed: th.Tensor | None = None
    predicted: list[NDArray[np.bool_] | None] = [None] * len(truths)
    losses = []
    for turn in range(last):
        if turn or boxes is None:
            drawn = threads.map(draw_click, rng.spawn(len(truths)), truths, predicted)
            for row, click in zip(clicks, drawn, strict=True):
                row.append(click)
        with th.set_grad_enabled(turn in graded):
            logits, iou = decode(sam, features, clicks, boxes, fed)
        if turn in graded:
            losses.append(round_loss(logits, iou, truth, first=turn == 0 and boxes is None))
        fed = pick(logits, iou)
        if turn + 1 < last:
            predicted = list((fed > 0).cpu().numpy())
    total = th.stack(losses).sum()
    total.backward()
    return float(total.detach())


class Fit:
    """Model, optimizer and schedule with the checkpoint that they resume from."""

    def __init__(self, args: argparse.Namespace, sam: Sam) -> None:
        self.args, self.device, self.path = args, get_device(args.device), args.out / "checkpoint.pt"
        self.sam, self.threads = sam.to(self.device), ThreadPoolExecutor()
        self.optimizer = th.optim.AdamW(sam.parameters(), lr=args.lr, weight_decay=0.01)
        self.schedule = cosine_schedule(self.optimizer, args.steps, warmup=200)
        self.step, self.spent, self.began = 0, 0.0, time.time()
        if self.path.exists():
            state = read_checkpoint(self.path)
            for name in ("sam", "optimizer", "schedule"):
                getattr(self, name).load_state_dict(state[name])
            self.step, self.spent = state["step"], state["seconds"]
            print(f"going on from step {self.step}")
        elif args.init:
            _, weights = read_embedded(args.init)
            absent = sam.load_state_dict(weights, strict=False).missing_keys
            print(f"{len(absent)} tensors are not in {args.init}: they start at random")

    @property
    def seconds(self) -> float:
        """Time spent, over all sittings."""
        return self.spent + time.time() - self.began

    def save(self) -> None:
        """Write the checkpoint atomically."""
        state = {name: getattr(self, name).state_dict() for name in ("sam", "optimizer", "schedule")}
        write_checkpoint({**state, "step": self.step, "seconds": self.seconds}, self.path)

    def run(self) -> None:
        """Train up to ``args.steps``; an interruption saves first."""
        pool = draw_scenes(self.args, self.sam.image_encoder.img_size)
        self.began = time.time()
        bar = tqdm(total=self.args.steps, initial=self.step, mininterval=10)
        try:
            while self.step < self.args.steps:
                bar.set_postfix(loss=f"{self.take_step(pool):.3f}", refresh=False)
                self.step += 1
                bar.update()
                if self.step % self.args.save_every == 0 or self.step == self.args.steps:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            print(f"\ninterrupted; the same command goes on from step {self.step}")
            raise
        finally:
            bar.close()

    def take_step(self, pool: Pool) -> float:
        """One update on scenes and targets drawn for this step."""
        images, labels, shapes = pool
        args, rng = self.args, np.random.default_rng([self.args.seed, self.step])
        rows = [(*augment(rng, images[i], labels[i]), shapes[i]) for i in rng.integers(len(images), size=args.batch)]
        truths = np.stack([draw_target(rng, row[1], row[2]) for row in rows for _ in range(args.targets)])
        batch = th.from_numpy(np.stack([r[0] for r in rows])).permute(0, 3, 1, 2).to(self.device).float()
        owner = th.arange(args.batch, device=self.device).repeat_interleave(args.targets)
        self.sam.train()
        self.optimizer.zero_grad()
        loss = train_step(self.sam, batch, truths, owner, rng, args.rounds, self.threads)
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss} at step {self.step}: lower --lr; the checkpoint is untouched")
        th.nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return loss


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--scenes", type=int, default=6000, help="training scenes in the pool")
    parser.add_argument("--batch", type=int, default=16, help="scenes per step")
    parser.add_argument("--targets", type=int, default=2, help="targets per scene")
    parser.add_argument("--rounds", type=int, default=7, help="most clicks of a training episode")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="tiny_sam.safetensors of an earlier fit to start from")
    parser.add_argument("--photos", help="a data set of photographs with masks, of whose training split composites are made")
    parser.add_argument("--share", type=float, default=0.4, help="of composites among the scenes")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or the best there is")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_sam"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    th.manual_seed(args.seed)
    config = TinySamConfig(fine_chans=FINE_CHANS)
    sam = build_tiny_sam(config)
    print(f"{sum(p.numel() for p in sam.parameters()) / 1e6:.2f} M parameters")
    fit = Fit(args, sam)
    fit.run()
    notes = {"steps": str(args.steps), "seed": str(args.seed), "seconds": f"{fit.seconds:.0f}"}
    save_tiny_sam(sam, config, args.out / "tiny_sam.safetensors", notes)
    write_json(args.out / "fit.json", {**notes, "args": {k: str(v) for k, v in vars(args).items()}})
    print(f"wrote {args.out / 'tiny_sam.safetensors'} after {fit.seconds:.0f} s")
    print("measure it with scripts/studies/measure_segmenter.py")


if __name__ == "__main__":
    main()
