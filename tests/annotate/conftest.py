"""Folders of photos, and a predictor that needs no training."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # fakes.py


@pytest.fixture
def folder(tmp_path):
    """Twelve photos with a bright square, in two folders."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    (root / "more").mkdir(parents=True)
    for i in range(12):
        photo = np.full((40, 60, 3), rng.integers(0, 50), np.uint8)
        photo[10:30, 20 : 30 + i] = rng.integers(140, 255)
        Image.fromarray(photo).save(root / ("more" if i % 3 == 0 else "") / f"{i:03d}.png")
    return root
