import numpy as np

from alignsam_sb3.clickers import centre_click, oracle_click

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
