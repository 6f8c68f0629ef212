"""The embedded default: a real SAM of under two million parameters, fitted by ``scripts/assets/fit_tiny_sam.py``."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from alignsam_sb3.segmenters.encoders import TinyEncoder
from alignsam_sb3.segmenters.fine import FineMaskDecoder, FineTinyEncoder
from alignsam_sb3.weights import read_embedded, save_embedded

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
    fine_chans: tuple[int, int] | None = None
    """Channels of the features of strides 2 and 4; ``None`` for SAM's own layers alone and masks of stride 2."""


def build_tiny_sam(config: TinySamConfig | None = None) -> Sam:
    """Assemble a tiny SAM with random weights: our encoder, segment_anything's prompt encoder and mask decoder.

    With ``fine_chans``, encoder and decoder are those of :mod:`alignsam_sb3.segmenters.fine`.
    """
    config = config or TinySamConfig()
    grid = (config.img_size // 8,) * 2
    shape = (config.img_size, config.embed_dim, config.depth, config.out_chans)
    decoder: dict[str, Any] = {
        "transformer_dim": config.out_chans,
        "transformer": TwoWayTransformer(2, config.out_chans, config.decoder_heads, config.decoder_mlp_dim),
        "num_multimask_outputs": 3,
        "iou_head_hidden_dim": config.iou_hidden_dim,
    }
    fine = config.fine_chans and (config.fine_chans[0], config.fine_chans[1])
    return Sam(
        image_encoder=FineTinyEncoder(*shape, fine) if fine else TinyEncoder(*shape),
        prompt_encoder=PromptEncoder(config.out_chans, grid, (config.img_size,) * 2, mask_in_chans=16),
        mask_decoder=FineMaskDecoder(fine, **decoder) if fine else MaskDecoder(**decoder),
    )


def save_tiny_sam(sam: Sam, config: TinySamConfig, path: Path, notes: dict[str, str]) -> None:
    """Write half-precision weights with the architecture and notes on their origin, atomically."""
    save_embedded(sam.state_dict(), asdict(config), path, notes)


def load_tiny_sam(path: Path = ASSET) -> Sam:
    """Read a tiny SAM.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no tiny SAM
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tiny SAM at {path}: reinstall the package or fit one with scripts/assets/fit_tiny_sam.py")
    try:
        values, weights = read_embedded(path)
        sam = build_tiny_sam(TinySamConfig(**values))
        sam.load_state_dict(weights)
    except Exception as error:
        raise ValueError(
            f"{path} is not a tiny SAM ({type(error).__name__}: {error}): expected what scripts/assets/fit_tiny_sam.py writes"
        ) from error
    return sam
