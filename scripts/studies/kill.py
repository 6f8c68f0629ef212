"""Kill what runs for long at random times, go on, and see whether anything is lost or taken for whole that is not.

python scripts/studies/kill.py --kills 10                        # of each kind
python scripts/studies/kill.py --kills 2 --only training fit

Each kind of work first runs to its end, as the measure. Then it is killed (SIGKILL) at a random time after its first file.
What lies there must be whole. The same command must go on (training: with -i and the last checkpoint). The result must be
that of the run that nobody killed. Training draws other episodes when it goes on, so its steps and stages are compared. Ends
with 1 where something was lost.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.policies.archive import PolicyArchive

ROOT = Path(__file__).resolve().parents[2]
SCENES, STEPS, WARM = 48, 64, 96
LONGEST = 900  # seconds; half a minute on a machine that does nothing else
WARM_START = {"alignsam_sb3.callbacks.WarmStartCallback": {"steps": WARM}}
BUILD = f"""
import sys
from pathlib import Path
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.features import FeatureBank, SegmenterSource
from alignsam_sb3.segmenters import load_segmenter
bank = FeatureBank(ToyScenes("saliency", "train", n_images={SCENES}), SegmenterSource(load_segmenter("tiny", "cpu")),
                   Path(sys.argv[1]), batch_size=2)
