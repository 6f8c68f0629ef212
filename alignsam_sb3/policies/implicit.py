"""The implicit branch: what SAM embeds, weighted by what it believes so far."""

from collections.abc import Sequence

import torch as th
from gymnasium import spaces
from torch import nn

from alignsam_sb3.maps import on_grid
from alignsam_sb3.policies.cells import Advice, CellExtractor, CellHead, weighted_by

_SMALLEST_MAP = 4
_GROUPS = 8


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value > 0


class ImplicitExtractor(CellExtractor):
    """``x = E * M + E`` for embedding E and mask belief M, four convolutions, one linear layer; and a logit for each cell.

    ``x`` is brought to few channels first, and the convolutions have half of AlignSAM's: as good, and about twice as fast.
    AlignSAM's own are ``narrow=None, channels=(64, 128, 256, 512)``.

    Any embedding (C, h, w), any belief resolution and any click grid. With ``foreground_map`` among the observations the
    policy starts from what that map would do. A convolution is padded only where the map would
    otherwise shrink below 4 x 4 cells, which never happens for a full-size SAM (64 x 64).

    :param observation_space: needs ``sam_image_embeddings``, ``sam_pred_mask_prob``, ``num_steps`` and ``action_mask``
    :param global_dim: width of the linear layer
    :param width: of the cells' head
    :param narrow: channels that ``x`` is brought to, by a convolution of kernel 1; None for all that it has
    :param channels: of the four convolutions, multiples of 8
    :raises ValueError: ``narrow`` or ``channels`` are none
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        global_dim: int = 512,
        width: int = 48,
        narrow: int | None = 32,
        channels: Sequence[int] = (32, 64, 128, 256),
    ) -> None:
        if not (narrow is None or _is_count(narrow)):
            raise ValueError(f"narrow is a number of channels, or None for all of the embedding's, got {narrow!r}")
        four = isinstance(channels, list | tuple) and len(channels) == 4
        if not four or not all(_is_count(n) and n % _GROUPS == 0 for n in channels):
            raise ValueError(f"channels are those of four convolutions, multiples of {_GROUPS}, got {channels!r}")
        super().__init__(observation_space, global_dim)
        embedding = observation_space["sam_image_embeddings"]
        assert embedding.shape is not None
        self.narrow = nn.Identity() if narrow is None else nn.Conv2d(embedding.shape[0], narrow, 1)
        described, side = embedding.shape[0] if narrow is None else narrow, min(embedding.shape[1:])
        seen = described
        layers: list[nn.Module] = []
        for out, (kernel, stride) in zip(channels, ((8, 2), (5, 2), (3, 2), (3, 1)), strict=True):
            padding = 0 if (side - kernel) // stride + 1 >= _SMALLEST_MAP else kernel // 2
            layers += [nn.Conv2d(seen, out, kernel, stride, padding), nn.GroupNorm(_GROUPS, out), nn.ReLU()]
            seen, side = out, (side + 2 * padding - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with th.no_grad():
            flat = self.convolutions(th.zeros(1, described, *embedding.shape[1:])).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat + 1, global_dim), nn.ReLU())
        self.cells = CellHead(described, self.patches, global_dim, int(self.recalibrated), width)
        self.advice = Advice() if self.recalibrated else None

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Features (B, global_dim + 2 x cells) of observations with batch dimension B."""
        embedding, steps = observations["sam_image_embeddings"], self._steps(observations)
        belief = on_grid(observations["sam_pred_mask_prob"][:, None], embedding.shape[-1])
        weighted = weighted_by(belief, embedding, self.narrow)
        features = self.linear(th.cat([self.convolutions(weighted), steps], dim=1))
        found = observations["foreground_map"][:, None] if self.recalibrated else None
        logits = self.cells(weighted, belief, self._free(observations), steps, features, found)
        if found is not None and self.advice is not None:
            logits = logits + self.advice(on_grid(found, self.patches), on_grid(belief, self.patches))
        return th.cat([features, logits], dim=1)
