"""Reads the pickle in a checkpoint as data, without torch's loader and without calling anything that it names.

A pickle is a program for a stack machine. Run by a general loader, 389 bytes of it reserve gigabytes (`bytearray(6e9)`)
and 13 hang it (a dictionary that contains itself). Here the few names that checkpoints use stand for constants of this
module: dictionaries become dictionaries, tensors become views of the mapped file, and everything else is set aside.

Invariant: the result needs at most a constant times `MAX_BYTES` and `MAX_STEPS`, no tensor has memory of its own, and
every view lies within its storage.
"""

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

MAX_BYTES = 16_000_000
"""The longest pickle. Those of the largest networks have 0.2 MB, and with an optimizer and an average 2 MB."""
MAX_STEPS = 1_000_000
"""The most opcodes, one to five seconds' work. A tensor takes 50, the largest network with an optimizer 200,000."""
_MAX_DIMENSIONS = 64
_MAX_SIDE = 1 << 48
_MAX_KEY = 1 << 31
MAX_NAME = 4096
"""Characters of a key: two long ones that are equal could be compared again and again."""
_MAX_ARGUMENTS = 16
"""Of a call, which copies them; torch writes eight."""
_MAX_NESTED = 2
"""Calls within a call; torch writes one, for a subclass of Tensor."""

_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_DICTIONARIES = frozenset({"collections.OrderedDict", "collections.Counter"})
_DENSE = frozenset({"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"})
_WRAPPED = frozenset(
    {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter"}
)
_ODD = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_device_tensor_from_numpy": "device-bound",
    "_rebuild_device_tensor_from_cpu_tensor": "device-bound",
    "_rebuild_wrapper_subclass": "wrapped",
}
_SET_ASIDE = frozenset(
    {
        "torch.Size", "torch.Tensor", "torch.device", "torch.serialization._get_layout", "_codecs.encode",
        "builtins.bytearray", "__builtin__.bytearray", "builtins.set", "__builtin__.set", "builtins.complex",
        "__builtin__.complex", "torch.per_tensor_affine", "torch.per_tensor_symmetric", "torch.per_channel_affine",
        "torch.per_channel_symmetric", "torch.per_channel_affine_float_qparams",
    }
)  # fmt: skip
"""Names without code that training scripts save beside the tensors; no network needs their values."""

MapStorage = Callable[[str, torch.dtype, int], Tensor]
"""(key, dtype, number of elements) → the storage as a flat tensor; raises `ValueError` if the file is too short."""


class CodeError(Exception):
    """The pickle names something that is not of a checkpoint: it would be imported and called."""


class UnsupportedError(Exception):
    """The checkpoint holds what networks here cannot use."""


@dataclass(frozen=True)
class _Name:
    """A name that the pickle refers to; it is never imported."""

    text: str

    @property
    def last(self) -> str:
        return self.text.rpartition(".")[2]


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    size: int


class Aside:
    """Stands for a value that nothing here needs."""


@dataclass(frozen=True)
class Unusable:
    """Stands for a tensor of a kind that networks here cannot use, which matters only if it is the network's."""

    kind: str