rows = [bank[i]["embeddings"] for i in range(len(bank))]
import numpy as np
np.save(Path(sys.argv[1]) / "rows.npy", np.stack(rows))
"""


@dataclass
class Work:
    """One kind of long work.

    :param command: to run it in a folder
    :param going_on: to go on with it after a kill; empty where it was whole before
    :param whole: raises where something in the folder is half; ``AssertionError`` says what
    :param result: what came out, to compare
    """

    command: Callable[[Path], list[str]]
    going_on: Callable[[Path], list[str]]
    whole: Callable[[Path], None]
    result: Callable[[Path], object]


def train_command(out: Path) -> list[str]:
    """A short training with a warm start."""
    small = ["--env-kwargs", "dataset_kwargs:{'n_images': 16}", "device:'cpu'", "max_steps:2"]
    few = ["n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1", f"callback:[{WARM_START!r}]"]
    words = ["scripts/train.py", "-n", str(STEPS), "-f", str(out), "--eval-freq", "-1", "--save-freq", "16"]
    return [*words, *small, "-params", *few]


def policies_of(out: Path) -> list[Path]:
    """All saved policies, the one that has come furthest last."""

    def progress(path: Path) -> tuple[int, int]:
        recipe = PolicyArchive(path).recipe or {}
        return recipe["progress"]["num_timesteps"], sum(done for done, _ in recipe["stages"].values())

    return sorted(out.rglob("*.zip"), key=progress)


def train_on(out: Path) -> list[str]:
    """The same training from the last checkpoint, where there is one; no command where it has come to its end."""
    if any(out.rglob("SamSeg-v0.zip")):
        return []
    saved = policies_of(out)
    return [*train_command(out), *(["-i", str(saved[-1])] if saved else [])]


def train_whole(out: Path) -> None:
    """Every policy can be loaded."""
    for path in out.rglob("*.zip"):
        assert PolicyArchive(path).parameters()["policy"], f"{path} has no weights"


def train_result(out: Path) -> object:
    """How far it has come."""
    recipe = PolicyArchive(policies_of(out)[-1]).recipe or {}
    return recipe["progress"]["num_timesteps"], recipe["stages"]


def json_whole(out: Path) -> None:
    """Every JSON file can be read, and a report that says it is whole has clicks of as many episodes."""
    for path in out.rglob("*.json"):
        json.loads(path.read_text())
    report = out / "results.json"
    if report.exists():
        clicks = [json.loads(line)["episode"] for line in (out / "clicks.jsonl").read_text().splitlines()]
        assert len(set(clicks)) == json.loads(report.read_text())["episodes"], "results and clicks of two reports"


def nothing_whole(out: Path) -> None:
    """Nothing can be said of it before it has gone on."""


def network_of(out: Path) -> object:
    """The weights of a fitted network; the order of notes in its file differs from run to run."""
    return {name: value.numpy().tobytes() for name, value in load_file(out / "reward_network.safetensors").items()}


def rows_of(out: Path) -> object:
    """What the bank holds, as the process that went on read it."""
    return np.load(out / "rows.npy").tobytes()


def same(command: Callable[[Path], list[str]], whole: Callable[[Path], None], result: Callable[[Path], object]) -> Work:
    """Work that goes on with the same command."""
    return Work(command, command, whole, result)


def works(given: Path) -> dict[str, Work]:
    """All kinds.

    :param given: a folder with photos and a policy
    """
    policy, photos, network = str(given / "policy.zip"), str(given / "photos"), "alignsam_sb3.rewards.network"
    fit = ["-m", network, "fit", "--dataset", "toy:saliency", "--dataset-kwargs", json.dumps({"n_images": SCENES})]
    fit += ["--images", "40", "--steps", "40", "--batch", "8", "--device", "cpu"]
    evaluate = ["-m", "alignsam_sb3.evaluation", "--policy", policy, "--episodes", "24"]
    annotate = ["-m", "alignsam_sb3.cli", "annotate", photos, "--policy", policy, "--batch-size", "2", "--device", "cpu"]
    rows: Callable[[Path], object] = lambda out: json.dumps(json.loads((out / "results.json").read_text())["rows"])  # noqa: E731
    return {
        "training": Work(train_command, train_on, train_whole, train_result),
        "bank": same(lambda out: ["-c", BUILD, str(out)], nothing_whole, rows_of),
        "fit": same(lambda out: [*fit, "--out", str(out)], json_whole, network_of),
        "evaluation": same(lambda out: [*evaluate, "--out", str(out)], json_whole, rows),
        "annotation": same(lambda out: [*annotate, "--out", str(out)], json_whole, annotations_of),
    }


def annotations_of(out: Path) -> object:
    """The annotations, without the numbers that say when they were made."""
    found = json.loads(next(out.rglob("*coco*.json")).read_text())
    return found["images"], found["annotations"]


def start(words: list[str], cache: Path) -> "subprocess.Popen[str]":
    """Start a command in a group of its own."""
    env = {**os.environ, "ALIGNSAM_CACHE": str(cache), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, **pipes)  # type: ignore[call-overload, no-any-return]


def finish(words: list[str], cache: Path) -> None:
    """Run a command to its end.

    :raises RuntimeError: it fails, or hangs
    """
    wait_for(start(words, cache), words)


def wait_for(process: "subprocess.Popen[str]", words: list[str]) -> None:
    """Wait until a command has ended.

    :raises RuntimeError: it fails, or hangs
    """
    try:
        said, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise RuntimeError(
            f"{' '.join(words)[:200]} had not ended after {LONGEST} s:\n{process.communicate()[0][-2000:]}"
        ) from None
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)[:200]} failed:\n{said[-2000:]}")


def first_file(out: Path, process: "subprocess.Popen[str]") -> float:
    """Wait until something is written to a folder; the time."""
    while process.poll() is None and not (out.exists() and any(out.iterdir())):
        time.sleep(0.02)
    return time.monotonic()


def measured(work: Work, out: Path, cache: Path) -> tuple[object, float]:
    """What comes out when nobody kills it, and how many seconds it takes from the first file on."""
    process = start(work.command(out), cache)
    began = first_file(out, process)
    wait_for(process, work.command(out))
    return work.result(out), time.monotonic() - began


def survives(work: Work, out: Path, cache: Path, wait: float, expected: object) -> str:
    """Kill, look, go on and compare; what is wrong, empty where nothing is."""
    process = start(work.command(out), cache)
    first_file(out, process)
    try:
        process.communicate(timeout=wait)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    killed = process.wait()
    try:
        work.whole(out)
        going_on = work.going_on(out) if killed else []
        if going_on:
            finish(going_on, cache)
        return "" if work.result(out) == expected else "other results than the run that nobody killed"
    except (AssertionError, RuntimeError, ValueError, OSError, StopIteration) as error:
        return f"{type(error).__name__}: {error}"


def prepare(given: Path, cache: Path) -> None:
    """Photos, and a policy that was hardly trained."""
    (given / "photos").mkdir(parents=True)
    scenes = ToyScenes("semantic", "eval", n_images=24)
    for i in range(len(scenes)):
        Image.fromarray(scenes[i].image).save(given / "photos" / f"{i:03d}.png")
    finish([*train_command(given / "logs"), "callback:None"], cache)
    shutil.copy(policies_of(given / "logs")[-1], given / "policy.zip")


def main() -> None:
    """Command line."""
    kinds = list(works(Path()))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each kind of work")
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    drawn, table, lost = random.Random(args.seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(root / "given", root / "cache")
        for name in args.only:
            work, survived = works(root / "given")[name], 0
            expected, seconds = measured(work, root / name / "reference", root / "cache")
            for k in range(args.kills):
                wait = drawn.uniform(0, seconds)
                wrong = survives(work, root / name / str(k), root / "cache", wait, expected)
                survived += not wrong
                if wrong:
                    print(f"{name}, killed {wait:.1f} s after its first file: {wrong}", flush=True)
            table.append(f"| {name} | {survived} / {args.kills} |")
            print(table[-1], flush=True)
            lost += args.kills - survived
    print("\n| what was killed | survived / tried |\n|---|---|\n" + "\n".join(table))
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
