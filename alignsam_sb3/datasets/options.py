"""Options of data sets as they are written on command lines: one way for all commands."""

import argparse
import ast
import json
from collections.abc import Sequence
from typing import Any

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def parse_options(words: Sequence[str]) -> dict[str, Any]:
    """Options from ``name=value`` pairs, or from one JSON object.

    A value is a literal of Python or JSON (``16``, ``[3,4]``, ``{'road':7}``, ``true``), and text where it is none; nothing in
    it is run.

    :raises ValueError: a word has no ``=``, or an option is given twice

    >>> parse_options(["n_images=16", "label_value=[3,4]", "images=photos", "inverted=true"])
    {'n_images': 16, 'label_value': [3, 4], 'images': 'photos', 'inverted': True}
    >>> parse_options(['{"folds": 2}'])
    {'folds': 2}
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        found = _literal(words[0])
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise ValueError(f"expected one JSON object of options, got {words[0]!r:.80}")
        return found
    options: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier():
            raise ValueError(f'expected NAME=VALUE (folds=2) or one JSON object ({{"folds": 2}}), got {word!r:.80}')
        if name in options:
            raise ValueError(f"option {name!r} is given twice")
        options[name] = _literal(value)
    return options


def _literal(text: str) -> Any:  # noqa: ANN401 (whatever was written)
    """What a literal says, or the text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


class _Parsed(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            setattr(namespace, self.dest, parse_options([str(value) for value in values or ()]))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from error


def add_dataset_kwargs(parser: argparse.ArgumentParser, **more: Any) -> None:  # noqa: ANN401
    """``--dataset-kwargs NAME=VALUE ...``, the same for every command."""
    told: dict[str, Any] = {"default": {}, "help": "options of the data set: folds=2 min_area=0.02, or one JSON object"}
    told |= more
    parser.add_argument("--dataset-kwargs", nargs="+", action=_Parsed, metavar="NAME=VALUE", **told)
