"""Play a policy on labelled images, choose whose masks are handed out, and learn how far these can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from tqdm import tqdm

from alignsam_sb3.annotate.predicting import Picture, Predicts
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.calibration import Calibration, Judged, as_judged, calibrated, third
from alignsam_sb3.choice import ANSWERS, Choice, choose
from alignsam_sb3.datasets import Sample, SegmentationDataset, UnreadableImageError, load_dataset, of_split
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


class Compares(Predicts, Protocol):
    """A predictor that knows what its policy was trained on, and has more than one answer."""

    @property
    def recipe(self) -> dict[str, object]:
        """How the policy was built; ``trained_on`` is the fingerprint of its training images."""

    @property
    def answers(self) -> tuple[str, ...]:
        """What it could hand out, names in :data:`~alignsam_sb3.choice.ANSWERS`."""

    def compare(
        self, images: Sequence[Picture], categories: Sequence[str], answers: Sequence[str]
    ) -> dict[str, list[list[Annotation]]]:
        """For each answer and image (H_i, W_i, 3) an annotation of each category, not calibrated."""


def judge_dataset(
    predict: Compares, dataset: SegmentationDataset, progress: bool = True, seen: SeenImages | None = None
) -> list[Judged]:
    """What a policy hands out for every image of a labelled data set; see :func:`judge_answers`."""
    return judge_answers(predict, dataset, range(len(dataset)), (predict.answer,), progress, seen)[predict.answer]


def judge_answers(
    predict: Compares,
    dataset: SegmentationDataset,
    indexes: Sequence[int],
    answers: Sequence[str],
    progress: bool = True,
    seen: SeenImages | None = None,
) -> dict[str, list[Judged]]:
    """Play images of a labelled data set, for every category that the policy and the data set share.

    :param indexes: of the images
    :param answers: that are judged
    :param seen: images that the policy was trained on
    :raises ValueError: they share none, or an image was seen in training
    """
    shared = [name for name in dataset.categories if name in predict.categories]
    if not shared:
        first = dataset.categories[0] if dataset.categories else ""
        raise ValueError(nearest("category of this policy", first, predict.categories))
    judged: dict[str, list[Judged]] = {name: [] for name in answers}
    for start in tqdm(range(0, len(indexes), AT_ONCE), desc="labelled images", disable=not progress):
        samples, known = [], []
        for index in indexes[start : start + AT_ONCE]:
            try:
                samples.append(dataset[index])
                if seen is not None and hash_in(dataset, index, samples[-1]) in seen:
                    known.append(samples[-1].image_id)
            except UnreadableImageError as error:
                tqdm.write(f"skipped: {error}")
        if known:
            raise ValueError(f"the policy was trained on {', '.join(known[:3])}{HELD_OUT}")
        photos: list[Picture] = [sample.image for sample in samples]
        for name, found in (predict.compare(photos, shared, answers) if photos else {}).items():
            for sample, annotations in zip(samples, found, strict=True):
                judged[name] += [_judged(annotation, sample, dataset.categories) for annotation in annotations]
    return judged


def _judged(annotation: Annotation, sample: Sample, categories: Sequence[str]) -> Judged:
    category = categories.index(annotation.category)
    return as_judged(replace(annotation, image_id=sample.image_id), sample.target(category), sample.valid_for(category))


def calibrate(
    predict: Compares,
    dataset: SegmentationDataset,
    level: float = 0.9,
    seed: int = 0,
    progress: bool = True,
    seen: SeenImages | None = None,
    answer: str | None = None,
) -> Calibration:
    """A calibration from labelled images that the policy was not trained on.

    On a third of them it is chosen whose masks are handed out, and fitted how signals tell their quality; the others show what
    that is worth.

    :param level: probability with which the lower bound of each mask's Dice is to hold
    :param seen: images that the policy was trained on, as its file says
    :param answer: whose masks are handed out, a name in :data:`~alignsam_sb3.choice.ANSWERS`; chosen where none is named
    :raises ValueError: the policy was trained on these images, they are too few, or it cannot give that answer
    """
    if answer is not None and answer not in predict.answers:
        less = f": this policy has no {answer!r}" if answer in ANSWERS else ""
        raise ValueError(nearest("answer", answer, predict.answers) + less)
    if predict.recipe.get("trained_on") == dataset.fingerprint:
        raise ValueError(f"the policy was trained on these very images ({dataset.fingerprint}){HELD_OUT}")
    first, others = third(len(dataset), seed)
    compared = judge_answers(predict, dataset, first, predict.answers if answer is None else (answer,), progress, seen)
    choice = Choice(answer) if answer is not None else choose({name: _dices(judged) for name, judged in compared.items()})
    rest = judge_answers(predict, dataset, others, (choice.answer,), progress, seen)[choice.answer]
    return replace(calibrated(compared[choice.answer], rest, level, dataset.fingerprint), choice=choice)


def _dices(judged: Sequence[Judged]) -> list[tuple[str, float]]:
    """Image and Dice of each mask of what is there. Whether it is there at all is for the calibration to say."""
    return [(j.annotation.image_id, j.dice) for j in judged if j.shown]
