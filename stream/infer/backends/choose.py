"""Makes backends by name, and says which ones may be faster than torch here.

Invariant: a backend that is named is used or refused, except `compile` without a compiler, which falls back to torch
with a note and a counter.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from stream.errors import UsageError
from stream.infer.backends import Backend
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.eager import Eager, placed
from stream.infer.backends.exported import Exported, Runtime
from stream.infer.backends.graphs import CudaRecorder
from stream.models import registry
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec

if TYPE_CHECKING:
    from stream.infer.backends.int8 import CalibrationSet


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Everything that backends are made from.

    Attributes:
        calibration_set: inputs made from the user's own images, for int8.
    """

    model: LoadedModel
    device: torch.device
    precision: str
    batch: int
    threads: int
    provider: str
    cache: ModelCache
    calibration_set: "CalibrationSet | None" = None


def precisions(name: str, device: torch.device) -> tuple[str, ...]:
    """Precisions that a backend supports on a device."""
    on_cpu = device.type == "cpu"
    if name == "openvino":
        return ("fp32", "bf16", "int8")
    if name == "onnx":
        return ("fp32",) if on_cpu else ("fp32", "fp16")
    return ("fp32", "bf16", "fp16")


def check(name: str, spec: ModelSpec) -> None:
    """Refuse a backend that cannot execute the network of a row.

    Raises:
        UsageError: it cannot.
    """
    if name not in spec.backends:
        allowed = ", ".join(("auto", *spec.backends))
        raise UsageError(f"cannot execute {spec.name}", where=f"--backend {name}", allowed=allowed)


def make(name: str, options: BackendOptions) -> Backend:
    """Make the backend called `name`.

    Raises:
        UsageError: it does not run on the device, or cannot execute this network.
        MissingExtraError: it is not installed.
        ModelError: the network does not fit into the device's memory.
    """
    device, precision = options.device, options.precision
    check(name, options.model.spec)
    runtime: Runtime
    if name == "compile":
        from stream.infer.backends.inductor import Inductor, missing_tool

        if device.type == "mps":
            raise UsageError("compile does not run on mps", where="--backend", allowed="torch, onnx")
        if missing := missing_tool(device):
            plain = eager(options)
            plain.notes.append(f"--backend compile needs a {missing}: the network runs in torch as it is")
            plain.counters["backend_fallbacks"] += 1
            return plain
        runtime = Inductor(device, precision)
    elif name == "openvino":
        from stream.infer.backends.openvino import OpenVino

        if device.type != "cpu":
            raise UsageError("only runs on the CPU", where="--backend openvino", hint="add --device cpu")
        runtime = OpenVino(precision, threads=options.threads, calibration_set=options.calibration_set)
    elif name == "onnx":
        from stream.infer.backends.onnx import Onnx

        runtime = Onnx(device, precision, threads=options.threads, provider=options.provider)
    else:
        return eager(options)
    return Exported(
        options.model,
        runtime,
        eager=lambda: eager(options),
        batch=options.batch,
        cache=options.cache,
        samples=options.calibration_set.to_check if options.calibration_set else None,
    )


def eager(options: BackendOptions) -> Eager:
    """The network in torch; int8 is fp32 there.

    A network of the caller's own may keep what it has seen, which no CUDA graph could know of.

    Raises:
        ModelError: it does not fit into the device's memory.
    """
    spec, device = options.model.spec, options.device
    precision = "fp32" if options.precision == "int8" else options.precision
    network = placed(options.model.network, spec, device, precision)
    has_graphs = device.type == "cuda" and spec.name in registry.names()
    return Eager(network, precision, batch=options.batch, record=CudaRecorder() if has_graphs else None)


def candidates(options: BackendOptions) -> list[str]:
    """Backends that may replace torch while it runs, the one that is tried first coming first.

    They are installed, compute in the precision, and need no compiler; and another process can load the model.
    """
    if options.device.type != "cpu" or options.model.origin is None:
        return []
    packages = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime", "onnxscript")}
    return [
        name
        for name in packages
        if name in options.model.spec.backends
        if options.precision in precisions(name, options.device) and all(find_spec(p) for p in packages[name])
    ]
