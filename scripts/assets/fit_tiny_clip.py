r"""Fit the embedded tiny CLIP on toy scenes with generated captions.

python scripts/assets/fit_tiny_clip.py --steps 4200 --image-size 128 --seed 0 --out runs/first
python scripts/assets/fit_tiny_clip.py --steps 2200 --seed 1 --init runs/first/tiny_clip.safetensors --lr 5e-4 \
    --out runs/second

Each step draws scenes and statements ("two striped discs", "a red star left of a box", "no ring"). Every statement is true
or false of every scene. A sigmoid loss teaches that to the class token (SigLIP, arXiv 2303.15343). The same loss teaches the
places to the tokens of CLIP Surgery's path, with the objects that are meant as truth (as captioned regions do in RegionCLIP,
arXiv 2112.09106). Two more losses ask what the product asks: the mean cosine over an object names it among all categories,
and a category's map peaks on such an object.

Interrupt it at any time: the same command goes on from the last checkpoint in ``--out``.
"""

import argparse
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import isqrt
from pathlib import Path

import cv2
import numpy as np
import open_clip
import torch as th
from fitting import augment, draw_pool, in_workers
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from stable_baselines3.common.utils import get_device
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from alignsam_sb3.datasets.toy.captions import COLOURS, Statement, Thing, all_phrases, describe, draw_statement
from alignsam_sb3.datasets.toy.drawing import Scene
from alignsam_sb3.datasets.toy.objects import draw_scene
from alignsam_sb3.datasets.toy.shapes import SHAPES
from alignsam_sb3.datasets.toy.textures import TEXTURES
from alignsam_sb3.files import write_json
from alignsam_sb3.fitting import cosine_schedule, read_checkpoint, write_checkpoint
from alignsam_sb3.segmenters.tiny import load_tiny_sam
from alignsam_sb3.semantics.clip_surgery import fit_positions, surgery_tokens
from alignsam_sb3.semantics.prompts import TEMPLATES
from alignsam_sb3.semantics.tiny import (
    PATCH_SIZE,
    PIXEL_MEAN,
    PIXEL_STD,
    VOCABULARY,
    TinyClipConfig,
    build_tiny_clip,
    save_tiny_clip,
)
from alignsam_sb3.weights import read_embedded

SCENE_SIZE = 128  # as toy data sets draw them; the CLIP sees them enlarged to its own size
POOL_KEY = 78  # training scenes of this script: default_rng([POOL_KEY, seed, index]); evaluation uses ToyScenes(split="eval")
KEPT = ("clip", "helper", "optimizer", "schedule")  # in a checkpoint
NOTHING = -100  # an attribute that is not said
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "category": (*SHAPES, "ground"),
    "colour": COLOURS,
    "texture": tuple(TEXTURES),
}


def _scene(job: tuple[int, int, int]) -> Scene:
    seed, index, size = job
    cv2.setNumThreads(1)
    return draw_scene(np.random.default_rng([POOL_KEY, seed, index]), size, salient=index % 4 == 0)


class Words:
    """Token ids of the tokenizer that the captions use, renumbered from 0, so that no other row need be trained."""

    def __init__(self, context_length: int) -> None:
        self._tokenize = open_clip.SimpleTokenizer(context_length=context_length)
        texts = [t.format(phrase) for t in ("{}", "a {}", *TEMPLATES) for phrase in ("", *all_phrases())]
        self.ids = self._tokenize(texts).unique()  # sorted, so that the end token keeps the highest number
        self._number = th.zeros(VOCABULARY, dtype=th.long)
        self._number[self.ids] = th.arange(len(self.ids))

    def __call__(self, texts: list[str]) -> th.Tensor:
        """Renumbered tokens (N, context_length)."""
        return self._number[self._tokenize(texts)]


def coverage(labels: NDArray[np.uint8], meant: list[Thing], grid: int) -> NDArray[np.float32]:
    """Share of each patch (grid, grid) that the meant objects cover."""
    mask = np.isin(labels, [thing.k for thing in meant]).astype(np.float32)
    return np.asarray(cv2.resize(mask, (grid, grid), interpolation=cv2.INTER_AREA), np.float32)


def objects(
    views: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]], things: list[list[Thing]], grid: int
) -> tuple[th.Tensor, th.Tensor]:
    """Where each scene's objects are (B, K, grid²), in shares that sum to one, and their categories (B, K).

    Scenes with fewer objects than others are filled up with the category ``NOTHING``.
    """
    most = max(1, *(len(t) for t in things))
    where, named = np.zeros((len(things), most, grid * grid), np.float32), np.full((len(things), most), NOTHING)
    for row, ((_, labels), here) in enumerate(zip(views, things, strict=True)):
        for k, thing in enumerate(here):
            share = coverage(labels, [thing], grid).ravel()
            if share.any():  # else it is nothing that this grid can see
                where[row, k], named[row, k] = share / share.sum(), list(SHAPES).index(thing.category)
    return th.from_numpy(where), th.from_numpy(named)


