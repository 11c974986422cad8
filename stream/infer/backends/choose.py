"""Making backends by name, and finding the fastest one here.

Invariant: what is named is used or refused, but for `compile` without a compiler, which is said and counted; `auto`
uses another than torch only where it was measured to be faster on this machine, and says so.
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
from stream.infer.backends.exported import Exported, Runtime
from stream.models.registry import LoadedModel

if TYPE_CHECKING:
    from stream.infer.backends.int8 import Samples

PAYS_FROM_S = {"openvino": 120.0, "onnx": 120.0, "compile": 1200.0}
"""Measuring a backend for the first time pays for jobs that would take torch so many seconds: about ten times what
converting and measuring a network of 25 M parameters takes on two cores."""
MARGIN = 1.1
"""A backend is preferred to torch if it is so many times as fast."""
_FEWEST_FRAMES = 16
"""Fewer are computed before anything could be measured."""
_SHORT_S = 5.0
"""A job that takes torch no longer gains nothing from another backend, which takes a second to start."""
_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that backends are made from.

    Attributes:
        samples: of the user's own pictures, for int8.
    """

    model: LoadedModel
    device: torch.device
    precision: str
    batch: int
    threads: int
    provider: str
    cache: ModelCache
    samples: "Samples | None" = None


def precisions(name: str, device: torch.device) -> tuple[str, ...]:
    """What a backend computes in on a device."""
    on_cpu = device.type == "cpu"
    if name == "openvino":
        return ("fp32", "bf16", "int8")
    if name == "onnx":
        return ("fp32",) if on_cpu else ("fp32", "fp16")
    return ("fp32", "bf16", "fp16")


def make(name: str, setting: Setting) -> Backend:
    """The backend called `name`.

    Raises:
        UsageError: it does not run on the device.
        MissingExtraError: it is not installed.
        ModelError: the device has no room for the network.
    """
    device, precision = setting.device, setting.precision
    runtime: Runtime
    if name == "compile":
        from stream.infer.backends.inductor import Inductor, missing_tool

        if device.type == "mps":
            raise UsageError("compile does not run on mps", where="--backend", allowed="torch, onnx")
        if missing := missing_tool(device):
            eager = _eager(setting)
            eager.notes.append(f"--backend compile needs a {missing}: the network runs in torch as it is")
            eager.counters["backend_fallbacks"] += 1
            return eager
        runtime = Inductor(device, precision)
    elif name == "openvino":
        from stream.infer.backends.openvino import OpenVino

        if device.type != "cpu":
            raise UsageError("runs on the processor alone", where="--backend openvino", hint="add --device cpu")
        runtime = OpenVino(precision, threads=setting.threads, samples=setting.samples)
    elif name == "onnx":
        from stream.infer.backends.onnx import Onnx

        runtime = Onnx(device, precision, threads=setting.threads, provider=setting.provider)
    else:
        return _eager(setting)
    return Exported(
        setting.model,
        runtime,
        eager=lambda: _eager(setting),
        batch=setting.batch,
        cache=setting.cache,
        samples=setting.samples.to_check if setting.samples else None,
    )


def _eager(setting: Setting) -> Eager:
    precision = "fp32" if setting.precision == "int8" else setting.precision
    network = placed(setting.model.network, setting.model.spec, setting.device, precision)
    return Eager(network, precision, batch=setting.batch)


def candidates(setting: Setting) -> list[str]:
    """Backends besides torch that are installed and take the precision; the ones worth trying on the device."""
    on_cpu = setting.device.type == "cpu"
    packages = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime", "onnxscript")}
    wanted = ["openvino", "onnx"] if on_cpu else []
    found = [
        name
        for name in wanted
        if setting.precision in precisions(name, setting.device) and all(find_spec(p) for p in packages[name])
    ]
    return found or (["compile"] if setting.device.type in ("cpu", "cuda") and _can_compile(setting.device) else [])


def _can_compile(device: torch.device) -> bool:
    from stream.infer.backends.inductor import missing_tool

    return missing_tool(device) is None


def fastest(
    setting: Setting,
    first: Backend,
    size: tuple[int, int],
    *,
    frames: float,
    may_measure: bool = True,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> Backend:
    """`first`, which is torch, or what was measured to be faster.

    Args:
        size: (height, width) of the network's input.
        frames: how many will come.
        may_measure: False: only what was measured earlier counts (a person waits for the first picture).
        say: told of the choice and why, and that it is being made, which takes a while.
    """
    names = candidates(setting)
    if not names or frames < _FEWEST_FRAMES:
        return first
    key: Mapping[str, object] = {
        "choice": names,
        "torch": torch.__version__,
        "model": setting.model.spec.name,
        "weights": setting.model.weights_sha256,
        "precision": setting.precision,
        "device": _machine(setting.device),
        "threads": setting.threads,
        "size": list(size),
    }
    known = setting.cache.recall(key)
    if known is not None:
        torch_s = float(known["seconds"]["torch"])
        if torch_s * frames < _SHORT_S:
            return first
        best, seconds = str(known["best"]), {name: float(value) for name, value in known["seconds"].items()}
        when = "measured earlier"
    elif not may_measure:
        return first
    else:
        (torch_s,) = _seconds(first, setting, size, clock, runs=1)
        names = [name for name in names if torch_s * frames >= PAYS_FROM_S[name]]
        if not names:
            return first
        say(f"trying {', '.join(names)} for {setting.model.spec.name}, once; --backend torch does without")
        seconds = {"torch": _median(_seconds(first, setting, size, clock))}
        for name in names:
            try:
                seconds[name] = _median(_seconds(make(name, setting), setting, size, clock))
            except StreamError as error:
                say(f"{name} is left out: {error}")
        best = min(seconds, key=lambda name: seconds[name] * (MARGIN if name != "torch" else 1))
        setting.cache.entry(key, lambda _folder: {"best": best, "seconds": seconds})
        when = "measured now"
    told = ", ".join(f"{name} {value * 1000:.3g} ms" for name, value in sorted(seconds.items(), key=lambda s: s[1]))
    say(f"backend {best}: {told} a frame of {size[1]}×{size[0]} in {setting.precision}, {when}")
    return first if best == "torch" else make(best, setting)


def _seconds(
    backend: Backend, setting: Setting, size: tuple[int, int], clock: Callable[[], float], *, runs: int = _RUNS
) -> list[float]:
    """What one picture takes, `runs` times; if more than once, after a first one."""
    from stream.infer.backends.exported import picture

    x = picture((1, *size)).to(setting.device, backend.dtype, memory_format=backend.memory_format)
    times = []
    with torch.inference_mode():
        for _ in range(runs + (runs > 1)):
            start = clock()
            float(backend(x).sum())  # waits for the device
            times.append(clock() - start)
    return times[-runs:]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _machine(device: torch.device) -> str:
    from stream.infer.backends.inductor import processor

    return processor(device)
