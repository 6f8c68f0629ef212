"""What both branches share: a small head for all cells of the click grid, and how its logits reach the actions."""

from math import isqrt

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from alignsam_sb3.maps import on_grid


class CellHead(nn.Module):
    """One pair of logits (positive, negative) for each cell of the click grid, from what lies in and around the cell.

    The grid and the embedding cover the same frame, so the same small convolution serves every cell. What was learned about
    an object at one place holds at all others.

    The state of the episode scales and shifts the features: the mask's probability in the cell, whether there is a mask at
    all, and how many steps are gone. So the same place can be worth a positive click at first and a negative one later. What
    language says of the cell does the same, where there is a prior.

    :param channels: width of the map that describes the image
    :param patches: cells along each axis
    :param context_dim: width of the vector that describes the whole image
    :param n_guides: further maps, of the order of 1, that describe a cell's part in the task
    """

    N_STATE = 5  # belief in the cell, its mean and maximum over the frame, share of steps gone, cell still free

    def __init__(self, channels: int, patches: int, context_dim: int, n_guides: int = 0, width: int = 64) -> None:
        super().__init__()
        self.patches = patches
        self.local = nn.Conv2d(channels + n_guides, width, 3, padding=1)
        self.context = nn.Linear(context_dim, width)
        self.norm = nn.GroupNorm(8, width)
        self.state = nn.Sequential(nn.Conv2d(self.N_STATE + n_guides, 32, 1), nn.ReLU(), nn.Conv2d(32, 2 * width, 1))
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())
        self.logits = nn.Conv2d(width, 2, 1)

    def forward(
        self,
        described: th.Tensor,
        belief: th.Tensor,
        free: th.Tensor,
        steps: th.Tensor,
        context: th.Tensor,
        guides: th.Tensor | None = None,
    ) -> th.Tensor:
        """Logits (B, 2 x cells) in the order of the actions.

        :param described: (B, C, h, w)
        :param belief: (B, 1, h, w)
        :param free: (B, 1, patches, patches) 1 where a cell can still be clicked
        :param steps: (B, 1) share of the episode's steps that are gone
        :param context: (B, context_dim)
        :param guides: (B, n_guides, h, w)
        """
        here = on_grid(belief, self.patches)
        whole = th.stack([belief.mean((1, 2, 3)), belief.amax((1, 2, 3)), steps[:, 0]], dim=1)
        state = th.cat([here, whole[..., None, None].expand(-1, -1, *here.shape[-2:]), free], dim=1)
        seen = on_grid(described, self.patches)
        if guides is not None:
            guided = on_grid(guides, self.patches)
            state, seen = th.cat([state, guided], dim=1), th.cat([seen, guided], dim=1)
        scale, shift = self.state(state).chunk(2, dim=1)
        seen = self.norm(self.local(seen) + self.context(context)[..., None, None])
        logits: th.Tensor = self.logits(self.mix(seen * (1 + scale) + shift))
        return logits.flatten(1)


class Advice(nn.Module):
    """What a map of the target alone would do, as logits: the policy starts from it and learns what to do better.

    A positive click where the map (language's, or recalibrated) sees the target and SAM does not yet, a negative one
    where SAM does and the map does not.
    Before the first click SAM believes nothing (0.5 everywhere) and only the first of the two speaks.
    """

    def __init__(self, trust: float = 8.0) -> None:
        super().__init__()
        self.trust = nn.Parameter(th.tensor([trust, trust / 2]))

    def forward(self, wanted: th.Tensor, belief: th.Tensor) -> th.Tensor:
        """Logits (B, 2 x cells) in the order of the actions.

        :param wanted: (B, 1, patches, patches) the target's map
        :param belief: (B, 1, patches, patches)
        """
        taken = (2 * belief - 1).clamp(min=0)
        positive, negative = wanted * (1 - taken), (1 - wanted) * taken
        return th.cat([self.trust[0] * positive.flatten(1), self.trust[1] * negative.flatten(1)], dim=1)


class CellExtractor(BaseFeaturesExtractor):
    """Base of the extractors: ``global_dim`` numbers about the whole image, then the logits of ``cells``, a :class:`CellHead`.

    The policies of this package add those logits to their action logits. Shapes come from the observation space. Everything
    is normalised within one sample, never over the batch, so that rollout and update compute the same function.

    :param observation_space: needs ``sam_image_embeddings``, ``sam_pred_mask_prob``, ``num_steps`` and ``action_mask``
    :param global_dim: how many numbers describe the whole image
    """

    cells: CellHead
    needs: tuple[str, ...] = ("sam_image_embeddings", "sam_pred_mask_prob", "num_steps", "action_mask")
    """The observations that it looks at."""

    def __init__(self, observation_space: spaces.Dict, global_dim: int) -> None:
        self.patches = isqrt(spaces.flatdim(observation_space["action_mask"]) // 2)
        super().__init__(observation_space, global_dim + 2 * self.patches**2)
        steps = observation_space["num_steps"]
        assert isinstance(steps, spaces.Box)
        self.global_dim, self.max_steps = global_dim, float(steps.high.max())
        self.recalibrated = "foreground_map" in observation_space.spaces
        """Whether a recalibration module says where the target is."""
        if self.recalibrated:
            self.needs = (*self.needs, "foreground_map")

    def _free(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """(B, 1, patches, patches) 1 where a cell can still be clicked."""
        mask = observations["action_mask"]
        cells = mask.reshape(len(mask), -1)[:, : 2 * self.patches**2].float()
        return cells.reshape(-1, 2, self.patches, self.patches).amax(1, keepdim=True)

    def _steps(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """(B, 1) share of the episode's steps that are gone."""
        return (observations["num_steps"].reshape(-1, 1) / self.max_steps).clamp(max=1)


def weighted_by(belief: th.Tensor, embedding: th.Tensor, narrow: nn.Conv2d | nn.Identity) -> th.Tensor:
    """``narrow(E * M + E)`` for an embedding E (B, C, h, w) and a belief M (B, 1, h, w), whose product is of few channels.

    :param narrow: a convolution of kernel 1, or nothing at all
    """
    if isinstance(narrow, nn.Identity):
        return embedding * (1 + belief)
    assert narrow.bias is not None
    few = nn.functional.conv2d(embedding.to(narrow.weight.dtype), narrow.weight)
    return few * (1 + belief) + narrow.bias[:, None, None]


def pass_cells_through(extractor: BaseFeaturesExtractor, action_net: nn.Module) -> None:
    """Start with the cells' logits as the action logits, all zero (beside the extractor's advice, if it gives any).

    Does nothing for another extractor, or where hidden layers lie between extractor and action net.
    """
    if not (isinstance(extractor, CellExtractor) and isinstance(action_net, nn.Linear)):
        return
    if action_net.in_features != extractor.features_dim:
        return
    n_logits = 2 * extractor.patches**2
    with th.no_grad():
        extractor.cells.logits.weight.zero_()
        action_net.weight[:n_logits, extractor.global_dim :] = th.eye(n_logits)
        action_net.weight[n_logits:, extractor.global_dim :] = 0
