"""Reading checkpoints without running code from the file, and filling networks with them.

Invariant: a network is filled completely or not at all; every missing, extra or misshapen key is named.
"""

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stream.errors import ModelError, reason_of
from stream.models.weights.archive import read_legacy, read_zip
from stream.models.weights.lookalikes import HEAD_BYTES, refuse
from stream.models.weights.pickled import CodeError, UnsupportedError
from stream.models.weights.prefixes import Wanted
from stream.models.weights.transformers import to_official
from stream.models.weights.unwrap import MAX_TENSORS, CheckPart, unwrap
from stream.notes import note

MAX_HEADER_BYTES = 10_000_000
"""The longest header of a safetensors file; those of the largest networks have 0.1 MB."""
SUFFIXES = (".safetensors", ".pt", ".pth")
_MOST_EXPANDED, _LEAST_LIMIT = 4, 100_000_000
_COUNTERS = ("*num_batches_tracked",)
"""Training counters of batch norms; inference does not use them."""
_FLOATS = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
)
_NAMED = 3
"""An error names at most this many keys of each kind."""


@runtime_checkable
class _HasUnsavedBuffers(Protocol):
    """A module of timm that computes buffers instead of saving them (position indices, attention masks)."""

    def init_non_persistent_buffers(self) -> None:
        """Compute them, in place."""
        ...


