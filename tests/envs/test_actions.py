import numpy as np
import pytest
from alignsam_sb3.envs.grid import ClickGrid


@pytest.mark.parametrize("size", [(128, 128), (60, 90), (375, 500), (500, 375), (1, 1), (3, 800)])
@pytest.mark.parametrize("patches", [2, 8, 32])
def test_every_allowed_action_clicks_inside_the_image_and_comes_back(size, patches):
    grid = ClickGrid(patches)
    allowed = np.flatnonzero(grid.mask(size, set(), False))
    assert len(allowed)
    for action in allowed:
        (x, y), label = grid.click(int(action), size)
        assert 0 <= x < size[1]
        assert 0 <= y < size[0]
        assert label == int(action < grid.n_cells)
        assert grid.action((x, y), label, size) == action


def test_cells_in_the_padding_are_forbidden():
    grid = ClickGrid(4)
    assert grid.cells_on((50, 100)).reshape(4, 4).tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert grid.cells_on((100, 60)).reshape(4, 4).tolist() == [[True] * 3 + [False]] * 4
    assert grid.cells_on((1, 1)).sum() == 1


def test_a_used_cell_is_forbidden_with_both_labels():
    grid = ClickGrid(4, remove=True, done=True)
    mask = grid.mask((64, 64), {5}, clicked=True)
    assert np.flatnonzero(mask == 0).tolist() == [5, 21]
    assert grid.mask((64, 64), set(), clicked=False)[-2:].tolist() == [0, 0]


def test_something_is_always_allowed():
    grid = ClickGrid(2)
    assert grid.mask((9, 9), {0, 1, 2, 3}, clicked=True).any()
    with_done = ClickGrid(2, done=True)
    assert with_done.mask((9, 9), {0, 1, 2, 3}, clicked=True).tolist() == [0] * 8 + [1]


def test_kinds_of_action():
    both, one = ClickGrid(2, remove=True, done=True), ClickGrid(2, done=True)
    assert [both.kind(a) for a in (0, 7, 8, 9)] == ["click", "click", "remove", "done"]
    assert one.kind(8) == "done"
    with pytest.raises(ValueError, match="action 10 of 10"):
        both.kind(10)


def test_points_outside_and_odd_labels_are_refused():
    grid = ClickGrid(4)
    with pytest.raises(ValueError, match="outside the image of 90x60"):
        grid.action((90, 0), 1, (60, 90))
    with pytest.raises(ValueError, match=r"1 \(foreground\) or 0"):
        grid.action((1, 1), 2, (60, 90))
