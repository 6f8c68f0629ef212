"""Saved policies from strangers: weights and plain JSON are read, within limits, and nothing in the file is ever run.

A ``.zip`` that :class:`~alignsam_sb3.policies.SamPPO` and its twin write is Stable-Baselines3's with one file more,
``alignsam.json``, which says in plain values how to build the policy again. The pickles beside it are for
Stable-Baselines3's own ``load`` and are not looked at here.
"""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch as th

from alignsam_sb3.archives import Limits, opened_archive, read_entry
from alignsam_sb3.datasets.seen import SeenImages
from alignsam_sb3.files import parse_json
from alignsam_sb3.torch_archives import read_torch_archive

FORMAT = 3
"""Of saved policies; those without one are of version 0.1, see :mod:`~alignsam_sb3.policies.loading`."""
RECIPE = "alignsam.json"
SEEN = "seen.json"
"""Hashes of the images that a policy was trained on."""
_MB = 1 << 20
ENTRY_BYTES, JSON_BYTES = 256 * _MB, 4 * _MB
"""Of an entry, and of one that is JSON, at most."""
_ARCHIVE = Limits(entries=64, entry_bytes=ENTRY_BYTES, total_bytes=768 * _MB)
_TENSORS = Limits(entries=20_000, entry_bytes=256 * _MB, total_bytes=256 * _MB)
_PICKLE, _SEEN = 2 * _MB, 32 * _MB
_DEEP, _LONG, _TEXT, _LARGE = 16, 10_000, 10_000, 1e12  # of JSON: levels, items in a level, characters, numbers

BOUNDS: Mapping[str, tuple[float, float]] = {
    "max_steps": (1, 10_000),
    "patches": (1, 512),
    "n_images": (1, 10_000_000),
    "n_steps": (1, 65_536),
    "batch_size": (1, 1_048_576),
    "n_epochs": (1, 1_000),
    "gamma": (0, 1),
    "gae_lambda": (0, 1),
    "click_cost": (0, 1),
    "stats_window_size": (1, 100_000),
    "seed": (0, 2**32 - 1),
}
"""What numbers of these names may be, wherever they stand in a recipe."""
WIDEST, LONGEST = 2048, 8
"""Largest number and longest list in ``policy_kwargs``: what is built from them fits in memory before weights are compared."""


class PolicyArchive:
    """What a saved policy says of itself, checked.

    :param path: the file, or one that is open
    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is no saved policy, or is beyond the limits
    """

    def __init__(self, path: str | Path | BinaryIO) -> None:
        self.path = path if isinstance(path, io.IOBase) else _with_suffix(Path(path))  # type: ignore[arg-type]
        with self._opened() as archive:
            names = archive.namelist()
            self._names = [name for name in names if name != "pytorch_variables.pth"]
            data = RECIPE if RECIPE in names else "data"
            self._data = _plain_json(read_entry(archive, data, JSON_BYTES), data)

    @property
    def recipe(self) -> dict[str, Any] | None:
        """How the policy was built, in plain values; None where another program saved it.

        :raises ValueError: a value is of another kind, or out of bounds
        """
        found = self._data.get("recipe", self._data if "algorithm" in self._data else None)
        if not isinstance(found, dict):
            return None
        try:
            _check_recipe(found)
        except ValueError as error:
            raise ValueError(f"{self.path} is not a saved policy that can be used: its recipe is wrong: {error}") from error
        return found

    @property
    def seen(self) -> SeenImages | None:
        """The images that the policy was trained on; None where the file does not say.

        :raises ValueError: what it says cannot be read
        """
        with self._opened() as archive:
            if SEEN not in archive.namelist():
                return None
            return SeenImages.from_json(parse_json(read_entry(archive, SEEN, _SEEN)))

    @property
    def data(self) -> dict[str, Any]:
        """All that is written in plain JSON."""
        return self._data

    def parameters(self) -> dict[str, dict[str, Any]]:
        """State dicts by name (``policy``, ``policy.optimizer``), tensors on the CPU.

        :raises ValueError: one cannot be read
        """
        return self.states(".pth")

    def states(self, ending: str) -> dict[str, dict[str, Any]]:
        """State dicts of the entries with this ending, by their names without it, tensors on the CPU.

        :raises ValueError: one cannot be read
        """
        found: dict[str, dict[str, Any]] = {}
        with self._opened() as archive:
            for name in self._names:
                if not name.endswith(ending):
                    continue
                file = io.BytesIO(read_entry(archive, name, _ARCHIVE.entry_bytes))
                state = read_torch_archive(file, _TENSORS, _PICKLE)
                if not isinstance(state, dict):
                    raise ValueError(f"{name!r} in it holds no state dict")
                found[name.removesuffix(ending)] = state
        return found

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if isinstance(self.path, Path) and not self.path.is_file():
            raise FileNotFoundError(f"no policy at {self.path}")
        file = self.path.open("rb") if isinstance(self.path, Path) else self.path
        try:
            with opened_archive(file, _ARCHIVE) as archive:
                yield archive
        except ValueError as error:
            raise ValueError(f"{self.path} is not a saved policy: {error}") from error
        finally:
            if isinstance(self.path, Path):
                file.close()


