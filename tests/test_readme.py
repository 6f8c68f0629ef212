"""README's worked examples run as they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import DATASETS, load_dataset
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.segmenters.backbones import BACKBONES
from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS

README = Path(__file__).resolve().parents[1] / "README.md"


def example(heading):
    """The first Python block under a heading."""
    text = README.read_text()
    found = re.search(rf"#+ {heading}\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert found, f"README has no example under {heading!r}"
    return found[1]


def test_a_segmenter_of_your_own(monkeypatch):
    monkeypatch.setattr("alignsam_sb3.segmenters.backbones.BACKBONES", BACKBONES)
    code = example("A segmenter of your own")
    assert len(code.splitlines()) <= 25
    try:
        exec(code, {})
        segmenter = load_segmenter("resnet_sam:random", "cpu")
        assert segmenter.embedding_shape == (256, 16, 16)
        assert segmenter.encode([np.zeros((50, 70, 3), np.uint8)])["embeddings"].shape == (1, 256, 16, 16)
    finally:
        BACKBONES.pop("resnet_sam", None)


def test_a_data_set_of_your_own(tmp_path):
    code = example("A data set of your own")
    assert len(code.splitlines()) <= 25
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        picture = np.zeros((30, 40), np.uint8)
        picture[5 : 15 + i, 5:20] = 250
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
    try:
        exec(code, {})
        data = load_dataset(f"bright:{tmp_path}", "train", folds=2)
        assert len(data) == 2
        assert data[0].target(0).sum() >= 150
    finally:
        DATASETS.pop("bright", None)


@pytest.mark.parametrize("names", [DATASETS, CHECKPOINTS])
def test_every_kind_is_in_the_tables(names):
    text = README.read_text()
    missing = [name for name in names if f"| `{name}" not in text]
    assert not missing
