"""The embedded CLIP: open_clip's own towers, small, fitted on toy scenes by ``scripts/assets/fit_tiny_clip.py``.

A vision transformer that starts from pixels needs very many images to learn what a convolution has built in. So this one has
a convolutional stem in the place of its patch embedding (Xiao et al., arXiv 2106.14881): the encoder of the tiny SAM.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch as th
from open_clip.model import CLIP
from torch import nn

from alignsam_sb3.segmenters.encoders import TinyEncoder
from alignsam_sb3.weights import read_embedded, save_embedded

ASSET = Path(__file__).resolve().parents[1] / "assets" / "tiny_clip.safetensors"
VOCABULARY = 49408  # of open_clip's SimpleTokenizer
PATCH_SIZE = 8  # the stem's stride
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # SAM's, in [0, 1]


@dataclass(frozen=True)
class TinyClipConfig:
    """Architecture of a tiny CLIP; stored beside its weights.

    :param stem_dim: widths of the stem's four stages
    :param stem_depth: blocks in each
    :param stem_chans: width of what the stem gives
    :param n_dual: blocks that CLIP Surgery gives a second path, as fitted
    """

    embed_dim: int = 128
    image_size: int = 160
    stem_dim: tuple[int, int, int, int] = (32, 64, 128, 256)
    stem_depth: tuple[int, int, int, int] = (1, 1, 4, 1)
    stem_chans: int = 96
    width: int = 192
    layers: int = 3
    head_width: int = 48
    mlp_ratio: float = 4.0
    context_length: int = 32
    text_width: int = 128
    text_layers: int = 3
    n_dual: int = 2


def build_tiny_clip(config: TinyClipConfig | None = None, vocab_size: int = VOCABULARY) -> CLIP:
    """Assemble a tiny CLIP with random weights and a logit bias (SigLIP, arXiv 2303.15343)."""
    config = config or TinyClipConfig()
    vision = {
        "layers": config.layers,
        "width": config.width,
        "head_width": config.head_width,
        "patch_size": PATCH_SIZE,
        "image_size": config.image_size,
        "mlp_ratio": config.mlp_ratio,
    }
    text = {
        "context_length": config.context_length,
        "vocab_size": vocab_size,
        "width": config.text_width,
        "heads": config.text_width // 32,
        "layers": config.text_layers,
    }
    clip = CLIP(config.embed_dim, vision, text, init_logit_bias=-5.0)
    encoder = TinyEncoder(config.image_size, config.stem_dim, config.stem_depth, config.stem_chans)
    clip.visual.conv1 = nn.Sequential(encoder, nn.Conv2d(config.stem_chans, config.width, 1, bias=False))
    clip.visual.image_mean, clip.visual.image_std = PIXEL_MEAN, PIXEL_STD
    return clip


def save_tiny_clip(clip: CLIP, token_ids: Sequence[int], config: TinyClipConfig, path: Path, notes: dict[str, str]) -> None:
    """Write half-precision weights, of the token embedding only the rows given, atomically.

    :param clip: its token embedding holds one row for each of ``token_ids``, in their order
    :param token_ids: which of the tokenizer's tokens those are
    :param notes: where the weights come from
    """
    rows = len(clip.token_embedding.weight)
    if rows != len(token_ids):
        raise ValueError(f"{len(token_ids)} token ids for {rows} rows of the token embedding")
    state = {**clip.state_dict(), "token_ids": th.tensor(list(token_ids), dtype=th.int32)}
    save_embedded(state, asdict(config), path, notes)


def load_tiny_clip(path: Path = ASSET) -> tuple[CLIP, TinyClipConfig, frozenset[int]]:
    """Read a tiny CLIP; a word that its captions never used gets the mean of the words that they did.

    :return: the model, its architecture, and the ids of the tokens that it knows

    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no tiny CLIP
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tiny CLIP at {path}: reinstall the package (or scripts/assets/fit_tiny_clip.py)")
    try:
        values, state = read_embedded(path)
        config = TinyClipConfig(**values)
        ids = state.pop("token_ids").long()
        rows = state["token_embedding.weight"]
        table = rows.mean(0).repeat(VOCABULARY, 1)
        table[ids] = rows
        state["token_embedding.weight"] = table
        clip = build_tiny_clip(config)
        clip.load_state_dict(state)
    except Exception as error:
        raise ValueError(
            f"{path} is not a tiny CLIP ({type(error).__name__}: {error}): "
            "expected what scripts/assets/fit_tiny_clip.py writes"
        ) from error
    return clip, config, frozenset(ids.tolist())
