"""The embedded default: a real SAM of under two million parameters, fitted on toy scenes by ``scripts/fit_tiny_sam.py``."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from alignsam_sb3.files import removed_on_error
from alignsam_sb3.segmenters.encoders import TinyEncoder

ASSET = Path(__file__).resolve().parents[1] / "assets" / "tiny_sam.safetensors"


@dataclass(frozen=True)
class TinySamConfig:
    """Architecture of a tiny SAM; stored beside its weights."""

    img_size: int = 128
    embed_dim: tuple[int, int, int, int] = (32, 64, 128, 256)
    depth: tuple[int, int, int, int] = (1, 1, 4, 1)
    out_chans: int = 96
    decoder_mlp_dim: int = 256
    decoder_heads: int = 4
    iou_hidden_dim: int = 96


def build_tiny_sam(config: TinySamConfig | None = None) -> Sam:
    """Assemble a tiny SAM with random weights: our encoder, segment_anything's prompt encoder and mask decoder."""
    config = config or TinySamConfig()
    grid = (config.img_size // 8,) * 2
    return Sam(
        image_encoder=TinyEncoder(config.img_size, config.embed_dim, config.depth, config.out_chans),
        prompt_encoder=PromptEncoder(config.out_chans, grid, (config.img_size,) * 2, mask_in_chans=16),
        mask_decoder=MaskDecoder(
            transformer_dim=config.out_chans,
            transformer=TwoWayTransformer(2, config.out_chans, config.decoder_heads, config.decoder_mlp_dim),
            num_multimask_outputs=3,
            iou_head_hidden_dim=config.iou_hidden_dim,
        ),
    )


def save_tiny_sam(sam: Sam, config: TinySamConfig, path: Path, notes: dict[str, str]) -> None:
    """Write half-precision weights with the architecture and notes on their origin, atomically."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in sam.state_dict().items()}
    halves = {k: v.contiguous().cpu() for k, v in halves.items()}
    part = path.with_suffix(".part")
    with removed_on_error(part):
        save_file(halves, part, metadata={"config": json.dumps(asdict(config)), **notes})
        part.replace(path)


def load_tiny_sam(path: Path = ASSET) -> Sam:
    """Read a tiny SAM.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no tiny SAM
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tiny SAM at {path}: reinstall the package or fit one with scripts/fit_tiny_sam.py")
    try:
        with safe_open(path, "pt") as archive:
            described = (archive.metadata() or {})["config"]
            weights = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118 (not a dict)
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(described).items()}
        sam = build_tiny_sam(TinySamConfig(**values))
        sam.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    except Exception as error:
        raise ValueError(
            f"{path} is not a tiny SAM ({type(error).__name__}: {error}): expected what scripts/fit_tiny_sam.py writes"
        ) from error
    return sam
