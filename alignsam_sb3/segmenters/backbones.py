"""SAMs whose checkpoints are public: how each is assembled, and what its authors call the weights.

Prompt encoder and mask decoder are segment_anything's own in all of them. To add one, write its encoder (timm has most), a
function that renames a key of the authors' state dict, and a line in ``BACKBONES``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from alignsam_sb3.segmenters.encoders import EdgeEncoder, RepVitEncoder, TinyVitEncoder
from alignsam_sb3.weights import load_strictly, read_weights

_LANDMARK = "mask_decoder.iou_token.weight"
Rename = Callable[[str], str | None]
"""A key of the authors' state dict to ours; None for a weight that a segmenter does not use."""


@dataclass(frozen=True)
class Backbone:
    """A kind of SAM.

    :param build: assembles it with random weights
    :param rename: what its authors call the weights
    """

    build: Callable[[], Sam]
    rename: Rename = str


def assemble_sam(image_encoder: nn.Module, img_size: int) -> Sam:
    """An encoder of stride 16 and width 256 with SAM's prompt encoder and mask decoder, weights random.

    :param image_encoder: with an attribute ``img_size``
    """
    return Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(256, (img_size // 16,) * 2, (img_size,) * 2, mask_in_chans=16),
        mask_decoder=MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
    )


def build_repvit_sam(img_size: int = 1024) -> Sam:
    """RepViT-SAM with random weights; its input is a square of ``img_size`` pixels, a multiple of 16."""
    return assemble_sam(RepVitEncoder(img_size), img_size)


def build_edge_sam(img_size: int = 1024) -> Sam:
    """EdgeSAM with random weights; its input is a square of ``img_size`` pixels, a multiple of 32."""
    return assemble_sam(EdgeEncoder(img_size), img_size)


def build_mobile_sam(img_size: int = 1024) -> Sam:
    """MobileSAM (and TinySAM, the same network) with random weights; ``img_size`` is a multiple of 16 pixels."""
    return assemble_sam(TinyVitEncoder(img_size), img_size)


def _repvit_places(depths: tuple[int, ...]) -> list[str]:
    """Where timm keeps the authors' ``features.1``, ``features.2``, ...: before each later stage stand two blocks more."""
    places = []
    for stage, depth in enumerate(depths):
        places += [f"stages.{stage}.downsample.pre_block", f"stages.{stage}.downsample"] if stage else []
        places += [f"stages.{stage}.blocks.{k}" for k in range(depth)]
    return places


_REPVIT_BLOCK = {"token_mixer.0": "token_mixer", "token_mixer.1": "se"}
_REPVIT_BLOCK |= {"channel_mixer.m.0": "channel_mixer.conv1", "channel_mixer.m.2": "channel_mixer.conv2"}
_REPVIT_DOWN = {"token_mixer.0": "spatial_downsample", "token_mixer.2": "channel_downsample"}
_REPVIT_DOWN |= {"channel_mixer.m.0": "ffn.conv1", "channel_mixer.m.2": "ffn.conv2"}
_REPVIT_STEM = {"0": "stem.conv1", "2": "stem.conv2"}


def repvit_rename(depths: tuple[int, ...]) -> Rename:
    """Keys of RepViT-SAM and EdgeSAM: ``image_encoder.features.N...`` to timm's stages."""
    places = _repvit_places(depths)

    def rename(key: str) -> str | None:
        if found := re.fullmatch(r"image_encoder\.fuse_stage3\.op_list\.0\.(.+)", key):
            return f"image_encoder.fuse_stage3.{found[1]}"
        if found := re.fullmatch(r"image_encoder\.features\.0\.([02])\.(.+)", key):
            return f"image_encoder.backbone.{_REPVIT_STEM[found[1]]}.{found[2]}"
        found = re.fullmatch(r"image_encoder\.features\.(\d+)\.(token_mixer\.\d|channel_mixer\.m\.\d)\.(.+)", key)
        if not found or not 1 <= int(found[1]) <= len(places):
            return key
        place = places[int(found[1]) - 1]
        parts = _REPVIT_DOWN if place.endswith("downsample") else _REPVIT_BLOCK
        return f"image_encoder.backbone.{place}.{parts.get(found[2], found[2])}.{found[3]}"

    return rename


def tiny_vit_rename(key: str) -> str | None:
    """Keys of MobileSAM and TinySAM: the authors reduce at the end of a layer, timm at the start of the next stage."""
    if not key.startswith("image_encoder.") or key.startswith("image_encoder.neck."):
        return key
    name = key.removeprefix("image_encoder.")
    if re.match(r"(norm_head|head)\.", name) or re.search(r"\.(attention_bias_idxs|ab)$", name):
        return None
    name = re.sub(r"^patch_embed\.seq\.([02])\.", lambda m: f"patch_embed.conv{1 + int(m[1]) // 2}.", name)
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    name = re.sub(r"^layers\.", "stages.", name)
    return "image_encoder.backbone." + re.sub(r"\.c\.(\w+)$", r".conv.\1", name)


BACKBONES: dict[str, Backbone] = {
    "vit_b": Backbone(build_sam_vit_b),
    "vit_l": Backbone(build_sam_vit_l),
    "vit_h": Backbone(build_sam_vit_h),
    "repvit": Backbone(build_repvit_sam, repvit_rename(RepVitEncoder.DEPTHS)),
    "mobile_sam": Backbone(build_mobile_sam, tiny_vit_rename),
    "tinysam": Backbone(build_mobile_sam, tiny_vit_rename),
    "edge_sam": Backbone(build_edge_sam, repvit_rename(EdgeEncoder.DEPTHS)),
}


def load_weights(sam: Sam, path: Path, name: str, rename: Rename = str) -> Sam:
    """Load a state dict strictly, in the authors' layout and as training loops save it; nothing in the file is run.

    :raises ValueError: the file cannot be read, or belongs to another architecture
    """
    found: dict[str, Any] = {}
    for key, value in read_weights(path, _LANDMARK).items():
        ours = rename(key)
        if ours is not None:
            found[ours] = value
    load_strictly(sam, found, path, name, "segmenter")
    return sam
