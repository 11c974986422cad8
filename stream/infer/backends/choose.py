"""Makes backends by name and finds the fastest one on this machine.

Invariant: a backend that is named is used or refused, except `compile` without a compiler, which falls back to torch
with a note and a counter. `auto` leaves torch only for a backend that measured faster on this machine, and notes it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from stream.errors import StreamError, UsageError
from stream.infer.backends import Backend
from stream.infer.backends.cache import ModelCache
from stream.infer.backends.eager import Eager, placed
from stream.infer.backends.exported import Exported, Runtime, test_input
from stream.infer.device import hardware_id
from stream.models.registry import LoadedModel
from stream.models.spec import ModelSpec
from stream.notes import note

if TYPE_CHECKING:
    from stream.infer.backends.int8 import CalibrationSet

PAYS_FROM_S = {"openvino": 120.0, "onnx": 120.0, "compile": 1200.0}
"""Benchmark a backend only if the job would take torch at least this many seconds: about ten times what exporting and
timing a network of 25 M parameters costs on two cores."""
MARGIN = 1.1
"""A backend must be this many times as fast as torch to replace it."""
_MIN_FRAMES = 16
"""Fewer frames are computed before anything could be measured."""
_SHORT_JOB_S = 5.0
"""A job that torch finishes within this gains nothing from another backend, which takes a second to start."""
_RUNS = 3


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
            eager = _eager(options)
            eager.notes.append(f"--backend compile needs a {missing}: the network runs in torch as it is")
            eager.counters["backend_fallbacks"] += 1
            return eager
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
        return _eager(options)
    return Exported(
        options.model,
        runtime,
        eager=lambda: _eager(options),
        batch=options.batch,
        cache=options.cache,
        samples=options.calibration_set.to_check if options.calibration_set else None,
    )


def _eager(options: BackendOptions) -> Eager:
    precision = "fp32" if options.precision == "int8" else options.precision
    network = placed(options.model.network, options.model.spec, options.device, precision)
    return Eager(network, precision, batch=options.batch)


def candidates(options: BackendOptions) -> list[str]:
    """Backends besides torch that are worth trying on the device: installed, and able to compute in the precision."""
    on_cpu, possible = options.device.type == "cpu", options.model.spec.backends
    packages = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime", "onnxscript")}
    wanted = ["openvino", "onnx"] if on_cpu else []
    found = [
        name
        for name in wanted
        if name in possible
        if options.precision in precisions(name, options.device) and all(find_spec(p) for p in packages[name])
    ]
    may_compile = "compile" in possible and options.device.type in ("cpu", "cuda")
    return found or (["compile"] if may_compile and _can_compile(options.device) else [])


def _can_compile(device: torch.device) -> bool:
    from stream.infer.backends.inductor import missing_tool

    return missing_tool(device) is None


def fastest(
    options: BackendOptions,
    first: Backend,
    size: tuple[int, int],
    *,
    frames: float,
    may_measure: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Backend:
    """Choose between `first`, which is torch, and the backends that may be faster; notes the choice and its reason.

    Args:
        size: (height, width) of the network's input.
        frames: expected number of frames.
        may_measure: False uses earlier measurements only, because somebody is waiting for the first image.
    """
    names = candidates(options)
    if not names or frames < _MIN_FRAMES:
        return first
    key: Mapping[str, object] = {
        "choice": names,
        "torch": torch.__version__,
        "model": options.model.spec.name,
        "weights": options.model.weights_sha256,
        "precision": options.precision,
        "device": hardware_id(options.device),
        "threads": options.threads,
        "size": list(size),
    }
    known = options.cache.recall(key)
    if known is not None:
        torch_s = float(known["seconds"]["torch"])
        if torch_s * frames < _SHORT_JOB_S:
            return first
        best, seconds = str(known["best"]), {name: float(value) for name, value in known["seconds"].items()}
        when = "measured earlier"
    elif not may_measure:
        return first
    else:
        (torch_s,) = _seconds(first, options, size, clock, runs=1)
        names = [name for name in names if torch_s * frames >= PAYS_FROM_S[name]]
        if not names:
            return first
        note(f"timing {', '.join(names)} for {options.model.spec.name}, this once; --backend torch skips it")
        seconds = {"torch": _median(_seconds(first, options, size, clock))}
        for name in names:
            try:
                seconds[name] = _median(_seconds(make(name, options), options, size, clock))
            except StreamError as error:
                note(f"{name} is ignored: {error}")
        best = min(seconds, key=lambda name: seconds[name] * (MARGIN if name != "torch" else 1))
        options.cache.entry(key, lambda _folder: {"best": best, "seconds": seconds})
        when = "measured now"
    times = ", ".join(f"{name} {value * 1000:.3g} ms" for name, value in sorted(seconds.items(), key=lambda s: s[1]))
    note(f"backend {best}: {times} a frame of {size[1]}×{size[0]} in {options.precision}, {when}")
    return first if best == "torch" else make(best, options)


def _seconds(
    backend: Backend, options: BackendOptions, size: tuple[int, int], clock: Callable[[], float], *, runs: int = _RUNS
) -> list[float]:
    """Seconds of one frame, `runs` times; if more than once, after a warm-up."""
    x = test_input((1, *size)).to(options.device, backend.dtype, memory_format=backend.memory_format)
    times = []
    with torch.inference_mode():
        for _ in range(runs + (runs > 1)):
            start = clock()
            found = backend(x)
            float((found[0] if isinstance(found, tuple) else found).sum())  # waits for the device
            times.append(clock() - start)
    return times[-runs:]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
