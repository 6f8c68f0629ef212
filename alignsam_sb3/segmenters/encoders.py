"""Image encoders for SAM built from timm blocks."""

import torch as th
from segment_anything.modeling.common import LayerNorm2d
from timm.models.repvit import RepVit
from torch import nn
from torch.nn import functional as F


class TinyEncoder(nn.Module):
    """A small RepViT whose stages are summed at stride 8, followed by SAM's neck.

    SAM's mask decoder sees nothing finer than the embedding, so at 128 pixels the embedding carries the stride 4 features
    too; strides 16 and 32 bring context.

    :param img_size: side of the square input in pixels
    :param embed_dim: widths of RepViT's four stages (strides 4, 8, 16, 32)
    :param depth: blocks in each stage
    :param out_chans: width of the embedding (B, out_chans, img_size / 8, img_size / 8)
    """

    def __init__(
        self, img_size: int, embed_dim: tuple[int, int, int, int], depth: tuple[int, int, int, int], out_chans: int
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.backbone = RepVit(embed_dim=embed_dim, depth=depth, num_classes=0, distillation=False)
        self.backbone.head = nn.Identity()  # type: ignore[assignment]
        self.taps = nn.ModuleList(
            nn.Conv2d(width, out_chans, 3 if i == 0 else 1, stride=2 if i == 0 else 1, padding=1 if i == 0 else 0)
            for i, width in enumerate(embed_dim)
        )
        self.neck = nn.Sequential(
            LayerNorm2d(out_chans),
            nn.GELU(),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Encode normalised, padded images (B, 3, img_size, img_size)."""
        x = self.backbone.stem(x)
        total: th.Tensor | None = None
        for stage, tap in zip(self.backbone.stages, self.taps, strict=True):
            x = stage(x)
            seen = tap(x)
            if total is not None and seen.shape[-1] != total.shape[-1]:
                seen = F.interpolate(seen, total.shape[-2:], mode="bilinear", align_corners=False)
            total = seen if total is None else total + seen
        out: th.Tensor = self.neck(total)
        return out
