"""Metrics of data sets, against hand-computed cases, torchmetrics and PySODMetrics."""

import numpy as np
import pytest
import torch as th
from torchmetrics import functional as peers

from alignsam_sb3 import metrics


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    truths = rng.random((6, 24, 30)) < 0.3
    probabilities = np.clip(0.55 * truths + 0.5 * rng.random(truths.shape), 0, 1)
    probabilities[:, 0, 0], probabilities[:, 0, 1] = 0, 1  # PySODMetrics stretches each image to [0, 1]
    return [((p * 255).round() / 255, t) for p, t in zip(probabilities, truths, strict=True)]


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("dice", "f1_score"),
        ("iou", "jaccard_index"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("mae", "hamming_distance"),
    ],
)
def test_masks_agree_with_torchmetrics(images, name, peer):
    mean = metrics.ImageMean(name)
    theirs = []
    for probability, truth in images:
        mean.update(probability > 0.5, truth)
        theirs.append(getattr(peers, peer)(th.from_numpy(probability > 0.5).int(), th.from_numpy(truth).int(), task="binary"))
    found = float(np.mean(theirs))
    assert float(mean.compute()) == pytest.approx(found)


def test_f_and_e_measure_agree_with_pysodmetrics(images):
    sod = pytest.importorskip(
        "py_sod_metrics", reason="pip install pysodmetrics, which pins an older numpy, in an environment of its own"
    )
    pairs = ((metrics.FMeasure(), sod.Fmeasure(), "fm"), (metrics.EMeasure(), sod.Emeasure(), "em"))
    for ours, theirs, name in pairs:
        for probability, truth in images:
            ours.update(probability, truth)
            theirs.step((probability * 255).round().astype(np.uint8), truth.astype(np.uint8) * 255)
        known, found = theirs.get_results()[name], ours.compute()
        share = images[0][1].size / (images[0][1].size - 1) if name == "em" else 1  # they divide by one pixel less
        assert float(found["max"]) * share == pytest.approx(known["curve"].max(), abs=1e-4)
        assert float(found["mean"]) * share == pytest.approx(known["curve"].mean(), abs=2e-3)
        assert float(found["adaptive"]) * share == pytest.approx(known["adp"], abs=2e-3)


def test_f_measure_of_masks_agrees_with_torchmetrics(images):
    for probability, truth in images:
        said, known = th.from_numpy(probability > 0.5).int(), th.from_numpy(truth).int()
        theirs = float(peers.fbeta_score(said, known, task="binary", beta=0.3**0.5))
        assert metrics.f_beta(probability > 0.5, truth) == pytest.approx(theirs)


def test_e_measure_is_what_its_paper_writes(images):
    probability, truth = images[0]
    mask = probability > 0.5
    a, b = truth - truth.mean(), mask - mask.mean()  # equations 2 to 5 of arXiv 1805.10421
    alignment = 2 * a * b / (a * a + b * b)
    assert metrics.e_measure(mask, truth) == pytest.approx(float(np.mean((1 + alignment) ** 2 / 4)))


@pytest.mark.parametrize("measure", [metrics.FMeasure, metrics.EMeasure])
def test_adaptive_measures_cut_float_maps_exactly(measure):
    """Twice the mean lies between two thresholds of 8 bits, and so does the object: 1, not 0."""
    probability, truth = np.full((300, 300), 0.2498), np.zeros((300, 300), bool)
    truth[:100, :100] = True
    probability[truth] = 0.571
    for said, there in ((probability, truth), (th.from_numpy(probability), th.from_numpy(truth))):
        found = measure()
        found.update(said, there)
        assert float(found.compute()["adaptive"]) == pytest.approx(1)


def test_miou_is_of_categories_over_the_data_set():
    miou = metrics.MeanIoU(3)
    one, two = np.array([[True, True, False, False]]), np.array([[True, False, False, False]])
    miou.update(one, two, category=0)  # 1 of 2
    miou.update(one, one, category=0)  # 2 of 2
    miou.update(two, one, category=2)  # 1 of 2; category 1 never appears
    assert float(miou.compute()) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_balanced_error_is_of_all_pixels():
    error = metrics.BalancedErrorRate()
    error.update(np.array([[True, False, False, False]]), np.array([[True, True, False, False]]))
    error.update(np.array([[True, True, False, False]]), np.array([[True, False, False, False]]))
    assert float(error.compute()) == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)


def test_noc_counts_failures_as_the_field_does():
    clicks = metrics.NoC(thresholds=(0.8, 0.9), cap=3)
    clicks.update([0.85, 0.91, 0.95])
    clicks.update([0.5, 0.6, 0.92])  # gets there with the last click: three clicks, and a failure
    clicks.update([0.5, 0.6, 0.7])
    found = {name: float(value) for name, value in clicks.compute().items()}
    assert found == pytest.approx({"NoC@80": 7 / 3, "NoC@90": 8 / 3, "failed@80": 2, "failed@90": 2})


@pytest.mark.parametrize("images", [0, 1, 7])
def test_clicks_of_many_images_at_once_are_those_of_one_after_the_other(images):
    ious = np.random.default_rng(0).random((images, 5)).tolist()
    count = metrics.NoC(cap=5)
    for of_image in ious:
        count.update(of_image)
    expected = {name: float(value) for name, value in count.compute().items()}
    assert metrics.clicks_needed(ious, cap=5) == pytest.approx(expected, nan_ok=True)


def test_metrics_start_again_and_add_up():
    mean = metrics.ImageMean("dice")
    mean.update(np.ones((2, 2), bool), np.ones((2, 2), bool))
    assert float(mean.compute()) == 1
    mean.reset()
    mean.update(np.zeros((2, 2), bool), np.ones((2, 2), bool))
    assert float(mean.compute()) == 0


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'dice'"):
        metrics.ImageMean("dise")
