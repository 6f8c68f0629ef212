"""A cluster of two workers on this machine: what it finds is what one process finds, also if a worker is killed."""

import json
import os
import signal

import pytest
from PIL import Image

from alignsam_sb3.annotate import annotate_folder
from alignsam_sb3.datasets import ToyScenes

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from alignsam_sb3.envs.vec_env import SamSegVecEnv

    from alignsam_sb3.policies import SamMaskablePPO
    from alignsam_sb3.task import Task

    task = Task("toy:saliency", dataset_kwargs={"n_images": 12}, max_steps=2, device="cpu", clip=None)
    path = tmp_path_factory.mktemp("policy") / "policy.zip"
    SamMaskablePPO("ImplicitMaskablePolicy", SamSegVecEnv.of(task, 2), n_steps=2, batch_size=2).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for k in range(12):
        Image.fromarray(ToyScenes("saliency", n_images=30)[12 + k].image).save(folder / f"{k:02d}.png")
    (folder / "05.png").write_text("no photo")
    return folder


@pytest.fixture
def cluster(policy):
    from alignsam_sb3.annotate.cluster import players

    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="warning")
    with players(policy, ("salient object",)) as playing:
        assert len(playing.actors) == 2
        yield playing
    ray.shutdown()


def pid_of(actor):
    return ray.get(actor.__ray_call__.remote(lambda actor: os.getpid()))


def journal(out):
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]


def test_two_workers_one_of_them_killed_find_what_one_process_finds(policy, photos, cluster, tmp_path):
    from alignsam_sb3.predictor import Predictor

    predict = Predictor.load(policy, device="cpu")
    annotate_folder(predict, photos, tmp_path / "here", batch_size=2, progress=False)
    before = pid_of(cluster.actors[0])

    def playing(batches):
        for k, found in enumerate(cluster(batches)):
            if k == 1:
                os.kill(before, signal.SIGKILL)
            yield found

    summary = annotate_folder(predict, photos, tmp_path / "there", batch_size=2, progress=False, play=playing)
    assert summary.images == 11 and summary.skipped == 1
    assert journal(tmp_path / "there") == journal(tmp_path / "here")
    assert pid_of(cluster.actors[0]) != before
