"""Compiling what runs over and over with few shapes."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch as th

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_SHAPES = 64


def compiled_for_shapes(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function that is compiled when it is first called with tensors of some shapes, and runs as it is where that fails."""
    compiled: list[Callable[Arguments, Result]] = []

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if not compiled:
            import torch._dynamo  # late: it takes a second

            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
            torch._dynamo.config.suppress_errors = True
            compiled.append(th.compile(function, dynamic=False))
        return compiled[0](*args, **kwargs)

    return call
