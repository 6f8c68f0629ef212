"""The state of one episode, and what the segmenter must be asked to go on."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.clickers import Click
from alignsam_sb3.datasets import Sample
from alignsam_sb3.rewards.network import Question, RewardScorer
from alignsam_sb3.segmenters import PointPrompts, PromptableSegmenter


@dataclass(frozen=True)
class Job:
    """What the segmenter must be asked before a step can be taken: the prompts on one image.

    :param photo: the image and ...
    :param category: ... the target and ...
    :param spoken: ... what language says of it, as a reward network wants them, where there is one
    """

    embedding: NDArray[np.float32]
    coords: NDArray[np.float32]
    labels: NDArray[np.int64]
    size: tuple[int, int]
    mask_input: th.Tensor | None
    photo: NDArray[np.uint8] | None = None
    category: str = ""
    spoken: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Belief:
    """SAM's answer to the clicks so far.

    :param logits: (4h, 4w) in the frame, None before the first click
    :param mask: (H, W) bool, in the image
    :param iou_predicted: SAM's own estimate
    :param score: what the reward network says of it, where there is one
    """

    logits: th.Tensor | None
    mask: NDArray[np.bool_]
    iou_predicted: float = 0.0
    score: float = 0.0


@dataclass(frozen=True)
class Language:
    """What the language prior says of an image, for all categories.

    :param maps: (N, g_h, g_w) over the squashed image
    :param scores: (N,) how much each text is there at all
    :param framed: what observations hold, in the segmenter's frame: ``similarity_maps`` and ``cosine_maps`` (N, h, w)
    """

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    framed: dict[str, NDArray[np.float32]]


@dataclass
class Episode:
    """The state of one episode; a click and the belief after it stand at the same place of their lists."""

    index: int
    sample: Sample
    category_id: int
    truth: NDArray[np.bool_]
    embedding: NDArray[np.float32]
    beliefs: list[Belief]
    clicks: list[Click] = field(default_factory=list)
    num_steps: int = 0
    best_dice: float = 0.0
    language: Language | None = None
    photo: NDArray[np.uint8] | None = None
    spoken: NDArray[np.float32] | None = None

    @property
    def belief(self) -> Belief:
        return self.beliefs[-1]


class Answer(NamedTuple):
    """The segmenter's answer to a job.

    :param logits: low-resolution logits (4h, 4w) of the candidate that it prefers
    :param iou: the IoU that it predicts for it
    :param score: what the reward network says of it, 0 where there is none
    """

    logits: th.Tensor
    iou: float
    score: float = 0.0


def decode_jobs(segmenter: PromptableSegmenter, jobs: list[Job], scorer: RewardScorer | None = None) -> list[Answer]:
    """Answer jobs on different images with one call of the segmenter, and one of the reward network where there is one."""
    embeddings = th.as_tensor(np.stack([j.embedding for j in jobs]))
    prompts = PointPrompts(
        [j.coords for j in jobs], [j.labels for j in jobs], [j.size for j in jobs], [j.mask_input for j in jobs]
    )
    logits, iou = segmenter.decode(embeddings, prompts).best()
    scores = [0.0] * len(jobs)
    if scorer is not None:
        probabilities = logits.sigmoid()
        asked = [
            Question(job.photo, job.embedding, probability, job.size, job.category, job.spoken)
            for job, probability in zip(jobs, probabilities, strict=True)
            if job.photo is not None
        ]
        scores = scorer.scores(asked)
    return [Answer(*said) for said in zip(logits.cpu(), iou.tolist(), scores, strict=True)]
