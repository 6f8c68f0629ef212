"""A predictor without learning: bright places are the target, and what it says of a photo follows from its pixels."""

import numpy as np

from alignsam_sb3.annotation import Annotation


class FakePredictor:
    categories = ("light", "dark")
    recipe = {"trained_on": "elsewhere"}

    def __init__(self, fingerprint="abc", calibration=None, fails_on=()):
        self.fingerprint, self.calibration, self.fails_on = fingerprint, calibration, set(fails_on)
        self.played = []

    answers = ("last",)

    @property
    def answer(self):
        return "last" if self.calibration is None else self.calibration.choice.answer

    def compare(self, images, categories, answers):
        return {name: self.batch(images, categories) for name in answers}

    def __call__(self, image, category=None):
        names = list(self.categories) if category is None else [category]
        found = self.batch([image], names)[0]
        return found if category is None else found[0]

    def batch(self, images, categories):
        for image in images:
            if image.shape[:2] in self.fails_on:
                raise ValueError(f"no pixels left of {image.shape}")
        self.played += [image.shape for image in images]
        return [[self._one(image, name) for name in categories] for image in images]

    def _one(self, image, name):
        grey = image.mean(2)
        mask = grey > 128 if name == "light" else grey < 64
        y, x = np.unravel_index(int(mask.argmax()), mask.shape)
        contrast = float(grey.std() / 128)
        made = Annotation.of(
            "0",
            name,
            mask,
            [((x, y), 1)],
            0.5 + contrast / 2,
            {"contrast": contrast, "area": float(mask.mean())},
            self.fingerprint,
        )
        return made if self.calibration is None else self.calibration.judge(made)
