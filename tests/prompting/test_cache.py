"""Text segmenters and the table of their answers: asked once, kept exactly, resumed, nothing lost to one failure."""

import json
import logging

import numpy as np
import pytest

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.prompting.cache import LEVELS, build_cache
from alignsam_sb3.prompting.clip_sam import ClipSam, load_text_segmenter
from alignsam_sb3.prompting.text import Sa2VA, TextAnswer, TextSegmenter, load_sa2va


class Graded:
    """Answers with a ramp whose steepness is the length of the text; counts how often it is asked."""

    fingerprint = "graded"

    def __init__(self, fails_at=None):
        self.asked, self.fails_at = 0, fails_at

    def segment(self, image, texts):
        if self.asked == self.fails_at:
            raise KeyboardInterrupt
        self.asked += 1
        ramp = np.linspace(0, 1, image.shape[1], dtype=np.float32) ** 2
        answers = [TextAnswer(np.tile(ramp ** (1 / len(text)), (image.shape[0], 1))) for text in texts]
        return [*answers[:-1], TextAnswer(np.zeros(image.shape[:2], np.float32), found=False)]


@pytest.fixture
def scenes():
    return ToyScenes("vessels", "train", n_images=5)


def test_answers_are_kept_as_they_were(scenes, tmp_path):
    segmenter = Graded()
    texts = ("a", "bcd", "nothing")
    table = build_cache(scenes, segmenter, texts, folder=tmp_path)
    wanted = segmenter.segment(scenes[3].image, texts)
    for k in range(2):
        assert (table[3, k].mask == wanted[k].mask).all()
        assert np.abs(table[3, k].probability - wanted[k].probability).max() <= max(np.diff([0, *LEVELS, 1]))
        assert table[3, k].found
    assert not table[3, 2].found
    assert not table[3, 2].mask.any()


def test_an_interrupted_table_asks_only_what_is_missing(scenes, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_cache(scenes, Graded(fails_at=3), ("a", "b"), folder=tmp_path)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # as if the power had failed while the third image was written
    again = Graded()
    table = build_cache(scenes, again, ("a", "b"), folder=tmp_path)
    assert again.asked == 3
    assert table.usable.all()
    assert all(json.loads(line) for line in path.read_text().splitlines())
    third = Graded()
    build_cache(scenes, third, ("a", "b"), folder=tmp_path)
    assert third.asked == 0


def test_a_damaged_line_is_asked_again_and_the_others_are_kept(scenes, tmp_path, caplog):
    wanted = build_cache(scenes, Graded(), ("a", "b"), folder=tmp_path)
    path = tmp_path / "answers.jsonl"
    lines = path.read_text().splitlines()
    place = lines[2].index('"levels": ["') + 14
    lines[2] = lines[2][:place] + chr(ord(lines[2][place]) ^ 1) + lines[2][place + 1 :]
    lines[4] = "[]"
    path.write_text("\n".join(lines) + "\n")
    again = Graded()
    found = build_cache(scenes, again, ("a", "b"), folder=tmp_path)
    assert again.asked == 2
    assert all((found[i, 0].mask == wanted[i, 0].mask).all() for i in range(5))
    assert "line 3" in caplog.text
    third = Graded()
    build_cache(scenes, third, ("a", "b"), folder=tmp_path)
    assert third.asked == 0


def test_other_texts_are_another_table(scenes, tmp_path):
    build_cache(scenes, Graded(), ("a", "b"), folder=tmp_path)
    other = Graded()
    build_cache(scenes, other, ("a", "c"), folder=tmp_path)
    assert other.asked == 5


class Model:
    """Stands in for Sa2VA: answers by the text it is asked."""

    def __init__(self):
        self.heard = []

    def predict_forward(self, image=None, text=None, tokenizer=None):
        self.heard.append((image.mode, text, tokenizer))
        size = (1, image.height, image.width)
        left, right = np.zeros(size, bool), np.zeros(size, bool)
        left[..., : image.width // 2], right[..., -2:] = True, True
        if "nothing" in text:
            return {"prediction": "there is none<|im_end|>", "prediction_masks": []}
        if "wrong" in text:
            return {"prediction": "[SEG]", "prediction_masks": [np.ones((1, 3, 3), bool)]}
        if "crash" in text:
            raise AssertionError
        return {"prediction": "[SEG][SEG]", "prediction_masks": [left, right]}


def test_sa2va_hears_what_it_needs_and_nothing_else():
    model = Model()
    segmenter = Sa2VA(model, "fake", tokenizer="T", processor="P")
    image = np.zeros((20, 30, 3), np.uint8)
    answer, again = segmenter.segment(image, ["segment the vessel", "<image>segment it"])
    assert isinstance(segmenter, TextSegmenter)
    assert model.heard == [("RGB", "<image>segment the vessel", "T"), ("RGB", "<image>segment it", "T")]
    assert answer.mask.shape == (20, 30)
    assert answer.mask[:, :15].all()
    assert answer.mask[:, -2:].all()
    assert not answer.mask[:, 15:-2].any()
    assert (again.mask == answer.mask).all()


def test_sa2vas_failures_are_counted_and_give_empty_masks(caplog):
    segmenter = Sa2VA(Model(), "fake")
    image = np.zeros((20, 30, 3), np.uint8)
    with caplog.at_level(logging.ERROR):
        answers = segmenter.segment(image, ["nothing", "wrong", "crash", "fine"])
    assert [a.found for a in answers] == [False, False, False, True]
    assert not any(a.mask.any() for a in answers[:3])
    assert segmenter.failures == 2  # an answer without a mask is an answer
    assert "Traceback" in caplog.text


def test_code_that_comes_with_weights_needs_trust():
    with pytest.raises(PermissionError, match="trust-remote-code"):
        load_sa2va("somewhere")


def test_clip_sam_answers_each_text_by_itself(tiny):
    segmenter = load_text_segmenter("clip_sam", device="cpu")
    assert isinstance(segmenter, ClipSam)
    image = ToyScenes("semantic", "eval", n_images=3)[0].image
    both, alone = segmenter.segment(image, ["star", "ring"]), segmenter.segment(image, ["star"])
    assert np.abs(both[0].probability - alone[0].probability).max() < 1e-4
    assert both[0].probability.shape == image.shape[:2]
    with pytest.raises(ValueError, match="did you mean 'clip_sam'"):
        load_text_segmenter("clipsam")


def test_a_failure_is_asked_again_another_time(scenes, tmp_path):
    class Flaky(Model):
        works = False

        def predict_forward(self, image=None, text=None):
            if not self.works:
                raise RuntimeError("out of memory")
            return super().predict_forward(image, text)

    model = Flaky()
    table = build_cache(scenes, Sa2VA(model, "fake"), ("vessel",), folder=tmp_path)
    assert not table[0, 0].found
    model.works = True
    assert build_cache(scenes, Sa2VA(model, "fake"), ("vessel",), folder=tmp_path)[0, 0].found


@pytest.mark.parametrize("junk", [b"\xff\xfe\x00", b"[1]\n", b'{"index": 9'])
def test_a_damaged_file_is_asked_again_from_there(scenes, tmp_path, junk):
    build_cache(scenes, Graded(), ("a", "b"), folder=tmp_path)
    path = tmp_path / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + junk)
    again = Graded()
    assert build_cache(scenes, again, ("a", "b"), folder=tmp_path).usable.all()
    assert again.asked == 3
    path.write_bytes(path.read_bytes()[:-1])  # the newline of the last line alone
    once = Graded()
    build_cache(scenes, once, ("a", "b"), folder=tmp_path)
    assert once.asked == 1
