"""Tensors out of the files that torch writes, without running anything of them.

``torch.save`` and ``torch.jit.save`` write a zip file: tensors as plain bytes, and a pickle that says what belongs together.
Here that pickle is *interpreted*. This module builds containers and tensors, and every other object that the pickle names
stays an :class:`Inert`. No class is imported, nothing is called, and nothing that a file brings is run. What a file claims of
its tensors is checked against the bytes that are there.
"""

import math
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch as th

from alignsam_sb3.archives import Limits, opened_archive, read_entry

_PICKLE_BYTES = 64 << 20
_DIMENSIONS, _FAR = 64, 1 << 62
_DTYPES = {
    "FloatStorage": th.float32,
    "HalfStorage": th.float16,
    "BFloat16Storage": th.bfloat16,
    "DoubleStorage": th.float64,
    "LongStorage": th.int64,
    "IntStorage": th.int32,
    "ShortStorage": th.int16,
    "CharStorage": th.int8,
    "ByteStorage": th.uint8,
    "BoolStorage": th.bool,
}
_DICTS = ("collections OrderedDict", "builtins dict", "__builtin__ dict")
_TAGS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")


@dataclass
class Inert:
    """An object that a pickle would have made; nothing of its class was run.

    :param kind: ``"module name"`` of what would have been called or imported
    :param state: what it would have been given
    """

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)


def read_torch_archive(file: BinaryIO, limits: Limits | None = None, pickle_bytes: int = _PICKLE_BYTES) -> object:
    """What ``torch.save`` or ``torch.jit.save`` wrote: containers, plain values, tensors on the CPU, and inert objects.

    :param limits: of the archive
    :param pickle_bytes: of its pickle, at most
    :raises ValueError: it is no such file, or claims what its bytes do not hold
    """
    with opened_archive(file, limits or Limits()) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise ValueError("it is no file of torch.save or torch.jit.save: there is no data.pkl in it")
        if f"{roots[0]}byteorder" in archive.namelist() and read_entry(archive, f"{roots[0]}byteorder", 16) != b"little":
            raise ValueError("it was written on a big-endian machine")
        content = _Interpreter(archive, roots[0]).run(read_entry(archive, f"{roots[0]}data.pkl", pickle_bytes))
        if isinstance(content, Inert) and content.kind.startswith("__torch__"):
            return _of_torchscript(content, archive, f"{roots[0]}code/")
        return content


def is_torch_archive(file: BinaryIO) -> bool:
    """Whether it is a zip file, which newer versions of torch write."""
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def _of_torchscript(module: Inert, archive: ZipFile, code: str, prefix: str = "") -> dict[str, th.Tensor]:
    """The state dict of a TorchScript module; its source, of which only two lists of names are read, says what is a weight."""
    place, _, name = module.kind.rpartition(" ")
    source = read_entry(archive, f"{code}{place.replace('.', '/')}.py", _PICKLE_BYTES).decode(errors="replace")
    head = re.search(rf"^class {re.escape(name)}\(.*?(?=^class |\Z)", source, re.MULTILINE | re.DOTALL)
    lists = re.findall(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", head[0] if head else "", re.MULTILINE)
    weights = set(re.findall(r'"([^"]+)"', " ".join(lists)))
    found: dict[str, th.Tensor] = {}
    for key, value in module.state.items():
        if isinstance(value, th.Tensor) and key in weights:
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Inert) and value.kind.startswith("__torch__"):
            found |= _of_torchscript(value, archive, code, f"{prefix}{key}.")
    return found


@dataclass(frozen=True)
class _Global:
    """Something that the pickle names, as ``"module name"``; it is never looked up."""

    name: str


