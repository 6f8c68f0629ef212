"""The implicit branch: what SAM embeds, weighted by what it believes so far."""

import torch as th
from gymnasium import spaces
from torch import nn

from alignsam_sb3.maps import on_grid
from alignsam_sb3.policies.cells import Advice, CellExtractor, CellHead, narrow_on_grid

_SMALLEST_MAP = 4


class ImplicitExtractor(CellExtractor):
    """``x = E * M + E`` for embedding E and mask belief M, four convolutions, one linear layer; and a logit for each cell.

    Any embedding (C, h, w), any belief resolution and any click grid. With ``foreground_map`` among the observations the
    policy starts from what that map would do. A convolution is padded only where the map would
    otherwise shrink below 4 x 4 cells, which never happens for a full-size SAM (64 x 64).

    :param observation_space: needs ``sam_image_embeddings``, ``sam_pred_mask_prob``, ``num_steps`` and ``action_mask``
    :param global_dim: width of the linear layer
    :param width: of the cells' head
    :param narrow: channels of the embedding that the cells' head sees; None for all, as in policies of version 0.1
    """

    def __init__(
        self, observation_space: spaces.Dict, global_dim: int = 512, width: int = 48, narrow: int | None = 32
    ) -> None:
        super().__init__(observation_space, global_dim)
        embedding = observation_space["sam_image_embeddings"]
        assert embedding.shape is not None
        channels, side = embedding.shape[0], min(embedding.shape[1:])
        layers: list[nn.Module] = []
        for out, kernel, stride in ((64, 8, 2), (128, 5, 2), (256, 3, 2), (512, 3, 1)):
            padding = 0 if (side - kernel) // stride + 1 >= _SMALLEST_MAP else kernel // 2
            layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.GroupNorm(8, out), nn.ReLU()]
            channels, side = out, (side + 2 * padding - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with th.no_grad():
            flat = self.convolutions(th.zeros(1, *embedding.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat + 1, global_dim), nn.ReLU())
        self.narrow = nn.Identity() if narrow is None else nn.Conv2d(embedding.shape[0], narrow, 1)
        described = narrow or embedding.shape[0]
        self.cells = CellHead(described, self.patches, global_dim, int(self.recalibrated), width)
        self.advice = Advice() if self.recalibrated else None

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Features (B, global_dim + 2 x cells) of observations with batch dimension B."""
        embedding, steps = observations["sam_image_embeddings"], self._steps(observations)
        belief = on_grid(observations["sam_pred_mask_prob"][:, None], embedding.shape[-1])
        weighted = embedding * (1 + belief)
        features = self.linear(th.cat([self.convolutions(weighted), steps], dim=1))
        found = observations["foreground_map"][:, None] if self.recalibrated else None
        narrowed = narrow_on_grid(self.narrow, weighted, self.patches)
        logits = self.cells(narrowed, belief, self._free(observations), steps, features, found)
        if found is not None and self.advice is not None:
            logits = logits + self.advice(on_grid(found, self.patches), on_grid(belief, self.patches))
        return th.cat([features, logits], dim=1)
