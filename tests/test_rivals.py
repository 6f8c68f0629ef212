"""Rivals: each does what its name says, is fitted on training images alone, and looks at no truth where it is judged."""

from dataclasses import replace

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.batch import ClickBatch

from alignsam_sb3.clickers import centre_click
from alignsam_sb3.datasets import Sample
from alignsam_sb3.datasets.seen import SeenImages, hash_in
from alignsam_sb3.evaluation import (
    RIVALS,
    all_rows,
    best_by,
    fit_rivals,
    grab_cut,
    labelled_pairs,
    oracle_player,
    play,
    play_answers,
    rivals_of,
)
from alignsam_sb3.evaluation.answers import by_agreement, by_network, by_segmenter, grab_cut_answer, kept_rules
from alignsam_sb3.evaluation.maps import best_thresholds, exemplar_map, head_map, learn, mean_mask_map, module_map
from alignsam_sb3.evaluation.rivals import errors_player, mask_prompt_player, peaks_player, still
from alignsam_sb3.metrics import dice
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.task import Task

SALIENCY = Task(dataset="toy:saliency", dataset_kwargs={"n_images": 12}, clip=None, device="cpu", max_steps=3)
SEMANTIC = replace(SALIENCY, dataset="toy:semantic", dataset_kwargs={"n_images": 16}, clip="tiny")


@pytest.fixture(scope="module")
def train():
    return ClickBatch(SALIENCY, 4)


@pytest.fixture(scope="module")
def unseen():
    return ClickBatch(SALIENCY.for_evaluation(), 4)


@pytest.fixture(scope="module")
def pairs(train):
    return labelled_pairs(train, SeenImages())


def given(values):
    """A map that is the same for all episodes."""
    return lambda batch: th.as_tensor(values, dtype=th.float32).expand(batch.n, *np.shape(values))


def of_truth(low, high):
    """A map that cheats: high on the target, low elsewhere."""

    def where(batch):
        truth = [th.from_numpy(batch.sample(i).target(int(batch.categories[i])).astype(np.float32)) for i in range(batch.n)]
        return low + (high - low) * th.stack(truth)

    return where


def test_a_threshold_is_the_best_on_the_labelled_images(train, pairs):
    maps = {"sure": of_truth(0.8, 0.9), "low": of_truth(-0.5, -0.2), "wrong way": of_truth(0.6, 0.2)}
    best = best_thresholds(maps, train, pairs)
    assert 0.8 < best["sure"] <= 0.9
    assert -0.5 < best["low"] <= -0.2
    assert best["wrong way"] <= 0.2  # everything: the ground alone would be worse


def test_a_head_learns_what_is_labelled_and_each_category_has_its_own():
    batch = ClickBatch(SEMANTIC, 8)
    pairs = labelled_pairs(batch, SeenImages())
    where = head_map(learn(batch, pairs))
    threshold = best_thresholds({"head": where}, batch, pairs)["head"]
    fitted = {name: score(batch, pairs, where, threshold) for name, where in (("own", where), ("next", shifted(where)))}
    assert fitted["own"] > 0.35  # of images that it has seen
    assert fitted["own"] > fitted["next"] + 0.1


def shifted(where):
    """The map of the next category."""

    def other(batch):
        own = batch.categories.copy()
        batch.categories = (own + 1) % len(batch.shared.dataset.categories)
        drawn = where(batch)
        batch.categories = own
        return drawn

    return other


def score(batch, pairs, where, threshold):
    batch.reset(np.arange(batch.n), pairs[: batch.n])
    masks = (batch.segmenter.postprocess(where(batch), (128, 128)) >= threshold).numpy()
    return np.mean([dice(m, batch.sample(i).target(int(batch.categories[i]))) for i, m in enumerate(masks)])


def test_a_mean_mask_is_that_of_the_labelled_images_and_looks_at_none(train, unseen, pairs):
    where = mean_mask_map(learn(train, pairs[:1]))
    unseen.reset(np.arange(4), [(k, 0) for k in range(4)])
    drawn = unseen.segmenter.postprocess(where(unseen), (128, 128)).numpy()
    assert (drawn == drawn[0]).all()
    assert dice(drawn[0] >= 0.5, train.shared.sample(pairs[0][0]).target(0)) > 0.9


def test_exemplars_are_of_the_labelled_objects(train, unseen, pairs):
    where = exemplar_map(learn(train, pairs))
    unseen.reset(np.arange(4), [(k, 0) for k in range(4)])
    drawn = unseen.segmenter.postprocess(where(unseen), (128, 128)).numpy()
    truth = np.stack([unseen.sample(i).target(0) for i in range(4)])
    assert np.abs(drawn).max() <= 1
    assert drawn[truth].mean() > drawn[~truth].mean() + 0.1


