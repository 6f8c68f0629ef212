import math

import numpy as np
import pytest

from alignsam_sb3.rewards import REWARDS, RewardContext, make_reward, no_ground_truth, uses_ground_truth


def context(*clicks, **others):
    """What a reward is told of clicks (on_object, label), None for no click; all else may be given."""
    n = len(clicks)
    told = {
        "clicked": np.array([c is not None for c in clicks]),
        "on_object": np.array([bool(c and c[0]) for c in clicks]),
        "labels": np.array([c[1] if c else 1 for c in clicks]),
        "known": np.ones(n, bool),
        "nearest": np.full(n, np.inf),
        "patch_size": np.full(n, 4.0),
        **{name: np.zeros(n) for name in ("dice_before", "dice_after", "score_before", "score_after")},
    }
    return RewardContext(**{**told, **{name: np.array(values) for name, values in others.items()}})


ON, OFF = True, False


def test_paper_pays_for_the_position_whatever_the_label():
    rewards = make_reward("paper")(context((ON, 1), (ON, 0), (OFF, 1), (OFF, 0), None))
    assert rewards.tolist() == [1, 1, -1, -1, 0]


def test_dice_gain_is_the_difference():
    gained = make_reward("dice_gain")(context((ON, 1), None, dice_before=[0.6, 0.5], dice_after=[0.4, 0.7]))
    assert gained == pytest.approx([-0.2, 0.2])


def test_network_is_the_difference_of_the_scores_and_looks_at_nothing_else():
    scores = {"score_before": [0.6], "score_after": [0.9]}
    assert make_reward("network")(context((OFF, 1), dice_before=[0.9], dice_after=[0.1], **scores)) == pytest.approx([0.3])


def test_shaped_pays_for_the_right_label():
    rewards = make_reward("shaped")(context((ON, 1), (ON, 0), (OFF, 1), (OFF, 0), None))
    assert rewards == pytest.approx([1.0, -1.0, -0.33, 0.0, 0.0])


def test_shaped_weighs_by_the_nearest_earlier_click_of_the_same_label():
    rewards = make_reward("shaped")(context((ON, 1), (ON, 1), nearest=[4.0, np.inf]))
    assert rewards == pytest.approx([1 - math.exp(-4 / 8), 1])


def test_shaped_adds_a_bonus_for_negatives_that_trim():
    before, after = [0.6, 0.3, 0.6, 0.6, 0.6], [0.7, 0.45, 0.605, 0.7, 0.7]
    clicks = [(OFF, 0), (OFF, 0), (OFF, 0), (ON, 1), None]
    assert make_reward("shaped")(context(*clicks, dice_before=before, dice_after=after)) == pytest.approx([0.5, 0, 0, 1, 0])


@pytest.mark.parametrize("name", ["paper", "shaped"])
def test_clicks_where_the_annotation_says_nothing_are_not_paid(name):
    more = {"known": [False] * 3, "dice_before": [0.6] * 3, "dice_after": [0.8] * 3}
    rewards = make_reward(name)(context((ON, 1), (OFF, 1), (OFF, 0), **more))
    assert rewards.tolist() == [0, 0, 0]


def test_rewards_say_whether_they_look_at_the_truth():
    assert {name for name, reward in REWARDS.items() if not uses_ground_truth(reward)} == {"network"}

    @no_ground_truth
    def own(told):
        return told.score_after - 0.01 * told.clicked

    assert not uses_ground_truth(own)
    assert uses_ground_truth(lambda told: told.dice_after)
    assert make_reward(own) is own


def test_an_unknown_reward_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'shaped'"):
        make_reward("shapd")
