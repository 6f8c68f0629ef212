"""Fingerprints of frozen models: of what they compute, and of nothing else.

A fingerprint depends on weights, on what no weight tells (strides, heads, activations) and on the preprocessing. It does not
depend on where a file lies or how it was named, nor on how a version of torch prints a model.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch as th
from torch import nn

_LAYERS = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.MultiheadAttention)
_TOLD = ("stride", "padding", "dilation", "groups", "num_heads", "num_groups", "eps")

FORMER = {
    "tiny-f4b8d425302df413": "tiny-83669703a4254a78",
    "clip-a1ceb9a44de8946b": "clip-f21f86678ba13c51",
}
"""Fingerprints that versions before 0.2 gave their embedded models, and those of the same weights since."""


def digest(weights: Mapping[str, th.Tensor], *said: object) -> str:
    """16 hexadecimal digits that change with a weight and with what is said beside.

    :param said: plain values
    """
    found = hashlib.sha256(json.dumps(said).encode())
    for key, value in sorted(weights.items()):
        found.update(f"{key}{tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(th.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def structure(model: nn.Module) -> list[Any]:
    """What no weight of a model tells: strides, heads and epsilons of torch's own layers, and all activations in order.

    Other people's blocks are left out: what they compute is in the layers that they hold, and their attributes change with
    the version of their library.
    """
    modules = list(model.named_modules())
    told = [
        [name, {key: getattr(m, key) for key in _TOLD if hasattr(m, key)}] for name, m in modules if isinstance(m, _LAYERS)
    ]
    activations = [[type(m).__name__, getattr(m, "approximate", "")] for _, m in modules if _is_activation(m)]
    return [told, activations]


def _is_activation(module: nn.Module) -> bool:
    """Whether it computes something and holds nothing."""
    silent = isinstance(module, nn.Identity | nn.Sequential | nn.ModuleList) or "Drop" in type(module).__name__
    return not silent and not any(True for _ in module.children()) and not any(True for _ in module.parameters())


def current(fingerprint: str | None) -> str | None:
    """Today's fingerprint of a model whose fingerprint an earlier version wrote down; any other one as it is."""
    for old, new in FORMER.items():
        if fingerprint is not None and (fingerprint + "-").startswith(old + "-"):
            return new + fingerprint.removeprefix(old)
    return fingerprint
