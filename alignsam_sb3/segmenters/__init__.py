"""Frozen promptable segmenters, named by one string: ``tiny``, ``vit_b:PATH``, ``vit_l:PATH``, ``vit_h:PATH``."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch as th
from segment_anything import build_sam_vit_b, build_sam_vit_h, build_sam_vit_l
from segment_anything.modeling import Sam

from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters.base import MaskPrediction, PointPrompts, PromptableSegmenter, frame_size
from alignsam_sb3.segmenters.sam import SamSegmenter
from alignsam_sb3.segmenters.tiny import ASSET, load_tiny_sam
from alignsam_sb3.weights import load_strictly


def _load_weights(sam: Sam, path: Path, name: str) -> Sam:
    """Load an upstream state dict strictly, without unpickling anything but tensors."""
    try:
        weights = th.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise ValueError(f"{path} is no readable checkpoint ({type(error).__name__}: {error}); download it again") from error
    found = {str(key): value for key, value in weights.items()} if isinstance(weights, dict) else {}
    load_strictly(sam, found, path, name, "segmenter")
    return sam


SEGMENTERS: dict[str, Callable[[Path | None], Sam]] = {
    "tiny": lambda path: load_tiny_sam(path or ASSET),
    "vit_b": lambda path: _from_upstream("vit_b", build_sam_vit_b, path),
    "vit_l": lambda path: _from_upstream("vit_l", build_sam_vit_l, path),
    "vit_h": lambda path: _from_upstream("vit_h", build_sam_vit_h, path),
}


def _from_upstream(name: str, build: Callable[[], Sam], path: Path | None) -> Sam:
    if path is None:
        raise ValueError(
            f"segmenter {name!r} needs its checkpoint: write {name}:/path/to/sam_{name}.pth "
            "(https://github.com/facebookresearch/segment-anything#model-checkpoints)"
        )
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint of {name!r} at {path}")
    return _load_weights(build(), path, name)


@lru_cache(maxsize=4)
def load_segmenter(spec: str = "tiny", device: str = "auto") -> SamSegmenter:
    """Load a segmenter once per process.

    :param spec: ``NAME`` or ``NAME:PATH`` of a checkpoint
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    :raises ValueError: there is no such segmenter, or the checkpoint does not fit it
    :raises FileNotFoundError: there is no such checkpoint
    """
    name, _, where = spec.partition(":")
    if name not in SEGMENTERS:
        raise ValueError(nearest("segmenter", name, SEGMENTERS))
    return SamSegmenter(SEGMENTERS[name](Path(where).expanduser() if where else None), device, spec)


__all__ = [
    "SEGMENTERS",
    "MaskPrediction",
    "PointPrompts",
    "PromptableSegmenter",
    "SamSegmenter",
    "frame_size",
    "load_segmenter",
]
