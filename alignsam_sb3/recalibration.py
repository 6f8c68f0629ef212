"""The semantic recalibration module (AlignSAM, section 3.3): where the target is, from image, embedding and belief.

A small network over frozen embeddings, taught by the masks of the training images. Its map decides the labels of clicks
(``SamSeg-v0`` with ``labels="srm"``) and is what the agent sees as ``foreground_map``.
"""

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F

from alignsam_sb3.maps import N_GUIDES, guide_maps, on_grid
from alignsam_sb3.names import nearest

_TOKEN_GRID = 8  # attention is among so many cells along each axis, at most
BRANCHES = ("implicit", "explicit")
SEEN = ("sam_image_embeddings", "sam_pred_mask_prob")
SPOKEN = ("target_category", "similarity_maps", "cosine_maps")


class Recalibration(nn.Module):
    """Logits of the foreground for each cell of the embedding.

    The implicit branch: two convolution blocks over ``s_t = E * M + E``, with the embedding E and the mask's probability M.
    The explicit branch: three convolutions over ``s_t`` and ``s_c``, self-attention, two convolutions. ``s_c`` is the
    embedding weighted by the language prior's map, and the five maps of :func:`~alignsam_sb3.maps.guide_maps`. Both branches
    first narrow the embedding. Both see means and maxima of their features over the image, which tell what is common in it.
    Features are normalised within one sample.

    Beyond the paper, the implicit branch sees the pixels through a few strided convolutions. SAM was not made to care whether
    a thing is in focus, so its embedding hardly tells. The explicit branch gains little or nothing from the pixels
    (docs/ablation.md).

    :param observation_space: needs ``sam_image_embeddings`` and ``sam_pred_mask_prob``; for the implicit branch ``image``, for
        the explicit one ``target_category``, ``similarity_maps`` and ``cosine_maps``, too
    :param branch: ``"implicit"`` or ``"explicit"``
    :raises ValueError: there is no such branch, or an observation that it needs is missing
    """

    def __init__(self, observation_space: spaces.Dict, branch: str, width: int = 48) -> None:
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(nearest("branch of the recalibration module", branch, BRANCHES))
        if branch == "explicit" and "similarity_maps" not in observation_space.spaces:
            raise ValueError("the explicit branch needs a language prior: make the environment with one, as in clip='tiny'")
        self.needs = SEEN + (SPOKEN if branch == "explicit" else ("image",))
        missing = [key for key in self.needs if key not in observation_space.spaces]
        if missing:
            raise ValueError(f"the {branch} branch needs {', '.join(self.needs)}; observations lack {', '.join(missing)}")
        embedding = observation_space["sam_image_embeddings"]
        assert embedding.shape is not None
        self.branch = branch
        channels = embedding.shape[0]
        inputs = channels + 1 if branch == "implicit" else 2 * channels + 1 + N_GUIDES
        depth = 2 if branch == "implicit" else 3
        self.narrow = nn.Conv2d(inputs, width, 1)
        self.pixels = _pixels(observation_space["image"], embedding.shape[-1], width) if branch == "implicit" else None
        self.first = nn.Sequential(*(_convolution(width, width) for _ in range(depth)))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True) if branch == "explicit" else None
        self.before = nn.LayerNorm(width) if branch == "explicit" else None
        self.common = nn.Linear(2 * width, width)
        self.last = nn.Sequential(_convolution(width, width), nn.Dropout2d(0.1), nn.Conv2d(width, 1, 3, 1, 1))

    def forward(self, observations: Mapping[str, th.Tensor]) -> th.Tensor:
        """Logits (B, 1, h, w) at the embedding's cells.

        :param observations: with batch dimension B, ``target_category`` one-hot (B, N)
        """
        embedding = observations["sam_image_embeddings"]
        belief = on_grid(observations["sam_pred_mask_prob"][:, None], embedding.shape[-1])
        seen = [embedding * belief + embedding, belief]
        if self.branch == "explicit":
            target = observations["target_category"].reshape(len(embedding), -1)
            guides = guide_maps(observations["similarity_maps"], observations["cosine_maps"], target)
            seen += [embedding * guides[:, :1], guides]
        x = self.narrow(th.cat(seen, dim=1))
        if self.pixels is not None:
            x = x + on_grid(self.pixels(observations["image"].float() / 127.5 - 1), embedding.shape[-1])
        x = self.first(x)
        if self.attention is not None and self.before is not None:
            grid = min(x.shape[-1], _TOKEN_GRID)
            tokens = self.before(on_grid(x, grid).flatten(2).transpose(1, 2))
            attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            x = x + on_grid(attended.transpose(1, 2).unflatten(2, (grid, grid)), x.shape[-1])
        common = self.common(th.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))
        logits: th.Tensor = self.last(x + common[..., None, None])
        return logits

    def inputs(self, observations: Mapping[str, Any]) -> dict[str, th.Tensor]:
        """What the module needs of observations as environments hold them, whose categories are numbers; on its device."""
        tensors = {key: th.as_tensor(observations[key]).to(self.common.weight.device) for key in self.needs}
        if "target_category" in tensors:
            count = tensors["similarity_maps"].shape[1]
            tensors["target_category"] = F.one_hot(tensors["target_category"].long().reshape(-1), count).float()
        return tensors

    @th.no_grad()
    def foreground(self, observations: Mapping[str, Any]) -> th.Tensor:
        """The map (B, h, w) in [0, 1] of a batch of observations, on their device."""
        learning = self.training
        self.eval()
        out: th.Tensor = self(self.inputs(observations))[:, 0].sigmoid().to(th.as_tensor(observations[SEEN[0]]).device)
        self.train(learning)
        return out


def _pixels(image: spaces.Space[Any], side: int, width: int) -> nn.Module:
    """Convolutions of stride 2 for as long as the map of an image stays as fine as the embedding."""
    assert image.shape is not None
    channels, shrunk = image.shape[:2]
    layers: list[nn.Module] = []
    while shrunk // 2 >= side:
        out = min(16 << len(layers), width)
        layers.append(_convolution(channels, out, 2))
        channels, shrunk = out, shrunk // 2
    return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))


def _convolution(channels: int, width: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), nn.GroupNorm(8, width), nn.ReLU())


def dice_and_cross_entropy(logits: th.Tensor, truth: th.Tensor, known: th.Tensor) -> th.Tensor:
    """The module's loss: Dice + BCE, over the cells of which the annotation says something.

    :param logits: (B, 1, h, w)
    :param truth: (B, 1, h, w) share of each cell that the target covers
    :param known: (B, 1, h, w) share of each cell in the image of which the annotation says something
    """
    truth = (truth / known.clamp(min=1e-6)).clamp(max=1)  # of what is known of a cell
    cross = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known).sum() / known.sum().clamp(min=1)
    prob = logits.sigmoid() * known
    dice = 1 - (2 * (prob * truth).sum((1, 2, 3)) + 1) / (prob.sum((1, 2, 3)) + (truth * known).sum((1, 2, 3)) + 1)
    return cross + dice.mean()