def test_the_modules_map_is_that_before_any_click(unseen):
    with pytest.raises(RuntimeError, match="no recalibration module"):
        module_map(unseen)
    batch = ClickBatch(SALIENCY.for_evaluation(), 4)
    th.manual_seed(0)
    batch.recalibration = Recalibration(batch.observation_space, "implicit")
    batch.reset(np.arange(4), [(k, 0) for k in range(4)])
    before = module_map(batch)
    batch.place(np.arange(4), [[((64, 64), 1)]] * 4)
    assert th.equal(module_map(batch), before)
    assert not th.equal(batch.recalibration.foreground(batch.observe()), before)
    fitted = fit_rivals(["map alone"], batch, [(k, 0) for k in range(4)], ["salient object"])
    assert list(fitted.rivals) == ["map alone"]  # no language prior is needed then


def test_peaks_are_clicked_from_the_highest_on_apart_from_each_other(unseen):
    values = np.zeros((16, 16))
    values[2, 3], values[2, 4], values[12, 10], values[8, 8] = 0.9, 0.8, 0.7, 0.2
    row = play(peaks_player(given(values), 0.5), unseen, [(0, 0)])
    (first, second), labels = [place for place, _ in row.clicks[0]], [label for _, label in row.clicks[0]]
    assert labels == [1, 1]  # the third is below the threshold, and the second highest too near
    assert np.allclose(first, (28, 20), atol=4)
    assert np.allclose(second, (84, 100), atol=4)
    low = play(peaks_player(given(values / 10), 0.5), unseen, [(0, 0)])
    assert len(low.clicks[0]) == 1  # one click is made in any case


def test_clicks_on_a_maps_errors_are_the_oracles_where_the_map_is_the_truth(unseen):
    episodes = [(k, 0) for k in range(4)]
    assert play(errors_player(of_truth(0, 1), 0.5), unseen, episodes).clicks == play(oracle_player, unseen, episodes).clicks


def test_a_map_reaches_the_segmenter_as_its_mask_prompt(unseen, tiny, monkeypatch):
    seen, decode = [], tiny.decode
    monkeypatch.setattr(unseen.segmenter, "decode", lambda f, p, *a: seen.append(p) or decode(f, p, *a))
    values = np.zeros((16, 16))
    values[4:8, 4:8] = 0.9
    values[5, 5] = 1
    row = play(mask_prompt_player(given(values), 0.5), unseen, [(0, 0)])
    assert len(seen) == 1
    assert seen[0].fed.all()
    assert seen[0].mask_inputs.shape == (4, 128, 128)
    inside = (seen[0].mask_inputs[0] > 0).float()
    assert inside[36:60, 36:60].all()
    assert not inside[:28].any()
    assert [label for _, label in row.clicks[0]] == [1]
    assert np.allclose(row.clicks[0][0][0], (44, 44), atol=4)


def test_grab_cut_takes_what_looks_like_the_click():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, (300, 400, 3)).astype(np.uint8)
    truth = np.zeros((300, 400), bool)
    truth[100:180, 150:260] = True
    image[truth] += np.array([200, 50, 50], np.uint8)
    assert dice(grab_cut(image, [((200, 140), 1)]), truth) > 0.95
    assert not grab_cut(image, [((200, 140), 0)]).any()
    assert not grab_cut(image, []).any()
    corner = (255, 175)
    assert grab_cut(image, [((200, 140), 1)])[corner[::-1]]
    assert not grab_cut(image, [((200, 140), 1), (corner, 0)])[corner[::-1]]


def test_equal_clicks_on_one_image_are_cut_alike_and_judged_by_each_episodes_target():
    batch = ClickBatch(replace(SEMANTIC, max_steps=1).for_evaluation(), 4)
    row = next(row for row in range(16) if len(set(batch.shared.sample(row).category_ids.tolist())) > 1)
    sample = batch.shared.sample(row)
    first, second = sorted(set(sample.category_ids.tolist()))[:2]
    episodes = [(row, first), (row, second), (row, first)]
    click = centre_click(sample.target(first))
    found = play_answers(lambda of, seen, turn: [[click]] * of.n, batch, episodes, {"GrabCut": grab_cut_answer})
    mask = grab_cut(sample.image, [click])
    assert [m.tolist() for m in found["GrabCut"].masks] == [mask.tolist()] * 3
    expected = [dice(mask, sample.target(category)) for _, category in episodes]
    assert expected[0] != expected[1]
    assert found["GrabCut"].scores["dice"][:, -1].tolist() == expected


def test_the_best_scored_mask_is_kept(unseen):
    unseen.reset(np.arange(4), [(k, 0) for k in range(4)])
    scores = iter([[3, 1, 2, 5], [2, 1, 3, 9], [1, 0, 4, 1]])
    keep = best_by(lambda batch, before: np.array(next(scores), float))
    turns = [[np.full((2, 2), turn * 10 + i) for i in range(4)] for turn in range(3)]
    handed = []
    for turn, masks in enumerate(turns):
        clicking = [0, 1, 2] if turn == 1 else [0, 1, 2, 3]
        unseen.place(np.array(clicking), [[((64 + turn, 64), 1)] for _ in clicking])
        handed.append([int(mask[0, 0]) for mask in keep(unseen, masks, turn)])
    assert handed == [[0, 1, 2, 3], [0, 11, 12, 3], [0, 11, 22, 3]]  # equals: the later one; without a click: none


