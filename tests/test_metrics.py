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


def test_ignored_pixels_count_neither_way():
    valid = np.array([[0, 1, 0, 1], [0, 1, 1, 1]], bool)
    assert [f(PREDICTED, TRUTH, valid) for f in (metrics.dice, metrics.iou, metrics.precision, metrics.recall)] == [1.0] * 4
    assert metrics.mae(PREDICTED, TRUTH, valid) == 0


@pytest.mark.parametrize(
    ("predicted", "truth", "values"),
    [(EMPTY, EMPTY, (1, 1, 1, 1, 0)), (EMPTY, TRUTH, (0, 0, 0, 0, 0.5)), (TRUTH, EMPTY, (0, 0, 0, 1, 0.5))],
)
def test_empty_masks(predicted, truth, values):
    assert tuple(f(predicted, truth) for f in metrics.METRICS.values()) == values


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
