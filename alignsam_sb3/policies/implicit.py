"""The implicit branch: what SAM embeds, weighted by what it believes so far."""

from math import isqrt

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

_SMALLEST_MAP = 4


class CellHead(nn.Module):
    """One pair of logits (positive, negative) for each cell of the click grid, from what lies in and around the cell.

    The grid and the embedding cover the same frame, so the same small convolution serves every cell: what was learned about
    an object at one place holds at all others. What the episode has reached so far (the belief in the cell, whether any
    object is believed in, how many steps are gone) scales and shifts the features, so that the same place can be worth a
    positive click at first and a negative one later.

    :param channels: width of the embedding
    :param patches: cells along each axis
    :param context_dim: width of the vector that describes the whole image
    """

    N_STATE = 5  # belief in the cell, its mean and maximum over the frame, share of steps gone, cell still free

    def __init__(self, channels: int, patches: int, context_dim: int, width: int = 64) -> None:
        super().__init__()
        self.patches = patches
        self.local = nn.Conv2d(channels, width, 3, padding=1)
        self.context = nn.Linear(context_dim, width)
        self.norm = nn.GroupNorm(8, width)
        self.state = nn.Sequential(nn.Conv2d(self.N_STATE, 32, 1), nn.ReLU(), nn.Conv2d(32, 2 * width, 1))
        self.mix = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU())
        self.logits = nn.Conv2d(width, 2, 1)

    def forward(
        self, weighted: th.Tensor, belief: th.Tensor, free: th.Tensor, steps: th.Tensor, context: th.Tensor
    ) -> th.Tensor:
        """Logits (B, 2 x cells) in the order of the actions.

        :param weighted: (B, C, h, w) embedding weighted by the belief
        :param belief: (B, 1, h, w)
        :param free: (B, 1, patches, patches) 1 where a cell can still be clicked
        :param steps: (B, 1) share of the episode's steps that are gone
        :param context: (B, context_dim)
        """
        here = self._on_grid(belief)
        whole = th.stack([belief.mean((1, 2, 3)), belief.amax((1, 2, 3)), steps[:, 0]], dim=1)
        state = th.cat([here, whole[..., None, None].expand(-1, -1, *here.shape[-2:]), free], dim=1)
        scale, shift = self.state(state).chunk(2, dim=1)
        seen = self.norm(self.local(self._on_grid(weighted)) + self.context(context)[..., None, None])
        logits: th.Tensor = self.logits(self.mix(seen * (1 + scale) + shift))
        return logits.flatten(1)

    def _on_grid(self, x: th.Tensor) -> th.Tensor:
        """Bring a map (B, C, h, w) of the frame to the cells: averaged down, or interpolated where the grid is finer."""
        size = (self.patches, self.patches)
        if min(x.shape[-2:]) >= self.patches:
            return F.adaptive_avg_pool2d(x, size)
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


class ImplicitExtractor(BaseFeaturesExtractor):
    """``x = E * M + E`` for embedding E and mask belief M, four convolutions, one linear layer; and a logit for each cell.

    Shapes come from the observation space: any embedding (C, h, w), any belief resolution and any click grid. Normalised by
    groups within one sample, never over the batch, so that rollout and update compute the same function. A convolution is
    padded only where the map would otherwise shrink below 4 x 4 cells, which never happens for a full-size SAM (64 x 64).

    The features are ``global_dim`` numbers about the whole image followed by the :class:`CellHead`'s logits, which the
    policies of this package add to their action logits.

    :param observation_space: needs ``sam_image_embeddings``, ``sam_pred_mask_prob``, ``num_steps`` and ``action_mask``
    :param global_dim: width of the linear layer
    """

    def __init__(self, observation_space: spaces.Dict, global_dim: int = 512) -> None:
        embedding, steps = observation_space["sam_image_embeddings"], observation_space["num_steps"]
        assert embedding.shape is not None
        assert isinstance(steps, spaces.Box)
        self.patches = isqrt(spaces.flatdim(observation_space["action_mask"]) // 2)
        super().__init__(observation_space, global_dim + 2 * self.patches**2)
        channels, side = embedding.shape[0], min(embedding.shape[1:])
        self.max_steps, self.global_dim = float(steps.high.max()), global_dim
        layers: list[nn.Module] = []
        for out, kernel, stride in ((64, 8, 2), (128, 5, 2), (256, 3, 2), (512, 3, 1)):
            padding = 0 if (side - kernel) // stride + 1 >= _SMALLEST_MAP else kernel // 2
            layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.GroupNorm(8, out), nn.ReLU()]
            channels, side = out, (side + 2 * padding - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with th.no_grad():
            flat = self.convolutions(th.zeros(1, *embedding.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat + 1, global_dim), nn.ReLU())
        self.cells = CellHead(embedding.shape[0], self.patches, global_dim)

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Features (B, global_dim + 2 x cells) of observations with batch dimension B."""
        embedding = observations["sam_image_embeddings"]
        size = (embedding.shape[-2], embedding.shape[-1])
        belief = F.adaptive_avg_pool2d(observations["sam_pred_mask_prob"][:, None], size)
        weighted = embedding * belief + embedding
        seen = self.convolutions(weighted)
        steps = observations["num_steps"].reshape(len(seen), 1) / self.max_steps
        features = self.linear(th.cat([seen, steps], dim=1))
        free = observations["action_mask"].reshape(len(seen), -1)[:, : self.patches**2]
        grid = free.float().reshape(-1, 1, self.patches, self.patches)
        return th.cat([features, self.cells(weighted, belief, grid, steps, features)], dim=1)


def pass_cells_through(extractor: BaseFeaturesExtractor, action_net: nn.Module) -> None:
    """Start with the cells' logits as the action logits, all zero: every allowed action is equally likely at first.

    Does nothing for another extractor, or where hidden layers lie between extractor and action net.
    """
    if not (isinstance(extractor, ImplicitExtractor) and isinstance(action_net, nn.Linear)):
        return
    if action_net.in_features != extractor.features_dim:
        return
    n_logits = 2 * extractor.patches**2
    with th.no_grad():
        extractor.cells.logits.weight.zero_()
        action_net.weight[:n_logits, extractor.global_dim :] = th.eye(n_logits)
        action_net.weight[n_logits:, extractor.global_dim :] = 0
