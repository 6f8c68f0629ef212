"""Fingerprints are of what a model computes: constants on every machine, and of nothing else."""

import shutil

import pytest
import torch as th
from torch import nn

from alignsam_sb3.fingerprints import FORMER, current, digest, structure
from alignsam_sb3.policies.frozen import UNSAID
from alignsam_sb3.rewards.network import load_scorer
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.segmenters.tiny import ASSET as SAM
from alignsam_sb3.semantics import LanguagePrior, load_clip
from alignsam_sb3.semantics.tiny import ASSET as CLIP

TINY_SAM, TINY_CLIP = "tiny-61e1891b1944334c", "clip-b85f5fb0b382397c"


def test_the_embedded_models_have_the_same_fingerprints_everywhere():
    assert load_segmenter("tiny", "cpu").fingerprint == TINY_SAM
    assert load_clip("tiny", "cpu").fingerprint == TINY_CLIP
    assert set(FORMER.values()) == set(UNSAID.values())


@pytest.mark.parametrize(("load", "asset", "fingerprint"), [(load_segmenter, SAM, TINY_SAM), (load_clip, CLIP, TINY_CLIP)])
def test_where_a_file_lies_does_not_matter(tmp_path, monkeypatch, load, asset, fingerprint):
    shutil.copy(asset, tmp_path / "copy.safetensors")
    monkeypatch.chdir(tmp_path)
    for where in (asset, tmp_path / "copy.safetensors", "copy.safetensors", "./copy.safetensors"):
        load.cache_clear()
        assert load(f"tiny:{where}", "cpu").fingerprint == fingerprint
    load.cache_clear()


def test_the_embedded_reward_networks_know_their_models_by_former_names():
    for name in ("tiny", "tiny_named"):
        scorer = load_scorer(name, "cpu")
        language = LanguagePrior(load_clip("tiny", "cpu"), scorer.config.texts).fingerprint if scorer.config.texts else None
        scorer.check(scorer.config.categories, TINY_SAM, language)
        with pytest.raises(ValueError, match="was fitted on embeddings of"):
            scorer.check(scorer.config.categories, "tiny-0000000000000000", language)
    with pytest.raises(ValueError, match="sees what CLIP"):
        scorer.check(scorer.config.categories, TINY_SAM, f"{TINY_CLIP}-0000000000000000")


def test_only_whole_former_names_are_renamed():
    old, new = next(iter(FORMER.items()))
    assert current(old) == new
    assert current(f"{old}-abc") == f"{new}-abc"
    assert current(f"{old}0") == f"{old}0"
    assert current(None) is None


def test_how_torch_prints_a_model_does_not_matter(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU())
    before = structure(model)
    monkeypatch.setattr(nn.BatchNorm2d, "extra_repr", lambda self: "as another version prints it")
    assert structure(model) == before


@pytest.mark.parametrize(
    "other",
    [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU()),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU("tanh")),
        nn.Sequential(nn.Conv2d(3, 4, 3)),
    ],
)
def test_what_no_weight_tells_is_told(other):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU())
    assert structure(model) != structure(other)
    assert structure(model) == structure(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Dropout(), nn.Identity()))


def test_a_digest_follows_every_weight_and_name():
    weights = {"a": th.ones(2, 3), "b": th.zeros((), dtype=th.bfloat16)}
    others = (
        {**weights, "a": th.ones(3, 2)},
        {**weights, "b": th.ones((), dtype=th.bfloat16)},
        {"a": weights["a"], "c": weights["b"]},
    )
    found = {digest(weights, "x"), digest(weights, "y"), *(digest(other, "x") for other in others)}
    assert len(found) == 5
    assert digest(dict(reversed(weights.items())), "x") == digest(weights, "x")
