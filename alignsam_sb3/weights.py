"""Weights: embedded ones written small beside their architecture, any others loaded strictly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch as th
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from alignsam_sb3.files import removed_on_error


def save_embedded(state: Mapping[str, th.Tensor], config: Mapping[str, Any], path: Path, notes: Mapping[str, str]) -> None:
    """Write half-precision weights with the architecture and notes on their origin, atomically."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    halves = {k: v.contiguous().cpu() for k, v in halves.items()}
    part = path.with_suffix(".part")
    with removed_on_error(part):
        save_file(halves, part, metadata={"config": json.dumps(config), **notes})
        part.replace(path)


def read_embedded(path: Path) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """The architecture (lists as tuples) and the weights, in single precision, that :func:`save_embedded` wrote."""
    with safe_open(path, "pt") as archive:
        described: dict[str, Any] = json.loads((archive.metadata() or {})["config"])
        weights = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118 (not a dict)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
    return config, {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def load_strictly(model: nn.Module, weights: Mapping[str, Any], path: Path, name: str, kind: str) -> None:
    """Load a state dict that must hold all of a model's weights and no others.

    :param kind: what ``name`` names: "segmenter", "CLIP model"
    :raises ValueError: it belongs to another architecture
    """
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    other = sorted(k for k in expected.keys() & weights.keys() if expected[k].shape != getattr(weights[k], "shape", None))
    if missing or extra or other:
        raise ValueError(
            f"{path} is a checkpoint of another architecture than {name!r}: {len(missing)} weights missing "
            f"(first {missing[:1]}), {len(extra)} unknown (first {extra[:1]}), {len(other)} of another shape "
            f"(first {other[:1]}); name the {kind} that it belongs to"
        )
    model.load_state_dict(weights)
