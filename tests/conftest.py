"""Fixtures: a small cache of its own, small data sets, and the real photographs where they are."""

import json
import os
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from PIL import Image
from pycocotools import mask as rle

os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported
sys.path.insert(0, str(Path(__file__).parent))
import hf_models

import alignsam_sb3  # noqa: F401 (registers the environments)
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.segmenters import MaskPrediction, load_segmenter

th.set_num_threads(1)
TOY = {"n_images": 12}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Banks go to a folder of this test session."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ALIGNSAM_CACHE"] = str(folder)
    os.environ["ALIGNSAM_OFFLINE"] = "1"  # no test asks the network
    return folder


@pytest.fixture(scope="session")
def tiny():
    return load_segmenter("tiny", "cpu")


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory):
    """Gives the folder of a tiny model of the transformers library, written once: ``hf_folder("sam2")``."""
    pytest.importorskip("transformers")
    root = tmp_path_factory.mktemp("hf")

    def folder(kind):
        path = root / kind
        return path if path.is_dir() else hf_models.save(kind, path)

    return folder


@pytest.fixture(scope="session")
def tiny_sam2_folder(hf_folder):
    """``hf:{tiny_sam2_folder}``: a SAM 2 of random weights that sees 128 x 128 pixels; its grid is 8 x 8."""
    return hf_folder("sam2")


@pytest.fixture(scope="session")
def tiny_sam3_tracker_folder(hf_folder):
    """``hf:{tiny_sam3_tracker_folder}``: a SAM 3 tracker of random weights that sees 112 x 112 pixels; its grid is 8 x 8."""
    return hf_folder("sam3_tracker")


@pytest.fixture(scope="session")
def make_env():
    """Makes SamSeg-v0 on twelve toy scenes."""

    def make(**kwargs):
        return gym.make(
            "SamSegImplicit-v0", **{"dataset_kwargs": TOY, "device": "cpu", "max_steps": 5, "done": False, **kwargs}
        )

    return make


@pytest.fixture
def answering(tiny, monkeypatch):
    """Lets the tiny segmenter answer whatever it is asked with given logits (64, 64), brought to its own resolution."""

    def answer(logits):
        logits = th.nn.functional.interpolate(logits[None, None], (tiny.mask_side,) * 2)[0, 0]

        def decode(features, prompts, multimask_output=True):
            return MaskPrediction(logits.expand(len(prompts), 1, *logits.shape), th.ones(len(prompts), 1))

        monkeypatch.setattr(tiny, "decode", decode)

    return answer


@pytest.fixture(scope="session")
def photographs():
    """The folder of real photographs, or a skip that says so."""
    folder = Path(os.environ.get("ALIGNSAM_TEST_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder}: set ALIGNSAM_TEST_DATA")
    return folder


def polygon_of(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture
def coco_root(tmp_path):
    """A COCO folder: two categories with polygons and RLE, a crowd, a small object, and a category that is all crowds."""
    rng = np.random.default_rng(0)
    (tmp_path / "annotations").mkdir()
    for split, folder in (("train2017", tmp_path / "images" / "train2017"), ("val2017", tmp_path / "val2017")):
        folder.mkdir(parents=True)
        images, annotations = [], []
        for i in range(4):
            name = f"{i:03d}.png"
            Image.fromarray(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / name)
            images.append({"id": i, "file_name": name, "height": 60, "width": 90})
            annotations.append(_annotation(len(annotations), i, 1 if i % 2 else 2, polygon_of(5, 5, 30, 20), 600))
        mask = np.zeros((60, 90), np.uint8, order="F")
        mask[30:50, 40:80] = 1
        encoded = rle.encode(mask)
        encoded["counts"] = encoded["counts"].decode()
        annotations.append(_annotation(len(annotations), 0, 1, encoded, 800))
        annotations.append(_annotation(len(annotations), 0, 3, encoded, 800, iscrowd=1))
        annotations.append(_annotation(len(annotations), 1, 2, polygon_of(1, 1, 4, 4), 16))
        categories = [{"id": k, "name": n} for k, n in ((1, "cat"), (2, "dog"), (3, "crowdy"))]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path


def _annotation(number, image_id, category_id, segmentation, area, iscrowd=0):
    return {
        "id": number + 1,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "area": area,
        "iscrowd": iscrowd,
        "bbox": [0, 0, 1, 1],
    }


@pytest.fixture(scope="session")
def toy():
    return ToyScenes("saliency", "train", **TOY)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy that has learned nothing, saved as a trained one is."""
    from alignsam_sb3.envs.vec_env import SamSegVecEnv

    from alignsam_sb3.policies import SamMaskablePPO
    from alignsam_sb3.task import Task

    task = Task("toy:semantic", dataset_kwargs={"n_images": 12}, max_steps=2, device="cpu")
    path = tmp_path_factory.mktemp("policy") / "policy.zip"
    SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv.of(task, 2), n_steps=2, batch_size=2).save(path)
    return path
