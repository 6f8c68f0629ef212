import json

import numpy as np
import pytest
from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3 import evaluation
from alignsam_sb3.evaluation.__main__ import main
from alignsam_sb3.evaluation.report import target_pairs
from alignsam_sb3.policies import SamMaskablePPO


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
    kept, rivals = ["agent, best IoU", "agent, steadiest"], ["nearest exemplar", "small head", "mean training mask"]
    assert list(results["rows"]) == ["random", "centre", "box (sees the truth)", "oracle", "agent", *kept, "GrabCut", *rivals]
    assert set(results["rivals"]["left_out"]) == {"map alone", "map as mask prompt", "map's peaks", "map's errors"}
    assert "No row of map alone: the policy has no recalibration module" in printed
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
    run(policy, tmp_path, capsys, "--rivals", "small head")
    lines = [json.loads(line) for line in (tmp_path / "clicks.jsonl").read_text().splitlines()]
    assert len(lines) == 6 * 8
    assert {len(line["point_coords"]) for line in lines if line["player"] == "small head"} == {0}
    assert {len(line["point_coords"]) for line in lines if line["player"] == "centre"} == {1}
    assert {len(line["point_coords"]) for line in lines if line["player"] == "agent"} == {3}
    assert len(list((tmp_path / "overlays").glob("*.png"))) == 6


def test_the_same_seed_gives_the_same_numbers(policy, tmp_path, capsys):
    one, _ = run(policy, tmp_path / "one", capsys, "--rivals", "GrabCut", "nearest exemplar")
    two, _ = run(policy, tmp_path / "two", capsys, "--rivals", "GrabCut", "nearest exemplar")
    assert one["rows"] == two["rows"]
    assert (tmp_path / "one" / "clicks.jsonl").read_text() == (tmp_path / "two" / "clicks.jsonl").read_text()


def test_episodes_are_distinct_while_they_last_and_balanced():
    images = (np.array([3, 4]), np.array([], int), np.array([5, 6, 7]))
    drawn = evaluation.draw_episodes(images, 6, np.random.default_rng(0))
    assert [c for _, c in drawn] == [0, 2, 0, 2, 0, 2]
    assert len(set(drawn)) == 5
    row = evaluation.Row(5, {"dice": np.arange(6.0)[:, None]})
    assert row.interval("dice")[0] == pytest.approx(1.96 * np.std(np.arange(6), ddof=1) / np.sqrt(5))


def test_batches_do_not_change_the_numbers(make_env):
    task = make_env(split="eval").unwrapped.task

    def rows(n):
        players = {"oracle": evaluation.oracle_player}
        return evaluation.evaluate(players, ClickBatch(task, n), 5, 0)[0]

    assert np.allclose(rows(2)["oracle"].scores["dice"], rows(5)["oracle"].scores["dice"], atol=1e-3)


def test_the_agent_takes_the_best_action_rather_than_drawing_one(make_env):
    venv = SamSegVecEnv([lambda: make_env(max_steps=3, split="eval")] * 4)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=4, seed=0, device="cpu")
    venv.reset()
    observation = venv.batch.observe()
    tensors, _ = model.policy.obs_to_tensor(observation)
    probabilities = model.policy.get_distribution(tensors, observation["action_mask"]).distribution.probs
    for _ in range(3):
        assert evaluation.agent_player(model)(venv.batch, observation, 0) == probabilities.argmax(1).tolist()


def test_images_seen_in_training_are_refused_or_counted(tmp_path, capsys, make_env):
    path = tmp_path / "policy.zip"
    venv = SamSegVecEnv([lambda: make_env(max_steps=2)] * 2)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=8, batch_size=4, n_epochs=1, seed=0, device="cpu")
    model.learn(16)
    model.save(path)
    more = ["--dataset", "toy:saliency:train", "--dataset-kwargs", "n_images=13"]  # another set, in which all of them are
    with pytest.raises(SystemExit, match=r"trained on \d+ of these .* images .*--allow-seen"):
        run(path, tmp_path / "no", capsys, *more)
    results, printed = run(path, tmp_path / "yes", capsys, *more, "--allow-seen")
    assert results["seen_in_training"]
    assert "were seen in training" in printed
    assert results["rivals"]["labelled_images"] in (6, 7)  # of 12; six of thirteen are judged on
    unseen, _ = run(path, tmp_path / "eval", capsys, "--rivals", "none")
    assert unseen["seen_in_training"] == []


def test_photographs_in_another_data_set(policy, tmp_path, capsys, photographs):
    root = photographs / "coco_permissive"
    more = ["--dataset", f"coco:{root}", "--categories", "person", "--rivals", "small head"]
    results, printed = run(policy, tmp_path, capsys, *more)
    assert results["data"].startswith("coco-eval")
    assert "No row of small head: no labelled training image shows person" in printed


def test_intervals_and_stops():
    row = evaluation.Row(2, {"dice": np.array([[0.0, 0.5], [1.0, 0.5]])})
    assert row.mean("dice") == [0.5, 0.5]
    assert row.interval("dice")[0] == pytest.approx(1.96 * np.std([0, 1], ddof=1) / np.sqrt(2))
    assert row.interval("dice")[1] == 0


def test_a_player_that_stops_keeps_its_mask(make_env):
    batch = ClickBatch(make_env(done=True, split="eval").unwrapped.task, 2)
    stop = batch.actions.n - 1

    def one_click_then_done(batch, observations, turn):
        return evaluation.centre_player(batch, observations, turn) if turn == 0 else [stop] * batch.n

    row = evaluation.play(one_click_then_done, batch, [(0, 0), (1, 0), (2, 0)])
    assert np.array_equal(row.scores["dice"][:, 0], row.scores["dice"][:, -1])
    assert [len(c) for c in row.clicks] == [1, 1, 1]


def test_clip_rows_stand_beside_an_agent_with_a_prior(tmp_path, capsys, make_env):
    def make():
        return make_env(dataset="toy:semantic", dataset_kwargs={"n_images": 16}, clip="tiny", max_steps=2)

    path = tmp_path / "policy.zip"
    SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv([make]), n_steps=4, batch_size=4, seed=0, device="cpu").save(path)
    results, printed = run(path, tmp_path, capsys, "--rivals", "map alone")
    before = ["random", "CLIP top", "CLIP points", "CLIP box", "centre", "box (sees the truth)", "oracle", "agent"]
    assert list(results["rows"]) == [*before, "agent, best IoU", "agent, steadiest", "map alone"]
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


def test_a_report_replaces_another_when_it_is_whole(tmp_path):
    from alignsam_sb3.evaluation.report import whole_report

    def write(folder, text, overlays):
        (folder / "overlays").mkdir()
        for k in range(overlays):
            (folder / "overlays" / f"{k}.png").write_text(text)
        for name in ("clicks.jsonl", "results.json"):
            (folder / name).write_text(text)

    (tmp_path / "own.txt").write_text("a user's")
    with whole_report(tmp_path) as folder:
        write(folder, "first", 2)
    with pytest.raises(KeyboardInterrupt), whole_report(tmp_path) as folder:
        write(folder, "interrupted", 1)
        raise KeyboardInterrupt
    assert (tmp_path / "results.json").read_text() == (tmp_path / "clicks.jsonl").read_text() == "first"
    (tmp_path / ".report.0.part").mkdir()  # of one that was killed
    with whole_report(tmp_path) as folder:
        write(folder, "second", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.jsonl", "overlays", "own.txt", "results.json"]
    assert (tmp_path / "results.json").read_text() == "second"
    assert len(list((tmp_path / "overlays").iterdir())) == 1
