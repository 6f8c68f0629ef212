"""Play a policy on labelled images and learn how far its masks can be trusted."""

from dataclasses import replace
from typing import Protocol

from tqdm import tqdm

from alignsam_sb3.annotate.predicting import Picture, Predicts
from alignsam_sb3.calibration import Calibration, Judged, as_judged, fit_calibration
from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError
from alignsam_sb3.datasets.seen import SeenImages, hash_in
from alignsam_sb3.names import nearest

AT_ONCE = 16
HELD_OUT = ": its masks are better there than elsewhere. Calibrate on labelled images that were held out"


class PredictsWithRecipe(Predicts, Protocol):
    """A predictor that knows what its policy was trained on."""

    @property
    def recipe(self) -> dict[str, object]:
        """How the policy was built; ``trained_on`` is the fingerprint of its training images."""


def judge_dataset(
    predict: Predicts, dataset: SegmentationDataset, progress: bool = True, seen: SeenImages | None = None
) -> list[Judged]:
    """Play every image of a labelled data set, for every category that the policy and the data set share.

    :param seen: images that the policy was trained on
    :raises ValueError: they share none, or an image was seen in training
    """
    shared = [name for name in dataset.categories if name in predict.categories]
    if not shared:
        first = dataset.categories[0] if dataset.categories else ""
        raise ValueError(nearest("category of this policy", first, predict.categories))
    judged: list[Judged] = []
    for start in tqdm(range(0, len(dataset), AT_ONCE), desc="labelled images", disable=not progress):
        samples, known = [], []
        for index in range(start, min(start + AT_ONCE, len(dataset))):
            try:
                samples.append(dataset[index])
                if seen is not None and hash_in(dataset, index, samples[-1]) in seen:
                    known.append(samples[-1].image_id)
            except UnreadableImageError as error:
                tqdm.write(f"skipped: {error}")
        if known:
            raise ValueError(f"the policy was trained on {', '.join(known[:3])}{HELD_OUT}")
        photos: list[Picture] = [sample.image for sample in samples]
        for sample, annotations in zip(samples, predict.batch(photos, shared) if photos else [], strict=True):
            for annotation in annotations:
                category = dataset.categories.index(annotation.category)
                named = replace(annotation, image_id=sample.image_id)
                judged.append(as_judged(named, sample.target(category), sample.valid_for(category)))
    return judged


def calibrate(
    predict: PredictsWithRecipe,
    dataset: SegmentationDataset,
    level: float = 0.9,
    seed: int = 0,
    progress: bool = True,
    seen: SeenImages | None = None,
) -> Calibration:
    """A calibration from labelled images that the policy was not trained on.

    :param level: probability with which the lower bound of each mask's Dice is to hold
    :param seen: images that the policy was trained on, as its file says
    :raises ValueError: the policy was trained on these images, or they are too few
    """
    if predict.recipe.get("trained_on") == dataset.fingerprint:
        raise ValueError(f"the policy was trained on these very images ({dataset.fingerprint}){HELD_OUT}")
    return fit_calibration(judge_dataset(predict, dataset, progress, seen), level, seed, dataset.fingerprint)
