import numpy as np
import pytest

from alignsam_sb3 import metrics

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
PREDICTED = np.array([[0, 1, 1, 0], [0, 1, 0, 0]], bool)  # 2 hits, 1 false, 2 missed
EMPTY = np.zeros_like(TRUTH)


def test_hand_computed():
    assert metrics.dice(PREDICTED, TRUTH) == pytest.approx(4 / 7)
    assert metrics.iou(PREDICTED, TRUTH) == pytest.approx(2 / 5)
    assert metrics.precision(PREDICTED, TRUTH) == pytest.approx(2 / 3)
    assert metrics.recall(PREDICTED, TRUTH) == pytest.approx(2 / 4)
    assert metrics.mae(PREDICTED, TRUTH) == pytest.approx(3 / 8)
    assert metrics.ber(PREDICTED, TRUTH) == pytest.approx(1 - (2 / 4 + 3 / 4) / 2)
    assert metrics.f_beta(PREDICTED, TRUTH) == pytest.approx(1.3 * (2 / 3) * (2 / 4) / (0.3 * 2 / 3 + 2 / 4))
    assert metrics.f_beta(PREDICTED, TRUTH, beta2=1) == pytest.approx(metrics.dice(PREDICTED, TRUTH))


def test_ignored_pixels_count_neither_way():
    valid = np.array([[0, 1, 0, 1], [0, 1, 1, 1]], bool)
    assert [f(PREDICTED, TRUTH, valid) for f in (metrics.dice, metrics.iou, metrics.precision, metrics.recall)] == [1.0] * 4
    assert metrics.mae(PREDICTED, TRUTH, valid) == 0


@pytest.mark.parametrize(
    ("predicted", "truth", "values"),
    [
        (EMPTY, EMPTY, (1, 1, 1, 1, 0, 0, 1, 1)),
        (EMPTY, TRUTH, (0, 0, 0, 0, 0.5, 0.5, 0, 0.25)),
        (TRUTH, EMPTY, (0, 0, 0, 1, 0.5, 0.25, 0, 0.5)),
    ],
)
def test_empty_masks(predicted, truth, values):
    assert tuple(f(predicted, truth) for f in metrics.METRICS.values()) == pytest.approx(values)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        metrics.dice(EMPTY, EMPTY[:1])


def test_outlines_may_lie_a_little_beside_each_other():
    truth = np.zeros((100, 100), bool)
    truth[20:60, 20:60] = True
    assert metrics.boundary_f(truth, truth) == 1
    assert metrics.boundary_f(np.roll(truth, 2, 1), truth) == 1  # 0.8 % of the diagonal is 2 pixels here
    assert 0 < metrics.boundary_f(np.roll(truth, 5, 1), truth) < 0.7  # two of four sides still lie on each other
    assert metrics.boundary_f(np.roll(truth, 30, 0), truth, tolerance=0) < 0.2
    empty = np.zeros_like(truth)
    assert metrics.boundary_f(empty, empty) == 1
    assert metrics.boundary_f(truth, empty) == metrics.boundary_f(empty, truth) == 0


def test_curves_agree_with_masks_cut_at_each_threshold():
    rng = np.random.default_rng(0)
    truth, prob, valid = rng.random((9, 11)) < 0.4, rng.random((9, 11)), rng.random((9, 11)) < 0.9
    curves = metrics.f_beta_curve(prob, truth, valid), metrics.e_measure_curve(prob, truth, valid)
    for k in (0, 1, 77, 200, 255):
        cut = np.floor(prob * 255) >= k
        assert curves[0][k] == pytest.approx(metrics.f_beta(cut, truth, valid))
        assert curves[1][k] == pytest.approx(metrics.e_measure(cut, truth, valid))


def test_logits_are_not_taken_for_probabilities():
    with pytest.raises(ValueError, match="through a sigmoid first"):
        metrics.f_beta_curve(np.array([[3.0, -1.0]]), np.array([[True, False]]))


def test_clicks_to_reach_an_iou():
    assert metrics.noc([0.5, 0.85, 0.7, 0.92], 0.85) == 2
    assert metrics.noc([0.5, 0.85], 0.9) == 20
    assert metrics.noc([0.5] * 5 + [0.95], 0.9, cap=5) == 5