def read_pickle(stream: io.BytesIO, map_storage: MapStorage) -> object:
    """Read one pickle from `stream`, and leave `stream` behind it.

    Returns:
        Dictionaries with keys that are text or small integers, lists, tuples, numbers, text, bytes, tensors, and
        `Aside` for the rest. They may contain themselves. An expanded tensor may be larger than the file; one that was
        saved without values is on the meta device.

    Raises:
        CodeError, UnsupportedError: see there.
        Exception: the pickle is damaged.
    """
    machine = _Machine(map_storage)
    for opcode, argument, _ in pickletools.genops(stream):
        machine.spend(1)
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    def __init__(self, map_storage: MapStorage) -> None:
        self.stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._map = map_storage
        self._mapped: dict[tuple[str, torch.dtype], tuple[int, Tensor]] = {}
        self._steps = 0

    def spend(self, steps: int) -> None:
        """Count work. Raises `UnsupportedError` at the limit."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise UnsupportedError(f"its pickle has more than {MAX_STEPS:,} steps")

    def step(self, name: str, argument: object) -> None:
        """Execute one opcode."""
        stack = self.stack
        if name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[_int(argument)])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[_place(argument)] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(self._name(argument))
        elif name in _SIZES:
            count = _SIZES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name in _MARKED:
            self._after_mark(name)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        elif name == "APPEND":
            value = stack.pop()
            _extend(stack[-1], [value])
        elif name in ("BUILD", "POP"):  # BUILD sets attributes; of a state dict, `_metadata`
            stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in ("PROTO", "FRAME", "STOP"):
            if argument is None or name in _CALLS:
                raise CodeError(f"the opcode {name}")
            stack.append(argument)  # a number, text or bytes

    def _after_mark(self, name: str) -> None:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "LIST":
            self.stack.append(items)
        elif name == "DICT":
            self.stack.append({})
            _set_items(self.stack[-1], items)
        elif name == "FROZENSET":
            self.stack.append(Aside())
        elif name == "SETITEMS":
            _set_items(self.stack[-1], items)
        elif name != "POP_MARK":
            _extend(self.stack[-1], items)

    def _name(self, argument: object) -> object:
        if argument is None:
            last, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, last = str(argument).partition(" ")
        if not (isinstance(module, str) and isinstance(last, str)):
            raise ValueError("a name must be text")
        name = _Name(f"{module}.{last}")
        # Not getattr, which imports a module if one has this name.
        if module == "torch" and isinstance(dtype := vars(torch).get(last), torch.dtype):
            return dtype
        is_storage = module in ("torch", "torch.cuda", "torch.storage") and last in (*_STORAGES, "UntypedStorage")
        is_tensor = module == "torch._utils" and (last in _DENSE or last in _ODD)
        others = (*_WRAPPED, "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_meta_tensor_no_storage")
        if is_storage or is_tensor or name.text in _DICTIONARIES or name.text in _SET_ASIDE or name.text in others:
            return name
        raise CodeError(name.text)

    def _call(self, function: object, arguments: object, *, levels: int = _MAX_NESTED) -> object:
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise CodeError("a call of a value")
        if len(arguments) > _MAX_ARGUMENTS:
            raise ValueError("a call with many arguments")
        if function.text in _DICTIONARIES:
            return self._dictionary(*arguments)
        if function.last in _DENSE:
            return self._tensor(*arguments, with_dtype=function.last == "_rebuild_tensor_v3")
        if function.text in _WRAPPED:
            return arguments[0]
        if function.last == "_rebuild_from_type_v2":
            inner, _class, inner_arguments, _state = arguments
            if not levels:
                raise ValueError("calls within calls")
            self.spend(1)
            return self._call(inner, inner_arguments, levels=levels - 1)
        if function.last == "_rebuild_meta_tensor_no_storage":
            dtype, size, stride = arguments[:3]
            return _without_values(dtype, _sides(size), _sides(stride))
        if function.last in _ODD:
            if function.last == "_rebuild_qtensor":
                self._tensor(*arguments[:4], with_dtype=False)  # the older format has to know its storage
            return Unusable(_ODD[function.last])
        return Aside()

    def _dictionary(self, content: object = ()) -> dict[object, object]:
        pairs = list(content.items()) if isinstance(content, dict) else content
        if not isinstance(pairs, list | tuple):
            raise ValueError("a dictionary is made of pairs")
        self.spend(len(pairs))
        made: dict[object, object] = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:  # a tensor would be cut into its rows
                raise ValueError("a dictionary is made of pairs")
            _set_items(made, list(pair))
        return made

    def _tensor(
        self, storage: object, offset: object, size: object, stride: object, *rest: object, with_dtype: bool
    ) -> Tensor | Unusable:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without storage")
        dtype, count = storage.dtype, storage.size
        if with_dtype:
            if not isinstance(rest[2], torch.dtype):
                raise ValueError("a tensor without dtype")
            dtype, count = rest[2], storage.size * storage.dtype.itemsize // rest[2].itemsize
        sides, steps, start = _sides(size), _sides(stride), _sides((offset,))[0]
        if len(sides) != len(steps):
            raise ValueError("a tensor needs a stride for each side")
        number = math.prod(sides)
        extent = (
            start + sum((side - 1) * step for side, step in zip(sides, steps, strict=True)) + 1 if number else start
        )
        if extent > count or number >= _MAX_SIDE:
            raise ValueError("a tensor larger than its storage")
        known, flat = self._mapped.get((storage.key, dtype), (-1, None))
        if flat is None or known != count:
            flat = self._map(storage.key, dtype, count)
            self._mapped[storage.key, dtype] = count, flat
        if len(rest) > 2 + with_dtype and rest[2 + with_dtype]:  # on reading
            return Unusable("conjugated or negated")
        return flat.as_strided(sides, steps, start)


_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: Mapping[str, Callable[[], object]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": Aside,
}  # fmt: skip
_CALLS = frozenset({"INST", "PERSID", "EXT1", "EXT2", "EXT4"})
_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARKED = frozenset({"TUPLE", "LIST", "DICT", "FROZENSET", "SETITEMS", "APPENDS", "ADDITEMS", "POP_MARK"})


def _int(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a number from 0 on is needed")
    return value


def _place(value: object) -> int:
    """A place in the memo. Large numbers could be chosen to have equal hashes."""
    place = _int(value)
    if place > MAX_STEPS:
        raise ValueError("a place in the memo that cannot be")
    return place


def _sides(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMENSIONS:
        raise ValueError("a size must be a short tuple")
    sides = tuple(_int(value) for value in values)
    if any(side >= _MAX_SIDE for side in sides):
        raise ValueError("a size is too large")
    return sides


def _without_values(dtype: object, sides: tuple[int, ...], steps: tuple[int, ...]) -> Tensor:
    if not isinstance(dtype, torch.dtype) or len(sides) != len(steps) or math.prod(sides) >= _MAX_SIDE:
        raise ValueError("a tensor needs a type, and a size that can be")
    return torch.empty(sides, dtype=dtype, device="meta")


def _storage(pid: object) -> _Storage:
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or not isinstance(pid[0], str) or pid[0] != "storage":
        raise ValueError("an unknown reference")
    kind, key, size = pid[1], pid[2], _int(pid[4])
    if len(pid) == 6 and pid[5] is not None:
        raise UnsupportedError("it was saved by a version of torch before 0.4")
    if not isinstance(kind, _Name) or not is_name(key) or size >= _MAX_SIDE:
        raise ValueError("an unknown storage")
    if kind.last != "UntypedStorage" and kind.last not in _STORAGES:
        raise ValueError("an unknown storage")
    return _Storage(key, _STORAGES.get(kind.last, torch.uint8), size)


def is_name(key: object) -> TypeGuard[str]:
    """True if a key is text that may be hashed and compared."""
    return isinstance(key, str) and len(key) <= MAX_NAME


def _set_items(target: object, items: list[object]) -> None:
    """Keys of other kinds are left out: their hashes could be chosen to be equal, or take for ever to compute."""
    if isinstance(target, Aside):
        return
    if not isinstance(target, dict):
        raise ValueError("only a dictionary has items")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str) and not is_name(key):
            raise UnsupportedError(f"it holds a key of more than {MAX_NAME:,} characters")
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY):
            target[key] = value


def _extend(target: object, items: list[object]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Aside):
        raise ValueError("only a list is extended")