def attributes(labels: NDArray[np.uint8], things: list[Thing], grid: int) -> NDArray[np.int64]:
    """What to say of each patch (attributes, grid²): of the object that fills it most, ``NOTHING`` in a small one."""
    side = len(labels) // grid
    patches = labels.reshape(grid, side, grid, side).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    filled = np.stack([(patches == k).sum(1) for k in range(int(labels.max()) + 1)])
    said = np.full((len(ATTRIBUTES), len(filled)), NOTHING)
    said[0, 0] = ATTRIBUTES["category"].index("ground")
    for thing in things:
        said[:, thing.k] = [names.index(getattr(thing, name)) for name, names in ATTRIBUTES.items()]
    return said[:, filled.argmax(0)]


def enlarge(image: NDArray[np.uint8], labels: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and labels at the size that the CLIP sees, the image as ClipSurgery brings it there."""
    large = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.array(large), np.array(cv2.resize(labels, (size, size), interpolation=cv2.INTER_NEAREST), np.uint8)


class Batch:
    """Scenes, statements, and what is true of which."""

    def __init__(self, pool: list[Scene], words: Words, rng: np.random.Generator, scenes: int, extra: int, size: int) -> None:
        grid = size // PATCH_SIZE
        drawn = [pool[i] for i in rng.integers(len(pool), size=scenes)]
        views = [augment(rng, scene.image, scene.labels) for scene in drawn]
        things = [describe(*view, s.shapes, s.textures, s.salient) for view, s in zip(views, drawn, strict=True)]
        spoken_of = [t for t in things if t]
        said = [Statement(category=c) for c in SHAPES]
        said += [draw_statement(rng, spoken_of[rng.integers(len(spoken_of))]) for _ in range(extra)]
        views = [enlarge(*view, size) for view in views]
        self.images = th.from_numpy(np.stack([v[0] for v in views])).permute(0, 3, 1, 2)  # uint8
        self.tokens = words([s.sentence(rng, TEMPLATES) for s in said])
        self.true = th.tensor([[s.holds(t) for s in said] for t in things]).float()
        self.placed = th.tensor([not s.negated for s in said])
        self.objects, self.categories = objects(views, things, grid)
        self.patches = th.from_numpy(np.stack([attributes(v[1], t, grid) for v, t in zip(views, things, strict=True)]))
        self.words = th.tensor(
            [
                [names.index(getattr(s, name)) if getattr(s, name) and not s.negated else NOTHING for s in said]
                for name, names in ATTRIBUTES.items()
            ]
        )
        self.places = th.from_numpy(
            np.stack([[coverage(v[1], s.meant(t), grid) for s in said] for v, t in zip(views, things, strict=True)])
        )

    def to(self, device: th.device) -> "Batch":
        """Bring all tensors to a device."""
        for name, values in vars(self).items():
            setattr(self, name, values.to(device, non_blocking=True))
        return self


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C waiting until the end: a step is taken wholly or not at all."""
    waiting = []
    before = signal.signal(signal.SIGINT, lambda *_: waiting.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting:
        raise KeyboardInterrupt


class Helper(nn.Module):
    """What the fit needs beside a CLIP, and does not ship.

    One linear layer names the attributes of patches and of texts alike: without it, texts of all categories start out alike,
    patches are then not asked to tell them apart, and neither tower moves. And scale and bias of the places' logits.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.sizes = [len(names) for names in ATTRIBUTES.values()]
        self.register_buffer("weights", th.ones(sum(self.sizes)), persistent=False)
        self.weights[ATTRIBUTES["category"].index("ground")] = 0.2  # most patches show it, and it is soon known
        self.name = nn.Linear(embed_dim, sum(self.sizes))
        self.scale, self.bias = nn.Parameter(th.tensor(math.log(10.0))), nn.Parameter(th.tensor(-4.0))
        self.object_scale = nn.Parameter(th.tensor(math.log(20.0)))

    def naming_loss(self, features: th.Tensor, said: th.Tensor) -> th.Tensor:
        """Cross entropy of normalised features (M, D) with attributes (len(ATTRIBUTES), M)."""
        logits = self.name(10 * features).split(self.sizes, dim=-1)
        losses = []
        for x, y, weight in zip(logits, said, self.weights.split(self.sizes), strict=True):
            counted = weight[y.clamp(min=0)][y != NOTHING].sum().clamp(min=1)
            losses.append(F.cross_entropy(x, y, weight, ignore_index=NOTHING, reduction="sum") / counted)
        return th.stack(losses).sum()

    def object_loss(self, cosine: th.Tensor, batch: "Batch") -> th.Tensor:
        """Cross entropy of naming each object by its mean cosine, and of each category's peak lying on such an object.

        :param cosine: (B, grid², C) of patches with the texts of the categories
        """
        scaled = self.object_scale.exp() * cosine
        named = F.cross_entropy((batch.objects @ scaled).flatten(0, 1), batch.categories.flatten(), ignore_index=NOTHING)
        inside = batch.places[:, : cosine.shape[-1]].flatten(2).transpose(1, 2) > 0.5
        hit = scaled.masked_fill(~inside, -math.inf).logsumexp(1) - scaled.logsumexp(1)  # log share of a softmax over patches
        return named - hit[inside.any(1)].mean()

    def where(self, cosine: th.Tensor) -> th.Tensor:
        """Logits that a patch shows what a text means."""
        return self.scale.exp() * cosine + self.bias


class Fit:
    """Model, optimizer and schedule with the checkpoint that they resume from."""

    def __init__(self, args: argparse.Namespace, clip: CLIP, config: TinyClipConfig, words: Words) -> None:
        self.args, self.config, self.words, self.path = args, config, words, args.out / "checkpoint.pt"
        self.device = get_device(args.device)
        self.clip, self.helper = clip.to(self.device), Helper(config.embed_dim).to(self.device)
        self.described = {k: str(v) for k, v in sorted(vars(args).items()) if k not in ("out", "save_every", "device")}
        both = [*clip.parameters(), *self.helper.parameters()]
        decayed, plain = [p for p in both if p.ndim >= 2], [p for p in both if p.ndim < 2]
        self.optimizer = th.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98)
        )
        self.schedule = cosine_schedule(self.optimizer, args.steps, warmup=300)
        self.mean, self.std = (255 * th.tensor(v, device=self.device).reshape(3, 1, 1) for v in (PIXEL_MEAN, PIXEL_STD))
        self.step, self.spent, self.began = 0, 0.0, time.time()
        if self.path.exists():
            state = read_checkpoint(self.path)
            if state["args"] != self.described:
                raise SystemExit(f"{self.path} was begun with {state['args']}, not {self.described}: give another --out")
            for name in KEPT:
                getattr(self, name).load_state_dict(state[name])
            self.step, self.spent = state["step"], state["seconds"]
            print(f"going on from step {self.step}")
        elif args.init:
            self.start_from(args.init)

    def start_from(self, path: Path) -> None:
        """Take weights from an earlier fit: its checkpoint.pt, or (without the helper's) the tiny_clip.safetensors."""
        if path.suffix == ".safetensors":
            weights = read_embedded(path)[1]
            if weights.pop("token_ids").tolist() != self.words.ids.tolist():
                raise SystemExit(f"{path} was fitted with other captions: its tokens are not those of today's")
            nn.init.zeros_(self.helper.name.weight)  # so that learning the names anew does not disturb the features
        else:
            earlier = read_checkpoint(path)
            self.helper.load_state_dict(earlier["helper"])
            weights = earlier["clip"]
        places, grid = weights["visual.positional_embedding"], self.clip.visual.grid_size
        weights["visual.positional_embedding"] = fit_positions(places, (isqrt(len(places) - 1),) * 2, grid)
        self.clip.load_state_dict(weights)

    @property
    def seconds(self) -> float:
        """Time spent, over all sittings."""
        return self.spent + time.time() - self.began

    def save(self) -> None:
        """Write checkpoint and weights atomically."""
        state = {name: getattr(self, name).state_dict() for name in KEPT}
        state |= {"args": self.described, "step": self.step, "seconds": self.seconds}
        write_checkpoint(state, self.path)
        notes = {"step": str(self.step), "seed": str(self.args.seed), "seconds": f"{self.seconds:.0f}"}
        save_tiny_clip(self.clip, self.words.ids.tolist(), self.config, self.args.out / "tiny_clip.safetensors", notes)

    def run(self) -> None:
        """Train up to ``args.steps``; an interruption saves first."""
        pool = draw_pool(_scene, self.args.seed, self.args.scenes, SCENE_SIZE)
        self.began = time.time()
        bar = tqdm(total=self.args.steps, initial=self.step, mininterval=10)
        try:
            for batch in in_workers(partial(self.draw, pool), range(self.step, self.args.steps)):
                with uninterrupted():
                    losses = self.take_step(batch.to(self.device))
                    self.step += 1
                names = ("presence", "places", "naming", "objects")
                bar.set_postfix({n: f"{x:.3f}" for n, x in zip(names, losses, strict=True)}, refresh=False)
                bar.update()
                if self.step % self.args.save_every == 0 or self.step == self.args.steps:
                    self.save()
        except KeyboardInterrupt:
            self.save()
            print(f"\ninterrupted; the same command goes on from step {self.step}")
            raise
        finally:
            bar.close()

    def draw(self, pool: list[Scene], step: int) -> Batch:
        """Scenes and statements of a step."""
        rng = np.random.default_rng([self.args.seed, step])
        return Batch(pool, self.words, rng, self.args.batch, self.args.statements, self.config.image_size)

    def take_step(self, batch: Batch) -> tuple[float, ...]:
        """One update; the losses of presence, places, names and objects."""
        args = self.args
        self.clip.train()
        with th.autocast(self.device.type, th.bfloat16, enabled=args.bf16):
            tokens, _ = surgery_tokens(self.clip.visual, (batch.images.float() - self.mean) / self.std, self.config.n_dual)
            texts = self.clip.encode_text(batch.tokens)
        tokens, texts = F.normalize(tokens.float(), dim=-1), F.normalize(texts.float(), dim=-1)
        cosine = tokens @ texts.T
        logits = self.clip.logit_scale.exp() * cosine[:, 0] + self.clip.logit_bias
        presence = F.binary_cross_entropy_with_logits(logits, batch.true)
        where = self.helper.where(cosine[:, 1:])[:, :, batch.placed]
        truth = batch.places.flatten(2).transpose(1, 2)[:, :, batch.placed]
        weight = 1 + 3 * truth
        places = F.binary_cross_entropy_with_logits(where, truth, weight=weight, reduction="sum") / weight.sum()
        named = self.helper.naming_loss(tokens[:, 1:].flatten(0, 1), batch.patches.transpose(0, 1).flatten(1))
        named = named + self.helper.naming_loss(texts, batch.words)
        meant = self.helper.object_loss(cosine[:, 1:, : len(SHAPES)], batch)
        loss = presence + args.places * places + args.naming * named + args.objects * meant
        if not math.isfinite(loss.detach()):
            raise FloatingPointError(
                f"the loss became {loss.detach()} at step {self.step}: lower --lr; the checkpoint is untouched"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        th.nn.utils.clip_grad_norm_(self.clip.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.clip.logit_scale.data.clamp_(0, math.log(100))
        return tuple(float(x.detach()) for x in (presence, places, named, meant))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--scenes", type=int, default=8000, help="training scenes in the pool")
    parser.add_argument("--batch", type=int, default=16, help="scenes per step")
    parser.add_argument("--statements", type=int, default=24, help="statements per step beside one for each category")
    parser.add_argument("--places", type=float, default=4.0, help="weight of the places' loss")
    parser.add_argument("--naming", type=float, default=1.0, help="weight of the attributes' loss")
    parser.add_argument("--objects", type=float, default=1.0, help="weight of the objects' loss")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="checkpoint.pt or tiny_clip.safetensors to start from")
    parser.add_argument(
        "--image-size", type=int, default=TinyClipConfig().image_size, help="side of the CLIP's input in pixels"
    )
    parser.add_argument("--bf16", action="store_true", help="bfloat16 where allowed: faster on processors that multiply it")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or the best there is")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_clip"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    th.manual_seed(args.seed)
    config = TinyClipConfig(image_size=args.image_size)
    words = Words(config.context_length)
    clip = build_tiny_clip(config, vocab_size=len(words.ids))
    stem, encoder = clip.visual.conv1[0], load_tiny_sam().image_encoder.state_dict()
    stem.load_state_dict({name: encoder[name] for name in stem.state_dict()})  # all but its finer levels
    nn.init.normal_(clip.visual.positional_embedding, std=0.02)
    print(f"{sum(p.numel() for p in clip.parameters()) / 1e6:.2f} M parameters, {len(words.ids)} tokens")
    fit = Fit(args, clip, config, words)
    fit.run()
    described = {k: str(v) for k, v in vars(args).items()}
    write_json(args.out / "fit.json", {"seconds": round(fit.seconds), "args": described})
    print(f"wrote {args.out / 'tiny_clip.safetensors'} after {fit.seconds:.0f} s")
    print("measure it with scripts/assets/measure_clip.py")


if __name__ == "__main__":
    main()
