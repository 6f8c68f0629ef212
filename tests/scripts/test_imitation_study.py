"""The studies of imitation and of photographs: small ones run, go on where they stopped, and count rightly."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

STUDIES = Path(__file__).resolve().parents[2] / "scripts" / "studies"
PHOTOGRAPHS = Path(os.environ.get("ALIGNSAM_TEST_DATA", "../shared/data")) / "oxford_pets26"


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Runs a study by its name; what it wrote."""
    monkeypatch.syspath_prepend(STUDIES)

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--out", str(tmp_path), "--device", "cpu", *words])
        importlib.import_module(name).main()
        return (tmp_path / f"{name}.md").read_text()

    yield run
    for name in ("imitation", "photographs", "rivals", "filmstrips", "summarise"):
        sys.modules.pop(name, None)


def test_imitation_and_ppo_stand_in_one_table(study, tmp_path):
    words = ["--settings", "stop", "--methods", "imitation, done at 0.90", "PPO", "--seeds", "0", "--episodes", "4"]
    written = study("imitation", *words, "--steps", "512")
    assert "| imitation, done at 0.90 | 1 | 0." in written
    found = json.loads((tmp_path / "stop-PPO-0.json").read_text())
    assert found["reward"] == pytest.approx(found["dice"][-1] - 0.01 * found["clicks"])
    assert 1 <= found["clicks"] <= 10
    other = json.loads((tmp_path / "stop-imitation,-done-at-0.90-0.json").read_text())
    assert f"| {found['reward'] - other['reward']:.3f} |" in written  # PPO's lead
    found["dice"][-1] = 0.123
    (tmp_path / "stop-PPO-0.json").write_text(json.dumps(found))
    assert "| PPO | 1 | 0.123 |" in study("imitation", *words, "--steps", "512")  # nothing is done twice
    with pytest.raises(SystemExit, match="was made with other options"):
        study("imitation", *words, "--steps", "1024")


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}: set ALIGNSAM_TEST_DATA")
def test_each_photograph_is_judged_once(study, tmp_path):
    words = ["--dataset", f"oxford_pets:{PHOTOGRAPHS}", "--folds", "2", "--agent", "none", "--clicks", "2"]
    written = study("photographs", *words)
    assert written.startswith("26 targets, tiny-")
    folds = [json.loads((tmp_path / f"fold{k}.json").read_text()) for k in range(2)]
    assert sum(fold["targets"] for fold in folds) == 26
    dice = np.concatenate([fold["rows"]["oracle"]["dice"] for fold in folds])
    assert f"| oracle | {dice[:, 0].mean():.3f} (" in written
    assert "No row of map alone, map as mask prompt, map's errors, map's peaks: the policy has no recalibration" in written


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}: set ALIGNSAM_TEST_DATA")
def test_a_damaged_photograph_is_left_out(study, tmp_path, capsys):
    copy = Path(shutil.copytree(PHOTOGRAPHS, tmp_path / "pets"))
    damaged = min((copy / "images").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:200])
    words = ["--dataset", f"oxford_pets:{copy}", "--folds", "2", "--agent", "none", "--clicks", "1"]
    assert study("photographs", *words).startswith("25 targets, ")
    assert damaged.name in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no photographs at {PHOTOGRAPHS}: set ALIGNSAM_TEST_DATA")
def test_an_agent_learns_from_the_other_photographs_and_is_filmed(study, tmp_path):
    words = ["--dataset", f"oxford_pets:{PHOTOGRAPHS}", "--agent", "quick", "--clicks", "2"]
    assert "| **agent** | 0." in study("photographs", *words).replace("| agent |", "| **agent** |")
    widths = {3 * Image.open(path).width for path in (PHOTOGRAPHS / "images").iterdir()}
    assert Image.open(tmp_path / "films.png").width in widths  # the truth and two clicks, as large as the photograph


def test_no_click_is_better_than_the_best_cell(monkeypatch, capsys):
    monkeypatch.syspath_prepend(STUDIES)
    importlib.import_module("best_click").main(["saliency", "--scenes", "3", "--patches", "4"])
    oracle, best = (float(x) for x in capsys.readouterr().out.splitlines()[-1].split("|")[2:4])
    assert 0.5 < oracle <= best <= 1
