"""Weights: embedded ones written small beside their architecture, any others loaded strictly."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch as th
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from alignsam_sb3.files import removed_on_error
from alignsam_sb3.torch_archives import Inert, check_older, is_torch_archive, read_torch_archive

_HEADER_BYTES = 4 << 20
_WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "module", "net", "weights")


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
    _check_header(path)
    with safe_open(path, "pt") as archive:
        described: dict[str, Any] = json.loads((archive.metadata() or {})["config"])
        weights = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118 (not a dict)
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
    return config, {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def read_safetensors(path: Path) -> dict[str, th.Tensor]:
    """The tensors of a safetensors file.

    :raises ValueError: it names more of them than any model has
    """
    _check_header(path)
    return load_file(path)


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _HEADER_BYTES:
        raise ValueError(f"its names take {size:,} bytes, and {_HEADER_BYTES:,} are allowed in files of weights")


def read_weights(path: Path, landmark: str) -> dict[str, Any]:
    """The state dict in a checkpoint, whatever training loop wrote it; nothing in the file is run.

    Read are safetensors, ``torch.save`` of a state dict, and TorchScript, as OpenAI published CLIP. What
    training loops put around is taken off: ``{"model": ...}``, ``{"state_dict": ...}`` and the like, and what stands before
    the names (``module.``, ``model.``, ``_orig_mod.``, ``sam.``).

    :param landmark: a name that the bare state dict of any such model has
    :raises ValueError: it cannot be read, or holds no state dict
    """
    found = _read(path)
    while isinstance(found, Mapping) and not any(_ends_with(key, landmark) for key in found):
        inner = [found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping | Inert)]
        if not inner:
            break
        found = inner[0]
    if isinstance(found, Inert):
        raise ValueError(
            f"{path} holds no state dict but a whole object ({found.kind[:100]}), which would have to be run: where it was "
            "made, write torch.save(model.state_dict(), PATH)"
        )
    if not isinstance(found, Mapping) or not any(isinstance(value, th.Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: expected what torch.save(model.state_dict(), PATH) writes")
    prefixes = {str(key).removesuffix(landmark) for key in found if _ends_with(key, landmark)}
    if len(prefixes) > 1 and "" not in prefixes:
        raise ValueError(
            f"{path} holds {len(prefixes)} models, under {', '.join(map(repr, sorted(prefixes)))}: save the one that is meant "
            "on its own, with torch.save(model.state_dict(), PATH)"
        )
    prefix = "" if "" in prefixes or not prefixes else prefixes.pop()
    return {str(key).removeprefix(prefix): value for key, value in found.items() if str(key).startswith(prefix)}


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        with path.open("rb") as file:
            if is_torch_archive(file):
                return read_torch_archive(file)
            check_older(file)
            return th.load(file, "cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise whatever they meet
        raise ValueError(f"{path} is no readable checkpoint ({type(error).__name__}: {error}): download it again") from error


def _ends_with(key: object, landmark: str) -> bool:
    return re.search(rf"(^|\.){re.escape(landmark)}$", str(key)) is not None


def load_strictly(model: nn.Module, weights: Mapping[str, Any], path: Path, name: str, kind: str) -> None:
    """Load a state dict that must hold all of a model's weights and no others.

    :param kind: what ``name`` names: "segmenter", "CLIP model"
    :raises ValueError: it belongs to another architecture
    """
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    other = sorted(k for k in expected.keys() & weights.keys() if expected[k].shape != getattr(weights[k], "shape", None))
    if missing and weights and not extra and not other:
        raise ValueError(
            f"{path} holds {len(weights)} of the {len(expected)} weights of {name!r}: {len(missing)} weights missing "
            f"(first {missing[:1]}): add them from the checkpoint that was fine-tuned, and save all with torch.save"
        )
    if missing or extra or other:
        raise ValueError(
            f"{path} is a checkpoint of another architecture than {name!r}: {len(missing)} weights missing "
            f"(first {missing[:1]}), {len(extra)} unknown (first {extra[:1]}), {len(other)} of another shape "
            f"(first {other[:1]}); name the {kind} that it belongs to"
        )
    model.load_state_dict(weights)
