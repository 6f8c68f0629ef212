"""What a tiny SAM has beside SAM's own layers: finer features of the encoder, and masks twice as fine that use them.

SAM 2 hands its decoder two finer levels, too (Ravi et al., arXiv 2408.00714). At 128 pixels they decide the outline.
"""

from typing import Any

import torch as th
from segment_anything.modeling import MaskDecoder
from torch import nn
from torch.nn import functional as F

from alignsam_sb3.segmenters.encoders import TinyEncoder

EDGES = 8
"""Channels that decide the outline at the image's resolution."""
FINE = ("high_res_0", "high_res_1")
"""Names of the finer features, the finest first."""


class FineTinyEncoder(TinyEncoder):
    """A tiny encoder that also gives features of strides 2 and 4.

    :param widths: channels of stride 2 and of stride 4
    :param img_size, embed_dim, depth, out_chans: as of :class:`~alignsam_sb3.segmenters.encoders.TinyEncoder`
    """

    def __init__(
        self,
        img_size: int,
        embed_dim: tuple[int, int, int, int],
        depth: tuple[int, int, int, int],
        out_chans: int,
        widths: tuple[int, int],
    ) -> None:
        super().__init__(img_size, embed_dim, depth, out_chans)
        finest, fine = widths
        self.fine_shapes = {
            FINE[0]: (finest, img_size // 2, img_size // 2),
            FINE[1]: (fine, img_size // 4, img_size // 4),
        }
        self.near = nn.Sequential(nn.Conv2d(3, 2 * finest, 3, stride=2, padding=1), nn.ReLU())
        self.around = nn.Conv2d(embed_dim[0], 2 * finest, 1)
        self.finest = nn.Sequential(nn.ReLU(), nn.Conv2d(2 * finest, finest, 3, padding=1))
        self.fine = nn.Conv2d(embed_dim[0], fine, 1)

    def features(self, x: th.Tensor) -> dict[str, th.Tensor]:
        """Encode normalised, padded images (B, 3, img_size, img_size) to ``embeddings`` and the finer features."""
        stages = self.stages(x)
        around = F.interpolate(self.around(stages[0]), scale_factor=2.0, mode="nearest")
        return {
            FINE[0]: self.finest(self.near(x) + around),
            FINE[1]: self.fine(stages[0]),
            "embeddings": self.embed(stages),
        }


class FineMaskDecoder(MaskDecoder):  # type: ignore[misc]
    """SAM's mask decoder with one more doubling, 8 times as fine as the embedding; the finer features enter on the way.

    :param widths: channels of the features of stride 2 and of stride 4
    :param kwargs: of SAM's
    """

    def __init__(self, widths: tuple[int, int], **kwargs: Any) -> None:  # noqa: ANN401 (SAM's own)
        super().__init__(**kwargs)
        finest, fine = widths
        wide, narrow = self.transformer_dim // 4, self.transformer_dim // 8
        self.context = nn.Conv2d(wide + fine, wide, 1)
        self.edges = nn.Conv2d(narrow + finest, 4 * EDGES, 1)  # for each of 2 x 2 finer cells
        self.outline = nn.Linear(narrow, EDGES, bias=False)
        for last in (self.context, self.outline):  # at first, masks are SAM's own, enlarged
            nn.init.zeros_(last.weight)
        nn.init.zeros_(self.context.bias)  # type: ignore[arg-type]

    def predict_masks(self, *_: Any, **__: Any) -> tuple[th.Tensor, th.Tensor]:  # noqa: ANN401
        """SAM's own way in, which has no room for finer features."""
        raise TypeError("this decoder needs the encoder's finer features: use SamSegmenter, not SamPredictor")

    def masks_of(
        self, image_pe: th.Tensor, sparse: th.Tensor, dense: th.Tensor, fine: tuple[th.Tensor, ...]
    ) -> tuple[th.Tensor, th.Tensor]:
        """All masks (B, 1 + M, 8h, 8w) of B images, and their predicted IoU (B, 1 + M).

        :param image_pe: (1, C, h, w)
        :param sparse: (B, T, C)
        :param dense: (B, C, h, w), the image embedding added
        :param fine: the features of stride 2 and of stride 4
        """
        count, width, height, _ = dense.shape
        own = th.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = th.cat([own.expand(count, -1, -1), sparse], dim=1)
        said, seen = self.transformer(dense, image_pe.expand(count, -1, -1, -1), tokens)
        coarse, edges = self._grown(seen.transpose(1, 2).reshape(count, width, height, -1), fine)
        heads = th.stack([mlp(said[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        size = coarse.shape[2:]
        masks = (heads @ coarse.flatten(2))[:, :, None] + (self.outline(heads) @ edges.flatten(2)).unflatten(2, (4, -1))
        return F.pixel_shuffle(masks.flatten(1, 2).unflatten(2, size), 2), self.iou_prediction_head(said[:, 0])

    def _grown(self, seen: th.Tensor, fine: tuple[th.Tensor, ...]) -> tuple[th.Tensor, th.Tensor]:
        """What masks are made of: (B, C / 8, 4h, 4w), and (B, EDGES, 4, 4h, 4w) for the cells of twice the resolution."""
        grow, norm, bend, grow_more, bend_more = self.output_upscaling
        at_4 = bend(norm(grow(seen)))
        at_4 = at_4 + self.context(th.cat([at_4, fine[1]], dim=1))
        at_2 = bend_more(grow_more(at_4))
        edges = self.edges(th.cat([at_2, fine[0]], dim=1)).relu()
        return at_2, edges.unflatten(1, (EDGES, 4))