class _Interpreter:
    """A pickle machine that can build containers and tensors, and can call nothing.

    :param archive: where the tensors' bytes are
    :param root: folder in it
    """

    def __init__(self, archive: ZipFile, root: str) -> None:
        self._archive, self._root = archive, root
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, th.Tensor] = {}

    def run(self, pickle: bytes) -> object:
        """What the pickle describes.

        :raises ValueError: it is damaged, or does what files of torch do not do
        """
        try:
            for opcode, argument, _ in pickletools.genops(pickle):
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error
        raise ValueError("its pickle has no end")

    def _step(self, name: str, argument: Any) -> None:  # noqa: ANN401
        if name in _SCALARS:
            self._stack.append(_SCALARS[name](argument))
        elif name in _MACHINE:
            _MACHINE[name](self, argument)
        else:
            raise ValueError(f"its pickle does what files of torch do not do ({name})")

    def _above_mark(self) -> list[Any]:
        place = self._marks.pop()
        above = self._stack[place:]
        del self._stack[place:]
        return above

    def _mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def _put(self, place: object) -> None:
        self._memo[len(self._memo) if place is None else int(str(place))] = self._stack[-1]

    def _get(self, place: object) -> None:
        self._stack.append(self._memo[int(str(place))])

    def _gather(self, values: list[Any], kind: type[Any]) -> None:
        self._stack.append(kind(values))

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("too little on the stack")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(v for v in values if isinstance(v, int | float | str | bytes | tuple))

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        pairs = dict(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, dict):
            target.update(pairs)
        elif isinstance(target, Inert):
            target.state.update(pairs)

    def _named(self, module: object, name: object) -> None:
        self._stack.append(_Global(f"{module} {name}"))

    def _reduce(self, _: object) -> None:
        called, arguments = self._last(2)
        kind = called.name if isinstance(called, _Global) else type(called).__name__
        if kind in ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"):
            self._stack.append(_tensor(*arguments[:4]))
        elif kind in ("torch._utils _rebuild_parameter", *(f"torch.jit._pickle {tag}" for tag in _TAGS)):
            self._stack.append(arguments[0])
        elif kind in _DICTS:
            self._stack.append(dict(arguments[0]) if arguments else {})
        else:
            self._stack.append(Inert(kind))

    def _new(self, count: int) -> None:
        made = self._last(count)[0]
        self._stack.append(Inert(made.name if isinstance(made, _Global) else "?"))

    def _build(self, _: object) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Inert) and isinstance(state, dict):
            self._stack[-1].state.update(state)

    def _persistent(self, _: object) -> None:
        what, kind, key, _, numel = self._stack.pop()
        name = kind.name.rpartition(" ")[2]
        if what != "storage" or name not in _DTYPES or not re.fullmatch(r"\w+", key):
            raise ValueError(f"its pickle refers to {what!r} of {name}, which is not read")
        if key not in self._storages:
            self._storages[key] = self._storage(key, _DTYPES[name], numel)
        if self._storages[key].dtype != _DTYPES[name]:
            raise ValueError(f"tensor {key} in it is said to be of two types")
        self._stack.append(self._storages[key])

    def _storage(self, key: str, dtype: th.dtype, numel: object) -> th.Tensor:
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        held = entry.compress_size  # torch packs none
        if not isinstance(numel, int) or not numel * dtype.itemsize == entry.file_size == held:
            raise ValueError(f"tensor {key} in it is said to have {numel} values, and has {held} bytes")
        content = bytearray(read_entry(self._archive, entry.filename, entry.file_size))
        if not content:
            return th.empty(0, dtype=dtype)
        return th.frombuffer(content, dtype=th.uint8).ne(0) if dtype is th.bool else th.frombuffer(content, dtype=dtype)


def _tensor(storage: th.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> th.Tensor:
    """A view of a storage, if it lies in it and shows no value twice."""
    plain = isinstance(storage, th.Tensor) and len(size) == len(stride) <= _DIMENSIONS
    if not plain or any(type(n) is not int or not 0 <= n < _FAR for n in (offset, *size, *stride)):
        raise ValueError("its pickle describes no tensor where one is needed")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= len(storage) or math.prod(size) > len(storage)):
        raise ValueError(f"a tensor of size {tuple(size)} in it reaches beyond its {len(storage)} values")
    return th.as_strided(storage, size, stride, offset)


def _same(value: Any) -> Any:  # noqa: ANN401
    return value


_SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_SET": lambda _: set(),
    **{name: _same for name in ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")},
    **{name: _same for name in ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")},
    **{name: _same for name in ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")},
}
_MACHINE: Mapping[str, Callable[[_Interpreter, Any], None]] = {
    **{name: lambda m, _: None for name in ("PROTO", "FRAME")},
    "MARK": _Interpreter._mark,
    "POP": lambda m, _: m._last(1).clear(),
    "POP_MARK": lambda m, _: m._above_mark().clear(),
    **{name: _Interpreter._put for name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")},
    **{name: _Interpreter._get for name in ("GET", "BINGET", "LONG_BINGET")},
    "TUPLE": lambda m, _: m._gather(m._above_mark(), tuple),
    "TUPLE1": lambda m, _: m._gather(m._last(1), tuple),
    "TUPLE2": lambda m, _: m._gather(m._last(2), tuple),
    "TUPLE3": lambda m, _: m._gather(m._last(3), tuple),
    "LIST": lambda m, _: m._gather(m._above_mark(), list),
    "APPEND": lambda m, _: m._append(m._last(1)),
    "APPENDS": lambda m, _: m._append(m._above_mark()),
    "ADDITEMS": lambda m, _: m._append(m._above_mark()),
    "SETITEM": lambda m, _: m._set(m._last(2)),
    "SETITEMS": lambda m, _: m._set(m._above_mark()),
    "GLOBAL": lambda m, both: m._named(*both.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._named(*m._last(2)),
    "REDUCE": _Interpreter._reduce,
    "NEWOBJ": lambda m, _: m._new(2),
    "NEWOBJ_EX": lambda m, _: m._new(3),
    "BUILD": _Interpreter._build,
    "BINPERSID": _Interpreter._persistent,
}
