import math

import numpy as np
import pytest

from alignsam_sb3.rewards import Turn, make_reward

TRUTH = np.zeros((20, 20), bool)
TRUTH[5:15, 5:15] = True
ON, OFF = (10, 10), (1, 1)


def turn(click, earlier=(), before=0.0, after=0.0):
    return Turn(TRUTH, click, earlier, before, after, patch_size=4.0)


def test_paper_pays_for_the_position_whatever_the_label():
    reward = make_reward("paper")
    assert reward(turn((ON, 1))) == reward(turn((ON, 0))) == 1
    assert reward(turn((OFF, 1))) == reward(turn((OFF, 0))) == -1
    assert reward(turn(None)) == 0


def test_dice_gain_is_the_difference():
    assert make_reward("dice_gain")(turn((ON, 1), before=0.6, after=0.4)) == pytest.approx(-0.2)


@pytest.mark.parametrize(("click", "value"), [((ON, 1), 1.0), ((ON, 0), -1.0), ((OFF, 1), -0.33), ((OFF, 0), 0.0)])
def test_shaped_pays_for_the_right_label(click, value):
    assert make_reward("shaped")(turn(click)) == pytest.approx(value)


def test_shaped_weighs_by_the_nearest_earlier_click_of_the_same_label():
    near = turn((ON, 1), earlier=[((10, 6), 1), ((10, 10), 0), ((0, 0), 1)])
    assert make_reward("shaped")(near) == pytest.approx(1 - math.exp(-4 / 8))


def test_shaped_adds_a_bonus_for_negatives_that_trim():
    reward = make_reward("shaped")
    assert reward(turn((OFF, 0), before=0.6, after=0.7)) == pytest.approx(0.5)
    assert reward(turn((OFF, 0), before=0.3, after=0.45)) == 0
    assert reward(turn((OFF, 0), before=0.6, after=0.605)) == 0
    assert reward(turn((ON, 1), before=0.6, after=0.7)) == pytest.approx(1.0)


def test_an_unknown_reward_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shaped'"):
        make_reward("shapd")
