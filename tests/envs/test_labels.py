"""Who labels the clicks, and the pair that an episode may begin with."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.labels import pair_of_map, pair_of_truth

from alignsam_sb3.frame import CellGrid, Frame
from alignsam_sb3.task import Task

KWARGS = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 8}, "clip": None, "patches": 6, "device": "cpu"}


class Knows:
    """A module whose map is the truth."""

    needs = ()

    def __init__(self, env):
        self.env = env

    def foreground(self, observations):
        return th.from_numpy(self.env.truth_on_grid()[:1])


def make(**kwargs):
    env = gym.make("SamSeg-v0", **{**KWARGS, **kwargs}).unwrapped
    return env


def test_the_map_decides_which_of_a_cells_two_clicks_is_allowed():
    env = make(labels="srm")
    env.use_recalibration(Knows(env))
    observation, _ = env.reset(seed=0)
    n = env.batch.grid.n_cells
    positive, negative = observation["action_mask"][:n], observation["action_mask"][n : 2 * n]
    assert (positive + negative == env.batch.grid.on_image(env.batch.size(0))).all()
    said = env.batch.grid.sample(observation["foreground_map"], env.batch.size(0)) >= 0.5
    assert (positive == said).all()
    assert 0 < positive.sum() < n
    assert (env.action_masks() == observation["action_mask"].astype(bool)).all()


def test_before_there_is_a_module_the_map_knows_nothing():
    observation, _ = make(labels="srm").reset(seed=0)
    assert (observation["foreground_map"] == 0.5).all()
    assert observation["action_mask"].any()


def test_positive_leaves_positive_clicks():
    env = make(labels="positive")
    observation, _ = env.reset(seed=0)
    n = env.batch.grid.n_cells
    assert observation["action_mask"][:n].all()
    assert not observation["action_mask"][n:].any()
    assert "foreground_map" not in observation


def test_the_truths_labels_are_for_training_and_not_in_the_mask():
    env = make(labels="oracle-train-only")
    observation, _ = env.reset(seed=0)
    n = env.batch.grid.n_cells
    assert observation["action_mask"][:n].all()  # tells nothing of the truth
    for action in (0, n // 2 + 3):
        env.step(action)
        (x, y), label = env.clicks[-1]
        assert label == int(env.target[y, x])
    with pytest.raises(ValueError, match=r"looks at the truth.*labels='positive'"):
        make(labels="oracle-train-only", split="eval")


def test_a_misspelt_way_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'positive'"):
        make(labels="positiv")


def test_an_episode_begins_with_a_pair_of_the_truth_in_training():
    env = make(initial_pair=True)
    places = set()
    for seed in range(4):
        observation, info = env.reset(seed=seed)
        assert info["point_labels"] == [1, 0]
        (x, y), (u, v) = info["point_coords"]
        assert env.target[y, x]
        assert not env.target[v, u]
        assert observation["num_steps"] == 0
        assert info["dice"] > 0
        places.add((x, y))
    assert len(places) > 1


def test_an_episode_begins_with_the_maps_extremes_in_evaluation():
    env = make(initial_pair=True, srm=True, split="eval")
    drawn = th.full((1, 16, 16), 0.5)
    drawn[0, 3, 4], drawn[0, 12, 1] = 0.9, 0.1

    class Map:
        needs = ()

        def foreground(self, observations):
            return drawn

    env.use_recalibration(Map())
    _, info = env.reset(seed=0)
    size = env.batch.size(0)[0] / 16
    for (x, y), (row, column) in zip(info["point_coords"], ((3, 4), (12, 1)), strict=True):
        assert (int(y / size), int(x / size)) == (row, column)
    with pytest.raises(ValueError, match="give srm=True"):
        make(initial_pair=True, split="eval")


@pytest.mark.parametrize("fill", [0, 1])
def test_a_truth_that_covers_all_or_nothing_gives_no_pair(fill):
    rng = np.random.default_rng(0)
    truth = np.full((20, 30), bool(fill))
    assert pair_of_truth(truth, None, rng) == []


def test_no_click_of_the_pair_falls_where_the_annotation_says_nothing():
    truth, valid = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    truth[:10], valid[3, 4], valid[15, 6] = True, True, True
    for seed in range(5):
        pair = pair_of_truth(truth, valid, np.random.default_rng(seed))
        assert pair == [((4, 3), 1), ((6, 15), 0)]


def test_labels_and_pairs_from_the_truth_need_a_task_that_looks_at_it():
    network = {"reward": "network", "reward_network": "tiny", "dataset": "toy:saliency", "clip": None}
    with pytest.raises(ValueError, match="at which this task does not look"):
        make(labels="oracle-train-only", **network)
    with pytest.raises(ValueError, match="give srm=True"):
        make(initial_pair=True, **network)
    env = make(initial_pair=True, srm=True, **network)
    env.reset(seed=0)
    assert not env.clicks  # the map's, once there is a module


def test_a_very_thin_image_has_extremes_as_well():
    foreground = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    (first, one), (second, zero) = pair_of_map(foreground, CellGrid(Frame(128), 8), (3, 1000))
    assert (one, zero) == (1, 0)
    assert first[0] > second[0]
    assert max(first[1], second[1]) < 3


def test_extremes_are_looked_for_in_the_image_alone():
    foreground = np.full((8, 8), 0.5, np.float32)
    foreground[7, 7], foreground[6, 0] = 1, 0  # in the padding of a wide image
    foreground[1, 2], foreground[2, 5] = 0.8, 0.2
    pair = pair_of_map(foreground, CellGrid(Frame(128), 8), (40, 80))
    assert pair == [((25, 15), 1), ((55, 25), 0)]


def test_the_oracle_likes_what_is_wrongly_taken_where_the_truth_labels(answering):
    env = make(labels="oracle-train-only")
    env.reset(seed=0)
    n = env.batch.grid.n_cells
    answering(th.full((64, 64), 9.0))  # everything
    env.step(n // 2)
    wrong = ~env.target
    liked = env.oracle_preference()[:n]
    x, y = env.batch.grid.centres(env.batch.size(0)).T
    assert liked[wrong[y, x]].sum() == pytest.approx(1)


def test_evaluation_labels_no_click_by_the_truth():
    assert Task(labels="oracle-train-only").for_evaluation() == Task(labels="positive", split="eval")
    assert Task(labels="oracle-train-only", srm=True).for_evaluation().labels == "srm"
    with pytest.raises(ValueError, match="looks at the truth"):
        Task(labels="oracle-train-only", split="val2017")


def test_the_pair_is_there_to_stay_and_counts_for_the_best():
    env = make(initial_pair=True)
    _, info = env.reset(seed=0)
    assert info["best_dice"] == info["dice"] > 0
    with pytest.raises(ValueError, match="do not go together"):
        make(initial_pair=True, remove=True)
