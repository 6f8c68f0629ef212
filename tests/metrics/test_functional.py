import cv2
import numpy as np
import pytest
import torch as th

from alignsam_sb3 import metrics
from alignsam_sb3.metrics import functional

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


def test_all_metrics_of_a_mask_are_those_that_each_gives():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        for there in (0.0, 0.3, 1.0):
            predicted, truth, valid = (rng.random((9, 7)) < p for p in (share, there, 0.8))
            for known in (None, valid, EMPTY[:1, :1].repeat(9, 0).repeat(7, 1)):
                each = {name: metric(predicted, truth, known) for name, metric in metrics.METRICS.items()}
                assert metrics.of_mask(predicted, truth, known) == each


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


def test_outlines_are_those_of_davis():
    """Pixels that differ from the right, the lower or the lower right neighbour (one pixel outside, above and left)."""
    square = np.zeros((6, 7), bool)
    square[2:4, 2:5] = True
    lined = np.zeros((6, 7), bool)
    lined[1:4, 1:5] = True
    lined[2, 2:4] = False  # all neighbours are inside
    assert np.array_equal(functional._outline(square), lined)
    corner = np.zeros((4, 4), bool)
    corner[2:, 2:] = True
    lined = np.zeros((4, 4), bool)
    lined[1:, 1] = lined[1, 1:] = True
    assert np.array_equal(functional._outline(corner), lined)  # and none along the border


@pytest.mark.parametrize(("reach", "pixels"), [(0, 1), (1, 5), (2, 13), (3, 29), (5, 81)])
def test_the_tolerance_is_a_disc(reach, pixels):
    assert functional._disc(reach).sum() == pixels


def test_boundary_f_counts_by_distance():
    """Against the plain definition: an outline's pixel is right where one of the other lies within the tolerance."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(20, 60, 2)
        a, b = (cv2.blur(rng.random((height, width)), (9, 9)) > 0.5 for _ in range(2))
        reach = np.ceil(0.05 * np.hypot(height, width))
        lines = [np.argwhere(functional._outline(m)) for m in (a, b)]
        apart = np.linalg.norm(lines[0][:, None] - lines[1][None], axis=2)
        right, found = (apart.min(1) <= reach).mean(), (apart.min(0) <= reach).mean()
        assert metrics.boundary_f(a, b, tolerance=0.05) == pytest.approx(2 * right * found / (right + found))


def test_boundary_f_leaves_out_what_is_not_known():
    truth = np.zeros((40, 40), bool)
    truth[5:15, 5:15] = True
    leak = truth.copy()
    leak[25:35, 25:35] = True
    valid = np.ones_like(truth)
    valid[20:, 20:] = False
    assert metrics.boundary_f(leak, truth) < 1
    assert metrics.boundary_f(leak, truth, valid) == 1


def test_the_adaptive_mask_is_cut_exactly_at_twice_the_mean():
    probability, truth = np.full((300, 300), 0.2498), np.zeros((300, 300), bool)
    truth[:100, :100] = True
    probability[truth] = 0.571
    assert 0.5709 < 2 * probability.mean() < 0.571
    assert np.array_equal(metrics.adaptive(probability, truth), truth)
    probability[truth] = 0.5
    assert 2 * probability.mean() > 0.5
    assert not metrics.adaptive(probability, truth).any()
    assert metrics.adaptive(np.full((2, 2), 0.9), np.ones((2, 2), bool)).sum() == 0  # at most 1, which nothing reaches
    valid = np.zeros((300, 300), bool)
    valid[:100, :101] = True  # the mean of what is judged
    assert not metrics.adaptive(probability, truth, valid).any()


ALL = {**metrics.METRICS, "boundary_f": metrics.boundary_f}


@pytest.mark.parametrize("name", ALL)
def test_tensors_and_zeros_and_ones_are_taken_as_well(name):
    rng = np.random.default_rng(1)
    said, truth, valid = (rng.random((12, 15)) < 0.5 for _ in range(3))
    wanted = ALL[name](said, truth, valid)
    tensors = [th.from_numpy(x) for x in (said, truth, valid)]
    assert ALL[name](*tensors) == pytest.approx(wanted)
    assert ALL[name](*(x.float().requires_grad_() for x in tensors)) == pytest.approx(wanted)
    assert ALL[name](*(x.astype(np.uint8) for x in (said, truth, valid))) == pytest.approx(wanted)


def test_probabilities_are_no_mask():
    with pytest.raises(ValueError, match=r"float64 from 0.25 to 0.75: say where the object is, as in probabilities > 0.5"):
        metrics.dice(np.array([[0.25, 0.75]]), np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="uint8 from 0 to 255"):
        metrics.iou(np.ones((1, 2), bool), np.array([[0, 255]], np.uint8))


def test_mae_of_probabilities_is_the_mean_error():
    assert metrics.mae(np.array([[0.25, 1.0]]), np.array([[False, True]])) == pytest.approx(0.125)
    assert metrics.mae(th.tensor([[0.25, 0.5]]), th.tensor([[False, True]]), th.tensor([[True, False]])) == pytest.approx(0.25)


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
