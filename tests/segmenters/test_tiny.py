import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.segmenters.tiny import ASSET

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "studies"))
from measure_segmenter import measure  # noqa: E402


@pytest.mark.slow
def test_the_embedded_sam_follows_clicks_on_unseen_scenes(tiny):
    """The full measurement over 500 scenes is in assets/README.md; this one is a tenth of it."""
    found = measure(tiny, ToyScenes("semantic", "eval", 50), clicks=5)
    assert found["iou"][0] >= 0.84
    assert found["iou"][4] >= max(0.87, found["iou"][0] + 0.02)


def test_the_asset_is_small_and_says_where_it_comes_from():
    assert ASSET.stat().st_size < 5e6
    with safe_open(ASSET, "pt") as archive:
        notes = archive.metadata()
    assert {"config", "steps", "seed", "seconds"} <= notes.keys()
    assert json.loads(notes["config"])["img_size"] == 128


@pytest.mark.slow
def test_the_fit_runs_and_resumes(tmp_path):
    command = [
        sys.executable,
        "scripts/assets/fit_tiny_sam.py",
        "--scenes",
        "16",
        "--batch",
        "2",
        "--save-every",
        "2",
        "--out",
        tmp_path,
    ]
    for steps, said in (("2", "wrote"), ("4", "going on from step 2")):
        done = subprocess.run([*command, "--steps", steps], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said in done.stdout
    assert np.isfinite((tmp_path / "tiny_sam.safetensors").stat().st_size)