def test_scores_of_masks(unseen):
    unseen.reset(np.arange(4), [(k, 0) for k in range(4)])
    unseen.place(np.arange(4), [[((64, 64), 1)]] * 4)
    before = th.zeros_like(unseen.sessions.logits)
    assert np.allclose(by_segmenter(unseen, before), unseen.sessions.iou.numpy())
    unseen.scores[:] = [0.1, 0.2, 0.3, 0.4]
    assert by_network(unseen, before).tolist() == [0.1, 0.2, 0.3, 0.4]
    assert by_agreement(unseen, before).tolist() == [0] * 4
    before[:2], before[2] = unseen.sessions.logits[:2], 1
    assert by_agreement(unseen, before)[:2].tolist() == [1, 1]
    assert by_agreement(unseen, before)[2] == pytest.approx((unseen.sessions.logits[2] > 0).float().mean().item())
    assert list(kept_rules(unseen)) == ["best IoU", "steadiest"]
    with_network = ClickBatch(replace(SALIENCY, reward_network="tiny").for_evaluation(), 1)
    assert list(kept_rules(with_network)) == ["best score", "best IoU", "steadiest"]
    rows = all_rows({"agent": oracle_player}, "agent", {}, True, with_network, [(0, 0)])
    assert rows["agent, best score"].scores["score"][0, -1] == rows["agent"].scores["score"].max()
    assert "score" not in rows["GrabCut"].scores


def test_all_rivals_are_fitted_and_judged_and_look_at_no_truth(monkeypatch):
    task = SEMANTIC.for_evaluation()
    batch = ClickBatch(task, 4)
    episodes = [(int(rows[0]), c) for c, rows in enumerate(batch.shared.images_by_category[:4])]
    fitted = rivals_of(RIVALS, task, SEMANTIC, batch, episodes)
    rivals = fitted.rivals
    assert set(rivals) == set(RIVALS) - {"GrabCut"}
    assert not fitted.left_out
    assert fitted.images == 16
    rows = {name: play_answers(r.player, batch, episodes, {name: r.answer})[name] for name, r in rivals.items()}
    assert all(np.isfinite(row.scores["dice"]).all() for row in rows.values())

    def refused(*args):
        raise AssertionError("a rival looked at the truth")

    for rival in rivals.values():
        batch.reset(np.arange(4), episodes)
        with monkeypatch.context() as patch:
            patch.setattr(Sample, "target", refused)
            patch.setattr(ClickBatch, "truth_on_grid", refused)
            patch.setattr(batch.judge, "coarse", refused)
            moves = rival.player(batch, batch.observe(), 0)
            rival.answer(batch, batch.sessions.masks(), 0)
        assert (moves == [None] * 4) == (rival.player is still)


def test_no_rival_learns_from_an_image_on_which_it_is_judged(train, pairs):
    held_out = [0, 3, 4]
    hashes = SeenImages(hash_in(train.shared.dataset, row) for row in held_out)
    assert sorted({row for row, _ in labelled_pairs(train, hashes)} | set(held_out)) == sorted({row for row, _ in pairs})
    assert not {row for row, _ in labelled_pairs(train, hashes)} & set(held_out)
    again = replace(SALIENCY, max_steps=1)
    fitted = rivals_of(["small head"], again, SALIENCY, train, pairs)
    assert not fitted.rivals
    assert "no labelled training image" in fitted.left_out["small head"]


def test_rivals_that_cannot_be_are_left_out_with_their_reason(train, pairs, unseen, tmp_path):
    fitted = fit_rivals(RIVALS, train, pairs, ["salient object"])
    assert set(fitted.rivals) == {"nearest exemplar", "small head", "mean training mask"}
    assert set(fitted.left_out) == {"map alone", "map as mask prompt", "map's peaks", "map's errors"}
    strange = fit_rivals(["small head"], train, pairs, ["dog"]).left_out
    assert strange == {"small head": "no labelled training image shows dog"}
    task = SALIENCY.for_evaluation()
    gone = replace(SALIENCY, dataset=f"coco:{tmp_path / 'moved'}", dataset_kwargs={})
    moved = rivals_of(["small head"], task, gone, unseen, [(0, 0)]).left_out
    assert "cannot be used" in moved["small head"]
    assert str(tmp_path / "moved") in moved["small head"]
    unlabelled = replace(SALIENCY, dataset=f"images:{tmp_path}", dataset_kwargs={})
    without = rivals_of(["small head"], task, unlabelled, unseen, [(0, 0)]).left_out
    assert "without labels" in without["small head"]
