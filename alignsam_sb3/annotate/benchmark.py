"""How fast a policy annotates on this machine."""

import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from alignsam_sb3.annotate.predicting import Predicts
from alignsam_sb3.annotate.stream import annotate_folder
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.predictor import Predictor
from alignsam_sb3.task import Task


def untrained(segmenter: str, device: str = "auto") -> Predictor:
    """A policy that has learned nothing: with a segmenter of random weights it costs what a trained one would.

    :param segmenter: ``vit_b:random``
    """
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from alignsam_sb3.policies import SamMaskablePPO

    task = Task(dataset_kwargs={"n_images": 12}, segmenter=segmenter, clip="tiny", max_steps=3, patches=16, device=device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.zip"
        SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv.of(task, 1), n_steps=2, batch_size=2).save(path)
        return Predictor.load(path, device)


def benchmark(predict: Predicts, images: int, size: str, categories: Sequence[str] = ()) -> str:
    """Annotate so many photos of toy scenes and say how long that took.

    :param size: ``WIDTHxHEIGHT`` in pixels
    :raises ValueError: a number is none
    """
    try:
        width, height = (int(side) for side in size.lower().split("x"))
    except ValueError as error:
        raise ValueError(f"a size is WIDTHxHEIGHT, as 640x480, got {size!r}") from error
    if images < 1 or width < 1 or height < 1:
        raise ValueError(f"there must be at least one image of one pixel, got {images} of {size}")
    scenes = ToyScenes("semantic", "eval", n_images=images)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        for k in range(images):
            photo = cv2.resize(scenes[k].image, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
            Image.fromarray(photo).save(folder / f"{k:06d}.jpg", quality=92)
        summary = annotate_folder(predict, folder, Path(temporary) / "out", categories)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    rate = summary.new / summary.seconds
    asked = summary.masks // max(summary.images, 1)
    return (
        f"{images} photos of {size}, {asked} categories: {rate:.2f} images/s, "
        f"{rate * asked:.1f} masks/s, at most {peak:.1f} GB. "
        f"10,000 such images take {10_000 / rate / 60:.0f} minutes"
    )
