"""What is said of speed is measured, also for a segmenter without weights or policy."""

import re

import pytest

from alignsam_sb3.annotate.benchmark import benchmark, untrained


@pytest.fixture(scope="module")
def predict():
    return untrained("tiny", "cpu")


def test_a_policy_that_has_learned_nothing_is_measured_as_any_other(predict):
    assert predict.segmenter.name == "tiny" and predict.recipe["progress"]["num_timesteps"] == 0
    said = benchmark(predict, 2, "64x48", ["disc"])
    rate, minutes = float(re.search(r"([\d.]+) images/s", said)[1]), float(re.search(r"take (\d+) minutes", said)[1])
    assert said.startswith("2 photos of 64x48, 1 categories") and minutes == pytest.approx(10_000 / rate / 60, rel=0.1, abs=1)


@pytest.mark.parametrize(("images", "size", "match"), [(2, "640", "WIDTHxHEIGHT"), (0, "64x48", "at least one image")])
def test_sizes_that_are_none_are_refused(predict, images, size, match):
    with pytest.raises(ValueError, match=match):
        benchmark(predict, images, size)
