"""Banks that are filled before a training: it uses them, and many machines fill them as one process does."""

import os
import re
import signal
import socket
import sys

import gymnasium as gym
import numpy as np
import pytest
from alignsam_sb3.envs import shared
from PIL import Image

from alignsam_sb3 import cli
from alignsam_sb3.actors import Actors
from alignsam_sb3.features import FeatureBank
from alignsam_sb3.filling import Asked, _Models, fill
from alignsam_sb3.segmenters import SamSegmenter
from alignsam_sb3.semantics import ClipSurgery
from alignsam_sb3.task import Task

FILL = ["cache", "fill", "--dataset-kwargs", "n_images=8", "--env-kwargs", "device:'cpu'"]


@pytest.fixture
def cached_in(tmp_path, monkeypatch):
    """Puts what is opened from now on into a cache of its own, as a new process would find it."""

    def use(name):
        monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path / name))
        shared._open_by_name.cache_clear()
        return tmp_path / name

    yield use
    shared._open_by_name.cache_clear()


def refuse(*args, **kwargs):
    raise AssertionError("a frozen model was asked again")


def test_a_training_asks_no_frozen_model_again(cached_in, monkeypatch, capsys):
    cached_in("cache")
    assert cli.main(FILL) == 0
    said = capsys.readouterr().out
    assert "train: 8 images are encoded, 0 skipped" in said and "eval: 8 images are encoded, 0 skipped" in said
    cached_in("cache")
    with monkeypatch.context() as patched:
        patched.setattr(SamSegmenter, "encode", refuse)
        patched.setattr(ClipSurgery, "similarity", refuse)
        of_the_file = {"dataset_kwargs": {"min_area": 0.02, "n_images": 8}, "device": "cpu"}
        for split in ("train", "eval"):
            env = gym.make("SamSeg-v0", split=split, **of_the_file).unwrapped
            env.fill()
            assert env.reset(seed=0)[0]["similarity_maps"].any()
    with pytest.raises(AssertionError, match="asked again"):
        monkeypatch.setattr(SamSegmenter, "encode", refuse)
        gym.make("SamSeg-v0", dataset_kwargs={"n_images": 9}, device="cpu").unwrapped.fill()


def test_a_cache_that_cannot_be_written_is_refused(cached_in, monkeypatch, capsys):
    cached_in("cache")
    monkeypatch.setattr(FeatureBank, "writable", False)
    assert cli.main(FILL) == 1
    assert "nothing would be kept: point ALIGNSAM_CACHE elsewhere" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(cached_in, monkeypatch, capsys):
    cached_in("cache")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main([*FILL, "--ray"]) == 1
    said = "alignsam cache: many machines need one more package: pip install 'alignsam_sb3[ray]'\n"
    assert capsys.readouterr().err == said


def test_a_machine_with_other_weights_is_refused(tiny):
    photo = np.zeros((32, 48, 3), np.uint8)
    models = _Models("tiny", "tiny", "cpu")
    assert models(Asked(tiny.fingerprint, None, [photo]))["embeddings"].dtype == np.float16
    with pytest.raises(ValueError, match=r"the bank is of tiny-0, and here is tiny-\w+: all machines need the same weights"):
        models(Asked("tiny-0", None, [photo]))


@pytest.fixture
def photos(tmp_path):
    """80 images to train on, one of them damaged: five batches."""
    rng = np.random.default_rng(0)
    for k in range(80):
        path = tmp_path / "photos" / "train" / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48 + k % 3, 64, 3), dtype=np.uint8)).save(path)
    path.with_name("020.png").write_bytes(path.with_name("020.png").read_bytes()[:500])
    return tmp_path / "photos"


@pytest.mark.slow
def test_two_workers_one_of_them_killed_fill_what_one_process_fills(photos, cached_in, monkeypatch):
    ray = pytest.importorskip("ray")

    def pid_of(actor):
        return ray.get(actor.__ray_call__.remote(lambda actor: os.getpid()))

    pids, answers = [], Actors.__call__

    def killing(actors, batches):
        pids.append([pid_of(actor) for actor in actors.actors])
        for k, answer in enumerate(answers(actors, batches)):
            if k == 0:
                os.kill(pids[-1][0], signal.SIGKILL)
            yield answer
        pids.append([pid_of(actor) for actor in actors.actors])

    task = Task(f"images:{photos}", segmenter="tiny", clip="tiny", reward="network", on_error="skip", device="cpu")
    here = cached_in("here")
    fill(task)
    there = cached_in("there")
    monkeypatch.setattr(Actors, "__call__", killing)
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="warning")
    try:
        filled = fill(task, "")
    finally:
        ray.shutdown()
    assert np.flatnonzero(~filled.bank.usable).tolist() == [20] and len(filled.bank) == 80
    assert len(pids) == 4  # before and after, for each bank
    for before, after in (pids[:2], pids[2:]):
        assert before[0] != after[0] and before[1] == after[1]
    written = sorted(path.relative_to(here) for path in here.rglob("*") if path.is_file())
    assert {path.name for path in written} >= {"embeddings.f16", "similarity_maps.f16", "records", "skipped.json"}
    assert [path for path in written if (here / path).read_bytes() != (there / path).read_bytes()] == []
    cached_in("there")
    monkeypatch.setattr(SamSegmenter, "encode", refuse)
    monkeypatch.setattr(ClipSurgery, "similarity", refuse)
    shared.open_shared(task).fill()


def test_an_address_where_nothing_listens_is_refused_at_once(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for given in (address, f"ray://{address}"):
            with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {given} .*ray start --head"):
                Actors(str, given)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConnectionError, match=address):
            Actors(str)
    with pytest.raises(ValueError, match=r"'here:port' is no address of a Ray cluster .*HOST:PORT"):
        Actors(str, "here:port")


def test_a_skipped_image_does_not_count_as_encoded(cached_in, tmp_path, capsys):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.fromarray(np.eye(32, k=i, dtype=np.uint8) * 255).save(tmp_path / name / f"{i}.png")
    for i in range(0, 8, 2):
        photo = tmp_path / "images" / f"{i}.png"
        photo.write_bytes(photo.read_bytes()[:-30])
    cached_in("cache")
    skip = ["--dataset", f"mask_folder:{tmp_path}", "--env-kwargs", "device:'cpu'", "on_error:'skip'"]
    assert cli.main(["cache", "fill", "--env", "SamSegImplicit-v0", *skip]) == 0
    said = re.findall(r"(\d+) images are encoded, (\d+) skipped", capsys.readouterr().out)
    assert np.sum(np.array(said, int), axis=0).tolist() == [4, 4]
