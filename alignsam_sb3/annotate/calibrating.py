"""Play a policy on labelled images and learn how far its masks can be trusted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from tqdm import tqdm

from alignsam_sb3.annotate.predicting import Picture, Predicts
from alignsam_sb3.calibration import Calibration, Judged, as_judged, fit_calibration
from alignsam_sb3.datasets import SegmentationDataset, UnreadableImageError, load_dataset, of_split
from alignsam_sb3.datasets.seen import SeenImages, hash_in
from alignsam_sb3.names import nearest
from alignsam_sb3.task import merge_options

AT_ONCE = 16
HELD_OUT = ": its masks are better there than elsewhere. Calibrate on labelled images that were held out"


_TAUGHT = ("categories", "n_train", "n_images", "max_images")
"""Options that say what was taught, and on how many images. The policy's categories are asked for anyway."""
_DIVIDED = ("folds", "fold", "part", "seed")
"""Options that say how one folder is divided."""


def labelled_like(
    task: Mapping[str, Any], labelled: str | None = None, split: str | None = None, options: Mapping[str, Any] | None = None
) -> SegmentationDataset:
    """Labelled images, read as the images of a policy's training were.

    :param task: what the policy learned, as its file says: its data set and the options of that
    :param labelled: another data set; options are taken over where it is of the same kind
    :param split: by default ``"eval"``; everything in another folder that has no splits, since none of it was trained on
    :param options: of the data set, before those of the task
    :raises ValueError: the data set has no such option, or no usable image
    """
    own = labelled in (None, task["dataset"])
    dropped = _TAUGHT if own else (*_TAUGHT, *_DIVIDED)
    reading = {name: value for name, value in (task.get("dataset_kwargs") or {}).items() if name not in dropped}
    spec = task["dataset"] if labelled is None else labelled
    merged = merge_options({**task, "dataset_kwargs": reading}, {"dataset": spec, "dataset_kwargs": dict(options or {})})
    chosen = {name: of_split(value, "eval") for name, value in (merged.get("dataset_kwargs") or {}).items()}
    found = load_dataset(spec, split or "eval", **chosen)
    whole = split is None and not own and bool(getattr(found, "kept_apart", False))
    return load_dataset(spec, "all", **chosen) if whole else found


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
