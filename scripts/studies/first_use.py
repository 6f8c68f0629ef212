"""How long the first use takes: imports, ``gym.make`` and ``reset``, each time in a new process on an empty cache.

python scripts/studies/first_use.py --repeats 9
python scripts/studies/first_use.py --env PromptSelect-v0 --most 3 1      # ends with 1 where a median is above these seconds

Imports are timed apart: torch's own first, then what the environment needs besides. Medians and ranges over the repeats; one
run before them, which brings the files into memory, does not count. Where other work shares the machine, the processor's time
with OMP_NUM_THREADS=1 says what the clock would on one idle core.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = ("import torch", "other imports", "gym.make", "reset")
PROBE = """
import json, sys, time
times = []
def lap():
    times.append((time.perf_counter(), time.process_time()))
lap()
import torch
lap()
import gymnasium as gym
import alignsam_sb3
from gymnasium.envs.registration import load_env_creator
load_env_creator(gym.spec(sys.argv[1]).entry_point)
lap()
env = gym.make(sys.argv[1])
lap()
env.reset(seed=0)
lap()
print(json.dumps([[b - a for a, b in zip(before, after)] for before, after in zip(times, times[1:])]))
"""


def first_use(env: str) -> list[tuple[float, float]]:
    """Seconds on the clock and of the processor of each of :data:`PARTS`."""
    with tempfile.TemporaryDirectory() as cache:
        paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
        given = {**os.environ, "ALIGNSAM_CACHE": cache, "PYTHONPATH": paths}
        done = subprocess.run([sys.executable, "-c", PROBE, env], env=given, stdout=subprocess.PIPE, text=True, check=True)
    return [(clock, processor) for clock, processor in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--most", type=float, nargs=2, metavar=("MAKE", "RESET"), default=(float("inf"),) * 2)
    args = parser.parse_args()
    first_use(args.env)
    parts = list(zip(*(first_use(args.env) for _ in range(args.repeats)), strict=True))
    clock, processor = ([[run[k] for run in part] for part in parts] for k in (0, 1))
    print("| " + " | ".join((args.env, *PARTS)) + " |\n" + "|---" * (len(PARTS) + 1) + "|")
    print(f"| s, median of {args.repeats} | " + " | ".join(f"{statistics.median(part):.2f}" for part in clock) + " |")
    print("| range | " + " | ".join(f"{min(part):.2f} to {max(part):.2f}" for part in clock) + " |")
    print("| processor s, median | " + " | ".join(f"{statistics.median(part):.2f}" for part in processor) + " |")
    raise SystemExit(int(any(statistics.median(part) > most for part, most in zip(clock[2:], args.most, strict=True))))


if __name__ == "__main__":
    main()
