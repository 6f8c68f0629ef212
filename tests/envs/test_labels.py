"""Who labels the clicks, and the pair that an episode may begin with."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs.labels import Labels, held_out, initial_pair

KWARGS = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 8}, "clip": None, "patches": 6, "device": "cpu"}


class Knows:
    """A module whose map is the truth."""

    needs = ()

    def __init__(self, env):
        self.env = env

    def foreground(self, observations):
        return self.env.truth_on_grid()[:1]


def make(**kwargs):
    env = gym.make("SamSeg-v0", **{**KWARGS, **kwargs}).unwrapped
    return env


def test_the_map_decides_which_of_a_cells_two_clicks_is_allowed():
    env = make(labels="srm")
    env.use_srm(Knows(env))
    observation, _ = env.reset(seed=0)
    n = env.grid.n_cells
    positive, negative = observation["action_mask"][:n], observation["action_mask"][n : 2 * n]
    assert (positive + negative == env.grid.cells_on(env.image_size)).all()
    said = env.grid.in_frame(observation["foreground_map"], env.image_size) >= 0.5
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
    n = env.grid.n_cells
    assert observation["action_mask"][:n].all()
    assert not observation["action_mask"][n:].any()
    assert "foreground_map" not in observation


def test_the_truths_labels_are_for_training_and_not_in_the_mask():
    env = make(labels="oracle-train-only")
    observation, _ = env.reset(seed=0)
    n = env.grid.n_cells
    assert observation["action_mask"][:n].all()  # tells nothing of the truth
    for action in (0, n // 2 + 3):
        env.step(action)
        (x, y), label = env.clicks[-1]
        assert label == int(env.target[y, x])
    with pytest.raises(ValueError, match=r"looks at the truth.*labels='positive'"):
        make(labels="oracle-train-only", split="eval")


def test_a_misspelt_way_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'positive'"):
        Labels("positiv", "train")


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
    drawn = np.full((1, 16, 16), 0.5, np.float32)
    drawn[0, 3, 4], drawn[0, 12, 1] = 0.9, 0.1

    class Map:
        needs = ()

        def foreground(self, observations):
            return drawn

    env.use_srm(Map())
    _, info = env.reset(seed=0)
    size = env.image_size[0] / 16
    for (x, y), (row, column) in zip(info["point_coords"], ((3, 4), (12, 1)), strict=True):
        assert (int(y / size), int(x / size)) == (row, column)
    with pytest.raises(ValueError, match="give srm=True"):
        make(initial_pair=True, split="eval")


@pytest.mark.parametrize("fill", [0, 1])
def test_a_truth_that_covers_all_or_nothing_gives_no_pair(fill):
    rng = np.random.default_rng(0)
    truth = np.full((20, 30), bool(fill))
    assert initial_pair(truth, np.zeros((4, 4), np.float32), (20, 30), rng) == []


def test_no_click_of_the_pair_falls_where_the_annotation_says_nothing():
    truth, valid = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
    truth[:10], valid[3, 4], valid[15, 6] = True, True, True
    for seed in range(5):
        pair = initial_pair(truth, np.zeros((4, 4), np.float32), (20, 30), np.random.default_rng(seed), valid)
        assert pair == [((4, 3), 1), ((6, 15), 0)]


def test_labels_and_pairs_from_the_truth_need_a_task_that_looks_at_it():
    network = {"reward": "network", "reward_network": "tiny", "dataset": "toy:saliency", "clip": None}
    with pytest.raises(ValueError, match="at which this task does not look"):
        make(labels="oracle-train-only", **network)
    with pytest.raises(ValueError, match="give srm=True"):
        make(initial_pair=True, **network)
    env = make(initial_pair=True, srm=True, **network)
    env.reset(seed=0)
    assert not env.episode.clicks  # the map's, once there is a module


def test_a_very_thin_image_has_extremes_as_well():
    foreground = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    (first, one), (second, zero) = initial_pair(None, foreground, (3, 1000), np.random.default_rng(0))
    assert (one, zero) == (1, 0)
    assert first[0] > second[0]
    assert max(first[1], second[1]) < 3


def test_extremes_are_looked_for_in_the_image_alone():
    foreground = np.full((8, 8), 0.5, np.float32)
    foreground[7, 7], foreground[6, 0] = 1, 0  # in the padding of a wide image
    foreground[1, 2], foreground[2, 5] = 0.8, 0.2
    pair = initial_pair(None, foreground, (40, 80), np.random.default_rng(0))
    assert pair == [((25, 15), 1), ((55, 25), 0)]


def test_the_oracle_likes_what_is_wrongly_taken_where_the_truth_labels():
    env = make(labels="oracle-train-only")
    env.reset(seed=0)
    n = env.grid.n_cells
    env.step(n // 2)
    everything = replace(env.episode.belief, mask=np.ones_like(env.target))
    env.episode.beliefs[-1] = everything
    wrong = ~env.target
    liked = env.oracle_preference()[:n]
    places = np.array([env.grid.click(k, env.image_size)[0] for k in range(n)])
    assert liked[wrong[places[:, 1], places[:, 0]]].sum() == pytest.approx(1)


def test_evaluation_labels_no_click_by_the_truth():
    assert held_out({"labels": "oracle-train-only"}) == {"labels": "positive", "split": "eval"}
    assert held_out({"labels": "oracle-train-only", "srm": True})["labels"] == "srm"
    with pytest.raises(ValueError, match="looks at the truth"):
        Labels("oracle-train-only", "val2017")


def test_the_pair_is_there_to_stay_and_counts_for_the_best():
    env = make(initial_pair=True)
    _, info = env.reset(seed=0)
    assert info["best_dice"] == info["dice"] > 0
    with pytest.raises(ValueError, match="do not go together"):
        make(initial_pair=True, remove=True)
