"""Reading checkpoints without running code from the file, and filling networks with them.

Invariant: a network is filled completely or not at all; every missing, extra or misshapen key is named.
"""

import pickle
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stream.errors import ModelError
from stream.models.weights.transformers import to_official

SUFFIXES = (".safetensors", ".pt", ".pth")
_COUNTERS = ("*num_batches_tracked",)
"""Training counters of batch norms; inference does not use them."""
_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict."""
_NAMED = 3
"""An error names at most this many keys of each kind."""


@runtime_checkable
class _HasUnsavedBuffers(Protocol):
    """A module of timm that computes buffers instead of saving them (position indices, attention masks)."""

    def init_non_persistent_buffers(self) -> None:
        """Compute them, in place."""
        ...


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pt` or `.pth` file, by official key; wrappers and a `module.` prefix removed.

    Raises:
        ModelError: the file is not a checkpoint, is damaged, or can only be read by running code from it.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=where) from error
    _refuse_lookalikes(head, where)
    try:
        if _is_safetensors(head):
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(head))
    except pickle.UnpicklingError as error:
        raise ModelError(
            "contains code besides tensors (or is damaged); code from files is never run",
            where=where,
            hint="save only its state dict, or save it as .safetensors",
        ) from error
    except Exception as error:
        raise ModelError(
            "is damaged or incomplete", where=where, hint="download it again and compare its size with the publisher's"
        ) from error
    return to_official(_unwrap(content, where))


def _is_zip(head: bytes) -> bool:
    return head.startswith(b"PK")


def _is_pickle(head: bytes) -> bool:
    return head.startswith(b"\x80")


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then a JSON object (https://github.com/huggingface/safetensors, "Format")."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _refuse_lookalikes(head: bytes, where: str) -> None:
    start = head.lstrip().lower()
    if not head:
        raise ModelError("is empty", where=where, hint="download it again")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ModelError("is a web page, not weights", where=where, hint="download the file itself, not its page")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError("is a Git LFS pointer, not weights", where=where, hint="run `git lfs pull`, or download it")
    if not (_is_zip(head) or _is_pickle(head) or _is_safetensors(head)):
        raise ModelError("is not a checkpoint", where=where, allowed=".pt and .pth files saved by torch, .safetensors")


def _unwrap(content: object, where: str) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise ModelError(f"contains a {type(content).__name__}, not a state dict", where=where)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelError("contains no tensors", where=where)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def fill(network: nn.Module, state_dict: Mapping[str, Tensor], *, where: str, ignored_keys: Sequence[str] = ()) -> None:
    """Fill a network, which may be on the meta device, with the tensors of `state_dict` as float32.

    Buffers that files do not contain stay as they are; see `init_unsaved_buffers`.

    Args:
        where: the file, for errors.
        ignored_keys: patterns of keys that the file may contain and the network does not need.

    Raises:
        ModelError: keys are missing, extra or of another shape; names the first few of each.
    """
    wanted = {key: value for key, value in network.state_dict().items() if not _matches(key, _COUNTERS)}
    given = {key: value for key, value in state_dict.items() if not _matches(key, (*_COUNTERS, *ignored_keys))}
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted.keys() & given.keys()
        if given[key].shape != wanted[key].shape
    ]
    integers = [key for key in wanted.keys() & given.keys() if not given[key].is_floating_point()]
    problems = [
        _list("quantised (only floating point is supported)", sorted(integers)),
        _list("missing", sorted(wanted.keys() - given.keys())),
        _list("unknown", sorted(given.keys() - wanted.keys())),
        _list("of another shape", sorted(shapes)),
    ]
    if found := [problem for problem in problems if problem]:
        raise ModelError(
            f"does not fit this model: {'; '.join(found)}", where=where, hint="is it the file of another model?"
        )
    for key, value in network.state_dict().items():
        if _matches(key, _COUNTERS):
            given[key] = torch.zeros(value.shape, dtype=value.dtype)
    network.load_state_dict({key: _as_float32(value) for key, value in given.items()}, strict=True, assign=True)


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


def _as_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


def _list(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{more}"
