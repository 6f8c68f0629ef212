"""Tensors out of the files that torch writes, without running anything of them.

``torch.save`` and ``torch.jit.save`` write a zip file: tensors as plain bytes, and a pickle that says what belongs together.
Here that pickle is *interpreted*. This module builds containers and tensors, and every other object that the pickle names
stays an :class:`Inert`. No class is imported, nothing is called, and nothing that a file brings is run. What a file claims of
its tensors is checked against the bytes that are there. A pickle can name one container many times, and so describe in a
few hundred bytes what is endless when it is walked through: how much there is in all is counted before anybody does.
"""

import math
import pickletools
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch as th

from alignsam_sb3.archives import Limits, opened_archive, read_entry

_PICKLE_BYTES, _SOURCE_BYTES = 8 << 20, 32 << 20
_MOST_STEPS = 500_000  # of a pickle: 30 for each tensor
_MOST_VALUES, _DEEPEST = 300_000, 64  # where what is shared counts each time
_OLDER_PICKLES = 5  # magic number, version, machine, content, names of storages
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
        _unfolded(content, {})
        if isinstance(content, Inert) and content.kind.startswith("__torch__"):
            return _of_torchscript(content, _Sources(archive, f"{roots[0]}code/"))
        return content


def is_torch_archive(file: BinaryIO) -> bool:
    """Whether it is a zip file, which newer versions of torch write."""
    start = file.read(4)
    file.seek(0)
    return start == b"PK\x03\x04"


def check_older(file: BinaryIO) -> None:
    """Look through the pickles of a file of an older torch, which is no zip file, and refuse one that takes ages to read.

    :raises ValueError: there are too many steps in them, or it is none
    """
    steps = 0
    for _ in range(_OLDER_PICKLES):
        for _ in pickletools.genops(file):
            steps += 1
            if steps > _MOST_STEPS:
                raise ValueError(f"its pickles have more than {_MOST_STEPS:,} steps: that is no file of weights")
    file.seek(0)


def _unfolded(value: object, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """How many values there are, and how many containers in each other at most, where what is shared counts each time.

    :param known: of containers that were looked at, by their ``id``
    :raises ValueError: there are too many, or one holds itself
    """
    inner: Iterable[object] = ()
    if isinstance(value, dict | Inert):
        inner = (value if isinstance(value, dict) else value.state).values()
    elif isinstance(value, list | tuple | set):
        inner = value
    else:
        return 1, 0
    if depth > _DEEPEST:
        raise ValueError(f"its pickle has more than {_DEEPEST} containers in each other, or one that holds itself")
    if id(value) not in known:
        found = [_unfolded(one, known, depth + 1) for one in inner]
        known[id(value)] = 1 + sum(count for count, _ in found), 1 + max((deep for _, deep in found), default=0)
    count, deep = known[id(value)]
    if count > _MOST_VALUES or deep > _DEEPEST:
        raise ValueError(f"its pickle describes {count:,} values, {deep} containers in each other: no weights are so many")
    return count, deep


class _Sources:
    """The sources of a TorchScript module's classes. Only two lists of names are read: they say what is a weight.

    :param root: folder in the archive
    """

    def __init__(self, archive: ZipFile, root: str) -> None:
        self._archive, self._root, self._left = archive, root, _SOURCE_BYTES
        self._read: dict[str, dict[str, set[str]]] = {}

    def weights(self, kind: str) -> set[str]:
        """Names of a class's parameters and buffers.

        :raises ValueError: there is no such source, or there is too much of it
        """
        place, _, name = kind.rpartition(" ")
        if place not in self._read:
            content = read_entry(self._archive, f"{self._root}{place.replace('.', '/')}.py", self._left)
            self._left -= len(content)
            self._read[place] = self._classes(content.decode(errors="replace"))
        return self._read[place].get(name, set())

    @staticmethod
    def _classes(source: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        weights: set[str] = set()
        for line in source.splitlines():
            if line.startswith("class "):
                weights = found.setdefault(line[6:].partition("(")[0].strip(), set())
            elif line.startswith(("  __parameters__ = [", "  __buffers__ = [")):
                weights.update(re.findall(r'"([^"]+)"', line))
        return found


def _of_torchscript(module: Inert, sources: _Sources, prefix: str = "") -> dict[str, th.Tensor]:
    """The state dict of a TorchScript module."""
    weights = sources.weights(module.kind)
    found: dict[str, th.Tensor] = {}
    for key, value in module.state.items():
        if isinstance(value, th.Tensor) and key in weights:
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Inert) and value.kind.startswith("__torch__"):
            found |= _of_torchscript(value, sources, f"{prefix}{key}.")
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
            for step, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
                if opcode.name == "STOP":
                    return self._stack.pop()
                if step == _MOST_STEPS:
                    raise ValueError(f"its pickle has more than {_MOST_STEPS:,} steps: that is no file of weights")
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
            target.update(map(_key, values))

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        pairs = {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}
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
            given = arguments[0] if arguments else {}
            pairs = given.items() if isinstance(given, dict) else given
            self._stack.append({_key(key): value for key, value in pairs})
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
            raise ValueError(f"its pickle refers to {reprlib.repr(what)} of {name[:60]}, which is not read")
        if key not in self._storages:
            self._storages[key] = self._storage(key, _DTYPES[name], numel)
        if self._storages[key].dtype != _DTYPES[name]:
            raise ValueError(f"tensor {key} in it is said to be of two types")
        self._stack.append(self._storages[key])

    def _storage(self, key: str, dtype: th.dtype, numel: object) -> th.Tensor:
        entry = self._archive.getinfo(f"{self._root}data/{key}")
        held = entry.compress_size  # torch packs none
        if not isinstance(numel, int) or not numel * dtype.itemsize == entry.file_size == held:
            raise ValueError(f"tensor {key} in it is said to have {reprlib.repr(numel)} values, and has {held} bytes")
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


def _key(value: Any) -> Any:  # noqa: ANN401
    """A key of a dict, or an item of a set: a plain value or a tuple of some; what holds more can take ages to hash.

    :raises ValueError: it is something else
    """
    for part in value if isinstance(value, tuple) else (value,):
        if not isinstance(part, int | float | str | bytes | None):
            raise ValueError(f"its pickle has a {type(part).__name__} as the name of a value")
    return value


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
