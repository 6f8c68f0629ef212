"""A policy goes to a stand-in for the Hub and comes back the same, with nothing pickled on the way."""

import io
import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch as th

sys.path.insert(0, str(Path(__file__).parent))
from standin import Hub

from alignsam_sb3 import hub
from alignsam_sb3.policies import read_recipe


@pytest.fixture
def server(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    running = Hub()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def policy(tmp_path):
    """A zip as our algorithms save it, with two small layers for a policy."""
    path = tmp_path / "policy.zip"
    recipe = {
        "algorithm": "SamMaskablePPO",
        "policy": "ExplicitMaskablePolicy",
        "policy_kwargs": {},
        "not_plain": [],
        "env": {"dataset": "toy:semantic", "segmenter": "tiny", "clip": "tiny", "max_steps": 3},
        "trained_on": "x",
    }
    net = th.nn.Sequential(th.nn.Linear(3, 4), th.nn.Linear(4, 2))
    optimizer = th.optim.Adam(net.parameters(), 1e-3)
    net(th.ones(3)).sum().backward()
    optimizer.step()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"recipe": recipe, "num_timesteps": 77}))
        archive.writestr("_stable_baselines3_version", "2.9.2")
        for name, content in {"policy.pth": net.state_dict(), "policy.optimizer.pth": optimizer.state_dict()}.items():
            buffer = io.BytesIO()
            th.save(content, buffer)
            archive.writestr(name, buffer.getvalue())
    return path


def weights(path, name="policy.pth"):
    with zipfile.ZipFile(path) as archive:
        return th.load(io.BytesIO(archive.read(name)), weights_only=True)


def test_it_comes_back_as_it_went(server, policy, tmp_path):
    hub.push(policy, "me/dogs", endpoint=server.endpoint)
    assert sorted(server.files["me/dogs"]) == ["README.md", "model.safetensors", "policy.json"]
    again = hub.pull("me/dogs", tmp_path / "again.zip", endpoint=server.endpoint)
    assert read_recipe(again) == read_recipe(policy)
    before, after = weights(policy), weights(again)
    assert before.keys() == after.keys() and all(th.equal(before[k], after[k]) for k in before)
    assert weights(again, "policy.optimizer.pth")["param_groups"][0]["lr"] == 1e-3


def test_a_checkpoint_from_within_the_warm_start_is_not_shared(policy, tmp_path):
    """It could not be loaded again: its stage goes on with an optimizer that stays behind."""
    recipe = {**read_recipe(policy), "stages": {"warm start": [8, 16]}}
    half, state = tmp_path / "half.zip", io.BytesIO()
    th.save(th.optim.AdamW(th.nn.Linear(3, 4).parameters()).state_dict(), state)
    with zipfile.ZipFile(policy) as given, zipfile.ZipFile(half, "w") as archive:
        for name in given.namelist():
            archive.writestr(name, given.read(name))
        archive.writestr("alignsam.json", json.dumps(recipe))
        archive.writestr("warm start.stage.pt", state.getvalue())
    with pytest.raises(ValueError, match=r"in the middle of its warm start.*finish it first"):
        hub.to_files(half, tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_nothing_that_is_uploaded_is_pickled(server, policy):
    hub.push(policy, "me/dogs", endpoint=server.endpoint)
    for name, content in server.files["me/dogs"].items():
        assert b"PK\x03\x04" not in content[:8] and not content.startswith(b"\x80"), name


def test_what_was_pulled_once_needs_no_connection(server, policy, tmp_path):
    hub.push(policy, "me/dogs", endpoint=server.endpoint)
    first = hub.pull("me/dogs", endpoint=server.endpoint)
    server.shutdown()
    server.server_close()
    assert hub.pull("me/dogs", endpoint=server.endpoint) == first


def test_the_calibration_goes_along(server, policy, tmp_path):
    from alignsam_sb3.calibration import Calibration

    calibration = Calibration(("iou",), ("dog",), (0.5,), (0.1,), (), (1.0, 0.0, 0.0, 0.0), (), (0.5, 0.6), (0.4, 0.7))
    calibration.write(policy)
    hub.push(policy, "me/dogs", endpoint=server.endpoint)
    assert Calibration.read(hub.pull("me/dogs", tmp_path / "a.zip", endpoint=server.endpoint)) == calibration


def test_the_card_shows_what_was_measured(server, policy, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.md").write_text("| | dice |\n|---|---|\n| random | 0.2 |\n| agent | 0.7 |\n")
    described = {
        "command": "alignsam evaluate --policy p.zip",
        "versions": {"torch": "2.9"},
        "episodes": 5,
        "data": "toy",
        "seed": 3,
    }
    (tmp_path / "results" / "results.json").write_text(json.dumps(described))
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    hub.push(policy, "me/dogs", tmp_path / "results", tmp_path / "film.gif", endpoint=server.endpoint)
    card = server.files["me/dogs"]["README.md"].decode()
    for part in (
        "| agent | 0.7 |",
        "alignsam evaluate --policy p.zip",
        "torch 2.9",
        "film.gif",
        'Predictor.from_hub("me/dogs")',
    ):
        assert part in card
    assert card.startswith("---\nlibrary_name")


def test_a_folder_without_an_evaluation_is_named(policy, tmp_path, server):
    with pytest.raises(FileNotFoundError, match="alignsam evaluate"):
        hub.push(policy, "me/dogs", tmp_path, endpoint=server.endpoint)


def test_without_a_connection_the_command_is_named(policy):
    for act in (
        lambda: hub.push(policy, "me/dogs", endpoint="http://127.0.0.1:9"),
        lambda: hub.pull("me/dogs", endpoint="http://127.0.0.1:9"),
    ):
        with pytest.raises(ConnectionError, match=r"run `alignsam (push|pull) .*me/dogs`"):
            act()


def test_a_repository_that_is_not_there_and_one_that_refuses(server, policy):
    with pytest.raises(ConnectionError, match="no such repository"):
        hub.pull("me/cats", endpoint=server.endpoint)
    server.refuse = True
    with pytest.raises(ConnectionError, match="hf auth login"):
        hub.push(policy, "me/dogs", endpoint=server.endpoint)


def test_something_else_is_no_policy(tmp_path, policy):
    with pytest.raises(ValueError, match=r"policy\.json is missing"):
        hub.from_files(tmp_path, tmp_path / "a.zip")
    hub.to_files(policy, tmp_path / "f")
    (tmp_path / "f" / "policy.json").write_text('{"format": 99, "alignsam_sb3": "7"}')
    with pytest.raises(ValueError, match="made by alignsam_sb3 7"):
        hub.from_files(tmp_path / "f", tmp_path / "a.zip")
    (tmp_path / "f" / "policy.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        hub.from_files(tmp_path / "f", tmp_path / "a.zip")
    (tmp_path / "f" / "policy.json").write_text(" " * (5 << 20))
    with pytest.raises(ValueError, match="5,242,880 bytes, and 4,194,304 are allowed"):
        hub.from_files(tmp_path / "f", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    with pytest.raises(ValueError, match="user/name"):
        hub.pull("dogs")
