import json

import numpy as np
import pytest

from alignsam_sb3.datasets import CocoDataset, ToyScenes, UnreadableImageError
from alignsam_sb3.features import FeatureBank, SegmenterSource, build_bank


class Interrupting(ToyScenes):
    """Raises KeyboardInterrupt at one image, once."""

    at = 5

    def __getitem__(self, index):
        if index == self.at:
            self.at = None
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_a_bank_holds_what_the_segmenter_says(tmp_path, tiny, toy):
    bank = build_bank(toy, SegmenterSource(tiny), tmp_path)
    assert len(bank) == len(toy)
    expected = tiny.encode([toy[3].image])[0].numpy()
    assert np.abs(bank[3]["embeddings"] - expected).max() < 2e-3 * max(np.abs(expected).max(), 1)
    assert bank[3]["embeddings"].dtype == np.float32


def test_a_finished_bank_is_opened_not_built(tmp_path, tiny, toy, monkeypatch):
    build_bank(toy, SegmenterSource(tiny), tmp_path)
    monkeypatch.setattr(tiny, "encode", None)
    assert build_bank(toy, SegmenterSource(tiny), tmp_path).usable.all()


def test_an_interrupted_build_goes_on(tmp_path, tiny, monkeypatch):
    scenes = Interrupting("saliency", "train", 8)
    with pytest.raises(KeyboardInterrupt):
        build_bank(scenes, SegmenterSource(tiny), tmp_path, batch_size=2)
    assert not (tmp_path / "bank.json").exists()
    encoded = []
    encode = tiny.encode
    monkeypatch.setattr(tiny, "encode", lambda images: encoded.extend(images) or encode(images))
    bank = build_bank(scenes, SegmenterSource(tiny), tmp_path, batch_size=2)
    assert len(encoded) == 4  # the first four were kept
    whole = build_bank(ToyScenes("saliency", "train", 8), SegmenterSource(tiny), tmp_path / "other")
    assert all(np.allclose(bank[i]["embeddings"], whole[i]["embeddings"], atol=1e-2) for i in range(8))
    assert not list(tmp_path.glob("*.part"))


def test_a_bank_of_other_images_is_refused(tmp_path, tiny, toy):
    build_bank(toy, SegmenterSource(tiny), tmp_path)
    other = ToyScenes("saliency", "train", 13)
    with pytest.raises(ValueError, match=r"built for dataset 'toy-saliency-train-12.*Give another folder"):
        build_bank(other, SegmenterSource(tiny), tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished bank"):
        FeatureBank(tmp_path / "nothing", toy, SegmenterSource(tiny))


def test_unreadable_images_are_named_together_or_skipped(coco_root, tmp_path, tiny, caplog):
    (coco_root / "val2017" / "001.png").write_bytes(b"no image")
    (coco_root / "val2017" / "002.png").write_bytes(b"")
    data = CocoDataset(coco_root, "eval")
    with pytest.raises(UnreadableImageError, match=r"2 of 4 images(.|\n)*001.png(.|\n)*002.png"):
        build_bank(data, SegmenterSource(tiny), tmp_path)
    bank = build_bank(data, SegmenterSource(tiny), tmp_path, on_error="skip")
    assert bank.usable.tolist() == [True, False, False, True]
    assert "2 of 4 images are skipped" in caplog.text
    assert len(json.loads((tmp_path / "bank.json").read_text())["skipped"]) == 2
    with pytest.raises(IndexError, match="was skipped"):
        bank[1]
    with pytest.raises(ValueError, match="did you mean 'skip'"):
        build_bank(data, SegmenterSource(tiny), tmp_path, on_error="skpi")


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, tiny, toy, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"the bank needs 0.00 GB in .*ALIGNSAM_CACHE"):
        build_bank(toy, SegmenterSource(tiny), tmp_path)
    assert not list(tmp_path.glob("*.npy*"))
