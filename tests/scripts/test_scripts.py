"""The commands of README, small, each in a process of its own as a user would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--env-kwargs", "dataset_kwargs:{'n_images':16}", "device:'cpu'", "max_steps:3"]
FEW = ["-params", "n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1"]


def run(*command, cwd=ROOT, fails=False):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert bool(done.returncode) == fails, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of train.py with evaluation, checkpoints and TensorBoard."""
    logs = tmp_path_factory.mktemp("logs")
    said = run(
        "scripts/train.py", "--algo", "ppo_mask", "--env", "SamSeg-v0", "-n", "64", "--log-folder", logs, "--eval-freq", "32",
        "--eval-episodes", "2", "--save-freq", "32", "--tensorboard-log", logs / "tb", "--log-interval", "1", *SMALL, *FEW,
    )  # fmt: skip
    return logs, said


def test_train_logs_saves_and_films(trained):
    logs, said = trained
    folder = logs / "ppo_mask" / "SamSeg-v0_1"
    assert {"SamSeg-v0.zip", "best_model.zip", "rl_model_32_steps.zip", "rl_model_64_steps.zip"} <= {
        p.name for p in folder.iterdir()
    }
    assert list((folder / "films").glob("*.gif"))
    assert re.search(r"eval/ +\|.*\n.*best_dice", said)
    assert "'split': 'eval'" in said  # the evaluation environment plays other scenes
    assert list((logs / "tb").rglob("events*"))


def test_resume_goes_on_with_steps_and_schedule(trained):
    logs, _ = trained
    checkpoint = logs / "ppo_mask" / "SamSeg-v0_1" / "rl_model_32_steps.zip"
    said = run(
        "scripts/train.py", "-n", "96", "-i", checkpoint, "--log-folder", logs / "resumed", "--eval-freq", "32", "-P",
        "--eval-episodes", "1", "--save-freq", "32", "--log-interval", "1", *FEW,
    )  # fmt: skip
    assert "'n_images': 16" in said  # the task comes with the policy
    assert "Going on from step 32 to 96" in said
    assert sorted({int(n) for n in re.findall(r"total_timesteps +\| (\d+)", said)}) == [48, 64, 80, 96]
    rates = sorted({float(r) for r in re.findall(r"learning_rate +\| ([\d.e-]+)", said)}, reverse=True)
    assert [rate / rates[0] for rate in rates[:3]] == pytest.approx([(96 - n) / 48 for n in (48, 64, 80)], rel=1e-2)
    again = logs / "resumed" / "ppo_mask" / "SamSeg-v0_1" / "rl_model_96_steps.zip"
    assert again.stat().st_size < 1.05 * checkpoint.stat().st_size
    said = run("scripts/train.py", "-n", "112", "-i", again, "-f", logs / "twice", "--eval-freq", "-1", *FEW)
    assert "Going on from step 96 to 112" in said
    said = run("scripts/train.py", "-n", "16", "-i", checkpoint, "-f", logs / "no", *FEW, fails=True)
    assert "already seen 32 steps of 16" in said


def test_training_and_evaluating_on_the_same_images_is_refused(trained, tmp_path):
    said = run("scripts/train.py", "--dataset", "toy:semantic:train", "-n", "16", "-f", tmp_path, *SMALL, fails=True)
    assert "would use the same images" in said
    policy = trained[0] / "ppo_mask" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    command = ["-m", "alignsam_sb3.evaluation", "--policy", policy, "--out", tmp_path]
    said = run(*command, "--dataset", "toy:semantic:train", "--dataset-kwargs", '{"n_images": 16}', fails=True)
    assert "was trained on these very images" in said


def test_enjoy_plays_evaluation_images(trained):
    logs, _ = trained
    said = run("scripts/enjoy.py", "--algo", "ppo_mask", "--env", "SamSeg-v0", "-f", logs, "--no-render", "-n", "6")
    assert "Mean reward" in said


def test_optimize_samples_ours_and_leaves_no_run_folder(tmp_path):
    said = run(
        "scripts/train.py", "-optimize", "--n-trials", "2", "-n", "32", "-f", tmp_path, "--eval-episodes", "1", *SMALL,
        "-params", "n_envs:2",
    )  # fmt: skip
    assert "Number of finished trials:  2" in said
    assert "n_steps_pow" in said
    assert not [p for p in (tmp_path / "ppo_mask").iterdir() if p.is_dir() and p.name.startswith("SamSeg")]


def test_the_stock_zoo_command_and_ours_train_ppo(tmp_path):
    stock = ["-m", "rl_zoo3.train", "--algo", "ppo", "--env", "SamSeg-v0", "--gym-packages", "alignsam_sb3"]
    stock += ["--conf-file", "hyperparams/ppo.yml", "--eval-freq", "16", "--eval-episodes", "1"]
    without = [option for option in SMALL if not option.startswith("max_steps")]
    run(*stock, "-n", "32", "-f", tmp_path / "stock", *without, *FEW)
    policy = tmp_path / "stock" / "ppo" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    command = ["-m", "alignsam_sb3.evaluation", "--policy", policy, "--episodes", "2", "--out", tmp_path / "report"]
    command += ["--dataset-kwargs", '{"n_images": 16}']
    assert "pass --trust" in run(*command, fails=True)
    assert "| agent |" in run(*command, "--trust")
    run("scripts/train.py", "--algo", "ppo", "-n", "32", "-f", tmp_path / "ours", "--eval-freq", "-1", *SMALL, *FEW)
    policy = tmp_path / "ours" / "ppo" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    said = run("-m", "alignsam_sb3.evaluation", "--policy", policy, "--episodes", "3", "--out", tmp_path / "report")
    assert "| agent |" in said


def test_photographs_train_with_the_same_command(tmp_path, photographs):
    said = run(
        "scripts/train.py", "--dataset", f"coco:{(photographs / 'coco_permissive').resolve()}", "--categories", "person",
        "-n", "32", "-f", tmp_path, "--eval-freq", "-1", *FEW, cwd=ROOT,
    )  # fmt: skip
    assert "Saving to" in said


@pytest.mark.slow
def test_benchmark_writes_its_report(tmp_path):
    run("scripts/benchmark.py", "--quick", "--out", tmp_path)
    assert (tmp_path / "benchmark.json").is_file()
    assert (tmp_path / "benchmark.png").is_file()
