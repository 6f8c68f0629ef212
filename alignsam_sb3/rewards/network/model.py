"""The reward network: how good a mask is, from photo, mask and frozen embedding, where nobody knows the truth."""

from dataclasses import dataclass
from functools import partial

import torch as th
from timm.models.resnet import BasicBlock
from torch import nn
from torch.nn import functional as F

from alignsam_sb3.frame import Frame

METRICS = ("dice", "iou", "precision", "recall", "boundary_f")
"""What is predicted, in this order; each in [0, 1], of the mask cut at one half."""

SPOKEN = 4
"""Channels of language: target's map and the strongest of the others, target's cosines and the strongest of the others."""

_BLOCKS = 2
_NEAR_ONE = 1e-3  # logits of the metrics that the estimated truth gives are cut at this distance from 0 and 1


@dataclass(frozen=True)
class RewardNetworkConfig:
    """What a reward network was built for.

    :param categories: names of the concepts that it can score
    :param segmenter: spec of the segmenter whose embeddings it sees
    :param fingerprint: of that segmenter
    :param channels: of its embeddings
    :param side: masks and photos are seen at side x side cells of the segmenter's frame, a multiple of 4
    :param clip: spec of the language prior whose maps it sees, too; None for none
    :param texts: what that is asked, one text for each category
    :param language: fingerprint of that prior with these texts
    :param squash: whether the segmenter squashes images to its frame, rather than padding them
    """

    categories: tuple[str, ...]
    segmenter: str
    fingerprint: str
    channels: int
    side: int = 64
    width: int = 48
    clip: str | None = None
    texts: tuple[str, ...] = ()
    language: str | None = None
    squash: bool = False

    @property
    def frame(self) -> Frame:
        """The segmenter's frame at the network's resolution."""
        return Frame(self.side, self.squash)


def score_of(predicted: th.Tensor) -> th.Tensor:
    """One number on the scale of Dice: the mean of three estimates of it.

    These are Dice as predicted, the Dice that belongs to the predicted IoU, and the harmonic mean of predicted precision and
    recall. Of the truth all three are the same number.

    :param predicted: (..., 5) in the order of :data:`METRICS`
    """
    dice, iou, precision, recall, _ = predicted.unbind(-1)
    return (dice + 2 * iou / (1 + iou) + 2 * precision * recall / (precision + recall).clamp(min=1e-6)) / 3


def soft_metrics(mask: th.Tensor, truth: th.Tensor) -> th.Tensor:
    """The metrics of a soft mask against a soft truth, (B, 5), differentiable in both.

    :param mask: (B, 1, s, s) in [0, 1]
    :param truth: (B, 1, s, s) in [0, 1]
    """
    hit, taken, wanted = ((x.sum((1, 2, 3)) + 1e-3) for x in (mask * truth, mask, truth))
    outlines = [x + F.max_pool2d(-x, 3, 1, 1) for x in (mask, truth)]  # minus its erosion
    near = [F.max_pool2d(x, 3, 1, 1) for x in outlines]
    found, kept = ((a * b).sum((1, 2, 3)) + 1e-3 for a, b in zip(outlines, near[::-1], strict=True))
    lengths = [x.sum((1, 2, 3)) + 1e-3 for x in outlines]
    precise, complete = found / lengths[0], kept / lengths[1]
    boundary = 2 * precise * complete / (precise + complete)
    dice, union = 2 * hit / (taken + wanted), (taken + wanted - hit).clamp(min=1e-3)
    return th.stack([dice, hit / union, hit / taken, hit / wanted, boundary], dim=1).clamp(0, 1)


def _block(channels: int) -> nn.Module:
    block: nn.Module = BasicBlock(channels, channels, norm_layer=partial(nn.GroupNorm, 4))  # type: ignore[arg-type]
    return block


class RewardNetwork(nn.Module):
    """Predicts Dice, IoU, precision, recall and boundary F of masks, differentiably.

    It estimates the truth first: a small U-Net over photo, mask and photo x mask paints where the object should be. At its
    bottom it also gets the frozen segmenter's embedding, the category and, if it was built for that, what language says of the
    category. The mask's metrics against that painting, and what the bottom says beside them, give the five predictions. The
    painting is taught, too: each of its pixels is a lesson.

    :param config: what it is built for
    """

    def __init__(self, config: RewardNetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.top = self._layer(7 + 1, width // 4)
        self.middle = self._layer(width // 4, width // 2, stride=2)
        self.bottom = self._layer(width // 2, width, stride=2)
        self.embedded = nn.Sequential(nn.Conv2d(config.channels, width, 1), nn.GroupNorm(4, width), nn.ReLU())
        self.category = nn.Embedding(len(config.categories), 2 * width)
        self.spoken = nn.Sequential(nn.Conv2d(SPOKEN, width, 3, 1, 1), nn.ReLU()) if config.language else None
        self.mixed = nn.Conv2d((3 if config.language else 2) * width, width, 1)
        self.blocks = nn.Sequential(*(_block(width) for _ in range(_BLOCKS)))
        self.to_middle, self.to_top = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width // 4, 1)
        self.up_middle = self._layer(width // 2, width // 2)
        self.up_top = self._layer(width // 4, width // 4)
        self.truth = nn.Conv2d(width // 4, 1, 1)
        self.head = nn.Sequential(nn.Linear(2 * width + len(METRICS), width), nn.ReLU(), nn.Linear(width, len(METRICS)))
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]

    @staticmethod
    def _layer(channels: int, width: int, stride: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), nn.GroupNorm(4, width), nn.ReLU())

    def forward(
        self,
        photos: th.Tensor,
        masks: th.Tensor,
        embeddings: th.Tensor,
        inside: th.Tensor,
        categories: th.Tensor,
        spoken: th.Tensor | None = None,
    ) -> tuple[th.Tensor, th.Tensor]:
        """Predict the metrics of B masks.

        :param photos: (B, 3, s, s) in [0, 1], in the segmenter's frame
        :param masks: (B, 1, s, s) probabilities in [0, 1], in that frame
        :param embeddings: (B, C, h, w)
        :param inside: (B, 1, s, s) 1 in the image, 0 in its padding
        :param categories: (B,) indices into the config's categories
        :param spoken: (B, 4, s / 4, s / 4) what language says of the categories, where it was built for that
        :return: predictions (B, 5) in [0, 1], and logits (B, 1, s, s) of where the object is thought to be
        """
        masks = masks * inside
        top = self.top(th.cat([photos * 2 - 1, masks, photos * masks, inside], dim=1))
        middle = self.middle(top)
        bottom = self.bottom(middle)
        embedded = F.interpolate(self.embedded(embeddings), bottom.shape[-2:], mode="bilinear", align_corners=False)
        scale, shift = self.category(categories)[..., None, None].chunk(2, dim=1)
        known = [bottom, embedded]
        if self.spoken is not None:
            known.append(self.spoken(spoken))
        bottom = self.blocks(self.mixed(th.cat(known, dim=1)) * (1 + scale) + shift)
        up = self.up_middle(F.interpolate(self.to_middle(bottom), scale_factor=2.0, mode="nearest") + middle)
        up = self.up_top(F.interpolate(self.to_top(up), scale_factor=2.0, mode="nearest") + top)
        truth: th.Tensor = self.truth(up)
        against = soft_metrics(masks, truth.sigmoid() * inside)
        pooled = th.cat([bottom.mean((2, 3)), bottom.amax((2, 3)), against], dim=1)
        predicted = (th.logit(against, eps=_NEAR_ONE) + self.head(pooled)).sigmoid()
        return predicted, truth
