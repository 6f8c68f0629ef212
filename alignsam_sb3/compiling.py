"""Compiling what runs over and over with few shapes, and computing it in half precision."""

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


class in_bfloat16(Generic[Arguments]):
    """A function that computes in bfloat16 where PyTorch's autocast allows it, and gives float32.

    :param device_type: on which it computes, as ``"cuda"``
    """

    def __init__(self, function: Callable[Arguments, th.Tensor], device_type: str) -> None:
        self.function, self.device_type = function, device_type

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> th.Tensor:
        with th.autocast(self.device_type, th.bfloat16):
            return self.function(*args, **kwargs).float()
