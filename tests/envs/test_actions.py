import numpy as np
import pytest
from alignsam_sb3.envs.actions import CLICK, DONE, REMOVE, ClickActions

from alignsam_sb3.frame import CellGrid, Frame


def actions(patches, **offered):
    return ClickActions(CellGrid(Frame(128), patches), **offered)


def mask(offered, size, used=(), clicked=False):
    """The action mask of one episode."""
    marked = np.isin(np.arange(offered.grid.n_cells), list(used))[None]
    return offered.mask(offered.grid.on_image(size)[None], marked, np.array([clicked]))[0]


@pytest.mark.parametrize("size", [(128, 128), (60, 90), (375, 500), (500, 375), (1, 1), (3, 800)])
@pytest.mark.parametrize("patches", [2, 8, 32])
def test_every_allowed_action_clicks_inside_the_image_and_comes_back(size, patches):
    offered = actions(patches)
    allowed = np.flatnonzero(mask(offered, size))
    assert len(allowed)
    places = offered.grid.centres(size)[offered.cells(allowed)]
    for action, (x, y), label in zip(allowed.tolist(), places.tolist(), offered.labels(allowed).tolist(), strict=True):
        assert 0 <= x < size[1]
        assert 0 <= y < size[0]
        assert label == int(action < offered.grid.n_cells)
        assert offered.at((x, y), label, size) == action


def test_a_used_cell_is_forbidden_with_both_labels():
    offered = actions(4, remove=True, done=True)
    assert np.flatnonzero(mask(offered, (64, 64), {5}, True) == 0).tolist() == [5, 21]
    assert mask(offered, (64, 64))[-2:].tolist() == [0, 0]


def test_something_is_always_allowed():
    assert mask(actions(2), (9, 9), {0, 1, 2, 3}, True).any()
    assert mask(actions(2, done=True), (9, 9), {0, 1, 2, 3}, True).tolist() == [0] * 8 + [1]
    assert mask(actions(2, remove=True), (9, 9), {0, 1, 2, 3}, True).tolist() == [1] * 9


def test_episodes_of_a_batch_have_their_own_masks():
    offered = actions(2, done=True)
    used = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    found = offered.mask(np.ones((3, 4), bool), used, np.array([True, False, True]))
    assert found.tolist() == [[0, 1, 1, 1] * 2 + [1], [1] * 8 + [0], [0] * 8 + [1]]


def test_kinds_of_action():
    both, done, remove = actions(2, remove=True, done=True), actions(2, done=True), actions(2, remove=True)
    assert both.kinds(np.array([0, 7, 8, 9])).tolist() == [CLICK, CLICK, REMOVE, DONE]
    assert done.kinds(np.array([8])).tolist() == [DONE]
    assert remove.kinds(np.array([8])).tolist() == [REMOVE]
    for wrong in (10, -1):
        with pytest.raises(ValueError, match=f"action {wrong} of 10: expected a number from 0 to 9"):
            both.kinds(np.array([0, wrong]))


def test_points_outside_and_odd_labels_are_refused():
    offered = actions(4)
    with pytest.raises(ValueError, match="outside the image of 90x60"):
        offered.at((90, 0), 1, (60, 90))
    with pytest.raises(ValueError, match=r"1 \(foreground\) or 0"):
        offered.at((1, 1), 2, (60, 90))
