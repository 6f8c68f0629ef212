"""What language says of a mask, on maps that are written by hand."""

import numpy as np
import pytest

from alignsam_sb3.signals import language_signals


def maps():
    """Two categories on 2 x 3 cells, the last column padding: the first is seen on the left, the second in the middle."""
    one = [[0.9, 0.1, -1.0], [0.7, 0.1, -1.0]]
    two = [[0.2, 0.6, -1.0], [0.2, 0.4, -1.0]]
    return np.array([one, two])


LEFT = np.array([[True, False, False], [True, False, False]])


def test_a_mask_where_the_category_is_seen():
    found = language_signals(LEFT, maps(), np.array([0.5, 0.3]), 0)
    assert found["map_inside"] == pytest.approx(0.8) and found["map_inside_margin"] == pytest.approx(0.6)
    assert found["map_outside"] == pytest.approx(0.1) and found["map_top"] == pytest.approx(0.9)
    assert found["clip_score"] == 0.5 and found["clip_margin"] == pytest.approx(0.2)


def test_the_same_mask_is_no_good_for_the_other_category():
    found = language_signals(LEFT, maps(), np.array([0.5, 0.3]), 1)
    assert found["map_inside_margin"] == pytest.approx(-0.6) and found["clip_margin"] == pytest.approx(-0.2)


def test_a_mask_in_the_padding_or_everywhere_and_a_single_category():
    padding = np.array([[False, False, True]] * 2)
    for mask in (padding, np.ones((2, 3), bool), np.zeros((2, 3), bool)):
        found = language_signals(mask, maps()[:1], np.array([0.5]), 0)
        assert all(np.isfinite(list(found.values()))) and found["clip_margin"] == found["map_inside_margin"] == 0
