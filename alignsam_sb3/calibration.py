"""Calibration: from what was measured of a mask to its predicted Dice, a lower bound that holds, and what may go unreviewed.

Labelled images that no training saw are cut in three. On one third it is chosen whose masks are handed out, and fitted how
signals tell Dice and presence. On the other two all that is only measured. The bound is split conformal prediction, and the
accepted share is found by a sequence of binomial tests, as in Learn then Test. So both hold for images drawn like the labelled
ones, whatever choice and fit are worth.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import binom

from alignsam_sb3.annotation import Annotation
from alignsam_sb3.archives import Limits, opened_archive, read_entry
from alignsam_sb3.choice import Choice
from alignsam_sb3.encodings import area_of
from alignsam_sb3.files import parse_json, removed_on_error

ENTRY = "calibration.json"
"""Its name within a policy's zip."""
LARGEST = 16 << 20
"""Bytes of a calibration, at most: one of a million masks."""
LEAST_PAIRS = 30
GOOD = 0.8
"""A mask of less Dice than this counts as one that should have been reviewed."""
ALLOWANCES = (0, 1, 3)
"""Errors among the accepted with which the tests of :meth:`Calibration.accept_from` may begin."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """An annotation of a labelled image, and what its truth says.

    :param annotation: as a predictor gave it, not calibrated
    :param dice: of what the segmenter answered
    :param shown: whether the truth has the category at all
    """

    annotation: Annotation
    dice: float
    shown: bool

    def final(self, present: bool) -> float:
        """Dice of what is handed out: of the answer, or of the empty mask, which is right where nothing is shown."""
        return self.dice if present else float(not self.shown)


@dataclass(frozen=True)
class Calibration:
    """How far to trust masks, learned from labelled images. Plain numbers, kept as JSON.

    :param names: of the signals that are read; a signal that is missing counts as average
    :param categories: those seen in calibration
    :param mean: (S,) of the signals
    :param scale: (S,) their standard deviation
    :param presence: weights of presence given signals; empty if the labelled images never lacked a category
    :param quality: weights of the Dice of a mask held to be present
    :param absence: (2,) weights of the Dice of an empty mask, given the logit of presence
    :param scores: (N,) predicted Dice on the images kept apart from the fit
    :param dices: (N,) and what it was
    :param level: probability with which :attr:`Annotation.low` is to hold
    :param policy: hash of the policy whose masks these were
    :param data: fingerprint of the labelled images
    :param choice: whose masks these were
    """

    names: tuple[str, ...]
    categories: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    presence: tuple[float, ...]
    quality: tuple[float, ...]
    absence: tuple[float, ...]
    scores: tuple[float, ...]
    dices: tuple[float, ...]
    level: float = 0.9
    policy: str = ""
    data: str = ""
    choice: Choice = field(default_factory=Choice)

    def _features(self, annotations: Sequence[Annotation]) -> Floats:
        """(N, F): signals, their squares, and which category."""
        return _features(annotations, self.names, self.categories, np.array(self.mean), np.array(self.scale))

    def _judge(self, annotations: Sequence[Annotation]) -> tuple[NDArray[np.bool_], Floats]:
        """Whether each is present (N,), and the predicted Dice (N,) of what is then handed out."""
        features = self._features(annotations)
        score = expit(features @ np.array(self.quality))
        present = np.ones(len(features), bool)
        if self.presence:
            seen = features @ np.array(self.presence)
            present = seen > 0
            score = np.where(present, score, expit(_absence_features(seen) @ np.array(self.absence)))
        empty = np.array([area_of(a.answered) == 0 for a in annotations])
        return present, np.where(present & empty, 0.0, score)  # no mask of what is there

    def judge_all(self, annotations: Sequence[Annotation]) -> list[Annotation]:
        """Annotations with presence, score and lower bound."""
        if not annotations:
            return []
        present, scores = self._judge(annotations)
        lows = self.lower_bounds(scores)
        return [
            replace(a, present=bool(p), score=float(s), low=float(low))
            for a, p, s, low in zip(annotations, present, scores, lows, strict=True)
        ]

    def judge(self, annotation: Annotation) -> Annotation:
        """One annotation with presence, score and lower bound."""
        return self.judge_all([annotation])[0]

    @property
    def margin(self) -> float:
        """How many spreads the bound lies below the score; infinite with too few labelled images for the level."""
        scores, dices = np.array(self.scores), np.array(self.dices)
        misses = np.sort((scores - dices) / _spread(scores))
        place = math.ceil((len(misses) + 1) * self.level)
        return float(misses[place - 1]) if place <= len(misses) else math.inf

    def lower_bounds(self, scores: Floats) -> Floats:
        """(N,) what the Dice is at least, with probability ``level``, given predicted Dice (N,)."""
        bounds: Floats = np.clip(scores - self.margin * _spread(scores), 0, 1)
        return bounds

    def accept_from(self, share: float, confidence: float = 0.9, good: float = GOOD) -> float:
        """The score from which masks can go unreviewed.

        Among masks with at least that score, the share with a Dice below ``good`` is at most ``share``. That holds with
        probability ``confidence`` over the draw of the labelled images, which are taken as independent of each other. Scores
        are tested from the highest down, in an order that does not depend on the truth, until one fails.

        :return: a score, or infinity where the labelled images allow none
        :raises ValueError: a number is not between 0 and 1
        """
        for name, value in (("accept", share), ("confidence", confidence)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}: 0.05 is 5 %")
        order = np.argsort(-np.array(self.scores), kind="stable")
        scores = np.array(self.scores)[order]
        errors = np.cumsum(np.array(self.dices)[order] < good)
        starts = ALLOWANCES if len(scores) >= 200 else ALLOWANCES[:1]
        risk = (1 - confidence) / len(starts)
        most = 0
        for allowed in starts:
            count = _least_count(share, risk, allowed)
            while count <= len(scores) and binom.cdf(errors[count - 1], count, share) <= risk:
                most = max(most, count)
                count = max(count + 1, int(count * 1.05))
        return float(scores[most - 1]) if most else math.inf

    def needed(self, share: float, confidence: float = 0.9) -> int:
        """The fewest labelled masks with which ``share`` can be stated at all: all of them right."""
        return math.ceil(_least_count(share, 1 - confidence, 0) * 3 / 2)

    def to_json(self) -> str:
        """As JSON; :meth:`from_json` reads it again."""
        values = asdict(self)
        if self.choice == Choice():
            del values["choice"]  # as before there was one, so that runs which began then go on
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """What :meth:`to_json` wrote.

        :raises ValueError: it is something else
        """
        try:
            values: dict[str, Any] = parse_json(text)
            choice = Choice.of(values.pop("choice")) if "choice" in values else Choice()
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            found = cls(**plain, choice=choice)
            found._check()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no calibration of this version ({error}): run `alignsam calibrate` again") from error
        return found

    def _check(self) -> None:
        features = 2 * len(self.names) + len(self.categories) + 1
        wrong = [
            len(self.mean) != len(self.names),
            len(self.scale) != len(self.names),
            len(self.quality) != features,
            len(self.presence) not in (0, features),
            len(self.absence) != 2 * bool(self.presence),
            len(self.scores) != len(self.dices),
            not 0 < self.level < 1,
            not np.isfinite([*self.quality, *self.presence, *self.scores, *self.dices]).all(),
        ]
        if any(wrong):
            raise ValueError("numbers that do not belong together")

    @classmethod
    def read(cls, policy: str | Path) -> "Calibration | None":
        """The calibration that lies in a policy's zip, if there is one.

        :raises ValueError: the file is no zip, or its calibration is none
        """
        try:
            with Path(policy).open("rb") as file, opened_archive(file, Limits(entries=64)) as archive:
                if ENTRY not in archive.namelist():
                    return None
                return cls.from_json(read_entry(archive, ENTRY, LARGEST).decode())
        except ValueError as error:
            raise ValueError(f"{policy}: {error}") from error

    def write(self, policy: str | Path) -> None:
        """Put it into a policy's zip, in place of an earlier one, atomically; all else in there stays as it is."""
        policy = Path(policy)
        part = policy.with_name(f"{policy.name}.{os.getpid()}.part")
        with removed_on_error(part):
            with ZipFile(policy) as old, ZipFile(part, "w") as new:
                for entry in old.infolist():
                    if entry.filename != ENTRY:
                        new.writestr(entry, old.read(entry))
                new.writestr(ENTRY, self.to_json())
            part.replace(policy)


