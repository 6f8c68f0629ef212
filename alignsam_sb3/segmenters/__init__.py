"""Frozen promptable segmenters, named by one string.

``tiny`` is embedded. ``mobile_sam``, ``vit_b`` and the other names of :data:`SEGMENTERS` are downloaded once and checked.
``vit_b:PATH`` reads a file. ``vit_b:random`` has random weights, to try how things fit and how long they take.
``hf:OWNER/NAME``, ``hf:/folder`` and ``hf:sam2:random`` are SAM, SAM 2, EdgeTAM and SAM 3 of the transformers library.
Options that make it faster stand behind a question mark: ``tiny?onnx``, ``repvit:PATH?fuse&channels_last``,
``hf:/folder?bf16``. ``python -m alignsam_sb3.segmenters list`` shows them all.
"""

import logging
from functools import lru_cache
from pathlib import Path

import torch as th
from segment_anything.modeling import Sam

from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters.backbones import BACKBONES, load_weights
from alignsam_sb3.segmenters.base import MaskPrediction, PromptableSegmenter, Prompts
from alignsam_sb3.segmenters.hf import RANDOM, HfSegmenter, load_hf
from alignsam_sb3.segmenters.sam import SamSegmenter
from alignsam_sb3.segmenters.tiny import ASSET, load_tiny_sam

logger = logging.getLogger(__name__)

HF = "hf"
SEGMENTERS = ("tiny", *BACKBONES, HF)


@lru_cache(maxsize=4)
def load_segmenter(spec: str = "tiny", device: str = "auto") -> PromptableSegmenter:
    """Load a segmenter once per process.

    :param spec: ``NAME``, ``NAME:PATH`` of a checkpoint, ``NAME:random``, ``hf:OWNER/NAME`` or ``hf:/folder``; then, if
        wanted, ``?OPTION&OPTION``
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    :raises ValueError: there is no such segmenter, or the checkpoint does not fit it
    :raises FileNotFoundError: there is no such checkpoint
    :raises ConnectionError: it cannot be downloaded
    :raises PermissionError: a repository of the Hub is gated
    """
    bare, _, options = spec.partition("?")
    name, _, where = bare.partition(":")
    if device != "auto":
        try:
            th.device(device)
        except RuntimeError as error:
            raise ValueError(f"unknown device {str(device)[:60]!r}: write auto, cpu, cuda or cuda:1") from error
    chosen = options.split("&") if options else []
    if name == HF:
        return load_hf(where, device, chosen)
    if name not in ("tiny", *BACKBONES):
        raise ValueError(nearest("segmenter", name, ("tiny", HF, *BACKBONES)))
    sam = load_tiny_sam(Path(where).expanduser() if where else ASSET) if name == "tiny" else _load(name, where)
    return SamSegmenter(sam, device, bare, chosen)


def _load(name: str, where: str) -> Sam:
    from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS, obtain  # late, so that `python -m` of it runs it once

    backbone = BACKBONES[name]
    if where == RANDOM:
        logger.warning("segmenter %s has random weights: it segments nothing", f"{name}:{RANDOM}")
        with th.random.fork_rng(devices=[]):
            th.manual_seed(0)
            return backbone.build()
    path = Path(where).expanduser() if where else obtain(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint of {name!r} at {path}; {name!r} alone downloads it "
            f"({CHECKPOINTS[name].url}), and alignsam_sb3.segmenters.checkpoints lists them all"
        )
    return load_weights(backbone.build(), path, name, backbone.rename)


__all__ = [
    "SEGMENTERS",
    "HfSegmenter",
    "MaskPrediction",
    "PromptableSegmenter",
    "Prompts",
    "SamSegmenter",
    "load_segmenter",
]
