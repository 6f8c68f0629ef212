import numpy as np
import torch as th
from scipy.ndimage import distance_transform_edt

from alignsam_sb3.clickers import centre_click, error_depths, oracle_click

TRUTH = np.zeros((40, 60), bool)
TRUTH[10:21, 20:31] = True


def test_the_first_click_is_the_innermost_pixel():
    assert oracle_click(TRUTH, None) == centre_click(TRUTH) == ((25, 15), 1)


def test_image_borders_count_as_borders():
    corner = np.zeros((40, 60), bool)
    corner[:11, :11] = True
    assert centre_click(corner) == ((5, 5), 1)


def test_it_corrects_the_deeper_error():
    leak = TRUTH.copy()
    leak[10:21, 31:60] = True
    (x, y), label = oracle_click(TRUTH, leak)
    assert label == 0
    assert leak[y, x]
    assert not TRUTH[y, x]
    half = TRUTH.copy()
    half[10:21, 25:31] = False
    (x, y), label = oracle_click(TRUTH, half)
    assert label == 1
    assert 25 <= x < 31


def test_a_perfect_mask_is_confirmed_and_an_empty_truth_is_background():
    assert oracle_click(TRUTH, TRUTH) == ((25, 15), 1)
    assert oracle_click(np.zeros((9, 9), bool), None)[1] == 0


def reference(truth, predicted, clicked):
    """RITM's rule, written down anew with scipy's exact distances."""
    depths = []
    for wrong in (truth & ~predicted, predicted & ~truth):
        depth = distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1].astype(np.float32)
        for x, y in clicked:
            depth[y, x] = 0
        depths.append(depth)
    positive = depths[0].max() > depths[1].max()
    depth = depths[0] if positive else depths[1]
    ys, xs = np.where(depth == depth.max())
    return (int(xs[0]), int(ys[0])), int(positive)


def test_it_clicks_where_ritm_does():
    rng = np.random.default_rng(0)
    labels = set()
    for _ in range(30):
        truth, predicted = (distance_transform_edt(rng.random((40, 50)) > 0.01) < rng.integers(3, 7) for _ in range(2))
        clicked = []
        for _ in range(4):
            wanted = reference(truth, predicted, clicked)
            assert oracle_click(truth, predicted, clicked) == wanted
            clicked.append(wanted[0])
            labels.add(wanted[1])
    assert labels == {0, 1}


def test_no_pixel_is_clicked_twice():
    (place, label) = oracle_click(TRUTH, None)
    again, same = oracle_click(TRUTH, np.zeros_like(TRUTH), [place])
    assert same == label == 1
    assert again != place
    assert centre_click(TRUTH, [place])[0] == again
    assert oracle_click(TRUTH, TRUTH, [place])[0] == again  # confirmed at another pixel


def test_of_two_errors_equally_deep_the_wrongly_taken_one_is_corrected():
    truth, predicted = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    truth[5:10, 5:10] = predicted[5:10, 25:30] = True
    assert oracle_click(truth, predicted) == ((27, 7), 0)


def test_distances_are_exact():
    """OpenCV's 5 x 5 approximation puts the innermost pixel of this region elsewhere."""
    rng = np.random.default_rng(3)
    region = distance_transform_edt(rng.random((60, 60)) > 0.002) > 2
    exact = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    assert np.allclose(error_depths(region, None)[0], exact, atol=1e-5)
    assert not error_depths(region, None)[1].any()


def test_tensors_are_taken_as_well():
    leak = TRUTH.copy()
    leak[10:21, 31:60] = True
    assert oracle_click(th.from_numpy(TRUTH), th.from_numpy(leak)) == oracle_click(TRUTH, leak)
    assert centre_click(th.from_numpy(TRUTH).int()) == centre_click(TRUTH)
