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
from dataclasses import dataclass
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
from alignsam_sb3.files import write_json
from alignsam_sb3.policies import ExplicitExtractor, SamMaskablePPO
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import LanguagePrior, load_clip

Clock = dict[str, float]


class NaiveEnv(gym.Wrapper[Any, Any, Any, Any]):
    """Encodes the image at every reset, as if there were no bank."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
        """Start an episode with a freshly computed embedding."""
        observation, info = self.env.reset(**kwargs)
        core = self.unwrapped
        assert isinstance(core, SamSegEnv)
        features = core.shared.segmenter.encode([core.batch.sample(0).image])
        core.batch.sessions.features = features
        observation["sam_image_embeddings"] = features["embeddings"][0].cpu().numpy()
        return observation, info


@dataclass(frozen=True)
class Case:
    """One row of the table.

    :param name: of the row
    :param n_envs: environments
    :param policy: of SamMaskablePPO
    :param task: options of ``SamSeg-v0``
    :param naive: one environment, no bank, and the stock buffer
    :param rollouts: that are measured, after one that is not
    :param steps: of each environment and rollout; by default 256 in all, at least 8
    :param batch_size: of the update
    :param one_stream: leave language's stream out
    """

    name: str
    n_envs: int
    policy: str
    task: dict[str, Any]
    naive: bool = False
    rollouts: int = 6
    steps: int | None = None
    batch_size: int = 128
    one_stream: bool = False


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


def measure(case: Case) -> dict[str, Any]:
    """Train for a while; steps per second, shares of time, bytes per transition, peak memory."""
    make = lambda: gym.make("SamSeg-v0", **case.task)  # noqa: E731
    venv = DummyVecEnv([lambda: NaiveEnv(make())]) if case.naive else SamSegVecEnv([make] * case.n_envs)
    shared = venv.get_attr("shared")[0]
    segmenter, scenes = shared.segmenter, shared.scenes(case.task.get("patches", 16))
    shared.fill()  # banks and scenes are no part of what is measured
    for row in range(len(shared.dataset)):
        scenes.scene(row)
        shared.device_bank.gather(np.array([row]))
    steps = case.steps or max(256 // case.n_envs, 8)
    model = SamMaskablePPO(
        case.policy,
        venv,
        n_steps=steps,
        batch_size=case.batch_size,
        n_epochs=4,
        seed=0,
        device=segmenter.device,
        rollout_buffer_class=MaskableDictRolloutBuffer if case.naive else None,
        policy_kwargs={"features_extractor_class": OneStream} if case.one_stream else None,
    )
    model.learn(case.n_envs * steps)  # warm up
    clock: Clock = defaultdict(float)
    original = segmenter.decode
    segmenter.decode = timed(clock, "decode", original)
    model.policy.forward = timed(clock, "policy", model.policy.forward)  # type: ignore[method-assign]
    model.train = timed(clock, "update", model.train)  # type: ignore[method-assign]
    model.collect_rollouts = timed(clock, "rollout", model.collect_rollouts)  # type: ignore[method-assign]
    began = time.perf_counter()
    taken = case.n_envs * steps * case.rollouts
    model.learn(taken)
    seconds = time.perf_counter() - began
    segmenter.decode = original
    kept = model.rollout_buffer
    stored = kept.nbytes if hasattr(kept, "nbytes") else sum(v.nbytes for v in kept.observations.values())
    rest = seconds - clock["decode"] - clock["policy"] - clock["update"]
    return {
        "name": case.name,
        "n_envs": case.n_envs,
        "policy": case.policy,
        "update_ms_per_step": 1000 * clock["update"] / taken,
        "rollout_steps_per_second": taken / clock["rollout"],
        "training_steps_per_second": taken / seconds,
        "share": {k: v / seconds for k, v in {**{k: clock[k] for k in ("decode", "policy", "update")}, "rest": rest}.items()},
        "bytes_per_transition": stored / (case.n_envs * steps),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device_memory_mb": th.cuda.max_memory_allocated() / 2**20 if th.cuda.is_available() else 0.0,
    }


def cases(device: str, quick: bool) -> list[Case]:
    """What is measured on a device: the first case is what the others are compared with."""
    implicit, explicit = "ImplicitMaskablePolicy", "ExplicitMaskablePolicy"
    rollouts = 1 if quick else 6
    told = {"dataset_kwargs": {"n_images": 16 if quick else 200}, "device": device}
    blind = {**told, "clip": None}
    full = {**told, "segmenter": "repvit:random", "patches": 32, "max_steps": 5, "dataset_kwargs": {"n_images": 16}}
    small = [
        Case("naive", 1, implicit, blind, naive=True, rollouts=rollouts),
        *(Case(f"{n} environments", n, implicit, blind, rollouts=rollouts) for n in (1, 8, 32)),
        Case("32 environments, explicit, language's stream left out", 32, explicit, told, one_stream=True, rollouts=rollouts),
        Case("32 environments, explicit", 32, explicit, told, rollouts=rollouts),
    ]
    if quick:
        return small
    if device == "cpu":
        return [*small, Case("RepViT-SAM, 8 environments, explicit", 8, explicit, full, rollouts=2, steps=16)]
    big = [
        Case(f"RepViT-SAM, {n} environments, explicit", n, explicit, full, rollouts=3, steps=16, batch_size=n * 4)
        for n in (32, 128, 512)
    ]
    return [*small, *big]


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


def measure_overhead(device: str, episodes: int) -> dict[str, float]:
    """Milliseconds of one environment beside the decoder, for a reset and for a step; the median of the episodes."""
    env = gym.make("SamSeg-v0", clip=None, dataset_kwargs={"n_images": 16}, device=device).unwrapped
    assert isinstance(env, SamSegEnv)
    for row in range(16):  # what is computed once per image is no part of it
        env.reset(seed=0, options={"image_index": row, "category_id": env.shared.dataset[row].category_ids[0]})
    clock: Clock = defaultdict(float)
    segmenter = env.shared.segmenter
    original, segmenter.decode = segmenter.decode, timed(clock, "decode", segmenter.decode)  # type: ignore[method-assign]
    spent: dict[str, list[float]] = {"reset": [], "step": []}
    for _ in range(episodes):
        for what, call in (("reset", env.reset), *[("step", lambda: env.step(int(env.action_space.sample())))] * 3):
            clock["decode"], began = 0.0, time.perf_counter()
            call()  # type: ignore[operator]
            spent[what].append(time.perf_counter() - began - clock["decode"])
    segmenter.decode = original  # type: ignore[method-assign]
    return {what: 1000 * float(np.median(seconds)) for what, seconds in spent.items()}


def plot(report: dict[str, Any], path: Path) -> None:
    """Steps per second, and where the time goes, for each number of environments."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = report["rows"]
    names = [row["name"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    y = np.arange(len(rows))
    left.barh(y - 0.2, [r["rollout_steps_per_second"] for r in rows], 0.4, label="rollout")
    left.barh(y + 0.2, [r["training_steps_per_second"] for r in rows], 0.4, label="training")
    left.set(title="environment steps per second", yticks=y, yticklabels=names)
    left.invert_yaxis()
    left.legend()
    before = np.zeros(len(rows))
    for part in ("decode", "policy", "update", "rest"):
        share = np.array([r["share"][part] for r in rows])
        right.barh(y, share, left=before, label=part)
        before += share
    right.set(title="share of training time")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmark"))
    parser.add_argument("--device", default="cpu", help="cuda: also a full-size decoder with up to 512 environments")
    parser.add_argument("--quick", action="store_true", help="fewer steps and scenes: a check that it runs, no measurement")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in cases(args.device, args.quick):
        gym.make("SamSeg-v0", **case.task)  # builds the banks outside the measurement
        with mp.get_context("spawn").Pool(1) as pool:  # a process each, so that peak memory is its own
            rows.append(pool.map(measure, [case])[0])
        print(json.dumps(rows[-1]), flush=True)
    base = rows[0]
    for row in rows:
        row["rollout_ratio"] = row["rollout_steps_per_second"] / base["rollout_steps_per_second"]
        row["training_ratio"] = row["training_steps_per_second"] / base["training_steps_per_second"]
        row["bytes_ratio"] = row["bytes_per_transition"] / base["bytes_per_transition"]
    banks = measure_banks({"n_images": 16 if args.quick else 200})
    overhead = measure_overhead(args.device, 8 if args.quick else 200)
    report = {"device": args.device, "rows": rows, "bank_images_per_second": banks, "threads": th.get_num_threads()}
    report["overhead_ms"] = overhead
    write_json(args.out / "benchmark.json", report)
    plot(report, args.out / "benchmark.png")
    head = ("rollout steps/s", "training steps/s", "x naive (rollout)", "x naive (training)", "bytes/transition")
    print("| | " + " | ".join((*head, "update ms", "peak MB")) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['name']} | {row['rollout_steps_per_second']:.0f} | {row['training_steps_per_second']:.0f} "
            f"| {row['rollout_ratio']:.1f} | {row['training_ratio']:.1f} | {row['bytes_per_transition']:.0f} "
            f"| {row['update_ms_per_step']:.2f} | {row['peak_memory_mb']:.0f} |"
        )
    print("bank: " + ", ".join(f"{speed:.0f} images/s ({what})" for what, speed in banks.items()))
    print("one environment, beside the decoder: " + ", ".join(f"{ms:.2f} ms a {what}" for what, ms in overhead.items()))
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
