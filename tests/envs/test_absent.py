"""Episodes whose target is not in the image: right is to say so at once."""

import numpy as np
import pytest
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3.datasets import draw_absent
from alignsam_sb3.evaluation.absence import presence_of_scores
from alignsam_sb3.evaluation.players import centre_player, oracle_player, random_player
from alignsam_sb3.evaluation.protocol import draw_both, number_of_clicks, play
from alignsam_sb3.task import Task

ABSENT = {"dataset_kwargs": {"n_images": 40, "min_area": 0.02}, "device": "cpu", "max_steps": 3, "done": True, "absent": 0.5}


@pytest.fixture(scope="module")
def batch():
    return ClickBatch(Task(**ABSENT), 16)


def start(batch, seed=0):
    batch.rngs = [np.random.default_rng(seed + i) for i in range(batch.n)]
    batch.reset(np.arange(batch.n))
    assert 3 <= batch.absent.sum() <= 13
    return batch.absent.copy()


def test_the_annotation_says_what_is_absent(batch):
    absent = start(batch)
    for i in range(batch.n):
        assert batch.sample(i).target(int(batch.categories[i])).any() != absent[i]
        if absent[i]:
            assert batch.sample(i).valid_for(int(batch.categories[i])) is None


def test_done_at_once_is_right_where_it_is_absent_and_worth_nothing_where_it_is_not(batch):
    absent = start(batch)
    assert (batch.dice == absent).all()
    step = batch.step(np.full(batch.n, batch.actions.n - 1))
    assert step.over.all()
    assert not step.invalid.any()
    assert (step.rewards == 0).all()
    assert (batch.dice == absent).all()


def test_a_mask_of_what_is_absent_costs_all(batch):
    absent = start(batch)
    step = batch.step(np.array([np.flatnonzero(mask)[30] for mask in batch.action_mask]))
    covers = np.array([mask.any() for mask in batch.sessions.masks()])
    assert (step.rewards[absent & covers] == -1).all()
    assert (batch.dice[absent & covers] == 0).all()
    assert covers[absent].any()


def test_the_oracle_says_so_at_once(batch):
    absent = start(batch)
    done = batch.actions.n - 1
    for i in range(batch.n):
        assert (batch.oracle_action(i) == done) == absent[i]
        liked = batch.oracle_preference(i)
        assert liked.sum() == pytest.approx(1)
        assert (liked[done] == 1) == absent[i]


def test_none_is_drawn_where_none_is_asked_for():
    """And the episodes are those that were drawn before there were any."""
    plain = SamSegVecEnv.of(Task(**{**ABSENT, "absent": 0.0}), 8)
    plain.seed(3)
    plain.reset()
    assert not plain.batch.absent.any()
    without = SamSegVecEnv.of(Task(**{k: v for k, v in ABSENT.items() if k not in ("absent", "done")}), 8)
    without.seed(3)
    without.reset()
    assert (plain.batch.rows == without.batch.rows).all()
    assert not plain.batch.action_mask[:, -1].any()  # done, before the first click


def test_an_evaluation_tells_both_kinds_apart(batch):
    episodes = draw_both(batch.shared, 24, 0.5, 1)
    absent = np.array([not batch.shared.sample(row).target(category).any() for row, category in episodes])
    assert absent.sum() == 12
    rows = {"oracle": oracle_player, "centre": centre_player, "random": random_player(0)}
    rows = {name: play(player, batch, episodes) for name, player in rows.items()}
    for name in ("oracle", "centre"):
        assert rows[name].scores["presence"][:, -1].mean() == 1
        assert (rows[name].scores["dice"][absent] == 1).all()
    assert rows["random"].scores["presence"][absent, -1].mean() < 0.5
    assert rows["random"].scores["dice"][absent, -1].mean() < 0.5
    reached = number_of_clicks(rows["oracle"])
    assert reached == number_of_clicks(play(oracle_player, batch, [e for e, a in zip(episodes, absent, strict=True) if not a]))


def test_one_number_says_it_better_than_chance():
    batch = ClickBatch(Task(**ABSENT).for_evaluation(), 16)
    said = presence_of_scores(batch, draw_both(batch.shared, 60, 0.5, 0), 0)
    assert said.keys() == {"CLIP's score", "CLIP's best place"}
    assert min(said.values()) > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"absent": 1.0}, "at least 0 and below 1"),
        ({"done": False}, "give done=True"),
        ({"clip": None}, "give clip"),
        ({"box": "clip"}, "cannot begin with a pair or a box"),
        ({"reward": "network"}, "take reward='dice_gain'"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Task(**{**ABSENT, **options})


def test_one_category_that_every_image_shows_cannot_be_absent():
    with pytest.raises(ValueError, match="Take a data set with several categories"):
        draw_absent((np.arange(4), np.arange(0)), np.random.default_rng(0))
