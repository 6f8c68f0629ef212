"""Fitting the reward network: balanced batches, early stopping, a checkpoint to go on from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch.nn import functional as F
from tqdm import tqdm

from alignsam_sb3.features import FeatureBank
from alignsam_sb3.fitting import cosine_schedule, read_checkpoint, write_checkpoint
from alignsam_sb3.frame import Frame
from alignsam_sb3.rewards.network.corpus import Corpus
from alignsam_sb3.rewards.network.frame import spoken_in_frame
from alignsam_sb3.rewards.network.model import RewardNetwork, score_of
from alignsam_sb3.rewards.network.scorer import RewardScorer

_BINS = 10
_HELD_OUT = 10  # every tenth image decides when to stop
_JUDGED = 1500  # masks of held-out images, at most
_FOUND_SHARE = 1 / 3  # of a batch, where there are masks that a policy found


@dataclass(frozen=True)
class FitOptions:
    """How long and how.

    :param patience: stop after so many judgements without a better one
    """

    steps: int = 4000
    batch: int = 48
    lr: float = 2e-3
    seed: int = 0
    judge_every: int = 200
    patience: int = 6


Batch = tuple[th.Tensor, ...]


class Examples:
    """A corpus with the embeddings of its images, as tensors for the network.

    :param categories: for each category of the data set its place among the network's
    :param frame: in which the network sees masks
    :param found: masks that policies found
    :param language: what a language prior says of the images, for a network that sees that
    """

    def __init__(
        self,
        corpus: Corpus,
        bank: FeatureBank,
        categories: list[int],
        frame: Frame,
        found: Corpus | None = None,
        language: FeatureBank | None = None,
    ) -> None:
        self.corpus, self.found, self._frame = corpus, found, frame
        self._bank, self._categories, self._language = bank, np.array(categories), language

    def batch(self, corpus: Corpus, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[Batch, th.Tensor, th.Tensor]:
        """What the network takes for some masks, their true metrics (B, 5), and where the object is (B, 1, s, s)."""

        def cells(values: NDArray[np.uint8]) -> th.Tensor:
            return th.from_numpy(values).float() / 255

        embeddings = np.stack([self._bank[int(i)]["embeddings"] for i in corpus.images[rows]])
        inputs: Batch = (
            cells(corpus.photos[rows]),
            cells(corpus.masks[rows, columns])[:, None],
            th.from_numpy(embeddings),
            cells(corpus.inside[rows])[:, None],
            th.from_numpy(self._categories[corpus.categories[rows]]),
        )
        if self._language is not None:
            asked = zip(corpus.images[rows], corpus.categories[rows], corpus.sizes[rows].tolist(), strict=True)
            said = [spoken_in_frame(self._language[int(i)], int(c), (h, w), self._frame) for i, c, (h, w) in asked]
            inputs = (*inputs, th.from_numpy(np.stack(said)))
        return inputs, th.from_numpy(corpus.targets[rows, columns]), cells(corpus.truths[rows])[:, None]


def balanced(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """How often to draw each mask, adding up to 1, so that every tenth of the range of Dice is drawn equally often.

    :param targets: (N, K, 5)
    """
    bins = np.minimum((targets[..., 0] * _BINS).astype(int), _BINS - 1).ravel()
    weights = 1 / np.bincount(bins, minlength=_BINS)[bins]
    return np.asarray(weights / weights.sum())


def loss_of(predicted: th.Tensor, painted: th.Tensor, targets: th.Tensor, truth: th.Tensor, inside: th.Tensor) -> th.Tensor:
    """Cross entropy and absolute error of the metrics; cross entropy and Dice of where the object is."""
    metrics = F.binary_cross_entropy(predicted.clamp(1e-5, 1 - 1e-5), targets) + 2 * F.l1_loss(predicted, targets)
    cross = F.binary_cross_entropy_with_logits(painted, truth, weight=inside)
    prob = painted.sigmoid() * inside
    dice = 1 - (2 * (prob * truth).sum((1, 2, 3)) + 1) / (prob.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    return metrics + cross + 0.5 * dice.mean()


@dataclass
class Fit:
    """Network, optimizer and schedule with the checkpoint that they resume from.

    :param out: gets ``checkpoint.pt`` (to go on from) and, whenever it is better, ``reward_network.safetensors``
    :param origin: what the examples and the first weights are; a checkpoint of another origin is refused
    """

    network: RewardNetwork
    examples: Examples
    options: FitOptions
    out: Path
    origin: str = ""
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        optimizer = th.optim.AdamW(self.network.parameters(), lr=self.options.lr, weight_decay=0.05)
        self.optimizer, self.schedule = optimizer, cosine_schedule(optimizer, self.options.steps, warmup=100)
        held_out = self.examples.corpus.images % _HELD_OUT == 0
        self._rows = [np.flatnonzero(~held_out), np.flatnonzero(held_out)]
        if not all(map(len, self._rows)):
            raise ValueError(f"{len(held_out)} pairs of image and category are too few to hold some out: give more images")
        if self.examples.found is not None:
            self._found_rows = np.flatnonzero(self.examples.found.images % _HELD_OUT)
        self._weights = [balanced(self.examples.corpus.targets[rows]) for rows in self._rows]
        if self._checkpoint.is_file():
            self._resume()

    @property
    def _checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def _resume(self) -> None:
        state = read_checkpoint(self._checkpoint)
        wanted = self._identity()
        if state["options"] != wanted:
            raise ValueError(
                f"{self._checkpoint} belongs to another fit ({state['options']}, not {wanted}): give another --out"
            )
        for name in ("network", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.history = state["step"], state["history"]
        print(f"going on from step {self.step}")

    def _save(self) -> None:
        state: dict[str, Any] = {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "schedule")}
        kept = {**state, "step": self.step, "history": self.history, "options": self._identity()}
        write_checkpoint(kept, self._checkpoint)

    def _identity(self) -> dict[str, Any]:
        return {**vars(self.options), "config": repr(self.network.config), "origin": self.origin}

    def run(self) -> None:
        """Fit until the steps are done or the judgements get no better; an interruption saves first."""
        bar = tqdm(total=self.options.steps, initial=self.step, desc="fitting", mininterval=5)
        try:
            while self.step < self.options.steps and not self._stale():
                loss = self._take_step()
                self.step += 1
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if self.step % self.options.judge_every == 0 or self.step == self.options.steps:
                    self._judge(loss)
                    self._save()
        except KeyboardInterrupt:
            self._save()
            print(f"\ninterrupted; the same command goes on from step {self.step}")
            raise
        finally:
            bar.close()

    def _stale(self) -> bool:
        """Whether none of the last judgements was better than the best before them."""
        errors = [entry["mae"] for entry in self.history]
        patience = self.options.patience
        return len(errors) > patience and min(errors[-patience:]) > min(errors[:-patience])

    def _take_step(self) -> float:
        rng = np.random.default_rng([self.options.seed, self.step])
        self.network.train()
        count = self.options.batch
        parts = []
        if self.examples.found is not None:
            found = self.examples.found
            share = round(count * _FOUND_SHARE)
            count -= share
            rows = rng.choice(self._found_rows, size=share)
            parts.append(self.examples.batch(found, rows, rng.integers(found.masks.shape[1], size=share)))
        parts.append(self.examples.batch(self.examples.corpus, *self._draw(rng, 0, count)))
        inputs = [th.cat(values) for values in zip(*(p[0] for p in parts), strict=True)]
        predicted, painted = self.network(*inputs)
        loss = loss_of(predicted, painted, th.cat([p[1] for p in parts]), th.cat([p[2] for p in parts]), inputs[3])
        if not th.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {float(loss)} at step {self.step}: lower --lr; the checkpoint is untouched"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        th.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    def _draw(self, rng: np.random.Generator, part: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masks of the training images (part 0) or of the held-out ones (1): pairs and places among their masks."""
        picks = rng.choice(len(self._weights[part]), size=count, p=self._weights[part])
        rows, columns = np.divmod(picks, self.examples.corpus.masks.shape[1])
        return self._rows[part][rows], columns

    @th.no_grad()
    def _judge(self, loss: float) -> None:
        """Note how well held-out images are scored; keep the network if never better."""
        rows, columns = self._draw(np.random.default_rng(self.options.seed), 1, min(_JUDGED, len(self._weights[1])))
        self.network.eval()
        said, known = [], []
        for start in range(0, len(rows), 64):
            inputs, targets, _ = self.examples.batch(
                self.examples.corpus, rows[start : start + 64], columns[start : start + 64]
            )
            said.append(score_of(self.network(*inputs)[0]))
            known.append(targets[:, 0])
        scores, dice = th.cat(said).numpy(), th.cat(known).numpy()
        error = float(np.abs(scores - dice).mean())
        best = min((entry["mae"] for entry in self.history), default=np.inf)
        self.history.append(
            {"step": self.step, "loss": loss, "mae": error, "spearman": float(spearmanr(scores, dice).statistic)}
        )
        if error < best:
            notes = {"steps": str(self.step), "held_out_mae": f"{error:.4f}"}
            RewardScorer(self.network).save(self.out / "reward_network.safetensors", notes)
            self.network.requires_grad_(True)