def check_weights(expected: Mapping[str, th.Tensor], found: Mapping[str, Any]) -> None:
    """Whether weights are those of a module, without looking at what is in those that are not.

    :raises ValueError: a name, a shape or a value is wrong
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys(), key=str)
    other = sorted(key for key in expected.keys() & found.keys() if not _like(found[key], expected[key]))
    if missing or extra or other:
        first = [f"{key} is {_shape(found[key])}, not {tuple(expected[key].shape)}" for key in other[:1]]
        unknown = [str(key)[:100] for key in extra[:1]]
        raise ValueError(
            f"{len(missing)} weights missing (first {missing[:1]}), {len(extra)} unknown (first {unknown}), "
            f"{len(other)} of another shape (first {first})"
        )
    broken = [key for key, value in found.items() if not th.isfinite(value).all()]
    if broken:
        raise FloatingPointError(f"{len(broken)} weights are NaN or infinite (first {broken[0]!r})")


def check_optimizer(parameters: list[th.Tensor], found: Mapping[str, Any]) -> None:
    """Whether an optimizer's state belongs to some parameters.

    :raises ValueError: it does not
    """
    groups, states = found.get("param_groups"), found.get("state")
    if not isinstance(groups, list) or not isinstance(states, dict) or not all(isinstance(g, dict) for g in groups):
        raise ValueError("the optimizer's state is none")
    for group in groups:
        _check_plain({key: value for key, value in group.items() if key != "params"}, "the optimizer's settings")
    for place, state in states.items():
        if not isinstance(place, int) or not 0 <= place < len(parameters) or not isinstance(state, dict):
            raise ValueError("the optimizer's state is of other parameters")
        for value in state.values():
            scalar = isinstance(value, int | float) or (isinstance(value, th.Tensor) and value.shape == ())
            if not scalar and not _like(value, parameters[place]):
                raise ValueError(f"the optimizer's state of parameter {place} has another shape")
            if not th.isfinite(th.as_tensor(value)).all():
                raise ValueError(f"the optimizer's state of parameter {place} is NaN or infinite")


def _like(value: object, expected: th.Tensor) -> bool:
    return isinstance(value, th.Tensor) and value.shape == expected.shape


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, th.Tensor) else type(value).__name__


def _with_suffix(path: Path) -> Path:
    path = path.expanduser()
    return path if path.suffix or path.is_file() else path.with_suffix(".zip")


def _plain_json(content: bytes, name: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        found = json.loads(content, parse_constant=refuse if name == RECIPE else None)
    except (ValueError, RecursionError) as error:  # of JSON, of text, of numbers of thousands of digits
        raise ValueError(f"{name!r} in it is no JSON ({str(error)[:100]})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{name!r} in it holds no values by name")
    if name == RECIPE:
        _check_plain(found, "it")
    return found


def _check_recipe(recipe: dict[str, Any]) -> None:
    for key, kind in (("algorithm", str), ("policy", str), ("policy_kwargs", dict), ("env", dict), ("not_plain", list)):
        if not isinstance(recipe.get(key), kind):
            raise ValueError(f"{key!r} should be a {kind.__name__}, got {str(recipe.get(key))[:60]!r}")
    models = recipe.get("models") or {}
    if not isinstance(models, dict) or not all(isinstance(value, str) for value in models.values()):
        raise ValueError(f"'models' should hold a fingerprint for each, got {str(models)[:60]!r}")
    _check_plain(recipe, "it")
    _check_numbers(recipe, "")
    _check_plain(recipe["policy_kwargs"], "policy_kwargs", WIDEST, LONGEST)


def _check_plain(value: object, name: str, large: float = _LARGE, long: int = _LONG, depth: int = _DEEP) -> None:
    """Refuse what is no plain value, or is too deep, long or large."""
    if not depth:
        raise ValueError(f"{name} is nested too deeply")
    if isinstance(value, str) and len(value) > _TEXT:
        raise ValueError(f"{name} has a text of {len(value):,} characters")
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= large:
        raise ValueError(f"{name} has the number {str(value)[:20]}, and at most {large:g} is allowed")
    if not isinstance(value, str | int | float | list | tuple | dict | None):
        raise ValueError(f"{name} has a {type(value).__name__}")
    if isinstance(value, list | tuple | dict):
        if len(value) > long:
            raise ValueError(f"{name} has a list of {len(value):,}, and at most {long:,} are allowed")
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item, name, large, long, depth - 1)


def _check_numbers(values: Mapping[str, Any], place: str) -> None:
    for key, value in values.items():
        if key not in BOUNDS:
            if isinstance(value, dict):
                _check_numbers(value, f"{place}{key}.")
            continue
        low, high = BOUNDS[key]
        differs = isinstance(value, dict) and place.endswith("dataset_kwargs.")  # between splits
        for one in value.values() if differs else [value]:
            if one is not None and not (isinstance(one, int | float) and low <= one <= high):
                raise ValueError(f"{place}{key} lies between {low:g} and {high:g}, got {str(one)[:60]}")
