import json

import numpy as np
import pytest
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3 import evaluation
from alignsam_sb3.clickers import centre_click
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.evaluation.__main__ import main
from alignsam_sb3.evaluation.report import target_pairs
from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.task import Task


@pytest.fixture(scope="module")
def policy(tmp_path_factory, make_env):
    path = tmp_path_factory.mktemp("policy") / "policy.zip"
    venv = SamSegVecEnv([lambda: make_env(max_steps=3)])
    SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=4, seed=0, device="cpu").save(path)
    return path


def run(policy, out, capsys, *more):
    main(["--policy", str(policy), "--episodes", "6", "--seed", "3", "--out", str(out), *more])
    return json.loads((out / "results.json").read_text()), capsys.readouterr().out


def test_one_table_with_all_players(policy, tmp_path, capsys):
    results, printed = run(policy, tmp_path, capsys)
    assert list(results["rows"]) == ["random", "centre", "box (sees the truth)", "oracle", "agent"]
    for row in results["rows"].values():
        for metric in ("dice", "iou", "precision", "recall", "mae"):
            assert len(row[metric]) == 3
            assert all(0 <= value <= 1 for value in row[metric])
    oracle, centre = results["rows"]["oracle"], results["rows"]["centre"]
    assert oracle["dice"][0] == centre["dice"][0] == centre["dice"][2]
    assert oracle["dice"][2] > results["rows"]["random"]["dice"][2]
    assert results["env"]["split"] == "eval"
    assert "eval" in results["data"]
    assert "| oracle |" in printed


def test_clicks_and_overlays_are_written(policy, tmp_path, capsys):
    run(policy, tmp_path, capsys)
    lines = [json.loads(line) for line in (tmp_path / "clicks.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * 5
    assert {len(line["point_coords"]) for line in lines if line["player"] == "centre"} == {1}
    assert {len(line["point_coords"]) for line in lines if line["player"] == "agent"} == {3}
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 6


def test_the_same_seed_gives_the_same_numbers(policy, tmp_path, capsys):
    one, _ = run(policy, tmp_path / "one", capsys)
    two, _ = run(policy, tmp_path / "two", capsys)
    assert one["rows"] == two["rows"]
    assert (tmp_path / "one" / "clicks.jsonl").read_text() == (tmp_path / "two" / "clicks.jsonl").read_text()


def test_episodes_are_distinct_while_they_last_and_balanced():
    images = (np.array([3, 4]), np.array([], int), np.array([5, 6, 7]))
    drawn = evaluation.draw_episodes(images, 6, np.random.default_rng(0))
    assert [c for _, c in drawn] == [0, 2, 0, 2, 0, 2]
    assert len(set(drawn)) == 5
    row = evaluation.Row(5, {"dice": np.arange(6.0)[:, None]})
    assert row.interval("dice")[0] == pytest.approx(1.96 * np.std(np.arange(6), ddof=1) / np.sqrt(5))


HELD_OUT = {"dataset": "toy:saliency", "dataset_kwargs": {"n_images": 12}, "clip": None, "split": "eval", "device": "cpu"}


def batch_of(n, **options):
    return ClickBatch(Task(**{**HELD_OUT, **options}), n)


def test_batches_do_not_change_the_numbers():
    """Five episodes two at a time, the last one beside itself, and all at once."""

    def rows(n):
        return evaluation.evaluate({"oracle": evaluation.oracle_player}, batch_of(n), 5, 0)[0]["oracle"]

    two, five = rows(2), rows(5)
    assert two.clicks == five.clicks
    assert two.image_ids == five.image_ids
    assert len(two.masks) == len(five.masks) == 5
    for metric, values in two.scores.items():
        assert np.allclose(values, five.scores[metric], atol=1e-3)


def test_the_agent_is_greedy(policy):
    """An untrained policy draws at random; evaluation takes the likeliest action, each time the same."""
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from alignsam_sb3.policies import load_policy

    venv = SamSegVecEnv.of(Task(**HELD_OUT, max_steps=3), 6)
    model = load_policy(policy, venv)
    play = evaluation.agent_player(model)
    seen = venv.reset()
    best, _ = model.predict(seen, deterministic=True)
    drawn = {tuple(model.predict(seen, deterministic=False)[0].tolist()) for _ in range(5)}
    assert len(drawn) > 1  # or this test could not fail
    assert all(play(venv.batch, seen, 0) == best.tolist() for _ in range(5))


def test_photographs_in_another_data_set(policy, tmp_path, capsys, photographs):
    root = photographs / "coco_permissive"
    results, _ = run(policy, tmp_path, capsys, "--dataset", f"coco:{root}", "--categories", "person")
    assert results["data"].startswith("coco-val2017")


def test_intervals_and_stops():
    row = evaluation.Row(2, {"dice": np.array([[0.0, 0.5], [1.0, 0.5]])})
    assert row.mean("dice") == [0.5, 0.5]
    assert row.interval("dice")[0] == pytest.approx(1.96 * np.std([0, 1], ddof=1) / np.sqrt(2))
    assert row.interval("dice")[1] == 0


def test_a_player_that_stops_keeps_its_mask():
    batch = batch_of(2, done=True)

    def one_click_then_done(batch, observations, turn):
        if turn:
            return [batch.actions.n - 1] * batch.n
        return [[centre_click(batch.sample(i).target(int(batch.categories[i])))] for i in range(batch.n)]

    row = evaluation.play(one_click_then_done, batch, [(0, 0), (1, 0), (2, 0)])
    assert (row.scores["dice"][:, 0] > 0).all()
    assert np.array_equal(row.scores["dice"][:, 0], row.scores["dice"][:, -1])
    assert [len(c) for c in row.clicks] == [1, 1, 1]


def test_clip_rows_stand_beside_an_agent_with_a_prior(tmp_path, capsys, make_env):
    def make():
        return make_env(dataset="toy:semantic", dataset_kwargs={"n_images": 16}, clip="tiny", max_steps=2)

    path = tmp_path / "policy.zip"
    SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv([make]), n_steps=4, batch_size=4, seed=0, device="cpu").save(path)
    results, printed = run(path, tmp_path, capsys)
    assert list(results["rows"]) == ["random", "CLIP top", "CLIP points", "CLIP box", "centre", "box (sees the truth)", "oracle", "agent"]
    lines = [json.loads(line) for line in (tmp_path / "clicks.jsonl").read_text().splitlines()]
    assert {len(line["point_coords"]) for line in lines if line["player"] == "CLIP top"} == {1}
    points = [line for line in lines if line["player"] == "CLIP points"]
    assert all(sum(line["point_labels"]) * 2 == len(line["point_labels"]) for line in points)
    assert len({line["category"] for line in lines}) > 1
    assert (tmp_path / "targets.png").is_file()
    assert results["env"]["clip"] == "tiny"
    assert "| CLIP points |" in printed


def test_target_pairs_are_of_one_image():
    images = (np.array([3, 4]), np.array([4, 5]), np.array([4, 5]))
    assert target_pairs(images) == [[(4, 0), (4, 1), (4, 2)], [(5, 1), (5, 2)]]
