"""Chooses the device, the precision and the number of threads.

Invariant: `auto` always resolves to something that works; a choice that is named is used or refused, never replaced.
"""

import math
import platform
import time
from collections.abc import Sequence
from functools import cache

import torch

from stream.errors import UsageError
from stream.machine import free_memory_bytes as host_memory_bytes
from stream.machine import processor_fingerprint, usable_cores
from stream.models.spec import ModelSpec

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
"""Data type of network inputs for each precision; int8 models quantise their inputs themselves."""
LIGHT_PARAMETERS_M = 10
"""Millions of parameters up to which a model runs about as fast as video is decoded and encoded."""


def resolve_device(text: str, spec: ModelSpec) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda`, `cuda:N` or `mps` to a device that is available and that the model runs on.

    Raises:
        UsageError: the text is none of these, or the device is not available or not supported by the model.
    """
    device = _available_device(text if text != "auto" or len(spec.devices) > 1 else spec.devices[0])
    if device.type not in spec.devices:
        raise UsageError(f"{spec.name} does not run on {text}", where="--device", allowed=", ".join(spec.devices))
    return device


def _available_device(text: str) -> torch.device:
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, colon, number = text.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"unknown device {text!r}", where="--device", allowed="auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda":
        count = cuda_devices()
        if int(number or 0) >= count:
            what = f"this machine has {count} CUDA device{'s' if count != 1 else ''}"
            raise UsageError(f"{text}: {what}", where="--device", hint="use --device auto or cpu")
        return torch.device("cuda", int(number) if number else torch.cuda.current_device())
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("mps is not available here", where="--device", hint="use --device auto or cpu")
    return torch.device(kind)


def cuda_devices() -> int:
    """Number of CUDA devices that can be used."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def free_memory_bytes(device: torch.device) -> int | None:
    """Free memory of the device (on MPS and CPU, of the host); None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return host_memory_bytes()


def hardware_id(device: torch.device) -> str:
    """Identifies the hardware that compiled code runs on and that timings hold for."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    capability = torch.backends.cpu.get_cpu_capability()
    return processor_fingerprint() or f"{platform.machine()} {platform.processor()} {capability}"


def resolve_precision(
    text: str, device: torch.device, spec: ModelSpec, *, allowed: Sequence[str] = PRECISIONS, exact: bool = False
) -> str:
    """Resolve `auto` or one of `PRECISIONS` to a precision that is safe for the model and works on the device.

    `auto` on a GPU is fp16 where that is safe for the model, else bf16. On a CPU it is bf16 if the catalog declares the
    model accurate enough with it (`spec.bf16_on_cpu`) and this processor is faster with it, else fp32.

    Args:
        allowed: precisions that the backend supports.
        exact: make `auto` fp32 on a CPU, because the numbers themselves are wanted: bf16 moves them by 1 to 3 % of
            their standard deviation. (fp16, used on GPUs, moves them ten times less.)

    Raises:
        UsageError: the device, the model or the backend does not support it.
    """
    if text == "auto":
        if device.type == "cpu":
            wanted = ["bf16"] if not exact and spec.bf16_on_cpu and "bf16" in allowed and bf16_is_faster() else []
        else:
            wanted = ["fp16", "bf16"]
        safe = [name for name in wanted if name in spec.precisions and name in allowed]
        return next((name for name in safe if _is_supported(name, device)), "fp32")
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}", where="--precision", allowed=", ".join(("auto", *PRECISIONS)))
    if text not in allowed:
        raise UsageError(f"the backend does not compute in {text}", where="--precision", allowed=", ".join(allowed))
    if text not in (*spec.precisions, "int8"):
        raise UsageError(f"{spec.name} is not safe in {text}", where="--precision", allowed=", ".join(spec.precisions))
    if not _is_supported(text, device):
        raise UsageError(f"{text} does not work on {device.type}", where="--precision", hint="use auto")
    return text


@cache
def bf16_is_faster() -> bool:
    """True if this processor has bf16 instructions and torch's convolutions are at least a quarter faster with them.

    Measured once per process, which takes 20 ms: the instructions alone prove nothing (AVX512-BF16 may run at half
    rate).
    """
    if not _has_bf16_instructions():
        return False
    x = torch.ones(1, 128, 48, 48).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)

    def seconds(dtype: torch.dtype) -> float:
        a, b, best = x.to(dtype), weight.to(dtype), math.inf
        for _ in range(4):
            start = time.perf_counter()
            torch.nn.functional.conv2d(a, b, padding=1)
            best = min(best, time.perf_counter() - start)
        return best

    from stream.infer.executor import without_pool

    with torch.inference_mode(), without_pool():
        return seconds(torch.bfloat16) < 0.8 * seconds(torch.float32)


def _has_bf16_instructions() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.10
        known = torch.cpu.get_capabilities()
        return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "arm_bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())


def resolve_threads(threads: int | None, device: torch.device, spec: ModelSpec) -> int:
    """Number of CPU threads for torch; None chooses: a light model leaves one core free, any other uses all.

    A light model keeps up with decoding and encoding, which need the cores as much as it does. torch's threads wait for
    one another at every layer, so a thread that shares its core stalls all of them: on two cores with something else
    running, two threads took 75 to 900 ms a frame, one thread 26 ms.
    """
    if threads is not None:
        return threads
    if device.type != "cpu":
        return torch.get_num_threads()
    cores = usable_cores()
    return max(1, cores - 1) if spec.parameters_m <= LIGHT_PARAMETERS_M else cores


def _is_supported(precision: str, device: torch.device) -> bool:
    if precision == "int8":
        return device.type == "cpu"
    if precision == "fp16":
        return device.type != "cpu"  # torch computes fp16 convolutions on a CPU, but far slower than fp32
    if precision == "bf16" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True
