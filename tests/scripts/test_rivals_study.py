"""The study of rivals: it goes on where it stopped, and says what cannot be had."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

STUDIES = Path(__file__).resolve().parents[2] / "scripts" / "studies"


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Runs the study with further words."""
    monkeypatch.syspath_prepend(STUDIES)
    module = importlib.import_module("rivals")
    small = ["--labelled", "1", "--seeds", "0", "--agent", "none", "--device", "cpu", "--clicks", "2", "--out", str(tmp_path)]

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["rivals.py", *small, *words])
        module.main()
        return (tmp_path / "rivals.md").read_text()

    yield run
    sys.modules.pop("rivals")


def test_a_study_goes_on_and_says_what_cannot_be_had(study, tmp_path):
    tasks = ["--tasks", "toy:saliency", "toy:semantic", "--episodes", "2"]
    written = study(*tasks)
    assert "| oracle | 0." in written
    assert "| small head | 0." in written
    assert "No row of map alone, map as mask prompt, map's errors, map's peaks (toy:saliency, 1 labelled images)" in written
    assert "No row of all (toy:semantic, 1 labelled images): none of the 1 toy scenes shows" in written
    assert Image.open(tmp_path / "rivals.png").width > 600
    path = tmp_path / "toy-saliency-1-0.json"
    stored = json.loads(path.read_text())
    assert stored["images"] == {"n_images": 1, "seed": 1}
    stored["rows"]["small head"]["dice"][-1] = 0.123
    path.write_text(json.dumps(stored))
    assert "| small head | 0.123 |" in study(*tasks)  # nothing is done twice
    with pytest.raises(SystemExit, match="was made with other options"):
        study("--tasks", "toy:saliency", "--episodes", "3")
