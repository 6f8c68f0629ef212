"""Compiling what runs over and over with few shapes."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch as th

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_SHAPES = 64


class compiled_for_shapes(Generic[Arguments, Result]):
    """A function that is compiled when it is first called with tensors of some shapes, and runs as it is where that fails.

    A copy, or one that another process unpickles, is compiled anew.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self.function = function
        self._compiled: Callable[Arguments, Result] | None = None

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if self._compiled is None:
            import torch._dynamo  # late: it takes a second

            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
            torch._dynamo.config.suppress_errors = True
            self._compiled = th.compile(self.function, dynamic=False)
        return self._compiled(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function,)
