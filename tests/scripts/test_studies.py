"""The studies that say what can be relied on: kills and growth; workers that end with whom they work for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def command(*words, **options):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, env=env, text=True, **options)


def test_a_worker_ends_with_its_parent(tmp_path):
    """Killed as kill -9 does, the parent can tell nobody."""
    worker = (
        "import os, sys, time; sys.path.insert(0, 'scripts/studies'); import ablation; ablation.end_with(os.getppid());"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    parent = command("-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])")
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it goes on for nobody")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_six_kills_lose_nothing():
    for kills, kinds in ((1, ["training", "bank", "fit", "annotation"]), (2, ["evaluation"])):
        done = command("scripts/studies/kill.py", "--kills", kills, "--only", *kinds, stdout=subprocess.PIPE)
        said, _ = done.communicate()
        assert not done.returncode, said


@pytest.mark.slow
def test_an_interrupted_ablation_keeps_what_is_finished_and_says_so(tmp_path):
    words = ["--quick", "--tasks", "saliency", "--seeds", 0, 1, "--workers", 1, "--out", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    study = command("scripts/studies/ablation.py", *words, **pipes, start_new_session=True)
    finished = tmp_path / "saliency-0.json"
    while not finished.exists():
        assert study.poll() is None
        time.sleep(0.1)
    os.killpg(study.pid, signal.SIGINT)  # as Ctrl-C does: to all of them
    said, _ = study.communicate(timeout=120)  # until no worker holds the pipe any more
    assert study.returncode == 1
    assert f"interrupted: finished variants are in {tmp_path}; the same command goes on" in said
    assert "full" in json.loads(finished.read_text())["rows"]


@pytest.mark.slow
def test_nothing_grows(tmp_path):
    out = tmp_path / "soak.json"
    assert not command("scripts/studies/soak.py", "--steps", 12_000, "--makes", 60, "--episodes", 160, "--out", out).wait()
    for grown in json.loads(out.read_text()).values():
        assert abs(grown["open files"]) < 100  # in 10^6 steps or 1,000 makes; a leak in each episode would be 200,000
        assert grown["MB"] < 1000


@pytest.mark.slow
def test_the_circle_keeps_the_rounds_that_are_done(tmp_path):
    few = ["--seeds", 1, "--rounds", 1, "--labelled", 10, "--photos", 12, "--unseen", 6, "--corrections", 6]
    words = ["scripts/studies/circle.py", *few, "--steps-first", 32, "--steps", 32, "-n", 512, "--out", tmp_path]
    first = command(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = first.communicate()
    assert not first.returncode, said[-2000:]
    kept = (tmp_path / "rounds.jsonl").read_text()
    rounds = [json.loads(line) for line in kept.splitlines()]
    assert [(r["order"], r["round"], len(r["keys"])) for r in rounds] == [
        ("queue", 0, 0), ("random", 0, 0), ("queue", 1, 6), ("random", 1, 6),
    ]  # fmt: skip
    assert rounds[2]["keys"] != rounds[3]["keys"] and all(0 <= r["dice"] <= 1 for r in rounds)
    table = (tmp_path / "circle.md").read_text()
    (tmp_path / "circle.md").unlink()
    assert not command(*words).wait() and (tmp_path / "rounds.jsonl").read_text() == kept
    assert (tmp_path / "circle.md").read_text() == table and len(table.splitlines()) == 4
