"""SAM 3 asked in words: many texts at once are each answered as the library answers them alone."""

import hf_models
import numpy as np
import pytest
import torch as th

from alignsam_sb3.prompting.clip_sam import load_text_segmenter
from alignsam_sb3.prompting.sam3 import load_sam3
from alignsam_sb3.prompting.text import TextSegmenter

transformers = pytest.importorskip("transformers")

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((112, 112), (60, 170), (200, 41))]
TEXTS = ["player in white", "person in white", "cat", "a dog", "shadow", "x"]  # more than are answered at once


@pytest.fixture(scope="module", params=["sam3", "sam3_video"])
def folder(request, hf_folder):
    return hf_folder(request.param)


@pytest.fixture(scope="module")
def segmenter(folder):
    return load_text_segmenter(f"sam3:{folder}", device="cpu")


@pytest.fixture(scope="module")
def library(folder):
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    square = {"height": hf_models.SIDE_3, "width": hf_models.SIDE_3}
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    return model, transformers.Sam3Processor(transformers.Sam3ImageProcessor(size=square), tokenizer)


def alone(library, image, text):
    """Probability in the image and presence, as the library has them."""
    model, processor = library
    inputs = processor(images=image, text=text, return_tensors="pt")
    with th.no_grad():
        answer = model(**{name: value for name, value in inputs.items() if name != "original_sizes"})
    found = processor.image_processor.post_process_semantic_segmentation(
        answer, target_sizes=[image.shape[:2]], return_segmentation_scores=True
    )
    return found[0].segmentation_scores[0].numpy(), float(answer.presence_logits.sigmoid())


def test_each_of_many_texts_is_answered_as_if_alone(segmenter, library):
    assert isinstance(segmenter, TextSegmenter)
    differ = set()
    for image in IMAGES:
        for text, answer in zip(TEXTS, segmenter.segment(image, TEXTS), strict=True):
            probability, presence = alone(library, image, text)
            assert answer.probability.shape == image.shape[:2]
            assert answer.found == (presence > 0.5)
            assert np.abs(answer.probability - probability * answer.found).max() < 1e-4
            differ.add(round(float(probability.mean()), 5))
    assert len(differ) == len(TEXTS) * len(IMAGES)  # text and image matter


def test_the_image_is_encoded_once(segmenter, monkeypatch):
    seen = []
    encode = segmenter.model.get_vision_features
    monkeypatch.setattr(segmenter.model, "get_vision_features", lambda pixels: seen.append(pixels) or encode(pixels))
    segmenter.segment(IMAGES[0], TEXTS)
    assert len(seen) == 1


def test_what_is_not_there_is_absent(segmenter, monkeypatch):
    answer = segmenter.model.forward

    def doubts(*args, **kwargs):
        said = answer(*args, **kwargs)
        said.presence_logits = th.where(th.arange(len(said.presence_logits))[:, None] % 2 == 0, -1.0, 1.0)
        return said

    monkeypatch.setattr(segmenter.model, "forward", doubts)
    answers = segmenter.segment(IMAGES[0], TEXTS[:4])
    assert [a.found for a in answers] == [False, True, False, True]
    assert [bool(a.probability.any()) for a in answers] == [False, True, False, True]
    assert not any(a.failed for a in answers)


def test_nan_is_no_answer(segmenter, monkeypatch):
    answer = segmenter.model.forward

    def broken(*args, **kwargs):
        said = answer(*args, **kwargs)
        said.semantic_seg[0, 0, 0, 0] = float("nan")
        return said

    monkeypatch.setattr(segmenter.model, "forward", broken)
    first, second = segmenter.segment(IMAGES[0], TEXTS[:2])
    assert first.failed and not first.found and not first.mask.any()
    assert not second.failed


def test_a_text_that_is_too_long_is_warned_of(segmenter, caplog):
    answers = segmenter.segment(IMAGES[0], ["dog " * 60, "dog"])
    assert len(answers) == 2
    assert caplog.text.count("its end is not read") == 1


def test_what_cannot_be_loaded_says_why(tiny_sam2_folder, tmp_path):
    with pytest.raises(ValueError, match="use it as a segmenter, hf:/folder"):
        load_sam3(str(tiny_sam2_folder))
    with pytest.raises(FileNotFoundError, match="forbids it"):
        load_text_segmenter("sam3")
    folder = hf_models.save("sam3", tmp_path / "sam3")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json"):
        load_sam3(str(folder))


def test_the_fingerprint_follows_the_weights(hf_folder, tmp_path):
    one = load_sam3(str(hf_folder("sam3"))).fingerprint
    assert load_sam3(str(hf_models.save("sam3", tmp_path / "same"))).fingerprint == one
    assert load_sam3(str(hf_models.save("sam3", tmp_path / "other", seed=1))).fingerprint != one