def fit_calibration(judged: Sequence[Judged], level: float = 0.9, seed: int = 0, data: str = "") -> Calibration:
    """Learn from labelled images how far masks can be trusted.

    :param judged: all (image, category) pairs of the labelled images, whole images
    :param level: probability with which the lower bound is to hold
    :param seed: draws the third of the images that the fit sees
    :param data: fingerprint of the labelled images, for the record
    :raises ValueError: too few pairs, or a level that is none
    """
    images = list(dict.fromkeys(j.annotation.image_id for j in judged))
    fitted = {images[i] for i in third(len(images), seed)[0]}
    part = [j for j in judged if j.annotation.image_id in fitted]
    rest = [j for j in judged if j.annotation.image_id not in fitted]
    return calibrated(part, rest, level, data)


def third(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Which of so many images are for choosing and fitting, and which for measuring."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    cut = math.ceil(count / 3)
    return sorted(order[:cut]), sorted(order[cut:])


def calibrated(part: Sequence[Judged], rest: Sequence[Judged], level: float = 0.9, data: str = "") -> Calibration:
    """Fit on the masks of some images and measure that on those of others; see :func:`fit_calibration`.

    :raises ValueError: too few masks, or a level that is none
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}: 0.9 is 90 %")
    masks, images = len(part) + len(rest), len({j.annotation.image_id for j in (*part, *rest)})
    if masks < LEAST_PAIRS or images < 3 or not part or not rest:
        raise ValueError(
            f"{masks} masks of {images} labelled images are too few to calibrate: at least {LEAST_PAIRS} masks "
            "of 3 images are needed, and 100 images make it worth having. Give more images with --labelled; of a data set "
            "with splits, --split all takes every image, where none of them was trained on"
        )
    begun = _fit(part, level, part[0].annotation.policy, data)
    present, scores = begun._judge([j.annotation for j in rest])
    dices = [j.final(bool(p)) for j, p in zip(rest, present, strict=True)]
    return replace(begun, scores=tuple(scores.tolist()), dices=tuple(float(d) for d in dices))


def _fit(part: Sequence[Judged], level: float, policy: str, data: str) -> Calibration:
    """The weights, from the third of the images that is for them."""
    annotations = [j.annotation for j in part]
    names = tuple(sorted({name for a in annotations for name in a.signals}))
    categories = tuple(sorted({a.category for a in annotations}))
    raw = _signals(annotations, names)
    known = np.isfinite(raw)
    counts = np.maximum(known.sum(0), 1)
    mean = np.where(known, raw, 0).sum(0) / counts
    deviation = np.sqrt(np.where(known, (raw - mean) ** 2, 0).sum(0) / counts)
    scale = np.where(deviation > 1e-6, deviation, 1.0)
    features = _features(annotations, names, categories, mean, scale)
    shown, dice = np.array([j.shown for j in part], float), np.array([j.dice for j in part])
    presence: Floats = np.zeros(0)
    absence: Floats = np.zeros(0)
    if 0 < shown.sum() < len(shown):
        weights = np.where(shown > 0, 0.5 / shown.mean(), 0.5 / (1 - shown.mean()))  # absent or not: alike, however often
        presence = _logistic(features, shown, weights)
        seen = features @ presence
        absence = _logistic(_absence_features(seen), 1 - shown, np.ones(len(shown)))
    held = features @ presence > 0 if len(presence) else np.ones(len(part), bool)
    held = held if held.any() else np.ones(len(part), bool)
    quality = _logistic(features[held], dice[held], np.ones(int(held.sum())))
    numbers = {"mean": mean, "scale": scale, "presence": presence, "quality": quality, "absence": absence}
    plain: dict[str, Any] = {name: tuple(float(v) for v in values) for name, values in numbers.items()}
    return Calibration(names, categories, **plain, scores=(), dices=(), level=level, policy=policy, data=data)


def _signals(annotations: Sequence[Annotation], names: Sequence[str]) -> Floats:
    """(N, S) signals by name, NaN where one is missing."""
    rows = [[a.signals.get(name, math.nan) for name in names] for a in annotations]
    return np.array(rows, float).reshape(len(annotations), len(names))


def _features(
    annotations: Sequence[Annotation], names: Sequence[str], categories: Sequence[str], mean: Floats, scale: Floats
) -> Floats:
    normal = (_signals(annotations, names) - mean) / scale
    normal = np.clip(np.where(np.isfinite(normal), normal, 0), -3, 3)  # no further than what was seen
    which = np.array([[a.category == name for name in categories] for a in annotations], float)
    return np.hstack([normal, normal**2 / 3, which.reshape(len(annotations), len(categories)), np.ones((len(annotations), 1))])


def _absence_features(seen: Floats) -> Floats:
    return np.stack([np.clip(seen, -10, 10), np.ones_like(seen)], axis=1)


def _logistic(features: Floats, target: Floats, weights: Floats) -> Floats:
    """Weights of a logistic regression on targets in [0, 1], kept small as long as the data do not object."""

    def loss(w: Floats) -> tuple[float, Floats]:
        z = features @ w
        error = weights * (expit(z) - target)
        value = float((weights * (np.logaddexp(0, z) - target * z)).sum() + 0.5 * (w[:-1] ** 2).sum())
        return value, features.T @ error + np.append(w[:-1], 0)

    start = np.zeros(features.shape[1])
    start[-1] = logit(np.clip(np.average(target, weights=weights), 0.01, 0.99))
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found


def _spread(scores: Floats) -> Floats:
    """How far off a predicted Dice can be expected to be: most in the middle, little at either end."""
    spread: Floats = np.sqrt(scores * (1 - scores)) + 0.05
    return spread


def _least_count(share: float, risk: float, allowed: int) -> int:
    """The fewest masks of which ``allowed`` may be wrong and the test still passes."""
    count = allowed + 1
    while binom.cdf(allowed, count, share) > risk:
        count += 1
    return count


def as_judged(annotation: Annotation, truth: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> Judged:
    """An annotation beside its truth (H, W).

    :param valid: (H, W) False where the truth says nothing; such pixels do not count
    """
    answered = replace(annotation, present=True).mask
    if valid is not None:
        answered, truth = answered & valid, truth & valid
    total = int(answered.sum()) + int(truth.sum())
    dice = 2 * int((answered & truth).sum()) / total if total else 1.0
    return Judged(annotation, dice, bool(truth.any()))


def describe(calibration: Calibration, share: float | None = None) -> Mapping[str, float]:
    """What a calibration is worth, as numbers for people: on the labelled images that its fit did not see."""
    scores, dices = np.array(calibration.scores), np.array(calibration.dices)
    lows = calibration.lower_bounds(scores)
    found = {
        "masks": float(len(scores)),
        "mean Dice": float(dices.mean()),
        "mean error of the score": float(np.abs(scores - dices).mean()),
        "mean lower bound": float(lows.mean()),
    }
    if share is not None:
        found["accepted"] = float((scores >= calibration.accept_from(share)).mean())
    return found
