"""Exported files click without torch, and give the predictor's masks."""

import importlib.util
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import ToyScenes

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(predictor, tmp_path_factory):
    from alignsam_sb3.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(predictor, folder)
    return folder


def example(folder):
    spec = importlib.util.spec_from_file_location("example", folder / "example.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """A policy of random weights, the same each time; what it clicks does not matter here."""
    from alignsam_sb3.envs.vec_env import SamSegVecEnv

    from alignsam_sb3.policies import SamMaskablePPO
    from alignsam_sb3.predictor import Predictor
    from alignsam_sb3.task import Task

    task = Task("toy:semantic", dataset_kwargs={"n_images": 12}, max_steps=3, device="cpu")
    path = tmp_path_factory.mktemp("policy") / "policy.zip"
    SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv.of(task, 2), n_steps=2, batch_size=2, seed=0).save(path)
    return Predictor.load(path, device="cpu")


@pytest.mark.slow
def test_masks_are_those_of_the_predictor(exported, predictor):
    scenes, module, same = ToyScenes("semantic", "eval", n_images=50), example(exported), 0
    for k in range(50):
        photo = scenes[k].image
        photo = cv2.resize(photo, (300, 180 + k)) if k % 2 else photo  # also of odd proportions
        name = predictor.categories[k % len(predictor.categories)]
        ours, (theirs, iou) = predictor(photo, name), module.segment(photo, name)
        agreed = (ours.mask & theirs).sum() / max((ours.mask | theirs).sum(), 1)
        same += agreed >= 0.995 and iou == pytest.approx(ours.iou_predicted, abs=1e-3)
    assert same >= 48  # of two actions whose logits differ by 1e-4 and less, rounding chooses


@pytest.mark.slow
def test_it_says_that_another_mask_than_the_last_one_is_not_exported(predictor, tmp_path, caplog, monkeypatch):
    from alignsam_sb3.export import export_onnx
    from alignsam_sb3.predictor import Predictor

    monkeypatch.setattr(Predictor, "answer", "best IoU")
    export_onnx(predictor, tmp_path)
    assert "hand out the agent's last mask, not the agent's mask with the best IoU" in caplog.text


@pytest.mark.slow
def test_the_example_runs_without_torch(exported, tmp_path):
    Image.fromarray(ToyScenes("semantic", "eval", n_images=1)[0].image).save(tmp_path / "photo.png")
    code = (
        "import sys, runpy; sys.modules['torch'] = None; sys.argv = ['example.py', 'photo.png', 'disc', 'mask.png'];"
        f"runpy.run_path({str(exported / 'example.py')!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert set(np.unique(np.asarray(Image.open(tmp_path / "mask.png")))) <= {0, 255}


def test_a_policy_that_does_more_than_click_is_refused(predictor, tmp_path):
    from dataclasses import replace
    from types import SimpleNamespace

    from alignsam_sb3.export import export_onnx

    other = SimpleNamespace(segmenter=predictor.segmenter, task=replace(predictor.task, remove=True, done=True, absent=0.5))
    with pytest.raises(ValueError, match=r"this one has remove=True, absent=0\.5"):
        export_onnx(other, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("eager", [True, False], ids=["stops", "goes on"])
def test_a_policy_that_stops_stops_there_too(tmp_path, eager):
    from alignsam_sb3.envs.vec_env import SamSegVecEnv

    from alignsam_sb3.export import export_onnx
    from alignsam_sb3.policies import SamMaskablePPO
    from alignsam_sb3.predictor import Predictor
    from alignsam_sb3.task import Task

    task = Task("toy:saliency", dataset_kwargs={"n_images": 12}, clip=None, max_steps=3, done=True, device="cpu")
    model = SamMaskablePPO("ImplicitMaskablePolicy", SamSegVecEnv.of(task, 2), n_steps=2, batch_size=2, seed=0)
    model.policy.action_net.bias.data[-1] = 1e3 if eager else -1e3
    model.save(tmp_path / "policy.zip")
    predictor = Predictor.load(tmp_path / "policy.zip", device="cpu")
    export_onnx(predictor, tmp_path / "onnx")
    module, scenes = example(tmp_path / "onnx"), ToyScenes("saliency", "eval", n_images=5)
    for k in range(5):
        ours, (theirs, _) = predictor(scenes[k].image, "salient object"), module.segment(scenes[k].image, "salient object")
        assert len(ours.clicks) == (1 if eager else 3)
        assert (ours.mask & theirs).sum() / max((ours.mask | theirs).sum(), 1) >= 0.995


@pytest.mark.slow
def test_latency_is_measured_in_both(exported, predictor):
    from alignsam_sb3.export import measure_latency

    *_, torch_row, onnx_row = measure_latency(predictor, exported, 2).splitlines()
    for name, row in (("torch", torch_row), ("onnxruntime", onnx_row)):
        said, median, tail = (cell.strip() for cell in row.strip("|").split("|"))
        assert said == name and 0 < int(median) <= int(tail)
