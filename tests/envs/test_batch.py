"""ClickBatch: what is measured while episodes are played, and that a batch is its episodes."""

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.batch import ClickBatch

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import centre_click
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.task import Task

TOY = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 12}, "clip": None, "device": "cpu"}
EVERYONE = np.arange(4)


def batch_of(n=4, seed=0, **options):
    batch = ClickBatch(Task(**{**TOY, **options}), n)
    batch.rngs = [np.random.default_rng(seed + i) for i in range(n)]
    batch.reset(np.arange(n))
    return batch


def apart(batch, rounds=4):
    """How far Dice on the grid is from Dice in the image, over clicks of a player who is mostly right: (rounds x N,)."""
    rng, found = np.random.default_rng(0), []
    for _ in range(rounds):
        drawn = [int(rng.choice(np.flatnonzero(mask))) for mask in batch.action_mask]
        batch.step(np.where(rng.random(batch.n) < 0.6, [batch.oracle_action(i) for i in range(batch.n)], drawn))
        for i, mask in enumerate(batch.sessions.masks()):
            sample, category = batch.sample(i), int(batch.categories[i])
            found.append(batch.dice[i] - metrics.dice(mask, sample.target(category), sample.valid_for(category)))
    return np.abs(found)


def test_dice_on_the_grid_is_dice_in_the_image_on_toy_scenes():
    """Logits of 64 x 64 on images of 128 x 128, judged on 128 x 128: the image itself, but for interpolation."""
    far = apart(batch_of(24, dataset="toy:semantic", dataset_kwargs={"n_images": 40}, patches=16))
    assert far.mean() < 1e-4
    assert far.max() < 1e-3


def test_dice_on_the_grid_is_nearly_dice_in_the_image_on_photographs(photographs):
    """Photographs are larger than the grid: what is lost are fractions of cells along outlines, most for thin things."""
    options = {"dataset": f"coco:{photographs / 'coco_permissive'}", "split": "eval", "dataset_kwargs": {}}
    far = apart(batch_of(24, **options, patches=16))
    assert far.mean() < 0.005  # measured: 0.0023 with masks of 64 cells
    assert far.max() < 0.05  # 0.036


def test_a_batch_is_its_episodes():
    """The same steps alone and together; episodes that do not act stay as they are."""
    batch = batch_of(remove=True, done=True, max_steps=6)
    pairs = list(zip(batch.rows.tolist(), batch.categories.tolist(), strict=True))
    alone = []
    for pair in pairs:
        one = batch_of(1, remove=True, done=True, max_steps=6)
        one.reset(np.array([0]), [pair])
        alone.append(one)
    rng = np.random.default_rng(0)
    for _ in range(5):
        acting = rng.random(4) < 0.7
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in batch.action_mask])
        before = batch.observe()
        step = batch.step(actions, acting)
        for i in EVERYONE:
            if acting[i]:
                single = alone[i].step(actions[i : i + 1])
                assert single.rewards[0] == pytest.approx(step.rewards[i], abs=1e-4)
                assert single.over[0] == step.over[i]
                assert single.invalid[0] == step.invalid[i]
            else:
                assert step.rewards[i] == 0
                assert not step.invalid[i]
            seen, own = batch.observe(), alone[i].observe()
            assert all(th.allclose(seen[key][i].float(), own[key][0].float(), atol=1e-4) for key in seen)
            if not acting[i]:
                assert all(th.equal(seen[key][i], before[key][i]) for key in seen)


def test_clicks_that_are_placed_count_as_no_step_and_use_their_cells_up():
    batch = batch_of()
    first = [[centre_click(batch.sample(i).target(0))] for i in EVERYONE]
    before = batch.observe()["sam_pred_mask_prob"]
    batch.place(EVERYONE[1:3], first[1:3])
    assert [len(batch.sessions.clicks(i)) for i in EVERYONE] == [0, 1, 1, 0]
    assert batch.num_steps.tolist() == [0] * 4
    for i in (1, 2):
        action = batch.actions.at(*first[i][0], batch.size(i))
        assert not batch.action_mask[i, action]
        assert batch.dice[i] == batch.best_dice[i] > 0.5
        assert batch.info(i)["point_coords"] == [first[i][0][0]]
    assert batch.dice[0] == 0
    assert th.equal(batch.observe()["sam_pred_mask_prob"][0], before[0])
    for click in (((500, 5), 1), ((5, 5), 2)):
        with pytest.raises(ValueError, match=r"outside the image|1 \(foreground\) or 0"):
            batch.place(np.array([0]), [[click]])
    assert batch.sessions.clicks(0) == []


def test_the_best_dice_stays_where_dice_falls(answering):
    batch = batch_of(2)
    good = 18 * (batch.judge.share > 127).float()[:, ::2, ::2] - 9
    answering(good[0])
    batch.step(np.array([20, 20]))
    best = batch.best_dice.copy()
    assert best[0] > 0.9
    answering(th.full((64, 64), -9.0))
    step = batch.step(np.array([30, 30]))
    assert batch.dice.tolist() == [0, 0]
    assert np.array_equal(batch.best_dice, best)
    assert step.rewards[0] == pytest.approx(-best[0])


def test_what_a_reward_is_told(tiny):
    told = []

    def watch(context):
        told.append(context)
        return np.arange(4.0)

    batch = batch_of(reward=watch, patches=8, remove=True)
    actions = np.array([batch.oracle_action(i) for i in EVERYONE])
    batch.step(actions)
    forbidden = batch.step(np.array([actions[0], 5, 64 + 7, 128]))  # again; two clicks; take back
    first, second = told
    assert first.clicked.all()
    assert first.on_object.all()
    assert np.isinf(first.nearest).all()
    assert first.dice_before.tolist() == [0] * 4
    assert np.array_equal(second.dice_before, first.dice_after)
    assert second.clicked.tolist() == [False, True, True, False]
    assert second.labels.tolist()[1:3] == [1, 0]
    (x, y), (u, v) = (batch.sessions.clicks(1)[k][0] for k in (0, 1))
    assert second.nearest[1] == pytest.approx(np.hypot(x - u, y - v))
    assert np.isinf(second.nearest[2])  # the first negative click
    assert second.patch_size.tolist() == [16.0] * 4
    assert second.dice_after[3] == 0
    assert second.score_before.tolist() == [0] * 4
    assert forbidden.invalid.tolist() == [True, False, False, False]
    assert forbidden.rewards.tolist() == [0, 1, 2, 3]


def test_models_of_a_process_are_shared():
    one, other = batch_of(), batch_of(1, max_steps=2)
    assert one.shared is other.shared
    assert one.shared.segmenter is load_segmenter("tiny", "cpu")
    assert batch_of(1, dataset_kwargs={"n_images": 11}).shared is not one.shared
