"""The explicit branch: what SAM embeds and where language sees the target, fused by attention within one image."""

from math import ceil, log2

import torch as th
from gymnasium import spaces
from torch import nn

from alignsam_sb3.maps import N_GUIDES, guide_maps, on_grid
from alignsam_sb3.names import nearest
from alignsam_sb3.policies.cells import Advice, CellExtractor, CellHead, weighted_by

_TOKEN_GRID = 4
_SEEN = 32
"""Channels that the cells' head sees, half of them of the image. One more would cost a CPU half as much again."""
ATTEND = ("joint", "stream", "none")


def cool_belief(belief: th.Tensor, steps: th.Tensor, warmth: th.Tensor) -> th.Tensor:
    """Divide the belief's logits by ``exp(warmth x share of steps left)``: what SAM thinks early counts less.

    :param belief: (B, 1, h, w) in [0, 1]
    :param steps: (B, 1) share of the episode's steps that are gone
    """
    temperature = (warmth * (1 - steps)).exp()[..., None, None]
    return (th.logit(belief, eps=1e-4) / temperature).sigmoid()


class _Stream(nn.Sequential):
    """Three convolutions (more for a large map) that bring a map (B, C, h, w) to tokens (B, width, g, g)."""

    def __init__(self, channels: int, side: int, grid: int, width: int) -> None:
        halvings = max(ceil(log2(side / grid)), 0)
        layers: list[nn.Module] = []
        for k in range(max(3, halvings)):
            layers += [nn.Conv2d(channels, width, 3, 2 if k < halvings else 1, 1), nn.GroupNorm(8, width), nn.ReLU()]
            channels, side = width, ceil(side / 2) if k < halvings else side
        super().__init__(*layers, *([] if side == grid else [nn.AdaptiveAvgPool2d(grid)]))


class Fusion(nn.Module):
    """One residual attention block over the tokens of both streams of an image; images never see each other.

    :param n_tokens: of both streams together
    :param attend: ``"joint"``: all tokens to all; ``"stream"``: each stream to itself; ``"none"``: no attention
    :raises ValueError: ``attend`` is none of these
    """

    def __init__(self, n_tokens: int, width: int, heads: int, attend: str = "joint") -> None:
        super().__init__()
        if attend not in ATTEND:
            raise ValueError(nearest("attend", attend, ATTEND))
        self.attend = attend
        stream = th.arange(n_tokens) // (n_tokens // 2)
        self.register_buffer("apart", stream[:, None] != stream, persistent=False)
        self.places = nn.Parameter(0.02 * th.randn(1, n_tokens, width))
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens: th.Tensor) -> th.Tensor:
        """Tokens (B, T, width) to tokens of the same shape."""
        mixed = tokens if self.attend == "none" else tokens + self._attended(self.before(tokens + self.places))
        out: th.Tensor = mixed + self.mlp(self.after(mixed))
        return out

    def _attended(self, normal: th.Tensor) -> th.Tensor:
        mask = self.apart if self.attend == "stream" else None
        out: th.Tensor = self.attention(normal, normal, normal, need_weights=False, attn_mask=mask)[0]
        return out


class ExplicitExtractor(CellExtractor):
    """SAM's stream and language's stream, each three convolutions, fused by a residual attention block; a logit for each cell.

    SAM's stream is ``E * M + E`` for embedding E and mask belief M, brought to few channels. The belief's logits are divided
    by a temperature that falls with the steps. Language's stream sees :func:`guide_maps`, which depend on no category's
    number: a policy trained on some categories plays others, and phrases. Their spatial tokens, of both streams of one image,
    attend to each other. The logits of the cells are added to those of :class:`Advice`, so that an untrained policy clicks
    where language says.

    Any embedding (C, h, w), belief resolution, click grid and number of categories. Nothing frozen is part of it: the maps
    are observations.

    :param observation_space: as for ImplicitExtractor, and ``similarity_maps``, ``cosine_maps`` and ``target_category``
    :param global_dim: how many numbers describe the whole image
    :param width: of the tokens and of the cells' head
    :param heads: of the attention
    :param attend: what attends to what: ``"joint"``, ``"stream"`` or ``"none"`` (see :class:`Fusion`)
    :raises ValueError: the observations have no similarity maps
    """

    def __init__(
        self, observation_space: spaces.Dict, global_dim: int = 128, width: int = 48, heads: int = 4, attend: str = "joint"
    ) -> None:
        if "similarity_maps" not in observation_space.spaces:
            raise ValueError(
                "the explicit policy needs observations with 'similarity_maps': make the environment with a language prior "
                "(clip='tiny', or clip='ViT-B-16-quickgelu:openai'), or take ImplicitPolicy / ImplicitMaskablePolicy"
            )
        super().__init__(observation_space, global_dim)
        self.needs = (*self.needs, "target_category", "similarity_maps", "cosine_maps")
        embedding = observation_space["sam_image_embeddings"]
        assert embedding.shape is not None
        channels, side = embedding.shape[0], max(embedding.shape[1:])
        self.grid = min(_TOKEN_GRID, side)
        self.warmth = nn.Parameter(th.tensor(0.5))
        self.sam_stream = _Stream(_SEEN // 2, side, self.grid, width)
        self.clip_stream = _Stream(N_GUIDES, side, self.grid, width)
        self.fusion = Fusion(2 * self.grid**2, width, heads, attend)
        self.linear = nn.Sequential(nn.Linear(4 * width + 1, global_dim), nn.ReLU())
        n_guides = N_GUIDES + int(self.recalibrated)
        self.narrow = nn.Conv2d(channels, _SEEN // 2, 1)
        self.narrow_fused = nn.Conv2d(2 * width, _SEEN // 2 - n_guides, 1)
        self.cells = CellHead(_SEEN - n_guides, self.patches, global_dim, n_guides, width)
        self.advice = Advice()

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Features (B, global_dim + 2 x cells) of observations with batch dimension B."""
        embedding, steps = observations["sam_image_embeddings"], self._steps(observations)
        seen = on_grid(observations["sam_pred_mask_prob"][:, None], embedding.shape[-1])
        belief = cool_belief(seen, steps, self.warmth)
        weighted = weighted_by(belief.detach(), embedding, self.narrow)  # warmth learns from what the cells see of the belief
        target = observations["target_category"].reshape(len(embedding), -1)
        guides = guide_maps(observations["similarity_maps"], observations["cosine_maps"], target)
        maps = [self.sam_stream(weighted), self.clip_stream(guides)]
        tokens = self.fusion(th.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2))
        halves = tokens.transpose(1, 2).unflatten(2, (2, self.grid, self.grid))  # (B, width, stream, g, g)
        fused = halves.permute(0, 2, 1, 3, 4).flatten(1, 2)
        features = self.linear(th.cat([fused.mean((2, 3)), fused.amax((2, 3)), steps], dim=1))
        described = th.cat([on_grid(x, self.patches) for x in (weighted, self.narrow_fused(fused))], dim=1)
        wanted = guides[:, :1]
        if self.recalibrated:
            wanted = observations["foreground_map"][:, None]
            guides = th.cat([guides, wanted], dim=1)
        logits = self.cells(described, belief, self._free(observations), steps, features, guides)
        logits = logits + self.advice(on_grid(wanted, self.patches), on_grid(seen, self.patches))
        return th.cat([features, logits], dim=1)
