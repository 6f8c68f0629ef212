"""What is stored of an algorithm in plain JSON: spaces, schedules, hyperparameters, and how far its training has come."""

import json
import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

_OF_THE_RUN = ("self", "policy", "env", "policy_kwargs", "device", "tensorboard_log", "_init_setup_model")
_PROGRESS = ("num_timesteps", "_n_updates", "_total_timesteps", "_num_timesteps_at_start", "_current_progress_remaining")
_SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf")
_MOST_VALUES = 1 << 24  # of one observation
CLASSES: dict[str, type[Any]] = {
    f"torch.nn.{kind.__name__}": kind for kind in (nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Mish)
}
"""Classes that a policy may be built with and whose names are enough; others are named by the caller of ``load``."""


def is_plain(value: object) -> bool:
    """Whether JSON can hold it."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of a policy that JSON can hold, known classes by their names."""
    names = {kind: name for name, kind in CLASSES.items()}
    named = {key: {"class": names[value]} if _hashable_in(value, names) else value for key, value in arguments.items()}
    return {key: value for key, value in named.items() if is_plain(value)}


def restore_arguments(described: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments again.

    :raises ValueError: a class is none of :data:`CLASSES`
    """
    restored = {}
    for key, value in described.items():
        if isinstance(value, dict) and value.keys() == {"class"}:
            if value["class"] not in CLASSES:
                raise ValueError(f"{key} is a {str(value['class'])[:60]!r}, which is not read from a file")
            value = CLASSES[value["class"]]
        restored[key] = value
    return restored


def describe_state(model: BaseAlgorithm) -> dict[str, Any]:
    """Hyperparameters, progress and spaces of an algorithm."""
    values = {name: getattr(model, name) for name in hyperparameters(type(model)) if hasattr(model, name)}
    values |= {name: describe_schedule(values[name]) for name in _SCHEDULES if values.get(name) is not None}
    return {
        "hyperparameters": {name: value for name, value in values.items() if is_plain(value)},
        "progress": {name: value for name in _PROGRESS if is_plain(value := getattr(model, name, 0))},
        "spaces": {key: describe_space(getattr(model, key)) for key in ("observation_space", "action_space")},
    }


def hyperparameters(algorithm: type[BaseAlgorithm]) -> list[str]:
    """Names of an algorithm's arguments that say how it learns, not where and on what."""
    return [name for name in signature(algorithm.__init__).parameters if name not in _OF_THE_RUN]


def restore_state(described: Mapping[str, Any], algorithm: type[BaseAlgorithm]) -> dict[str, Any]:
    """Attributes of an algorithm, hyperparameters and progress."""
    stored: dict[str, Any] = described.get("hyperparameters", {})
    values = {name: stored[name] for name in hyperparameters(algorithm) if name in stored}
    values |= {name: restore_schedule(values[name]) for name in _SCHEDULES if values.get(name) is not None}
    return values | {name: described.get("progress", {})[name] for name in _PROGRESS if name in described.get("progress", {})}


def describe_schedule(schedule: float | Callable[[float], float]) -> Any:  # noqa: ANN401
    """A number, ``{"linear": [start, end, fraction]}``, or the schedule itself where it is neither."""
    if not callable(schedule):
        return schedule
    inner = getattr(schedule, "value_schedule", schedule)
    if isinstance(inner, LinearSchedule):
        return {"linear": [inner.start, inner.end, inner.end_fraction]}
    start, end = float(inner(1.0)), float(inner(0.0))
    seen = [(left, float(inner(left))) for left in np.linspace(0, 1, 101)]
    if any(not math.isclose(value, end + left * (start - end), rel_tol=1e-9, abs_tol=1e-12) for left, value in seen):
        return schedule
    return start if start == end else {"linear": [start, end, 1.0]}


def restore_schedule(described: object) -> float | LinearSchedule:
    """The schedule again.

    :raises ValueError: it is none
    """
    line = described.get("linear") if isinstance(described, dict) else None
    if isinstance(line, list) and len(line) == 3 and all(isinstance(n, int | float) for n in line) and line[2]:
        return LinearSchedule(*line)
    if isinstance(described, int | float):
        return described
    raise ValueError(f"a schedule is a number or {{'linear': [start, end, fraction]}}, got {str(described)[:60]}")


def describe_space(space: spaces.Space[Any]) -> dict[str, Any] | None:
    """A space in plain values; None where it is of a kind that is not stored."""
    if isinstance(space, spaces.Dict):
        inner = {key: describe_space(value) for key, value in space.spaces.items()}
        return {"dict": inner} if all(inner.values()) else None
    if isinstance(space, spaces.Box):
        bounds = [np.unique(bound) for bound in (space.low, space.high)]
        if any(len(bound) > 1 for bound in bounds):
            return None
        return {"box": [str(bounds[0][0]), str(bounds[1][0])], "shape": list(space.shape), "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"discrete": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiBinary):
        return {"binary": [int(n) for n in space.shape]}
    return None


def restore_space(described: object) -> spaces.Space[Any]:
    """The space again.

    :raises ValueError: it is none, or too large
    """
    try:
        return _space(described)
    except (KeyError, TypeError, AttributeError, OverflowError, AssertionError) as error:
        raise ValueError(f"no space: {str(described)[:60]} ({type(error).__name__}: {error})") from error


def _space(described: Any) -> spaces.Space[Any]:  # noqa: ANN401
    if "dict" in described:
        return spaces.Dict({str(key): _space(value) for key, value in described["dict"].items()})
    if "box" in described:
        low, high = (float(bound) for bound in described["box"])
        dtype = np.dtype(described["dtype"])
        if dtype.kind not in "fiu":
            raise ValueError(f"a space of {dtype}")
        return spaces.Box(dtype.type(low), dtype.type(high), _shape(described["shape"]), dtype.type)
    if "binary" in described:
        return spaces.MultiBinary(_shape(described["binary"]))
    return spaces.Discrete(_shape([described["discrete"]])[0], start=int(described["start"]))


def _shape(sizes: list[int]) -> tuple[int, ...]:
    if not all(type(n) is int and n > 0 for n in sizes) or len(sizes) > 8 or math.prod(sizes) > _MOST_VALUES:
        raise ValueError(f"a space of shape {str(sizes)[:60]}, and at most {_MOST_VALUES:,} values are allowed")
    return tuple(sizes)


def _hashable_in(value: object, names: Mapping[type[Any], str]) -> bool:
    return isinstance(value, type) and value in names
