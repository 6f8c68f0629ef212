"""Image encoders for SAM built from timm blocks."""

from typing import Any

import torch as th
from segment_anything.modeling.common import LayerNorm2d
from timm.models.repvit import RepVit
from timm.models.tiny_vit import TinyVit
from torch import nn
from torch.nn import functional as F


def _headless(backbone: Any) -> Any:  # noqa: ANN401 (timm's classes)
    """A timm network without its classifier."""
    backbone.head = nn.Identity()
    return backbone


def _repvit(embed_dim: tuple[int, ...], depth: tuple[int, ...], legacy: bool = False) -> Any:  # noqa: ANN401
    """RepViT's stem and stages; ``legacy``: as first published."""
    return _headless(RepVit(embed_dim=embed_dim, depth=depth, num_classes=0, distillation=False, legacy=legacy))


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
        self.backbone = _headless(RepVit(embed_dim=embed_dim, depth=depth, num_classes=0, distillation=False))
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

    def stages(self, x: th.Tensor) -> list[th.Tensor]:
        """What the four stages say, at strides 4, 8, 16 and 32."""
        x, said = self.backbone.stem(x), []
        for stage in self.backbone.stages:
            x = stage(x)
            said.append(x)
        return said

    def embed(self, stages: list[th.Tensor]) -> th.Tensor:
        """The embedding (B, out_chans, img_size / 8, img_size / 8) of what the stages say."""
        total: th.Tensor | None = None
        for x, tap in zip(stages, self.taps, strict=True):
            seen = tap(x)
            if total is not None and seen.shape[-1] != total.shape[-1]:
                seen = F.interpolate(seen, total.shape[-2:], mode="bilinear", align_corners=False)
            total = seen if total is None else total + seen
        out: th.Tensor = self.neck(total)
        return out

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Encode normalised, padded images (B, 3, img_size, img_size)."""
        return self.embed(self.stages(x))


def sam_neck(in_chans: int, out_chans: int = 256) -> nn.Sequential:
    """What stands between any backbone and SAM's decoder: two convolutions, each with a LayerNorm over channels."""
    return nn.Sequential(
        nn.Conv2d(in_chans, out_chans, 1, bias=False),
        LayerNorm2d(out_chans),
        nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
        LayerNorm2d(out_chans),
    )


class _NeckedEncoder(nn.Module):
    """A timm backbone of stride 16 and SAM's neck."""

    def __init__(self, backbone: Any, width: int, img_size: int) -> None:  # noqa: ANN401
        super().__init__()
        self.img_size, self.backbone, self.neck = img_size, backbone, sam_neck(width)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Encode normalised, padded images (B, 3, img_size, img_size) to (B, 256, img_size / 16, img_size / 16)."""
        out: th.Tensor = self.neck(self.backbone.forward_features(x))
        return out


class RepVitEncoder(_NeckedEncoder):
    """RepViT-SAM's (Wang et al., arXiv 2312.05760): RepViT-M2.3 whose last stage keeps stride 16.

    :param img_size: side of the square input in pixels, a multiple of 16
    """

    DEPTHS = (6, 6, 34, 2)

    def __init__(self, img_size: int = 1024) -> None:
        super().__init__(_repvit((80, 160, 320, 640), self.DEPTHS), 640, img_size)
        self.backbone.stages[-1].downsample.spatial_downsample.c.stride = (1, 1)


class EdgeEncoder(nn.Module):
    """EdgeSAM's (Zhou et al., arXiv 2312.06660): RepViT-M1 in its first form; strides 16 and 32 are summed before the neck.

    :param img_size: side of the square input in pixels, a multiple of 32
    """

    DEPTHS = (2, 2, 14, 2)

    def __init__(self, img_size: int = 1024) -> None:
        super().__init__()
        self.img_size = img_size
        widths = (48, 96, 192, 384)
        self.backbone = _repvit(widths, self.DEPTHS, legacy=True)
        self.fuse_stage2 = nn.Conv2d(widths[2], 256, 1, bias=False)
        self.fuse_stage3 = nn.Conv2d(widths[3], 256, 1, bias=False)
        self.neck = sam_neck(256)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """Encode normalised, padded images (B, 3, img_size, img_size) to (B, 256, img_size / 16, img_size / 16)."""
        *early, last = self.backbone.stages
        x = self.backbone.stem(x)
        for stage in early:
            x = stage(x)
        down = last.downsample
        fine = down.pre_block(x)  # timm counts this block to the last stage
        coarse = last.blocks(_reduced(down, fine))
        wide = F.interpolate(self.fuse_stage3(coarse), scale_factor=2, mode="bicubic", align_corners=False)
        out: th.Tensor = self.neck(self.fuse_stage2(fine) + wide)
        return out


def _reduced(down: Any, x: th.Tensor) -> th.Tensor:  # noqa: ANN401
    """A RepViT downsampling without the block that precedes it."""
    narrow: th.Tensor = down.channel_downsample(down.spatial_downsample(x))
    out: th.Tensor = narrow + down.ffn(narrow)
    return out


class TinyVitEncoder(_NeckedEncoder):
    """MobileSAM's and TinySAM's (Zhang et al., arXiv 2306.14289): TinyViT-5M whose last stage keeps stride 16.

    :param img_size: side of the square input in pixels, a multiple of 16 (the authors' code knows 1024 only)
    """

    def __init__(self, img_size: int = 1024) -> None:
        backbone = TinyVit(
            num_classes=0,
            embed_dims=(64, 128, 160, 320),
            depths=(2, 2, 6, 2),
            num_heads=(2, 4, 5, 10),
            window_sizes=(7, 7, 14, 7),
            drop_path_rate=0.0,
        )
        super().__init__(_headless(backbone), 320, img_size)
        self.backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
