"""torch.compile's compiler ahead of time (AOTInductor): `--backend compile`.

Compiled once for each size and kept on the disk, where torch.compile would compile again in every process, and give up
silently after eight sizes. Needs a C++ compiler on a processor, Triton on a GPU.
Invariant: the weights are those of the eager backend, cast alike.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stream.errors import ModelError
from stream.infer.backends.eager import placed
from stream.infer.backends.exported import Call, Program, UnusableError
from stream.infer.device import DTYPES
from stream.models.registry import LoadedModel

_FILE = "model.pt2"
COMPILERS = ("g++", "clang++", "cl")


def missing_tool(device: torch.device) -> str | None:
    """What torch needs to compile for a device and is not here; None if all is."""
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
        self.facts: dict[str, object] = {"device": str(device), "processor": processor(device)}
        self._placed: tuple[LoadedModel, nn.Module] | None = None

    def source(self, model: LoadedModel) -> nn.Module:
        """See `exported.Runtime`."""
        if self._placed is None or self._placed[0] is not model:
            self._placed = model, placed(model.network, model.spec, self.device, self.precision)
        return self._placed[1]

    def make(self, program: Program, folder: Path) -> None:
        """See `exported.Runtime`."""
        from torch._inductor import aoti_compile_and_package  # documented as such

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, of its own parts
                aoti_compile_and_package(program, package_path=str(folder / _FILE))
        except Exception as error:  # the compiler raises what it likes
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
        except Exception as error:  # the loader raises what it likes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnusableError(f"cannot be loaded: {reason}", where=str(folder), hint="use --backend torch") from error

        def call(x: Tensor) -> Tensor:
            output: Tensor = package(x)
            return output

        return call


def processor(device: torch.device) -> str:
    """What compiled code is fit for: it holds instructions of the processor that it was compiled on."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    with contextlib.suppress(OSError):  # Linux alone has it
        facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        found = [value for key, value in facts.items() if key.strip() in ("model name", "flags", "Features")]
        if found:
            return f"{platform.machine()} {hashlib.sha256(''.join(found).encode()).hexdigest()[:16]}"
    return f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
