"""What the zoo would run of a file or a command line, and does not without ``--trust``.

The zoo evaluates ``key:value`` options as Python. It reads a run's ``config.yml`` with a loader that makes any object, and
imports the wrappers that it names. It unpickles policies, statistics and replay buffers. Runs are downloaded and passed on, so
here all of these are read as plain values.
"""

import argparse
import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.utils
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from alignsam_sb3.arguments import literal
from alignsam_sb3.policies.plain import CLASSES

_OURS = ("alignsam_sb3.", "gymnasium.", "stable_baselines3.", "sb3_contrib.", "rl_zoo3.")
_NAMES = ("env_wrapper", "vec_env_wrapper")
_TRUST = "If you trust its origin, add --trust, and whatever it brings is run"


def plain_value(text: str) -> Any:  # noqa: ANN401 (whatever is written)
    """What the zoo would evaluate, as a plain value; ``dict(name=value)`` and ``nn.ReLU`` are understood, as in its files.

    :raises SystemExit: it is anything else
    """
    try:
        return _value(ast.parse(str(text).strip(), mode="eval").body)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise SystemExit(
            f"{str(text)[:200]!r} is no plain value (a number, a text in quotes, a list, a dict, dict(name=value), "
            f"nn.ReLU, True, False or None), and nothing is evaluated. {_TRUST}"
        ) from None


def _value(node: ast.expr) -> Any:  # noqa: ANN401
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("**")
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Attribute):
        return _class_of(ast.unparse(node))
    if isinstance(node, ast.List | ast.Tuple):
        return (list if isinstance(node, ast.List) else tuple)(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(k or node): _value(v) for k, v in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _class_of(name: str) -> type[Any]:
    full = "torch." + name[name.find("nn.") :]
    if name not in (full, full.removeprefix("torch."), full.replace("torch.", "th.", 1)) or full not in CLASSES:
        raise ValueError(name)
    return CLASSES[full]


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values, with the two kinds of containers that the zoo writes."""


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "expected a list", node.start_mark)
    return loader.construct_sequence(node, deep=True)


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> tuple[Any, ...]:
    return tuple(_sequence(loader, node))


def _ordered(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    return dict(*_sequence(loader, node)[:1])


PlainLoader.add_constructor("tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered)
PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_plain_yaml(file: Any, Loader: object = None) -> Any:  # noqa: ANN401 (as yaml.load)
    """A run's ``config.yml`` or ``args.yml`` as plain values, whatever loader the zoo asks for.

    :raises SystemExit: it holds something else, or names code of somebody else's
    """
    name = getattr(file, "name", "the file")
    try:
        found = yaml.load(file, PlainLoader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise SystemExit(f"{name} holds more than plain values ({str(error).splitlines()[0]}). {_TRUST}") from error
    for key in _NAMES:
        for wrapper in _wrappers(found, key):
            if not str(wrapper).startswith(_OURS):
                raise SystemExit(f"{name} names a wrapper {wrapper!r}, which would be imported. {_TRUST}")
    if isinstance(found, dict) and isinstance(found.get("normalize"), str):
        try:
            literal(f"normalize:{found['normalize']}")
        except argparse.ArgumentTypeError as error:
            raise SystemExit(f"{name}: {error}") from error
    return found


def _wrappers(found: object, key: str) -> list[object]:
    given = (found.get(key) or []) if isinstance(found, dict) else []
    return [
        name
        for entry in (given if isinstance(given, list) else [given])
        for name in (entry if isinstance(entry, dict) else [entry])
    ]


class _UnreadNormalize(VecNormalize):
    """Observations can be normalized, but statistics are not unpickled."""

    @staticmethod
    def load(load_path: str, venv: VecEnv) -> VecNormalize:
        raise SystemExit(f"{load_path} is a pickle, which can run any code when it is read. {_TRUST}")


def guard() -> None:
    """Keep the zoo of this process from evaluating, from unpickling, and from importing what a run's files name."""
    plain = SimpleNamespace(load=read_plain_yaml, UnsafeLoader=None)
    for module in (rl_zoo3.utils, rl_zoo3.enjoy):
        module.yaml = plain  # type: ignore[attr-defined]
    for module in (rl_zoo3.utils, rl_zoo3.exp_manager):
        module.VecNormalize = _UnreadNormalize  # type: ignore[attr-defined]
        module.eval = plain_value  # type: ignore[attr-defined] # before Python's own, for all that the module evaluates


def trusting(algorithm: type[BaseAlgorithm], path: str | Path, ours: bool, trust: bool) -> dict[str, Any]:
    """What to hand to an algorithm's ``load`` beside the path.

    :param ours: whether the algorithm reads plain values
    :raises SystemExit: the file would be unpickled without ``--trust``
    """
    if not ours and not trust:
        raise SystemExit(f"{path} can only be unpickled: {algorithm.__name__} is Stable-Baselines3's own. {_TRUST}")
    buffer = Path(path).parent / "replay_buffer.pkl"
    if buffer.exists() and not trust:
        raise SystemExit(f"{buffer} is a pickle, which can run any code when it is read. {_TRUST}")
    return {"trust": trust} if ours else {}
