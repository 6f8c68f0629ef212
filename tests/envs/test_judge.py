"""Dice on the judging grid against Dice in the image."""

import numpy as np
import pytest
from alignsam_sb3.envs.batch import ClickBatch

from alignsam_sb3 import metrics
from alignsam_sb3.task import Task


def differences(task, n):
    """Dice on the grid less Dice in the image, of random and oracle clicks."""
    batch, rng = ClickBatch(task, n), np.random.default_rng(0)
    batch.rngs = [np.random.default_rng(i) for i in range(n)]
    batch.reset(np.arange(n))
    found = []
    for _ in range(task.max_steps):
        drawn = [rng.choice(np.flatnonzero(mask)) for mask in batch.action_mask]
        batch.step(np.array([a if rng.random() < 0.4 else batch.oracle_action(i) for i, a in enumerate(drawn)]))
        for i, mask in enumerate(batch.sessions.masks()):
            sample, category = batch.sample(i), int(batch.categories[i])
            found.append(batch.dice[i] - metrics.dice(mask, sample.target(category), sample.valid_for(category)))
    return np.array(found)


def test_toy_scenes_are_judged_as_in_the_image():
    task = Task(dataset_kwargs={"n_images": 12, "min_area": 0.02}, max_steps=2, device="cpu")
    assert np.abs(differences(task, 4)).max() < 1e-3


@pytest.mark.parametrize("spec", ["coco:{}/coco_permissive", "oxford_pets:{}/oxford_pets26"])
def test_photographs_are_judged_nearly_as_in_the_image(photographs, spec):
    task = Task(spec.format(photographs.resolve()), clip=None, max_steps=3, device="cpu")
    apart = np.abs(differences(task, 8))
    assert apart.mean() < 0.005
    assert apart.max() < 0.03
