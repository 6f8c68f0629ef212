"""Photos that were encoded once, and episodes of clicking on them: with no truth, data set or bank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.boxes import map_box
from alignsam_sb3.envs.episodes import ClickEpisodes
from alignsam_sb3.envs.spaces import picture_side
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.semantics import LanguagePrior
from alignsam_sb3.task import Task

Photo = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """Photos and what is looked for in them, and what the frozen models say of each, before anybody has clicked.

    :param images: (H_i, W_i, 3)
    :param rows: (N,) the image of each episode
    :param categories: (N,) its target
    :param features: of the segmenter, for each image
    :param constants: what is seen in all of an episode, for each image: ``image`` and the prior's maps in the frame
    :param said: what the language prior says of each image, with maps over the squashed image; empty without a prior
    """

    images: Sequence[Photo]
    rows: NDArray[np.int64]
    categories: NDArray[np.int64]
    features: Mapping[str, th.Tensor]
    constants: Mapping[str, th.Tensor]
    said: Mapping[str, NDArray[np.floating]]

    @property
    def similarity_maps(self) -> NDArray[np.floating]:
        """(N, g_h, g_w) where the prior sees the target of each episode, over its squashed image."""
        return self.said["similarity_maps"][self.rows, self.categories]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) height and width of the image of each episode."""
        return np.array([self.images[row].shape[:2] for row in self.rows], np.int64)

    def begin(
        self, task: Task, segmenter: PromptableSegmenter, n_categories: int, recalibration: Recalibration | None
    ) -> ClickEpisodes:
        """Episodes before their first step.

        :param recalibration: the policy's module, if it has one
        """
        episodes = ClickEpisodes(task, segmenter, n_categories, len(self.rows))
        episodes.recalibration = recalibration
        everyone, at = np.arange(len(self.rows)), th.from_numpy(self.rows)
        features = {name: x[at.to(x.device)] for name, x in self.features.items()}
        constants = {name: x[at].to(segmenter.device) for name, x in self.constants.items()}
        episodes.start(everyone, features, constants, self.sizes, self.categories)
        if task.box == "clip" and self.said:
            episodes.draw_boxes(everyone, [map_box(m, episodes.size(k)) for k, m in enumerate(self.similarity_maps)])
        if task.initial_pair:
            episodes.place_pairs(everyone, episodes.pairs_of_maps(everyone))
        episodes.refresh()
        return episodes


def encode_photos(
    images: Sequence[Photo], places: Sequence[int], segmenter: PromptableSegmenter, prior: LanguagePrior | None
) -> Encoded:
    """Ask the frozen models about photos. All is rounded to half precision, as in the banks that policies are trained on.

    :param images: (H_i, W_i, 3)
    :param places: categories that are looked for in each of them
    """
    rows = np.repeat(np.arange(len(images)), len(places))
    categories = np.tile(np.array(places, np.int64), len(images))
    frame, grid = segmenter.frame, segmenter.embedding_shape[1:]
    pictures = np.stack([frame.picture(image, picture_side(segmenter)) for image in images])
    constants = {"image": th.from_numpy(pictures.transpose(0, 3, 1, 2).copy())}
    said: dict[str, NDArray[np.floating]] = {}
    if prior is not None:
        said = {name: x.half().float().cpu().numpy() for name, x in prior.describe(images).items()}
        for name in ("similarity_maps", "cosine_maps"):
            framed = [frame.from_squashed(m, i.shape[:2], grid) for m, i in zip(said[name], images, strict=True)]
            constants[name] = th.from_numpy(np.stack(framed)).half().float()
    features = {name: x.half().float() for name, x in segmenter.encode(images).items()}
    return Encoded(images, rows, categories, features, constants, said)
