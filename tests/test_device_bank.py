"""DeviceBank: the same tensors wherever they are kept, each row read once where it stays."""

import numpy as np
import pytest
import torch as th

from alignsam_sb3.datasets import ToyScenes, UnreadableImageError
from alignsam_sb3.device_bank import DeviceBank
from alignsam_sb3.features import SegmenterSource, build_bank
from alignsam_sb3.frame import PADDING
from alignsam_sb3.segmenters.fine import FINE
from alignsam_sb3.semantics import LanguagePrior, load_clip

SIZES = [(128, 128), (64, 128), (128, 40), (3, 90)]


class Cropped(ToyScenes):
    """Scenes of several shapes."""

    @property
    def fingerprint(self):
        return "cropped"

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        h, w = SIZES[index % len(SIZES)]
        return type(sample)(sample.image_id, sample.image[:h, :w], sample.masks[:, :h, :w], sample.category_ids)


@pytest.fixture(scope="module")
def banks(tiny, tmp_path_factory):
    """The data, what both models say of it, and a maker of device banks that notes which images are read."""
    data = Cropped("semantic", "train", 6)
    features = build_bank(data, SegmenterSource(tiny), tmp_path_factory.mktemp("bank"))
    prior = LanguagePrior(load_clip("tiny", "cpu"), data.categories)
    language = build_bank(data, prior, tmp_path_factory.mktemp("language"))

    def make(place, language=language):
        read = []

        def photo(row):
            read.append(row)
            return data[row].image

        bank = DeviceBank(features, language, tiny.frame, (16, 16), 128, photo, th.device("cpu"), place)
        return bank, read

    return data, features, language, make


ROWS = np.array([4, 1, 1, 2, 3])


def test_both_places_give_equal_tensors(banks, tiny):
    data, features, language, make = banks
    (resident, _), (host, _) = make("device"), make("host")
    assert resident.resident
    assert not host.resident
    found, other = resident.gather(ROWS), host.gather(ROWS)
    assert found.keys() == other.keys() == {"embeddings", *FINE, "image", "similarity_maps", "cosine_maps"}
    for name, values in found.items():
        assert th.equal(values, other[name])
        assert values.dtype == other[name].dtype == (th.uint8 if name == "image" else th.float32)
        assert values.shape == (5, *resident.shapes[name])
    assert np.array_equal(found["embeddings"].numpy(), features.rows(ROWS)["embeddings"].astype(np.float32))
    for k, row in enumerate(ROWS):
        image = data[int(row)].image
        assert np.array_equal(found["image"][k].numpy().transpose(1, 2, 0), tiny.frame.picture(image, 128))
        maps = language.rows([row])["similarity_maps"][0].astype(np.float32)
        framed = tiny.frame.from_squashed(maps, image.shape[:2], (16, 16))
        assert np.allclose(found["similarity_maps"][k], framed, atol=1e-3)
        assert np.array_equal(found["similarity_maps"][k].numpy() == PADDING, framed == PADDING)


def test_a_resident_row_is_read_once(banks, monkeypatch):
    _, features, _, make = banks
    bank, read = make("device")
    asked, rows = [], features.rows
    monkeypatch.setattr(features, "rows", lambda wanted: asked.append(list(wanted)) or rows(wanted))
    first = bank.gather(ROWS)
    assert asked == [[1, 2, 3, 4]]
    count = len(read)
    assert set(read) == {1, 2, 3, 4}
    again = bank.gather(ROWS[::-1].copy())
    assert all(th.equal(first[name].flip(0), again[name]) for name in first)
    bank.gather(np.array([5, 4]))
    assert asked == [[1, 2, 3, 4], [5]]
    assert set(read[count:]) == {5}


def test_what_is_gathered_is_a_copy_and_only_what_was_asked_for(banks):
    for place in ("device", "host"):
        bank, _ = banks[-1](place)
        found = bank.gather(np.array([0, 1]), ["image"])
        assert list(found) == ["image"]
        found["image"].zero_()
        assert bank.gather(np.array([0, 1]), ["image"])["image"].any()
        assert bank.gather(np.array([0]), []) == {}
    silent, _ = banks[-1]("device", None)
    assert set(silent.gather(np.array([0]))) == {"embeddings", *FINE, "image"}


def test_what_does_not_fit_stays_in_its_files(banks, monkeypatch):
    monkeypatch.setattr("alignsam_sb3.device_bank.free_memory", lambda device: 1e12)
    assert banks[-1]("auto")[0].resident
    monkeypatch.setattr("alignsam_sb3.device_bank.free_memory", lambda device: 1e6)
    assert not banks[-1]("auto")[0].resident
    with pytest.raises(ValueError, match="did you mean 'device'"):
        banks[-1]("devise")


def test_an_image_that_has_gone_is_named(banks, tiny):
    _, features, language, _ = banks

    def gone(row):
        raise UnreadableImageError(f"{row}.png: no such file")

    for place in ("device", "host"):
        bank = DeviceBank(features, language, tiny.frame, (16, 16), 128, gone, th.device("cpu"), place)
        with pytest.raises(UnreadableImageError, match=r"2\.png: no such file"):
            bank.gather(np.array([2]))
