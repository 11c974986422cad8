"""Ahead-of-time compilation with torch.compile's compiler (AOTInductor): `--backend compile`.

Each input size is compiled once and kept on disk; torch.compile would compile again in every process and silently give
up after eight sizes. Needs a C++ compiler on a CPU, Triton on a GPU.
Invariant: the weights are those of the eager backend, cast in the same way.
"""

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from stream.errors import ModelError
from stream.infer.backends.eager import placed
from stream.infer.backends.exported import Call, UnusableError, as_tuple
from stream.infer.device import DTYPES, hardware_id
from stream.models.registry import LoadedModel

_FILE = "model.pt2"
COMPILERS = ("g++", "clang++", "cl")


def missing_tool(device: torch.device) -> str | None:
    """The tool that torch needs to compile for a device and that is not installed; None if nothing is missing."""
    if device.type == "cuda":
        from importlib.util import find_spec

        return None if find_spec("triton") else "Triton"
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    return None if any(shutil.which(name) for name in wanted) else f"C++ compiler ({', '.join(wanted)})"


class Inductor:
    """See `exported.Runtime`.

    Args:
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16` or `fp16`.
    """

    name = "compile"
    memory_format = torch.channels_last

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device, self.precision, self.dtype = device, precision, DTYPES[precision]
        self.pads = device.type != "cpu"
        self.facts: dict[str, object] = {"device": str(device), "processor": hardware_id(device)}
        self._placed: tuple[LoadedModel, nn.Module] | None = None

    def source(self, model: LoadedModel) -> nn.Module:
        """See `exported.Runtime`."""
        if self._placed is None or self._placed[0] is not model:
            self._placed = model, placed(model.network, model.spec, self.device, self.precision)
        return self._placed[1]

    def make(self, program: ExportedProgram, folder: Path) -> None:
        """See `exported.Runtime`."""
        from torch._inductor import aoti_compile_and_package  # the documented import, despite its name

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler warns of its own internals
                aoti_compile_and_package(program, package_path=str(folder / _FILE))
        except Exception as error:  # the compiler's exceptions have no narrower common base
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"cannot be compiled: {reason}", where=str(folder), hint="use --backend torch") from error
        self._placed = None  # its weights are in the package now

    def load(self, folder: Path) -> Call:
        """See `exported.Runtime`."""
        from torch._inductor import aoti_load_package

        try:
            package: Any = aoti_load_package(str(folder / _FILE), device_index=self.device.index or -1)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the loader's exceptions have no narrower common base
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnusableError(f"cannot be loaded: {reason}", where=str(folder), hint="use --backend torch") from error

        return lambda x: as_tuple(package(x))
