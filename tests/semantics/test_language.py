"""The prior as a bank sees it, its maps in SAM's frame, and the embedded CLIP."""

import runpy
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch as th
from open_clip.model import CLIP

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.features import build_bank
from alignsam_sb3.frame import PADDING, Frame
from alignsam_sb3.semantics import ClipSurgery, LanguagePrior, load_clip
from alignsam_sb3.semantics.prompts import TEMPLATES
from alignsam_sb3.semantics.tiny import TinyClipConfig, build_tiny_clip, load_tiny_clip, save_tiny_clip


@pytest.fixture(scope="module")
def clip():
    return load_clip("tiny", "cpu")


def test_a_map_lies_where_the_image_lies_in_the_frame():
    maps = np.zeros((1, 10, 10), np.float32)
    maps[0, 8:] = 1.0  # the lowest fifth of the image, whatever its shape
    wide = Frame(64).from_squashed(maps, (300, 400), (16, 16))[0]
    assert (wide[12:] == PADDING).all()  # three quarters of the frame are image
    assert (wide[:12] >= 0).all()
    assert wide[11].min() == 1
    assert wide[:8].max() == 0
    tall = Frame(64).from_squashed(maps, (400, 300), (16, 16))[0]
    assert (tall[:, 12:] == PADDING).all()
    assert tall[15, :12].min() == 1
    assert tall[:11, :12].max() == 0


def test_a_square_image_of_the_same_grid_is_unchanged():
    maps = np.random.default_rng(0).random((3, 16, 16)).astype(np.float32)
    assert np.allclose(Frame(128).from_squashed(maps, (128, 128), (16, 16)), maps, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (33, 17), (7, 8)])
def test_any_image_has_some_map(size):
    framed = Frame(128).from_squashed(np.ones((2, 5, 5), np.float32), size, (16, 16))
    inside = framed >= 0
    assert inside[0].any() or size == (1, 900)  # a line less than half a cell high has no cell's centre
    assert np.allclose(framed[inside], 1)


def test_a_bank_keeps_maps_and_scores(clip, tmp_path):
    scenes = ToyScenes("saliency", "eval", 5)
    prior = LanguagePrior(clip, ["disc", "red object"])
    bank = build_bank(scenes, prior, tmp_path)
    found = clip.similarity([scenes[2].image], ["disc", "red object"])
    assert np.allclose(bank[2]["similarity_maps"], found.maps[0], atol=1e-3)
    assert np.allclose(bank[2]["scores"], found.scores[0], atol=1e-3)
    with pytest.raises(ValueError, match="was built for language"):
        build_bank(scenes, LanguagePrior(clip, ["disc", "blue object"]), tmp_path)


def test_unknown_words_are_warned_of_once_with_a_remedy(clip, caplog):
    clip.check_words(["zebra crossing", "disc"])
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith("CLIP 'tiny' was never taught all words of 'zebra crossing': its maps for it mean little.")
    assert "prompts={CATEGORY: 'other words'}" in said
    caplog.clear()
    clip.check_words([f"zebra {i}" for i in range(158)])
    (said,) = [r.getMessage() for r in caplog.records]
    assert "and 148 others" in said


def test_texts_longer_than_the_context_are_named(clip, caplog):
    """So many words that their ends are not read: two that differ there alone have the same features."""
    texts = ["a very long description of " + "a red " * 60 + word for word in ("star", "disc")]
    assert th.equal(*clip.text_features(texts))
    assert "reads no more than 32 tokens" in caplog.text
    assert caplog.text.count("'a very long description of a red") == 2
    caplog.clear()
    clip.text_features(texts)
    assert not caplog.text  # once
    clip.check_words(texts)
    assert "the end of 'a very long description" in caplog.text


def test_the_longest_text_that_fits_is_not_warned_of(clip, caplog):
    """The longest template leaves some tokens of the context; one more is too many."""
    encode = open_clip.get_tokenizer("ViT-B-16").encode
    room = 32 - 2 - max(len(encode(template.format(""))) for template in TEMPLATES)
    clip.text_features([" ".join(["red"] * room)])
    assert not caplog.text
    clip.text_features([" ".join(["red"] * (room + 1))])
    assert "is cut off" in caplog.text


def test_a_tiny_clip_is_saved_with_its_words_only(tmp_path):
    config = TinyClipConfig(width=32, layers=2, head_width=16, text_width=32, text_layers=1, stem_chans=16)
    ids = [0, 320, 1125, 49406, 49407]
    clip = build_tiny_clip(config, vocab_size=len(ids))
    save_tiny_clip(clip, ids, config, tmp_path / "clip.safetensors", {"seed": "0"})
    loaded, found, known = load_tiny_clip(tmp_path / "clip.safetensors")
    assert found == config
    assert known == set(ids)
    assert th.allclose(loaded.token_embedding.weight[ids], clip.token_embedding.weight, atol=1e-3)
    assert th.equal(loaded.token_embedding.weight[5], loaded.token_embedding.weight[6])  # words never used
    with pytest.raises(ValueError, match="3 token ids for 5 rows"):
        save_tiny_clip(clip, [1, 2, 3], config, tmp_path / "clip.safetensors", {})
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(ValueError, match="is not a tiny CLIP"):
        load_tiny_clip(tmp_path / "bad.safetensors")


def test_the_embedded_clip_is_an_open_clip_with_a_fine_grid(clip):
    assert isinstance(clip.clip, open_clip.CLIP)
    assert min(clip.grid) >= 16
    assert not any(p.requires_grad for p in clip.clip.parameters())


@pytest.mark.slow
def test_the_embedded_clip_meets_its_bar_on_unseen_scenes(clip):
    path = Path(__file__).resolve().parents[2] / "scripts" / "assets" / "measure_clip.py"
    found = runpy.run_path(str(path))["measure"](clip, ToyScenes("semantic", "eval"))
    assert found["images"] == 300
    assert found["peak_on_object"] >= 0.85
    assert found["presence_map"] >= 0.9


def test_words_matter(clip):
    scenes = ToyScenes("semantic", "eval", 12)
    images = [scenes[i].image for i in range(len(scenes))]
    one, other = (clip.similarity(images, [word, "object"]).maps[:, 0] for word in ("disc", "star"))
    assert (one - other).abs().mean() > 0.05


def test_fingerprints_tell_apart_what_gives_other_maps(clip):
    def prior(*texts):
        return LanguagePrior(clip, texts).fingerprint

    assert prior("a|b", "c") != prior("a", "b|c")
    assert prior("a", "b") != prior("b", "a")
    plain, quick = (
        ClipSurgery(CLIP(16, dict(VISION), dict(TEXT), quick_gelu=q), open_clip.get_tokenizer("ViT-B-16"), device="cpu")
        for q in (False, True)
    )
    quick.clip.load_state_dict(plain.clip.state_dict())
    assert plain.fingerprint != quick.fingerprint


VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