def read_state_dict(
    path: Path,
    *,
    wanted: Wanted | None = None,
    check: Callable[[Mapping[str, Tensor]], None] | None = None,
    check_part: CheckPart | None = None,
    stated: Sequence[tuple[str, object]] = (),
) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pt` or `.pth` file, by official key; see `unwrap` for what may be around them.

    They are views of the mapped file, except queries, keys and values that the file holds apart and that are joined.

    Args:
        wanted: the names and sizes in the network, see `wanted_of`; they decide which of the file's tensors it is.
        check: called with the official keys and tensors on the meta device, before anything is joined; raises
            `ModelError` if they are not those that are wanted. By default they may take `_MOST_EXPANDED` times what
            the file does.
        check_part: see `unwrap`.
        stated: see `WeightsFile`.

    Raises:
        ModelError: the file is not a checkpoint, is damaged, holds more than tensors, or states something else than
            `stated`.
    """
    where = str(path)
    content = _content(path, where)
    entered: list[Mapping[object, object]] = []
    tensors = unwrap(content, where=where, wanted=wanted, check_part=check_part, entered=entered)
    if empty := sorted(key for key, value in tensors.items() if value.is_meta):
        raise ModelError(f"holds {_list('saved without values', empty)}", where=where)
    convert = (lambda given: given) if wanted and wanted.keys() <= tensors.keys() else to_official
    described = convert({key: value.to("meta") for key, value in tensors.items()})
    if check is not None:
        check(described)  # names the model that it fits, so this comes first
    elif sum(value.nbytes for value in described.values()) > _LEAST_LIMIT + _MOST_EXPANDED * path.stat().st_size:
        raise ModelError("its tensors are many times larger than the file", where=where)
    _check_statements(entered, stated, where)
    return convert(tensors)


def wanted_of(network: nn.Module) -> Wanted:
    """The names and sizes of what a file of this network holds."""
    return {key: value.shape for key, value in network.state_dict().items() if not _matches(key, _COUNTERS)}


def _check_statements(
    entered: Sequence[Mapping[object, object]], stated: Sequence[tuple[str, object]], where: str
) -> None:
    """Refuse a file that says of itself what the model is not, as a file of the same tensors may.

    Args:
        entered: the dictionaries around the tensors, the outermost first; the innermost that says something counts.
    """
    said = {keys: _statement(entered, keys) for keys, _ in stated}
    if stated and all(value is None for value in said.values()):
        assumed = ", ".join(f"{keys} {value!r}" for keys, value in stated)
        note(f"{where}: says nothing of how its network is set up; assumed is {assumed}")
    for keys, wanted in stated:
        value = said[keys]
        if value is not None and (type(value) is not type(wanted) or value != wanted):
            what = f"does not fit this model: its {keys} is {reprlib.repr(value)} instead of {wanted!r}"
            raise ModelError(what, where=where, hint="is it the file of another model?")


def _statement(entered: Sequence[Mapping[object, object]], keys: str) -> object:
    for content in reversed(entered):
        value: object = content
        for key in keys.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return tuple(value) if isinstance(value, list) else value
    return None


def is_pickled(path: Path) -> bool:
    """True if the file is of torch.save, by its first bytes; a pickle can hold code."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return _is_zip(head) or (_is_pickle(head) and not _is_safetensors(head))


def _content(path: Path, where: str) -> object:
    try:
        if path.exists() and not path.is_dir() and not path.is_file():  # opening a pipe would wait for ever
            raise ModelError("cannot be read: it is no file", where=where)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            refuse(head, where, is_checkpoint=_is_zip(head) or _is_pickle(head) or _is_safetensors(head))
            if _is_zip(head):
                return read_zip(file, where=where)
            if not _is_safetensors(head):
                return read_legacy(file)
            _check_header(file)
        return load_file(path)
    except ModelError:
        raise
    except CodeError as error:
        raise ModelError(
            f"contains code besides tensors ({str(error)[:100]}); code from files is never run",
            where=where,
            hint="save only its state dict, or save it as .safetensors",
        ) from error
    except UnsupportedError as error:
        raise ModelError(f"cannot be used: {error}", where=where, hint="save only its state dict") from error
    except OSError as error:
        raise ModelError(f"cannot be read: {reason_of(error)}", where=where) from error
    except Exception as error:
        raise ModelError(
            "is damaged or incomplete", where=where, hint="download it again and compare its size with the publisher's"
        ) from error


def _check_header(file: BinaryIO) -> None:
    """Refuse a safetensors file with more tensors than any network has."""
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise UnsupportedError(f"its header has more than {MAX_HEADER_BYTES // 10**6} MB")
    if len(json.loads(file.read(size))) > MAX_TENSORS:
        raise UnsupportedError(f"it holds more than {MAX_TENSORS:,} tensors")


def _is_zip(head: bytes) -> bool:
    return head.startswith(b"PK\3\4")  # a length, with which a safetensors file begins, may be "PK" as well


def _is_pickle(head: bytes) -> bool:
    return head.startswith(b"\x80")


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then a JSON object (https://github.com/huggingface/safetensors, "Format")."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def fill(network: nn.Module, state_dict: Mapping[str, Tensor], *, where: str, ignored_keys: Sequence[str] = ()) -> None:
    """Fill a network, which may be on the meta device, with the tensors of `state_dict` as float32.

    Buffers that files do not contain stay as they are; see `init_unsaved_buffers`.

    Args:
        where: the file, for errors.
        ignored_keys: patterns of keys that the file may contain and the network does not need.

    Raises:
        ModelError: keys are missing, extra or of another shape; names the first few of each.
    """
    given = check_fit(network, state_dict, where=where, ignored_keys=ignored_keys)
    for key, value in network.state_dict().items():
        if _matches(key, _COUNTERS):
            given[key] = torch.zeros(value.shape, dtype=value.dtype)
    network.load_state_dict(_own(given), strict=True, assign=True)


def check_fit(
    network: nn.Module, state_dict: Mapping[str, Tensor], *, where: str, ignored_keys: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The tensors of `state_dict` that the network needs, all of them; arguments and errors as for `fill`.

    The tensors may be on the meta device.
    """
    wanted = {key: value for key, value in network.state_dict().items() if not _matches(key, _COUNTERS)}
    given = {key: value for key, value in state_dict.items() if not _matches(key, (*_COUNTERS, *ignored_keys))}
    both = wanted.keys() & given.keys()
    shapes = [
        f"{key} {_shape(given[key])} instead of {_shape(wanted[key])}"
        for key in both
        if given[key].shape != wanted[key].shape
    ]
    others = [key for key in both if given[key].dtype not in _FLOATS]
    odd = [key for key in others if given[key].is_floating_point() or given[key].is_complex()]
    integers = set(others).difference(odd)
    problems = [
        _list("quantised (only floating point is supported)", sorted(integers)),
        _list("of an unsupported type", sorted(f"{key} ({given[key].dtype})" for key in odd)),
        _list("missing", sorted(wanted.keys() - given.keys())),
        _list("unknown", sorted(given.keys() - wanted.keys())),
        _list("of another shape", sorted(shapes)),
    ]
    if found := [problem for problem in problems if problem]:
        raise ModelError(
            f"does not fit this model: {'; '.join(found)}", where=where, hint="is it the file of another model?"
        )
    return given


def _own(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as float32, contiguous and aligned, each in memory of its own: networks are changed in place."""
    result, taken = dict[str, Tensor](), list[tuple[int, int]]()
    starts = {key: value.data_ptr() for key, value in given.items()}
    for key in sorted(given, key=lambda key: starts[key]):
        value = given[key].float() if given[key].is_floating_point() else given[key]
        value = value.contiguous()
        start, end = value.data_ptr(), value.data_ptr() + value.nbytes
        if start % value.element_size() or (taken and value.nbytes and start < taken[-1][1]):
            value = value.clone()
        elif value.data_ptr() == starts[key]:
            taken.append((start, end))
        result[key] = value
    return {key: result[key] for key in given}


def init_unsaved_buffers(network: nn.Module) -> None:
    """Compute, on the CPU, the buffers that no file contains, then check that no tensor is left on the meta device.

    Raises:
        ModelError: a tensor has no values.
    """
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta and isinstance(module, _HasUnsavedBuffers):
                setattr(module, name, torch.empty_like(buffer, device="cpu"))
    for module in network.modules():
        if isinstance(module, _HasUnsavedBuffers):
            module.init_non_persistent_buffers()
    tensors = chain(network.named_parameters(), network.named_buffers())
    if empty := sorted(key for key, tensor in tensors if tensor.is_meta):
        what = f"the network is incomplete: {_list('without values', empty)}"
        raise ModelError(what, hint="is the installed timm one that this version supports?")


def _shape(value: Tensor) -> str:
    sides = [str(side) for side in value.shape]
    return f"({', '.join(sides[:8])}{', …' * (len(sides) > 8)}{',' * (len(sides) == 1)})"


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


def _list(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{more}"
