"""How good the scores are: errors, ranks, calibration and regret on images that were never trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from alignsam_sb3.rewards.network.fit import Examples, balanced
from alignsam_sb3.rewards.network.model import METRICS, score_of
from alignsam_sb3.rewards.network.scorer import RewardScorer

_BINS = 10
Values = NDArray[np.floating[Any]]


@th.no_grad()
def predict_corpus(scorer: RewardScorer, examples: Examples) -> NDArray[np.float32]:
    """The predicted metrics of all masks, (N, K, 5)."""
    corpus = examples.corpus
    count = corpus.masks.shape[1]
    found = []
    for row in range(len(corpus)):
        inputs, _, _ = examples.batch(corpus, np.full(count, row), np.arange(count))
        found.append(scorer.network(*(x.to(scorer.device) for x in inputs))[0].cpu().numpy())
    return np.stack(found)


def calibration_error(said: Values, known: Values) -> float:
    """Expected calibration error of a regression: mean over ten bins of what was said of the distance between both means."""
    bins = np.minimum((said * _BINS).astype(int), _BINS - 1)
    gaps = [abs(said[bins == b].mean() - known[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(np.sum(gaps))


def regret(scores: Values, dice: Values) -> float:
    """Selection regret: how much Dice is lost by taking, of each row's masks, the one with the highest score.

    :param scores: (N, K), NaN for masks that are not to be chosen from
    :param dice: (N, K)
    """
    offered = ~np.isnan(scores)
    chosen = np.where(offered, scores, -np.inf).argmax(1)
    best = np.where(offered, dice, -np.inf).max(1)
    return float((best - dice[np.arange(len(dice)), chosen]).mean())


def agreement(said: Values, known: Values) -> dict[str, float]:
    """Spearman, Pearson, mean absolute error and calibration error of estimates (M,) in [0, 1]."""
    return {
        "spearman": float(spearmanr(said, known).statistic),
        "pearson": float(pearsonr(said, known).statistic),
        "mae": float(np.abs(said - known).mean()),
        "ece": calibration_error(said, known),
    }


def measure(scorer: RewardScorer, examples: Examples, seed: int = 0) -> dict[str, Any]:
    """Measure a network on a corpus of unseen images.

    ``masks`` is over masks drawn so that all qualities count equally, ``as collected`` over all masks. ``segmenter's own``
    compares the predicted IoU of the segmenter's own masks with that of its IoU head.
    """
    corpus = examples.corpus
    predicted, known = predict_corpus(scorer, examples), corpus.targets
    scores = score_of(th.from_numpy(predicted)).numpy()
    rng = np.random.default_rng(seed)
    picks = rng.choice(scores.size, size=min(scores.size, 4000), p=balanced(known))
    own = np.isfinite(corpus.segmenter_iou)
    head = corpus.segmenter_iou.astype(np.float64).clip(0, 1)
    flat = known[..., 0].ravel()
    return {
        "pairs": len(corpus),
        "masks_each": int(scores.shape[1]),
        "masks": agreement(scores.ravel()[picks], flat[picks]),
        "as collected": agreement(scores.ravel(), flat),
        "each metric": {
            m: agreement(predicted[..., k].ravel()[picks], known[..., k].ravel()[picks]) for k, m in enumerate(METRICS)
        },
        "regret": regret(scores, known[..., 0]),
        "segmenter's own": {
            "network": agreement(predicted[own][:, 1], known[own][:, 1])
            | {"regret": regret(np.where(own, scores, np.nan), known[..., 0])},
            "IoU head": agreement(head[own], known[own][:, 1])
            | {"regret": regret(np.where(own, head, np.nan), known[..., 0])},
        },
        "drawn": {"said": scores.ravel()[picks].tolist(), "known": flat[picks].tolist()},
    }


def table(found: dict[str, Any]) -> str:
    """A Markdown table of what :func:`measure` found."""
    rows = {
        "score against Dice, all qualities equally often": found["masks"] | {"regret": found["regret"]},
        "score against Dice, as collected": found["as collected"],
        **{f"predicted {name.replace('_', ' ')}": values for name, values in found["each metric"].items()},
        "predicted IoU, the segmenter's own masks": found["segmenter's own"]["network"],
        "the segmenter's IoU head, the same masks": found["segmenter's own"]["IoU head"],
    }
    names = ("spearman", "pearson", "mae", "ece", "regret")
    lines = ["| | Spearman | Pearson | MAE | ECE | regret (Dice) |", "|---|" + "---|" * len(names)]
    for label, values in rows.items():
        cells = [f"{values[name]:.3f}" if name in values else "" for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot_calibration(found: dict[str, Any], path: Path) -> None:
    """Scores against true Dice, every mask a dot, and the mean of each tenth."""
    from matplotlib.figure import Figure

    said, known = np.array(found["drawn"]["said"]), np.array(found["drawn"]["known"])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.scatter(said, known, s=3, alpha=0.25)
    bins = np.minimum((said * _BINS).astype(int), _BINS - 1)
    means = [(said[bins == b].mean(), known[bins == b].mean()) for b in np.unique(bins)]
    axes.plot(*zip(*means, strict=True), "o-", color="tab:red", label="mean of each tenth")
    axes.set(xlabel="score", ylabel="true Dice", xlim=(0, 1), ylim=(0, 1), title="Calibration on unseen images")
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_history(history: list[dict[str, float]], path: Path) -> None:
    """Error and rank correlation on held-out images, and the loss, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    steps = [entry["step"] for entry in history]
    for axes, names in zip(figure.subplots(1, 2), (("mae", "spearman"), ("loss",)), strict=True):
        for name in names:
            axes.plot(steps, [entry[name] for entry in history], "o-", label=name)
        axes.set(xlabel="step")
        axes.legend()
    figure.savefig(path, dpi=110)
