"""Two processes train one policy: equal weights, and those of one process with twice the environments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch as th

SCRIPT = """
import json, sys
from functools import partial
import torch as th
from alignsam_sb3.policies import SamMaskablePPO, distributed
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from alignsam_sb3.task import Task

out, n_envs, greedy = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "greedy"
th.set_num_threads(1)
distributed.join()
task = Task("toy:saliency", dataset_kwargs={"n_images": 12}, clip=None, max_steps=2, patches=6, device="cpu")
venv = SamSegVecEnv.of(task, n_envs)
size = 4 * n_envs if greedy else 2 * n_envs
model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=size, n_epochs=1, seed=0, device="cpu")
if greedy:
    model.policy.forward = partial(model.policy.forward, deterministic=True)
model.learn(8 * n_envs)
th.save(model.policy.state_dict(), f"{out}-{distributed.rank()}.pt")
"""


def run(tmp_path, name, ranks, n_envs, how):
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / name), str(n_envs), how]
    if ranks > 1:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        command = [*launch, *command[1:]]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [th.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(ranks)]


@pytest.mark.slow
def test_two_processes_end_with_equal_weights(tmp_path):
    one, other = run(tmp_path, "pair", 2, 2, "sampled")
    assert all(th.equal(value, other[key]) for key, value in one.items())


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_environments(tmp_path):
    pair, (single,) = run(tmp_path, "pair", 2, 2, "greedy")[0], run(tmp_path, "single", 1, 4, "greedy")
    apart = max(float((value - single[key]).abs().max()) for key, value in pair.items())
    assert apart < 2e-4, json.dumps({"apart": apart})  # Adam steps by 3e-4
