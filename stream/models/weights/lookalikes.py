"""Calls a file that is no checkpoint what it is, and says what to do with it.

The first bytes of each format are from its specification: GGUF (ggml's docs/gguf.md), FlatBuffers' identifier of
TensorFlow Lite, HDF5, gzip, tar, xz, 7z; ONNX and Core ML are protocol buffers whose first field is a small version.

Invariant: only names of formats that could be meant are given; anything else is just not a checkpoint.
"""

from collections.abc import Collection
from pathlib import Path

from stream.errors import ModelError

HEAD_BYTES = 512
"""How much of a file `refuse` needs."""
_ALLOWED = ".pt and .pth files saved by torch, .safetensors"
_WEIGHTS = "pass the PyTorch file (.pth, .safetensors) that it was made from"
_EXPORT = f"{_WEIGHTS}; --backend {{}} converts it by itself"
_ONNX = ("an ONNX network", _EXPORT.format("onnx"))
_OPENVINO = ("an OpenVINO network", _EXPORT.format("openvino"))
_CORE_ML = ("a Core ML network", _WEIGHTS)
_TENSORRT = ("a TensorRT engine", f"{_WEIGHTS}; an engine runs on one kind of GPU only")
_TF_LITE = ("a TensorFlow Lite network", _WEIGHTS)
_PACKED = ("a compressed archive", "unpack it, and pass the file in it")
_MAGIC: tuple[tuple[int, bytes, tuple[str, str]], ...] = (
    (0, b"GGUF", ("a GGUF file, of llama.cpp", _WEIGHTS)),
    (4, b"TFL3", _TF_LITE),
    (0, b"ftrt", _TENSORRT),
    (0, b"ptrt", _TENSORRT),
    (0, b"\x89HDF\r\n\x1a\n", ("an HDF5 file, of Keras or TensorFlow", _WEIGHTS)),
    (0, b"\x1f\x8b", _PACKED),
    (0, b"7z\xbc\xaf", _PACKED),
    (0, b"\xfd7zXZ\0", _PACKED),
    (257, b"ustar", _PACKED),
)
_SUFFIXES = {
    ".onnx": _ONNX,
    ".engine": _TENSORRT,
    ".plan": _TENSORRT,
    ".trt": _TENSORRT,
    ".mlmodel": _CORE_ML,
    ".mlpackage": _CORE_ML,
    ".tflite": _TF_LITE,
}
_PROTOCOL_BUFFERS = b"\x12\x1a\x22\x28\x3a\x42"
"""First bytes of the fields that follow ONNX's version: producer, domain, graph, …"""
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<error")


def refuse(head: bytes, where: str, *, is_checkpoint: bool) -> None:
    """Refuse a file that is empty, or known to be something else than a checkpoint.

    Args:
        head: its first `HEAD_BYTES`, or all if it has fewer.
        is_checkpoint: it begins like one.

    Raises:
        ModelError: see above.
    """
    start = head.lstrip().lower()
    if not head:
        raise ModelError("is empty", where=where, hint="download it again")
    if is_checkpoint:
        return
    if start.startswith(b"<?xml") and b"<net " in start:
        raise _is(_OPENVINO, where)
    if start.startswith(_WEB_PAGES):
        raise ModelError("is a web page, not weights", where=where, hint="download the file itself, not its page")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError("is a Git LFS pointer, not weights", where=where, hint="run `git lfs pull`, or download it")
    for place, magic, what in _MAGIC:
        if head[place:].startswith(magic):
            raise _is(what, where)
    if named := _SUFFIXES.get(Path(where).suffix.lower()):
        raise _is(named, where)
    if len(head) > 3 and head[0] == 8 and 0 < head[1] < 32 and head[2] in _PROTOCOL_BUFFERS:
        raise _is(_ONNX, where)
    if _is_text(head):
        quoted = head.decode(errors="replace").split("\n")[0].strip()[:60]
        raise ModelError(f"is text, not weights: {quoted!r}", where=where, hint="download the file itself")
    raise ModelError("is not a checkpoint", where=where, allowed=_ALLOWED)


def refuse_folder(path: Path) -> None:
    """Refuse a folder that is one network of another kind. Raises `ModelError`."""
    if what := _SUFFIXES.get(path.suffix.lower()):
        raise _is(what, str(path))


def refuse_archive(names: Collection[str], where: str) -> None:
    """Refuse a zip archive that holds something else than a state dict: a compiled network, say.

    Args:
        names: the files in it.

    Raises:
        ModelError: see above.
    """
    if any(name.endswith(("/constants.pkl", "/bytecode.pkl")) or "/code/__torch__" in name for name in names):
        save = f"torch.save(torch.jit.load({Path(where).name!r}).state_dict(), 'weights.pt')"
        hint = f"save its tensors, in Python: {save}"
        raise ModelError("is a TorchScript archive, a compiled network and not a checkpoint", where=where, hint=hint)
    if any(name.endswith("data.pkl") for name in names):
        return
    if any("archive_format" in name or name.endswith("serialized_exported_program.json") for name in names):
        save = f"torch.save(torch.export.load({Path(where).name!r}).state_dict, 'weights.pt')"
        raise ModelError(
            "is a zip archive without a checkpoint (a network exported by torch.export)",
            where=where,
            hint=f"save its tensors, in Python: {save}",
        )
    kinds = {
        (".pt", ".pth", ".safetensors", ".ckpt", ".bin"): ("a zip archive with {} in it", "unpack it, and pass that"),
        (".mlmodel",): _CORE_ML,
        (".onnx",): ("a zip archive with {}, an ONNX network, in it", _ONNX[1]),
        (".h5",): ("a network of Keras", _WEIGHTS),
        (".npy",): ("an archive of NumPy", "save its arrays as tensors, with safetensors.numpy.save_file"),
    }
    for suffixes, (what, hint) in kinds.items():
        if inside := next((name for name in sorted(names) if name.lower().endswith(suffixes)), None):
            raise _is((what.format(inside[-80:]), hint), where)
    raise ModelError("is a zip archive without a checkpoint", where=where, allowed=_ALLOWED)


def _is(what: tuple[str, str], where: str) -> ModelError:
    return ModelError(f"is {what[0]}, not a checkpoint", where=where, hint=what[1])


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r" for byte in head) and head.isascii()
