"""Measure speed and memory: ``python scripts/benchmark.py --out benchmark``; writes benchmark.json and benchmark.png.

Ratios are against a naive loop in the same run: one environment, one SAM call per step, the image encoded at every reset,
and Stable-Baselines3's own rollout buffer.
"""

import argparse
import json
import multiprocessing as mp
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium import spaces
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

import alignsam_sb3  # noqa: F401 (registers the environment)
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.features import SegmenterSource, build_bank
from alignsam_sb3.policies import ExplicitExtractor, SamMaskablePPO
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import LanguagePrior, load_clip

Clock = dict[str, float]
WITHOUT = " without the "  # in a policy's name here, before what is left out of it


class NaiveEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Encodes the image at every reset, as if there were no bank."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Start an episode with a freshly computed embedding."""
        observation, info = self.env.reset(**kwargs)
        core = self.unwrapped
        assert isinstance(core, SamSegEnv)
        assert core.episode is not None
        core.episode.embedding = core.segmenter.encode([core.episode.sample.image])[0].cpu().numpy()  # type: ignore[attr-defined]
        observation["sam_image_embeddings"] = core.episode.embedding
        return observation, info


def timed(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the function's running time to a clock."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock[name] += time.perf_counter() - began

    return call


class Nothing(nn.Module):
    """A stream that costs nothing and says nothing."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.shape = (width, grid, grid)

    def forward(self, maps: th.Tensor) -> th.Tensor:
        return maps.new_zeros(len(maps), *self.shape)


class OneStream(ExplicitExtractor):
    """The explicit extractor, language's stream left out: what that stream costs."""

    def __init__(self, observation_space: spaces.Dict) -> None:
        super().__init__(observation_space)
        self.clip_stream = Nothing(self.sam_stream[0].out_channels, self.grid)  # type: ignore[assignment]


def measure(job: tuple[int, bool, int, dict[str, Any], str]) -> dict[str, Any]:
    """Train for a while with n environments; steps per second, shares of time, bytes per transition, peak memory."""
    n_envs, naive, rollouts, options, described = job
    policy, _, without = described.partition(WITHOUT)
    kwargs = {"features_extractor_class": OneStream} if without else None
    clip = "tiny" if policy.startswith("Explicit") else None
    make = lambda: gym.make("SamSeg-v0", dataset_kwargs=options, clip=clip)  # noqa: E731
    venv = DummyVecEnv([lambda: NaiveEnv(make())]) if naive else SamSegVecEnv([make] * n_envs)
    steps = max(256 // n_envs, 8)
    buffer = MaskableDictRolloutBuffer if naive else None
    model = SamMaskablePPO(
        policy, venv, n_steps=steps, batch_size=128, n_epochs=4, seed=0, rollout_buffer_class=buffer, policy_kwargs=kwargs
    )
    model.learn(n_envs * steps)  # warm up
    clock: Clock = defaultdict(float)
    segmenter = venv.envs[0].unwrapped.segmenter  # type: ignore[attr-defined]
    original = segmenter.decode
    segmenter.decode = timed(clock, "decode", original)
    model.policy.forward = timed(clock, "policy", model.policy.forward)  # type: ignore[method-assign]
    model.train = timed(clock, "update", model.train)  # type: ignore[method-assign]
    model.collect_rollouts = timed(clock, "rollout", model.collect_rollouts)  # type: ignore[method-assign]
    began = time.perf_counter()
    model.learn(n_envs * steps * rollouts)
    seconds = time.perf_counter() - began
    segmenter.decode = original
    taken = n_envs * steps * rollouts
    kept = model.rollout_buffer
    stored = kept.nbytes if hasattr(kept, "nbytes") else sum(v.nbytes for v in kept.observations.values())
    rest = seconds - clock["decode"] - clock["policy"] - clock["update"]
    return {
        "n_envs": n_envs,
        "naive": naive,
        "policy": described,
        "update_ms_per_step": 1000 * clock["update"] / taken,
        "rollout_steps_per_second": taken / clock["rollout"],
        "training_steps_per_second": taken / seconds,
        "share": {k: v / seconds for k, v in {**{k: clock[k] for k in ("decode", "policy", "update")}, "rest": rest}.items()},
        "bytes_per_transition": stored / (n_envs * steps),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_banks(options: dict[str, Any]) -> dict[str, float]:
    """Images per second of fresh banks, scenes already drawn: embeddings alone, and with similarity maps."""
    import tempfile

    dataset = load_dataset("toy:semantic", "train", **options)
    for index in range(len(dataset)):
        _ = dataset[index]
    seconds = []
    prior = LanguagePrior(load_clip("tiny"), dataset.categories)
    for source in (SegmenterSource(load_segmenter("tiny")), prior):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            build_bank(dataset, source, Path(folder))
            seconds.append(time.perf_counter() - began)
    return {"embeddings": len(dataset) / seconds[0], "with maps": len(dataset) / sum(seconds)}


def _name(row: dict[str, Any]) -> str:
    if row["naive"]:
        return "naive"
    policy, _, without = row["policy"].partition(WITHOUT)
    explicit = ", explicit" if policy.startswith("Explicit") else ""
    return f"{row['n_envs']} envs{explicit}" + (" without 2nd stream" if without else "")


def plot(report: dict[str, Any], path: Path) -> None:
    """Steps per second, and where the time goes, for each number of environments."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = report["rows"]
    names = [_name(row) for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    x = np.arange(len(rows))
    left.bar(x - 0.2, [r["rollout_steps_per_second"] for r in rows], 0.4, label="rollout")
    left.bar(x + 0.2, [r["training_steps_per_second"] for r in rows], 0.4, label="training")
    left.set(title="environment steps per second", xticks=x, xticklabels=names)
    left.legend()
    bottom = np.zeros(len(rows))
    for part in ("decode", "policy", "update", "rest"):
        share = np.array([r["share"][part] for r in rows])
        right.bar(x, share, bottom=bottom, label=part)
        bottom += share
    right.set(title="share of training time", xticks=x, xticklabels=names)
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    parser.add_argument("--quick", action="store_true", help="fewer steps and scenes: a check that it runs, no measurement")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    options, rollouts = {"n_images": 16 if args.quick else 200}, 1 if args.quick else 6
    gym.make("SamSeg-v0", dataset_kwargs=options)  # builds the banks outside the measurement
    rows = []
    implicit = "ImplicitMaskablePolicy"
    explicits = [(32, False, f"ExplicitMaskablePolicy{what}") for what in (f"{WITHOUT}second stream", "")]
    for n_envs, naive, policy in ((1, True, implicit), *((n, False, implicit) for n in (1, 8, 32)), *explicits):
        with mp.get_context("spawn").Pool(1) as pool:  # a process each, so that peak memory is its own
            rows.append(pool.map(measure, [(n_envs, naive, rollouts, options, policy)])[0])
        print(json.dumps(rows[-1]), flush=True)
    base = rows[0]
    for row in rows:
        row["rollout_ratio"] = row["rollout_steps_per_second"] / base["rollout_steps_per_second"]
        row["training_ratio"] = row["training_steps_per_second"] / base["training_steps_per_second"]
        row["bytes_ratio"] = row["bytes_per_transition"] / base["bytes_per_transition"]
    report = {"rows": rows, "bank_images_per_second": measure_banks(options), "threads": th.get_num_threads()}
    (args.out / "benchmark.json").write_text(json.dumps(report, indent=2))
    plot(report, args.out / "benchmark.png")
    print("| | rollout steps/s | training steps/s | x naive (rollout) | x naive (training) | bytes/transition | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {_name(row)} | {row['rollout_steps_per_second']:.0f} | "
            f"{row['training_steps_per_second']:.0f} | {row['rollout_ratio']:.1f} | {row['training_ratio']:.1f} | "
            f"{row['bytes_per_transition']:.0f} | {row['peak_memory_mb']:.0f} |"
        )
    print("bank: " + ", ".join(f"{speed:.0f} images/s ({what})" for what, speed in report["bank_images_per_second"].items()))
    print("update: " + ", ".join(f"{row['update_ms_per_step']:.2f} ms/step ({_name(row)})" for row in rows[-3:]))
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
